"""Appearance and motion of the synthetic head: random shapes, colors, light, background and head motion.

Everything here is plain numbers, which `latentsync.synthetic.head.renderer` turns into frames. Sampling uses
``random.Random`` and numpy generators seeded by the caller, so the same seed gives the same person on every device.
"""

import random
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from latentsync.synthetic.head.fields import LIP_MODES, SHAPE_MODES
from latentsync.synthetic.head.portrait import PORTRAITS

Color = tuple[float, float, float]
FloatArray = npt.NDArray[np.float32]

MOTION_COLUMNS: tuple[str, ...] = ("shift_x", "shift_y", "roll", "yaw", "pitch", "lean", "smile", "blink", "brow")
"""Columns of a head motion: shifts in eye distances, angles in radians, the others as fractions."""


_SKIN_TONES: tuple[Color, ...] = (
    *((0.90, 0.77, 0.70), (0.85, 0.69, 0.60), (0.78, 0.59, 0.48), (0.68, 0.48, 0.36)),
    *((0.54, 0.36, 0.26), (0.40, 0.26, 0.18), (0.29, 0.19, 0.14)),
)
_HAIR_COLORS: tuple[Color, ...] = (
    *((0.06, 0.05, 0.05), (0.16, 0.10, 0.07), (0.30, 0.19, 0.11), (0.50, 0.36, 0.20), (0.62, 0.52, 0.38)),
    *((0.45, 0.20, 0.10), (0.55, 0.55, 0.55), (0.80, 0.78, 0.75)),
)
_SHAPE_SPREADS: dict[str, float] = {
    **{"face_width": 0.06, "jaw_width": 0.09, "face_length": 0.05, "chin": 0.05, "nose_width": 0.16},
    **{"nose_length": 0.04, "eye_size": 0.10, "eye_spacing": 0.025, "brow_height": 0.03, "mouth_size": 0.10},
    **{"mouth_width": 0.08, "mouth_height": 0.04, "cheeks": 0.025},
    **{"wave_0": 0.018, "wave_1": 0.018, "wave_2": 0.018, "wave_3": 0.018},
    **{"lip_upper": 0.35, "lip_lower": 0.35},
}


@dataclass(frozen=True)
class Identity:
    """Shape and colors of a person; the defaults leave the portrait unchanged.

    Attributes:
        portrait: one of ``PORTRAITS``, or one of their blends in ``latentsync.synthetic.head.blend.BLENDS``.
        mirrored: flip the portrait horizontally.
        shape: coefficients of the shape modes; modes that are absent have 0.
        skin, lips, hair: target mean color, RGB in [0, 1]; None keeps that of the photograph.
        clothes: factor on each channel of the clothes.
        smoothness: 0 keeps wrinkles and pores, 1 removes them.
        skin_contrast: how much of the photograph's shading on the skin is kept when ``skin`` is given.
        beard: darkness of the beard area, 0 to 1.
        beard_colour: color of the beard.
        beard_grain: coarseness of the beard texture, 1 = normal.
        teeth: color of the teeth.
        teeth_size: factor on their visible length.
        grain: strength of the fine skin texture.
        seed: random seed of the textures.
    """

    portrait: str = PORTRAITS[0]
    mirrored: bool = False
    shape: dict[str, float] = field(default_factory=dict)
    skin: Color | None = None
    lips: Color | None = None
    hair: Color | None = None
    clothes: Color = (1.0, 1.0, 1.0)
    smoothness: float = 0.0
    skin_contrast: float = 0.85
    beard: float = 0.0
    beard_colour: Color = (0.1, 0.08, 0.07)
    beard_grain: float = 1.0
    teeth: Color = (0.86, 0.82, 0.75)
    teeth_size: float = 1.0
    grain: float = 0.02
    seed: int = 0


