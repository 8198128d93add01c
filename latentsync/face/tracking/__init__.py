"""Tracking of one face through a video: selection, smoothing, gap filling."""
