"""SyncNet training on the common loop."""
