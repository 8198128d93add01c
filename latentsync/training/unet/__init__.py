"""U-Net training on the common loop."""
