"""Training data: clips as windows of frames and sound, in an order that depends on seed, epoch and index only."""
