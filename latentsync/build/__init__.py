"""From configuration and checkpoints to objects: the only readers of configuration."""
