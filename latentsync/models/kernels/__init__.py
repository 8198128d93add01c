"""Fused Triton kernels and their dispatch."""
