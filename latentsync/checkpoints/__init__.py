"""Weights files: registry, search folders, downloads."""
