"""Diffusion as pure functions: the noise schedule, the DDIM step, guidance, and the loop that joins them."""
