"""The lip-sync 3D U-Net."""
