"""Sampling: the order of samples, their distribution over processes, and their random numbers."""
