"""The mel filterbank against reference tables."""

import pytest
import torch

from latentsync.media.audio.mel_filterbank import mel_filterbank


def test_filters_equal_those_of_whisper():
    """The filters must be the ones that openai-whisper ships as a table."""
    mel_filters = pytest.importorskip("whisper.audio", exc_type=ImportError).mel_filters

    torch.testing.assert_close(mel_filterbank(400, 80, 0.0, 8000.0), mel_filters("cpu", 80), atol=1e-7, rtol=1e-5)