@dataclass(frozen=True)
class Scene:
    """Light, background and camera of a clip; the defaults leave the photograph unchanged.

    Attributes:
        light: direction (right, down) in which the light crosses the face, each about -1 to 1.
        light_strength: 0 (flat) to about 0.5.
        exposure, contrast: factors.
        white_balance: factor on each channel.
        tone: raises (> 0) or lowers (< 0) the midtones, -0.5 to 0.5.
        mixing: rows of a color matrix; None applies none.
        background: "photo", "plain" or "clouds".
        background_colours: its two main colors.
        blur: sigma of the Gaussian camera blur in output pixels.
        noise: standard deviation of the camera noise, for values in [0, 1].
        seed: random seed of background and noise.
    """

    light: tuple[float, float] = (0.0, 0.0)
    light_strength: float = 0.0
    exposure: float = 1.0
    contrast: float = 1.0
    white_balance: Color = (1.0, 1.0, 1.0)
    tone: float = 0.0
    mixing: tuple[Color, Color, Color] | None = None
    background: str = "photo"
    background_colours: tuple[Color, Color] = ((0.5, 0.5, 0.5), (0.7, 0.7, 0.7))
    blur: float = 0.0
    noise: float = 0.0
    seed: int = 0


def _mix(a: Color, b: Color, weight: float, jitter: float, generator: random.Random) -> Color:
    red, green, blue = (
        min(1.0, max(0.02, (x + (y - x) * weight) * (1 + generator.uniform(-jitter, jitter)))) for x, y in zip(a, b)
    )
    return red, green, blue


def _interpolate(colors: tuple[Color, ...], jitter: float, generator: random.Random) -> Color:
    """A random color on the polyline through ``colors``."""
    position = generator.uniform(0, len(colors) - 1.001)
    return _mix(colors[int(position)], colors[int(position) + 1], position % 1, jitter, generator)


def _sample_lip_color(skin: Color, generator: random.Random) -> Color:
    """Lipstick for one in five, otherwise a redder shade of the skin."""
    if generator.random() < 0.2:
        brightness = 0.35 + 0.65 * skin[0]
        lipstick = _mix((0.65, 0.12, 0.16), (0.75, 0.35, 0.40), generator.random(), 0.15, generator)
        return lipstick[0] * brightness, lipstick[1] * brightness, lipstick[2] * brightness
    redder = (0.93 * skin[0] + 0.03, 0.66 * skin[1] + 0.02, 0.70 * skin[2] + 0.03)
    return _mix(redder, skin, generator.uniform(-0.1, 0.4), 0.06, generator)


def sample_identity(generator: random.Random, variety: float = 1.0) -> Identity:
    """Sample a random person; ``variety`` scales how far the geometry departs from the portrait (0: not at all)."""
    skin = _interpolate(_SKIN_TONES, 0.05, generator)
    shape = {
        name: variety * spread * max(-1.8, min(1.8, generator.gauss(0, 1)))
        for name, spread in _SHAPE_SPREADS.items()
        if name in (*SHAPE_MODES, *LIP_MODES)
    }
    # The people in the photographs smile, which thins their lips: bias the shape toward fuller ones.
    shape["lip_upper"] += 0.3
    shape["lip_lower"] += 0.25
    has_beard = generator.random() < 0.35
    yellowness = generator.uniform(0.0, 1.0)
    return Identity(
        portrait=generator.choice(PORTRAITS),
        mirrored=generator.random() < 0.5,
        shape=shape,
        skin=skin,
        lips=_sample_lip_color(skin, generator),
        hair=_interpolate(_HAIR_COLORS, 0.1, generator),
        clothes=(generator.uniform(0.55, 1.1), generator.uniform(0.55, 1.1), generator.uniform(0.55, 1.1)),
        beard=generator.uniform(0.15, 0.85) if has_beard else 0.0,
        beard_colour=_interpolate(_HAIR_COLORS[:4], 0.1, generator),
        teeth=_mix((0.92, 0.90, 0.86), (0.80, 0.74, 0.62), yellowness, 0.03, generator),
        teeth_size=generator.uniform(0.75, 1.3),
        grain=generator.uniform(0.0, 0.05),
        seed=generator.randrange(1 << 30),
    )


