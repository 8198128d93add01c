"""Following one face through a video: selection, smoothing, gaps."""
