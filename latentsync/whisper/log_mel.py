"""Log-mel spectrogram of a whole recording, computed in chunks.

The published system normalizes by the maximum of the *whole* file and pads only half an FFT window at both ends.
`LogMel` gives the same result without ever holding the spectrogram of more than one chunk.
"""

import math

import torch
from torch import Tensor

from latentsync.errors import MediaError
from latentsync.media.audio.mel_filterbank import mel_filterbank
from latentsync.runtime.transfer import to_device

SAMPLE_RATE = 16000
HOP_LENGTH = 160
N_FFT = 400
N_MELS = 80

_DYNAMIC_RANGE = 8.0
_POWER_FLOOR = 1e-10
_COLUMNS_PER_CHUNK = 3000


class LogMel:
    """Whisper's log-mel spectrogram of `waveform`, sliced on demand.

    `len(log_mel)` is the number of 10 ms columns, samples // 160. `log_mel[start:stop]` computes those columns:
    (80, stop - start) float32 on `device`, with values up to about 2.5 and at most 2 below the maximum of the file.

    Args:
        waveform: (n,) float, 16 kHz mono, in [-1, 1].
        device: of the computation and the result; defaults to that of the waveform.

    Raises:
        MediaError: the waveform is not one-dimensional or has non-finite values.
    """

    def __init__(self, waveform: Tensor, device: torch.device | str | None = None) -> None:
        if waveform.ndim != 1:
            raise MediaError(
                f"cannot analyze the audio: expected one channel of samples (n,), got shape {tuple(waveform.shape)}; "
                "mix the channels down first"
            )
        self.waveform = waveform
        self.device = torch.device(device) if device is not None else waveform.device
        self._columns = len(waveform) // HOP_LENGTH
        self._window = torch.hann_window(N_FFT, device=self.device)
        self._filters = mel_filterbank(N_FFT, N_MELS, 0.0, SAMPLE_RATE / 2).to(self.device)
        self._peak = self._find_peak()

    def __len__(self) -> int:
        return self._columns

    def __getitem__(self, columns: slice) -> Tensor:
        start, stop, step = columns.indices(self._columns)
        if step != 1:
            raise ValueError(f"columns can be sliced with step 1 only, got {step}")
        if stop <= start:
            return torch.zeros(N_MELS, 0, device=self.device)
        log_power = self._log_power(start, stop)
        return (log_power.clamp(min=self._peak - _DYNAMIC_RANGE) + 4.0) / 4.0

    def _find_peak(self) -> float:
        """Maximum log power of the whole recording, which sets the floor of every column."""
        peak = -math.inf
        for start in range(0, self._columns, _COLUMNS_PER_CHUNK):
            chunk = self._log_power(start, min(start + _COLUMNS_PER_CHUNK, self._columns))
            chunk_peak = float(chunk.max())
            if not math.isfinite(chunk_peak):
                raise MediaError(
                    f"cannot analyze the audio: samples near {start * HOP_LENGTH / SAMPLE_RATE:.1f} s are not finite; "
                    "expected values in [-1, 1]; decode the file again"
                )
            peak = max(peak, chunk_peak)
        return peak

    def _log_power(self, start: int, stop: int) -> Tensor:
        """Log10 mel power of columns start..stop-1, (80, stop - start), floored at -10 but not normalized."""
        samples = self._centered_samples(start * HOP_LENGTH, (stop - 1) * HOP_LENGTH)
        spectrum = torch.stft(samples, N_FFT, HOP_LENGTH, window=self._window, center=False, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        return (self._filters @ power).clamp(min=_POWER_FLOOR).log10()

    def _centered_samples(self, first_center: int, last_center: int) -> Tensor:
        """Samples covered by FFT windows centered on first_center .. last_center, reflected beyond either end."""
        half = N_FFT // 2
        start, stop, count = first_center - half, last_center + half, len(self.waveform)
        if start >= 0 and stop <= count:
            return to_device(self.waveform[start:stop].float(), self.device)
        period = 2 * (count - 1)
        folded = torch.arange(start, stop, device=self.waveform.device).remainder(period)
        mirrored = torch.minimum(folded, period - folded)
        return to_device(self.waveform[mirrored].float(), self.device)


def log_mel(waveform: Tensor, device: torch.device | str | None = None) -> Tensor:
    """Return the whole log-mel spectrogram of `waveform` (n,) as (80, n // 160) float32; see `LogMel`."""
    return LogMel(waveform, device)[:]
