"""Phonemes with timing -> mouth curves: motion of the lips, jaw and tongue during speech.

Every viseme has a target and a dominance for each mouth parameter; neighboring visemes are blended by dominance (the
dominance model of coarticulation: a rounded vowel rounds the consonants around it, an open vowel hardly opens an s).
Bilabials close the lips completely, whatever their neighbors are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from latentsync.errors import ConfigError
from latentsync.synthetic.speech.tts import PAUSE, Phoneme

FloatArray = npt.NDArray[np.float32]

MOUTH_PARAMETERS: tuple[str, ...] = ("open", "width", "rounding", "press", "tuck", "tongue", "raise")
"""Columns of a mouth curve.

- ``open`` 0 (lips touch) to 1 (widest natural opening); the jaw follows it.
- ``width`` -1 (corners drawn in) to 1 (corners drawn apart).
- ``rounding`` 0 to 1 (lips pushed forward and thick, as in "oo").
- ``press`` 0 to 1 (closed lips pressed thin, as in m, b, p).
- ``tuck`` 0 to 1 (lower lip under the upper teeth, as in f, v).
- ``tongue`` 0 (low) to 1 (tip behind or between the teeth, as in l, th).
- ``raise`` 0 to 1 (upper lip lifted off the teeth, as in s, ee).
"""
OPEN, WIDTH, ROUNDING, PRESS, TUCK, TONGUE, RAISE = range(len(MOUTH_PARAMETERS))

_RATE = 200  # sampling rate of the blending, in Hz
_RAMP = 0.05  # seconds in which the lips close or part


@dataclass(frozen=True)
class Viseme:
    """Targets in the order of ``MOUTH_PARAMETERS``, and the dominance of the viseme on opening and on shape."""

    targets: tuple[float, float, float, float, float, float, float]
    open_strength: float = 1.0
    shape_strength: float = 1.0


# Columns: open, width, rounding, press, tuck, tongue, raise.
_VISEMES: dict[str, Viseme] = {
    "rest": Viseme((0.0, 0.0, 0.0, 0.15, 0.0, 0.1, 0.0), 0.9, 0.5),
    "bilabial": Viseme((0.0, 0.0, 0.05, 1.0, 0.0, 0.1, 0.0), 1.6, 0.4),
    "labiodental": Viseme((0.14, 0.05, 0.0, 0.0, 1.0, 0.1, 0.25), 2.0, 0.6),
    "dental": Viseme((0.26, 0.1, 0.0, 0.0, 0.0, 1.0, 0.15), 1.4, 0.6),
    "alveolar": Viseme((0.24, 0.1, 0.0, 0.0, 0.0, 0.85, 0.15), 1.0, 0.35),
    "sibilant": Viseme((0.16, 0.4, 0.0, 0.0, 0.0, 0.5, 0.55), 2.2, 1.0),
    "postalveolar": Viseme((0.22, -0.35, 0.6, 0.0, 0.0, 0.5, 0.45), 1.8, 1.6),
    "velar": Viseme((0.32, 0.0, 0.0, 0.0, 0.0, 0.15, 0.05), 0.6, 0.2),
    "glottal": Viseme((0.4, 0.0, 0.0, 0.0, 0.0, 0.15, 0.0), 0.3, 0.1),
    "labiovelar": Viseme((0.14, -0.85, 1.0, 0.0, 0.0, 0.1, 0.0), 1.8, 2.0),
    "rhotic": Viseme((0.26, -0.4, 0.5, 0.0, 0.0, 0.4, 0.1), 1.0, 1.1),
    "palatal": Viseme((0.24, 0.5, 0.0, 0.0, 0.0, 0.4, 0.25), 1.0, 0.9),
    "open": Viseme((1.0, 0.1, 0.0, 0.0, 0.0, 0.05, 0.15), 1.2, 0.8),
    "open_back": Viseme((0.85, -0.3, 0.35, 0.0, 0.0, 0.0, 0.0), 1.2, 1.0),
    "mid_front": Viseme((0.62, 0.45, 0.0, 0.0, 0.0, 0.25, 0.25), 1.1, 0.9),
    "close_front": Viseme((0.34, 0.85, 0.0, 0.0, 0.0, 0.35, 0.4), 1.1, 1.2),
    "near_close_front": Viseme((0.4, 0.5, 0.0, 0.0, 0.0, 0.3, 0.25), 1.0, 0.8),
    "central": Viseme((0.46, 0.0, 0.05, 0.0, 0.0, 0.15, 0.05), 0.8, 0.4),
    "mid_back": Viseme((0.58, -0.55, 0.7, 0.0, 0.0, 0.0, 0.0), 1.1, 1.3),
    "close_back": Viseme((0.24, -0.85, 1.0, 0.0, 0.0, 0.05, 0.0), 1.2, 1.6),
    "front_rounded": Viseme((0.3, -0.7, 0.9, 0.0, 0.0, 0.25, 0.0), 1.1, 1.5),
}
_LETTERS: dict[str, str] = {
    "bilabial": "pbmɓʙβ",
    "labiodental": "fvʋɱ",
    "dental": "θðl",
    "alveolar": "tdnɾrɬɫɭɖʈɳ",
    "sibilant": "szɕʑ",
    "postalveolar": "ʃʒʂʐ",
    "velar": "kɡgŋxɣqʁχɢʀ",
    "glottal": "hʔɦħʕ",
    "labiovelar": "wʍɥ",
    "rhotic": "ɹɻ",
    "palatal": "jɲʎcɟçʝ",
    "open": "aæɐɶ",
    "open_back": "ɑɒʌ",
    "mid_front": "ɛeɜ",
    "close_front": "i",
    "near_close_front": "ɪᵻɨ",
    "central": "əɚɝɘɞɵ",
    "mid_back": "ɔoɤ",
    "close_back": "uʊɯʉ",
    "front_rounded": "yøœʏ",
}
_CLASS_OF: dict[str, str] = {letter: name for name, letters in _LETTERS.items() for letter in letters}
VISEME_NAMES: tuple[str, ...] = tuple(_VISEMES)


@dataclass(frozen=True)
class VisemeSpan:
    """A time interval in seconds with one viseme; ``scale`` reduces the opening of unstressed vowels."""

    name: str
    start: float
    end: float
    scale: float = 1.0


def viseme_spans(phonemes: Sequence[Phoneme]) -> list[VisemeSpan]:
    """Split phonemes into visemes: diphthongs and affricates give several, length and nasalization marks none."""
    spans: list[VisemeSpan] = []
    for phoneme in phonemes:
        names = [_CLASS_OF[letter] for letter in phoneme.symbol if letter in _CLASS_OF]
        if phoneme.symbol == PAUSE or not names:
            spans.append(VisemeSpan("rest", phoneme.start, phoneme.end))
            continue
        names = [name for index, name in enumerate(names) if index == 0 or name != names[index - 1]]
        edges = np.linspace(phoneme.start, phoneme.end, len(names) + 1)
        scale = 1.0 if phoneme.stressed or len(names) > 1 else 0.85
        spans += [VisemeSpan(name, float(edges[i]), float(edges[i + 1]), scale) for i, name in enumerate(names)]
    return spans


def viseme_classes(phonemes: Sequence[Phoneme], num_steps: int, steps_per_second: float) -> npt.NDArray[np.int64]:
    """Index into ``VISEME_NAMES`` at the center of every time step: (num_steps,) int64; "rest" after the end."""
    classes = np.zeros(num_steps, np.int64)
    for span in viseme_spans(phonemes):
        first, last = (int(np.ceil(edge * steps_per_second - 0.5)) for edge in (span.start, span.end))
        classes[max(0, first) : max(0, last)] = VISEME_NAMES.index(span.name)
    return classes


def mouth_curve(phonemes: Sequence[Phoneme], num_frames: int, fps: Fraction | float, style: float = 1.0) -> FloatArray:
    """Mouth parameters at the time ``i / fps`` of every frame i.

    Args:
        phonemes: phonemes in order; the mouth rests after the last one.
        num_frames: number of rows to return.
        fps: frames per second, positive.
        style: scale of the mouth opening: 1 is normal, 0.6 mumbles.

    Returns:
        (num_frames, 7) float32, columns as ``MOUTH_PARAMETERS``.

    Raises:
        ConfigError: ``fps`` or ``num_frames`` is not positive.
    """
    if fps <= 0 or num_frames <= 0:
        raise ConfigError(
            f"Cannot compute a mouth curve of {num_frames} frames at {fps} fps; expected both to be positive."
        )
    duration = num_frames / float(fps)
    times = np.arange(int(duration * _RATE) + 2) / _RATE
    spans = [span for span in viseme_spans(phonemes) if span.end > span.start] or [VisemeSpan("rest", 0.0, duration)]
    spans.append(VisemeSpan("rest", spans[-1].end, max(spans[-1].end, duration) + 0.5))
    dense = _close_lips(_blend(spans, times, style), spans, times)
    frame_times = np.arange(num_frames) / float(fps)
    return np.stack([np.interp(frame_times, times, column) for column in dense.T], axis=1).astype(np.float32)


def _blend(spans: list[VisemeSpan], times: npt.NDArray[np.float64], style: float) -> npt.NDArray[np.float64]:
    """Targets of all visemes averaged by their dominance at each time: (steps, 7)."""
    total = np.zeros((len(times), len(MOUTH_PARAMETERS)))
    weight = np.full((len(times), 2), 1e-9)
    shape_columns = [WIDTH, ROUNDING, PRESS, TUCK, TONGUE, RAISE]
    for span in spans:
        viseme = _VISEMES[span.name]
        targets = np.array(viseme.targets)
        targets[OPEN] *= style * span.scale
        half = (span.end - span.start) / 2
        # In a long pause the mouth closes quickly; in a short one between two words it stays half open.
        strength = min(1.0, half / 0.09) if span.name == "rest" else 1.0
        beyond = np.maximum(np.abs(times - (span.start + half)) - half * 0.5, 0.0)
        open_dominance = strength * viseme.open_strength * np.exp(-((beyond / 0.042) ** 1.3))
        shape_dominance = strength * viseme.shape_strength * np.exp(-((beyond / 0.062) ** 1.2))
        total[:, OPEN] += open_dominance * targets[OPEN]
        total[:, shape_columns] += shape_dominance[:, None] * targets[shape_columns]
        weight += np.stack([open_dominance, shape_dominance], axis=1)
    total[:, OPEN] /= weight[:, 0]
    total[:, shape_columns] /= weight[:, 1:]
    # Blending keeps short vowels from reaching their targets; this gain restores the full opening of stressed ones.
    total[:, OPEN] = 1.15 * np.tanh(1.25 * total[:, OPEN] / 1.15)
    return np.clip(_smooth(total, 0.012), -1, 1)


def _close_lips(
    curve: npt.NDArray[np.float64], spans: list[VisemeSpan], times: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Force full closure in m, b, p and lip-to-teeth contact in f, v, each for at least one frame at 25 fps."""
    closed = _plateau(spans, times, "bilabial")
    tucked = _plateau(spans, times, "labiodental")
    curve[:, OPEN] *= 1 - closed
    curve[:, OPEN] = curve[:, OPEN] * (1 - tucked) + np.minimum(curve[:, OPEN], 0.14) * tucked
    curve[:, PRESS] = np.maximum(closed, curve[:, PRESS] * (1 - np.clip(curve[:, OPEN] * 6, 0, 1)))
    curve[:, TUCK] = np.maximum(curve[:, TUCK] * 0.3, tucked) * (1 - closed)
    curve[:, TONGUE] *= 1 - closed
    return curve


def _plateau(spans: list[VisemeSpan], times: npt.NDArray[np.float64], name: str) -> npt.NDArray[np.float64]:
    """1 during the spans of viseme ``name`` (at least 44 ms), with raised-cosine ramps on both sides, 0 elsewhere."""
    result = np.zeros(len(times))
    for span in spans:
        if span.name == name:
            center, half = (span.start + span.end) / 2, max((span.end - span.start) / 2 - 0.008, 0.022)
            beyond = np.clip((np.abs(times - center) - half) / _RAMP, 0, 1)
            result = np.maximum(result, 0.5 + 0.5 * np.cos(np.pi * beyond))
    return result


def _smooth(curve: npt.NDArray[np.float64], sigma: float) -> npt.NDArray[np.float64]:
    radius = int(4 * sigma * _RATE) + 1
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / (sigma * _RATE)) ** 2)
    kernel /= kernel.sum()
    padded = np.pad(curve, ((radius, radius), (0, 0)), mode="edge")
    return np.stack([np.convolve(column, kernel, mode="valid") for column in padded.T], axis=1)
