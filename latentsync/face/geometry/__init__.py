"""Affine fits, warps and resampling between a frame and the aligned face crop."""
