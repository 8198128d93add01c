"""Which samples a run draws, in which order, with which random numbers."""
