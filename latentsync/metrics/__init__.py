"""Metrics of generated videos and of SyncNets."""
