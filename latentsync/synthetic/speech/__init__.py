"""Synthetic speech: sentences, text-to-speech with phoneme times, viseme curves."""
