"""Synthetic speech: sentences, text-to-speech with phoneme timing, and mouth curves."""
