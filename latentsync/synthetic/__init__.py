"""Synthetic talking heads with ground truth: speech with phoneme timing, mouth curves and a batched torch renderer."""
