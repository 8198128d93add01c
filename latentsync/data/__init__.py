"""Training data: windows of frames and audio from clips, in an order determined by seed, epoch and index."""
