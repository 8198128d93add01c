"""Recipe of the bundled demo model, from nothing to weights."""
