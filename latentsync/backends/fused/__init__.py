"""Fused modules: drop-in replacements for the plain U-Net's modules, for inference on CUDA in half precision."""
