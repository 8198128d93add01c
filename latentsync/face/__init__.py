"""Faces in pictures: find them, follow one, cut it out upright, mask the mouth, and paste a new one back."""