def shape_spread(name: str) -> float:
    """Standard deviation of a shape mode over random people."""
    return _SHAPE_SPREADS[name]


def _sample_muted_color(generator: random.Random) -> Color:
    """A color of low saturation, as typical for rooms and streets."""
    grey, saturation = generator.uniform(0.05, 0.9), generator.uniform(0.0, 0.6)
    red, green, blue = (grey + saturation * (generator.random() - grey) for _ in range(3))
    return red, green, blue


def sample_scene(generator: random.Random) -> Scene:
    """Sample light, background and camera."""
    light_right, light_down = generator.uniform(-1, 1), generator.uniform(-0.6, 0.8)
    colors = tuple(_sample_muted_color(generator) for _ in range(2))
    warmth = generator.uniform(-0.08, 0.08)
    return Scene(
        light=(light_right, light_down),
        light_strength=generator.uniform(0.0, 0.45),
        exposure=generator.uniform(0.75, 1.08),
        contrast=generator.uniform(0.85, 1.12),
        white_balance=(1 + warmth, 1 + generator.uniform(-0.03, 0.03), 1 - warmth),
        background=generator.choice(("photo", "plain", "clouds", "clouds")),
        background_colours=(colors[0], colors[1]),
        blur=generator.choice((0.0, 0.0, generator.uniform(0.3, 1.1))),
        noise=generator.choice((0.0, generator.uniform(0.0, 0.02))),
        seed=generator.randrange(1 << 30),
    )


def sample_motion(
    num_frames: int, fps: float, generator: random.Random, liveliness: float = 1.0, smile: float | None = None
) -> FloatArray:
    """Sample smooth head motion with blinks.

    Args:
        num_frames: number of rows to return.
        fps: frames per second.
        generator: random generator.
        liveliness: scale of the motion; 0 holds the head still (blinks remain), 1 is a lively speaker.
        smile: constant part of the smile; random by default.

    Returns:
        (num_frames, 9) float32, columns as ``MOTION_COLUMNS``.
    """
    rng = np.random.default_rng(generator.randrange(1 << 30))
    times = np.arange(num_frames) / fps
    amplitudes = np.array([0.10, 0.05, 0.05, 0.20, 0.13, 0.025]) * liveliness
    head = rng.normal(0, 0.6, 6)[None] * amplitudes
    for rate, weight in ((0.15, 0.7), (0.4, 0.5), (0.9, 0.22), (1.9, 0.06)):
        frequency = rate * rng.uniform(0.7, 1.4, 6)
        phase = rng.uniform(0, 2 * np.pi, 6)
        head = head + weight * amplitudes * np.sin(2 * np.pi * frequency * times[:, None] + phase)
    base = generator.gauss(0.15, 0.3) if smile is None else smile
    smiles = base + 0.2 * liveliness * np.sin(2 * np.pi * rng.uniform(0.1, 0.3) * times + rng.uniform(0, 6))
    brows = 0.35 * liveliness * np.sin(2 * np.pi * rng.uniform(0.2, 0.5) * times + rng.uniform(0, 6))
    return np.column_stack([head, np.clip(smiles, -0.5, 1), _blinks(times, rng), brows]).astype(np.float32)


def _blinks(times: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Eyelid closure (t,) with a blink every two to six seconds: closing in 80 ms, opening in 160 ms."""
    closure = np.zeros(len(times))
    peak = rng.uniform(0.2, 3.0)
    while peak < (times[-1] if len(times) else 0) + 0.3:
        since = times - peak
        ramp = np.clip(1 + since / 0.08, 0, 1) * (since <= 0) + np.clip(1 - since / 0.16, 0, 1) * (since > 0)
        closure = np.maximum(closure, ramp * ramp * (3 - 2 * ramp))
        peak += rng.uniform(2.0, 6.0)
    return closure
