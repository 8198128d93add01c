"""The networks: the lip-sync U-Net, the VAE, StableSyncNet, and the loading of their weights."""
