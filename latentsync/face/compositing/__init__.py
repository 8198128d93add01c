"""Compositing of generated faces into their frames: masks, color matching, detail, paste-back."""
