"""Audio: reading, muxing, silence, mel spectrograms for SyncNet."""
