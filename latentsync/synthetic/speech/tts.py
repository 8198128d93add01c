"""Text-to-speech with phoneme timestamps: espeak-ng through ctypes.

The library and its voices ship in the ``espeakng-loader`` wheel; nothing is downloaded or written to disk. The library
keeps global state, so a lock serializes calls within a process; use several processes for parallel synthesis.
"""

import ctypes
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import gcd
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from latentsync.errors import ConfigError, DependencyError, MediaError
from latentsync.runtime.advice import install_command

SAMPLE_RATE = 16000
PAUSE = ""
"""Symbol of a silent phoneme."""

# Natural-sounding variants; the robotic, whispering and novelty voices of espeak-ng are excluded.
VARIANTS: tuple[str, ...] = (
    *("f1", "f2", "f3", "f4", "f5", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8"),
    *("Alex", "Alicia", "Andrea", "Andy", "Annie", "Denis", "Diogo", "Gene", "Henrique", "Hugo", "Jacky", "Lee"),
    *("Marco", "Mario", "Michael", "Mike", "Reed", "Storm", "adam", "anika", "antonio", "belinda", "benjamin"),
    *("boris", "caleb", "david", "edward", "ian", "iven", "john", "linda", "marcelo", "max", "michel", "miguel"),
    *("norbert", "pablo", "paul", "pedro", "quincy", "rob", "robert", "sandro", "shelby", "steph", "travis"),
    *("victor", "zac", "klatt", "klatt2", "klatt3", "grandma", "grandpa", "aunty"),
)
LANGUAGES: tuple[str, ...] = ("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-029", "de", "fr", "es", "it")

_RETRIEVAL_MODE = 1
_PHONEME_EVENTS_IN_IPA = 3
_UTF8 = 1
_EVENT_LIST_TERMINATED = 0
_EVENT_PHONEME = 7
_PARAMETERS = {"rate": 1, "volume": 2, "pitch": 3, "range": 4}
_LOCK = threading.Lock()


@dataclass(frozen=True)
class Phoneme:
    """A phoneme: IPA ``symbol`` without stress marks ("" for silence), ``start`` and ``end`` in seconds."""

    symbol: str
    start: float
    end: float
    stressed: bool = False


@dataclass(frozen=True)
class Utterance:
    """Synthesized speech: ``waveform`` (n,) float32 in [-1, 1] at 16 kHz, and contiguous phonemes in order."""

    waveform: npt.NDArray[np.float32]
    phonemes: tuple[Phoneme, ...]
    text: str
    voice: str

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return len(self.waveform) / SAMPLE_RATE


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class _Engine:
    """The initialized library, with the samples and events that its callback collects for the current text."""

    def __init__(self) -> None:
        try:
            import espeakng_loader  # noqa: PLC0415 - optional, only speech synthesis needs it
        except ImportError as error:
            raise DependencyError(
                "Speech synthesis needs the package espeakng-loader, which is not installed. "
                f"Install it with: {install_command('train')}"
            ) from error
        self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        path = espeakng_loader.get_data_path().encode()
        self.sample_rate = int(self.library.espeak_Initialize(_RETRIEVAL_MODE, 0, path, _PHONEME_EVENTS_IN_IPA))
        if self.sample_rate <= 0:
            raise DependencyError(f"espeak-ng could not read its voices in {path.decode()}; reinstall espeakng-loader.")
        self.blocks: list[npt.NDArray[np.int16]] = []
        self.events: list[tuple[str, int]] = []
        # The C library stores only the pointer, so the callback object must outlive it.
        self._callback = _CALLBACK(self._collect)
        self.library.espeak_SetSynthCallback(self._callback)

    def _collect(self, samples: Any, count: int, events: Any) -> int:
        if count > 0:
            self.blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while events[index].type != _EVENT_LIST_TERMINATED:
            event = events[index]
            if event.type == _EVENT_PHONEME:
                raw = ctypes.string_at(ctypes.addressof(event.id), 8).split(b"\0")[0]
                self.events.append((raw.decode("utf-8", "ignore"), int(event.sample)))
            index += 1
        return 0

    def speak(self, text: str, voice: str, settings: dict[str, int]) -> npt.NDArray[np.int16]:
        """Synthesize ``text``: returns samples (n,) int16 and leaves the phoneme events in ``events``."""
        self.blocks.clear()
        self.events.clear()
        if self.library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ConfigError(f"espeak-ng has no voice {voice!r}; give a language such as en-us, or en-us+f3.")
        for name, value in settings.items():
            self.library.espeak_SetParameter(_PARAMETERS[name], value, 0)
        data = text.encode()
        self.library.espeak_Synth(data, len(data) + 1, 0, 1, 0, _UTF8, None, None)
        self.library.espeak_Synchronize()
        if not self.blocks:
            raise MediaError(f"espeak-ng produced no audio for the text {text!r}; give at least one spoken word.")
        return np.concatenate(self.blocks)


@cache
def _engine() -> _Engine:
    return _Engine()


def synthesize(text: str, voice: str = "en-us", speed: int = 165, pitch: int = 50) -> Utterance:
    """Synthesize ``text``.

    Args:
        text: words with punctuation.
        voice: espeak-ng language, optionally with a variant: ``"en-us"``, ``"de+f3"``.
        speed: words per minute, 80 to 450.
        pitch: 0 (low) to 100 (high).

    Returns:
        The speech at 16 kHz and its phonemes, which cover it from start to end without gaps. Phoneme times of the same
        text are reproducible to 10 ms; exact times and samples depend on what the process has synthesized before.

    Raises:
        ConfigError: unknown voice, or speed or pitch out of range.
        DependencyError: espeakng-loader is missing.
        MediaError: the text contains nothing to pronounce.
    """
    if not 80 <= speed <= 450 or not 0 <= pitch <= 100:
        raise ConfigError(
            f"Speed {speed} or pitch {pitch} is out of range; expected 80 to 450 words per minute and a pitch of 0 to "
            "100."
        )
    with _LOCK:
        engine = _engine()
        samples = engine.speak(text, voice, {"rate": speed, "pitch": pitch, "range": 50, "volume": 90})
        events = list(engine.events)
        rate = engine.sample_rate
    waveform = resample_audio(samples.astype(np.float32) / 32768.0, rate, SAMPLE_RATE)
    return Utterance(waveform, _as_phonemes(events, rate, len(samples)), text, voice)


def _as_phonemes(events: Sequence[tuple[str, int]], rate: int, num_samples: int) -> tuple[Phoneme, ...]:
    kept = [(symbol, sample) for symbol, sample in events if not symbol.startswith("(")]
    if not kept or kept[0][1] > 0:
        kept.insert(0, (PAUSE, 0))
    ends = [sample for _, sample in kept[1:]] + [num_samples]
    phonemes: list[Phoneme] = []
    for (symbol, start), end in zip(kept, ends, strict=True):
        if end <= start:
            continue
        unstressed = symbol.replace("ˈ", "").replace("ˌ", "")
        if phonemes and unstressed == PAUSE and phonemes[-1].symbol == PAUSE:
            phonemes[-1] = Phoneme(PAUSE, phonemes[-1].start, end / rate)
        else:
            phonemes.append(Phoneme(unstressed, start / rate, end / rate, "ˈ" in symbol))
    return tuple(phonemes)


def resample_audio(waveform: npt.NDArray[np.float32], source_rate: int, target_rate: int) -> npt.NDArray[np.float32]:
    """Resample ``waveform`` (n,) with a windowed sinc filter: (ceil(n * target_rate / source_rate),) float32."""
    divisor = gcd(source_rate, target_rate)
    up, down = target_rate // divisor, source_rate // divisor
    if up == down:
        return waveform
    kernel, reach = _polyphase_kernel(up, down)
    count = -(-len(waveform) * up // down)
    blocks = -(-count // up)
    signal = torch.from_numpy(np.ascontiguousarray(waveform))
    signal = torch.nn.functional.pad(signal, (reach, blocks * down + kernel.shape[-1] - len(waveform)))
    phases = torch.nn.functional.conv1d(signal[None, None], kernel, stride=down)[0, :, :blocks]
    return cast("npt.NDArray[np.float32]", phases.T.reshape(-1)[:count].numpy())


@cache
def _polyphase_kernel(up: int, down: int) -> tuple[torch.Tensor, int]:
    """One filter per output phase, (up, 1, taps), and the number of input samples before the output time."""
    slower = max(up, down)
    reach = -(-16 * slower // up)
    taps = 2 * reach + down + 1
    output_time = torch.arange(up, dtype=torch.float64)[:, None] * down / up
    distance = (torch.arange(taps, dtype=torch.float64)[None] - reach - output_time) * up / slower
    window = torch.where(distance.abs() < 16, 0.5 + 0.5 * torch.cos(torch.pi * distance / 16), 0.0)
    # Cut off slightly below the lower Nyquist frequency, so that the transition band does not alias.
    kernel = torch.sinc(distance * 0.96) * window
    return (kernel / kernel.sum(1, keepdim=True)).float()[:, None], reach


def silence(seconds: float) -> Utterance:
    """A silent utterance, for pauses and as a training example of a closed mouth."""
    count = max(1, round(seconds * SAMPLE_RATE))
    return Utterance(np.zeros(count, np.float32), (Phoneme(PAUSE, 0.0, count / SAMPLE_RATE),), "", "")


def join(utterances: Sequence[Utterance]) -> Utterance:
    """Concatenate utterances, shifting their phoneme times accordingly.

    Raises:
        ConfigError: there are none.
    """
    if not utterances:
        raise ConfigError("Cannot join an empty sequence of utterances; give at least one.")
    phonemes: list[Phoneme] = []
    offset = 0.0
    for part in utterances:
        phonemes += [Phoneme(p.symbol, p.start + offset, p.end + offset, p.stressed) for p in part.phonemes]
        offset += part.seconds
    waveform = np.concatenate([part.waveform for part in utterances])
    text = " ".join(part.text for part in utterances if part.text)
    return Utterance(waveform, tuple(phonemes), text, "+".join(dict.fromkeys(part.voice for part in utterances)))
