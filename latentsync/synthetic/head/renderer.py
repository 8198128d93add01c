"""The renderer of the synthetic talking head: batched over frames, on any device, without a loop over frames.

A clip is a ``HeadState`` of plain numbers. Each frame's displacement field is a sum of the portrait's modes
(``fields.py``); `warp.py` inverts it on a coarse lattice, and `compose.py` samples the layers through it.
Coordinates are (x, y) in frame pixels, pixel centres at whole numbers, for a frame as large as the portrait (768).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from latentsync.errors import ConfigError
from latentsync.face.detection.mediapipe_detector import LEFT_BROW, NOSE, RIGHT_BROW
from latentsync.face.geometry.affine import crop_size, face_template, fit_affine
from latentsync.synthetic.head.appearance import MOTION_COLUMNS, Identity, Scene
from latentsync.synthetic.head.blend import load_face
from latentsync.synthetic.head.fields import MODES, Fields, build_fields
from latentsync.synthetic.head.lattice import Lattice
from latentsync.synthetic.head.layers import composite_layers, prepare_textures
from latentsync.synthetic.head.texture import (
    PortraitTensors,
    background_texture,
    face_texture,
    gaussian_blur,
    portrait_tensors,
)
from latentsync.synthetic.speech.visemes import MOUTH_PARAMETERS

FloatArray = npt.NDArray[np.float32]

CONTROL_MESH: tuple[tuple[int, ...], ...] = (LEFT_BROW, RIGHT_BROW, NOSE)
"""Mesh points whose means are the control points: those that the detector uses."""

# Pixels drawn at a time: on a CPU what its cache can hold, on a GPU few enough for dozens of processes to share one.
_CHUNK_PIXELS = {"cpu": 300_000, "gpu": 4_000_000}


@dataclass(frozen=True)
class HeadState:
    """All that a clip shows.

    Attributes:
        mouth: (t, 7) float32, columns as ``MOUTH_PARAMETERS``.
        motion: (t, 9) float32, columns as ``MOTION_COLUMNS``.
        identity: the person.
        scene: light, background, camera.
        first_frame: number of the first frame, when this is a part of a longer clip (it makes the noise go on).
    """

    mouth: FloatArray
    motion: FloatArray
    identity: Identity = field(default_factory=Identity)
    scene: Scene = field(default_factory=Scene)
    first_frame: int = 0

    def __post_init__(self) -> None:
        expected = (len(self.mouth), len(MOUTH_PARAMETERS)), (len(self.mouth), len(MOTION_COLUMNS))
        if len(self.mouth) == 0 or (self.mouth.shape, self.motion.shape) != expected:
            raise ConfigError(
                f"A head state needs mouth (t, {len(MOUTH_PARAMETERS)}) and motion (t, {len(MOTION_COLUMNS)}) of one "
                f"length t >= 1; got {self.mouth.shape} and {self.motion.shape}."
            )

    @property
    def num_frames(self) -> int:
        """Frames t of the clip."""
        return len(self.mouth)

    def frames(self, start: int, stop: int) -> "HeadState":
        """The same clip cut to frames ``start`` to ``stop``."""
        first = self.first_frame + start
        return replace(self, mouth=self.mouth[start:stop], motion=self.motion[start:stop], first_frame=first)

    def speaking(self, mouth: FloatArray) -> "HeadState":
        """The perfect dub: everything as it is except for the mouth (t, 7)."""
        return replace(self, mouth=mouth)

    def coefficients(self) -> FloatArray:
        """(t, K) coefficient of every mode of ``MODES``."""
        result = np.zeros((self.num_frames, len(MODES)), np.float32)
        result[:, MODES.index("rest")] = 1
        for column, name in enumerate(MOUTH_PARAMETERS):
            result[:, MODES.index(name)] = self.mouth[:, column]
        for column, name in enumerate(MOTION_COLUMNS):
            result[:, MODES.index(name)] += self.motion[:, column]
        result[:, MODES.index("blink")] = np.clip(self.motion[:, MOTION_COLUMNS.index("blink")], 0, 0.94)
        for name, value in self.identity.shape.items():
            result[:, MODES.index(name)] += value
        # Turning also narrows the face: the second order of the turn, which the linear modes lack.
        result[:, MODES.index("face_width")] -= 0.4 * self.motion[:, MOTION_COLUMNS.index("yaw")] ** 2
        return result


class HeadRenderer:
    """Draws head states on one device; portraits are loaded and their fields solved on first use."""

    def __init__(self, device: torch.device | str = "cpu", folder: Path | None = None) -> None:
        self.device = torch.device(device)
        self._folder = folder
        self._portraits: dict[str, tuple[PortraitTensors, Fields]] = {}

    def _portrait(self, name: str) -> tuple[PortraitTensors, Fields]:
        if name not in self._portraits:
            portrait = load_face(name, self._folder)
            self._portraits[name] = (
                portrait_tensors(portrait, self.device),
                build_fields(portrait).to(self.device),
            )
        return self._portraits[name]

    def landmarks(self, state: HeadState) -> Tensor:
        """(t, 478, 2) float32 true positions of the mesh points in frame pixels.

        They are those of the head before a mirrored identity's picture is flipped.
        """
        _, fields = self._portrait(state.identity.portrait)
        coefficients = torch.from_numpy(state.coefficients()).to(self.device)
        return fields.points + torch.einsum("tk,knc->tnc", coefficients, fields.point_shifts)

    def frame_size(self, state: HeadState) -> int:
        """Side length of the frame in which coordinates are given, in pixels."""
        return self._portrait(state.identity.portrait)[0].portrait.size

    def control_points(self, state: HeadState) -> Tensor:
        """(t, 3, 2) float32 left brow, right brow, nose in frame pixels: what the detector's points stand for."""
        points = self.landmarks(state)
        controls = torch.stack([points[:, list(group)].mean(1) for group in CONTROL_MESH], dim=1)
        if state.identity.mirrored:
            flipped = controls[:, [1, 0, 2]]
            controls = torch.stack([self.frame_size(state) - 1 - flipped[..., 0], flipped[..., 1]], dim=-1)
        return controls

    def mouth_opening(self, state: HeadState) -> Tensor:
        """(t,) float32 true gap between the lips (mesh 13 to 14) over the distance of the outer eye corners, >= 0."""
        points = self.landmarks(state)
        eyes = points[:, 263] - points[:, 33]
        down = torch.stack([-eyes[:, 1], eyes[:, 0]], dim=-1)
        return (((points[:, 14] - points[:, 13]) * down).sum(-1) / (eyes**2).sum(-1)).clamp_min(0)

    def render(self, state: HeadState, size: int = 768, zoom: float = 1.0) -> Tensor:
        """Draw whole frames.

        Args:
            state: the clip.
            size: side length of the square frames in pixels.
            zoom: 1 shows the whole portrait, more comes closer to its middle.

        Returns:
            (t, 3, size, size) float32 in [0, 1].
        """
        portrait_size = self.frame_size(state)
        step = (portrait_size - 1) / (size - 1) / zoom
        start = (portrait_size - 1) * (1 - 1 / zoom) / 2
        matrix = torch.tensor([[step, 0.0, start], [0.0, step, start]], device=self.device)
        return self._draw([state], matrix.expand(state.num_frames, 2, 3), size)[0]

    def render_aligned(self, state: HeadState, resolution: int, jitter: float = 0.0) -> Tensor:
        """Draw straight into the published aligned crop, stretched to a square, without making frames.

        Args:
            state: the clip.
            resolution: side length R.
            jitter: standard deviation in frame pixels of a detector's error on each control point (mostly constant
                over the clip, a fifth of it changing from frame to frame).

        Returns:
            (t, 3, R, R) float32 in [0, 1].
        """
        return self.render_takes([state], resolution, jitter)[0]

    def render_takes(self, states: Sequence[HeadState], resolution: int, jitter: float = 0.0) -> Tensor:
        """Draw takes of one scene into the aligned crop, with one preparation for all; see `render_aligned`.

        Args:
            states: of one length, identity, scene and motion; they differ in the mouth.
            resolution: side length R.
            jitter: as for `render_aligned`; all takes have the same error.

        Returns:
            (k, t, 3, R, R) float32 in [0, 1].
        """
        return self._draw(states, self._crop_to_frame(states[0], resolution, jitter), resolution)

    def _crop_to_frame(self, state: HeadState, resolution: int, jitter: float) -> Tensor:
        """(t, 2, 3) from pixels of the square crop to frame pixels (before mirroring).

        It does not depend on the mouth: brows and nose are what counts, and a dub is cut as its source is.
        """
        points = self.control_points(state.speaking(np.zeros_like(state.mouth))).double().cpu().numpy()
        rng = np.random.default_rng(state.scene.seed)
        points += jitter * rng.normal(size=(1, 3, 2)) + 0.2 * jitter * rng.normal(size=points.shape)
        matrices = np.zeros((len(points), 3, 3))
        matrices[:, :2] = fit_affine(points, face_template(resolution))
        matrices[:, 2, 2] = 1
        width, height = crop_size(resolution)
        scale_x, scale_y = width / resolution, height / resolution
        square = np.array([[scale_x, 0, scale_x / 2 - 0.5], [0, scale_y, scale_y / 2 - 0.5], [0, 0, 1]])
        return torch.from_numpy((np.linalg.inv(matrices) @ square)[:, :2].astype(np.float32)).to(self.device)

    def _draw(self, states: Sequence[HeadState], matrices: Tensor, size: int) -> Tensor:
        """Frames (k, t, 3, size, size) in [0, 1] of takes of one scene.

        ``matrices`` (t, 2, 3) lead from output to frame pixels.
        """
        first = states[0]
        tensors, fields = self._portrait(first.identity.portrait)
        if first.identity.mirrored:
            flip = torch.tensor([[-1.0, 0.0], [0.0, 1.0]], device=self.device)
            matrices = flip @ matrices
            matrices = matrices + torch.tensor([[0, 0, tensors.portrait.size - 1.0], [0, 0, 0]], device=self.device)
        texture = face_texture(tensors, first.identity, first.scene)
        textures = prepare_textures(tensors, texture, background_texture(tensors, first.scene), first.identity)
        coefficients = torch.from_numpy(np.concatenate([state.coefficients() for state in states])).to(self.device)
        matrices = matrices.repeat(len(states), 1, 1)
        chunk = max(1, _CHUNK_PIXELS["cpu" if self.device.type == "cpu" else "gpu"] // size**2)
        pieces = []
        for start in range(0, len(matrices), chunk):
            part = slice(start, start + chunk)
            lattice = Lattice(matrices[part], size, tensors.portrait.size)
            shifts = torch.einsum("tk,klcyx->tlcyx", coefficients[part], fields.grids)
            pieces.append(
                _exposed(composite_layers(tensors.portrait, textures, lattice, shifts, coefficients[part]), first.scene)
            )
        frames = torch.cat(pieces).unflatten(0, (len(states), first.num_frames))
        return _with_noise(frames, first)


def _exposed(frames: Tensor, scene: Scene) -> Tensor:
    """Exposure, contrast, colours and blur of the camera: (n, 3, h, w), which it overwrites, to the same in [0, 1]."""
    balance = torch.tensor(scene.white_balance, device=frames.device)[:, None, None] * scene.exposure
    frames.mul_(balance * scene.contrast).add_(0.45 - 0.45 * scene.contrast)
    # A shoulder instead of a hard clip: bright skin keeps its shape.
    beyond = (frames - 0.8).clamp_min_(0)
    frames.sub_(beyond).add_(beyond.mul_(5).tanh_(), alpha=0.2)
    if scene.mixing is not None:
        frames = torch.einsum("ij,njhw->nihw", torch.tensor(scene.mixing, device=frames.device), frames)
    frames = frames.clamp_(0, 1)
    if scene.tone:
        frames = torch.addcmul(frames, frames, 1 - frames, value=scene.tone)
    return gaussian_blur(frames, scene.blur)


def _with_noise(frames: Tensor, state: HeadState) -> Tensor:
    """Noise of the camera, the same in every take of (k, t, 3, h, w)."""
    if state.scene.noise <= 0:
        return frames
    generator = torch.Generator(device=frames.device).manual_seed(state.scene.seed + state.first_frame)
    noise = torch.randn(frames.shape[1:], generator=generator, device=frames.device)
    return (frames + noise * state.scene.noise).clamp(0, 1)
