"""Blending a generated face into its frame: masks, color match, detail, paste-back."""
