"""Synthetic talking heads with ground truth: speech with phoneme times, mouth curves and a batched torch renderer."""
