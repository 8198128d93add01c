"""Audio: reading, muxing, silence detection, mel spectrograms for SyncNet."""
