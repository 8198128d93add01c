"""Renderer of the synthetic talking head: batched over frames, on any device.

A clip is a ``HeadState`` of plain numbers. The displacement field of each frame is a sum of the portrait's modes
(``fields.py``); ``lattice.py`` inverts it on a coarse lattice, and ``layers.py`` samples the layers through it.
Coordinates are (x, y) in pixels of a frame as large as the portrait (768), with pixel centers at integers.
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
    blur_image,
    face_texture,
    portrait_tensors,
)
from latentsync.synthetic.speech.visemes import MOUTH_PARAMETERS

FloatArray = npt.NDArray[np.float32]

CONTROL_MESH: tuple[tuple[int, ...], ...] = (LEFT_BROW, RIGHT_BROW, NOSE)
"""Groups of mesh points whose means are the control points, as in the face detector."""

# Pixels rendered at a time: limited by the cache on a CPU, and by dozens of processes sharing one GPU.
_CHUNK_PIXELS = {"cpu": 300_000, "gpu": 4_000_000}


@dataclass(frozen=True)
class HeadState:
    """The complete visual content of a clip.

    Attributes:
        mouth: (t, 7) float32, columns as ``MOUTH_PARAMETERS``.
        motion: (t, 9) float32, columns as ``MOTION_COLUMNS``.
        identity: the person.
        scene: light, background, camera.
        first_frame: index of the first frame within a longer clip; it continues the noise of that clip.
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
                f"A head state needs mouth (t, {len(MOUTH_PARAMETERS)}) and motion (t, {len(MOTION_COLUMNS)}) of the "
                f"same length t >= 1; got {self.mouth.shape} and {self.motion.shape}."
            )

    @property
    def num_frames(self) -> int:
        """Number of frames t."""
        return len(self.mouth)

    def frames(self, start: int, stop: int) -> "HeadState":
        """The frames from ``start`` up to, but excluding, ``stop``."""
        first = self.first_frame + start
        return replace(self, mouth=self.mouth[start:stop], motion=self.motion[start:stop], first_frame=first)

    def with_mouth(self, mouth: FloatArray) -> "HeadState":
        """The ground-truth dub: the same clip with another mouth curve (t, 7)."""
        return replace(self, mouth=mouth)

    def coefficients(self) -> FloatArray:
        """(t, K) coefficients of all ``MODES``."""
        result = np.zeros((self.num_frames, len(MODES)), np.float32)
        result[:, MODES.index("rest")] = 1
        for column, name in enumerate(MOUTH_PARAMETERS):
            result[:, MODES.index(name)] = self.mouth[:, column]
        for column, name in enumerate(MOTION_COLUMNS):
            result[:, MODES.index(name)] += self.motion[:, column]
        result[:, MODES.index("blink")] = np.clip(self.motion[:, MOTION_COLUMNS.index("blink")], 0, 0.94)
        for name, value in self.identity.shape.items():
            result[:, MODES.index(name)] += value
        # Yaw also narrows the face, a second-order effect that the linear modes lack.
        result[:, MODES.index("face_width")] -= 0.4 * self.motion[:, MOTION_COLUMNS.index("yaw")] ** 2
        return result


class HeadRenderer:
    """Renders head states on one device; portraits are loaded and their fields computed on first use.

    Args:
        device: device to render on.
        folder: portrait folder; ``assets/portraits`` of the repository by default.
    """

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
        """(t, 478, 2) float32 ground-truth mesh points in frame pixels, before the flip of a mirrored identity."""
        _, fields = self._portrait(state.identity.portrait)
        coefficients = torch.from_numpy(state.coefficients()).to(self.device)
        return fields.points + torch.einsum("tk,knc->tnc", coefficients, fields.point_shifts)

    def frame_size(self, state: HeadState) -> int:
        """Side in pixels of the frame in which coordinates are given."""
        return self._portrait(state.identity.portrait)[0].portrait.size

    def control_points(self, state: HeadState) -> Tensor:
        """(t, 3, 2) float32 ground truth of the detector's control points: left brow, right brow, nose."""
        points = self.landmarks(state)
        controls = torch.stack([points[:, list(group)].mean(1) for group in CONTROL_MESH], dim=1)
        if state.identity.mirrored:
            flipped = controls[:, [1, 0, 2]]
            controls = torch.stack([self.frame_size(state) - 1 - flipped[..., 0], flipped[..., 1]], dim=-1)
        return controls

    def mouth_opening(self, state: HeadState) -> Tensor:
        """(t,) float32 ground-truth lip gap (mesh 13 to 14) relative to the distance of the outer eye corners, >= 0."""
        points = self.landmarks(state)
        eyes = points[:, 263] - points[:, 33]
        down = torch.stack([-eyes[:, 1], eyes[:, 0]], dim=-1)
        return (((points[:, 14] - points[:, 13]) * down).sum(-1) / (eyes**2).sum(-1)).clamp_min(0)

    def render(self, state: HeadState, size: int = 768, zoom: float = 1.0) -> Tensor:
        """Render full frames.

        Args:
            state: the clip.
            size: side of the square frames in pixels.
            zoom: 1 shows the whole portrait, larger values magnify its center.

        Returns:
            (t, 3, size, size) float32 in [0, 1].
        """
        portrait_size = self.frame_size(state)
        step = (portrait_size - 1) / (size - 1) / zoom
        start = (portrait_size - 1) * (1 - 1 / zoom) / 2
        matrix = torch.tensor([[step, 0.0, start], [0.0, step, start]], device=self.device)
        return self._draw([state], matrix.expand(state.num_frames, 2, 3), size)[0]

    def render_aligned(self, state: HeadState, resolution: int, jitter: float = 0.0) -> Tensor:
        """Render the published aligned crop, stretched to a square, directly, without rendering full frames.

        Args:
            state: the clip.
            resolution: side R of the crop.
            jitter: standard deviation in frame pixels of a simulated detector error on each control point, constant
                over the clip; an independent error a fifth as large is added to every frame.

        Returns:
            (t, 3, R, R) float32 in [0, 1].
        """
        return self.render_takes([state], resolution, jitter)[0]

    def render_takes(self, states: Sequence[HeadState], resolution: int, jitter: float = 0.0) -> Tensor:
        """Render several takes of one scene as aligned crops, sharing the textures; see `render_aligned`.

        Args:
            states: takes of the same length, identity, scene and motion that differ only in the mouth.
            resolution: side R of the crops.
            jitter: as for `render_aligned`; all takes get the same error.

        Returns:
            (k, t, 3, R, R) float32 in [0, 1].
        """
        return self._draw(states, self._crop_to_frame(states[0], resolution, jitter), resolution)

    def _crop_to_frame(self, state: HeadState, resolution: int, jitter: float) -> Tensor:
        """(t, 2, 3) affine maps from pixels of the square crop to frame pixels (before mirroring).

        They are independent of the mouth, so that a dub is cropped exactly like its source.
        """
        points = self.control_points(state.with_mouth(np.zeros_like(state.mouth))).double().cpu().numpy()
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

        ``matrices`` (t, 2, 3) map output pixels to frame pixels.
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
        chunks = []
        for start in range(0, len(matrices), chunk):
            part = slice(start, start + chunk)
            lattice = Lattice(matrices[part], size, tensors.portrait.size)
            shifts = torch.einsum("tk,klcyx->tlcyx", coefficients[part], fields.grids)
            frames = composite_layers(tensors.portrait, textures, lattice, shifts, coefficients[part])
            chunks.append(_apply_camera(frames, first.scene))
        return _add_noise(torch.cat(chunks).unflatten(0, (len(states), first.num_frames)), first)


def _apply_camera(frames: Tensor, scene: Scene) -> Tensor:
    """Apply exposure, contrast, color and blur of the camera to (n, 3, h, w), reusing its memory; result in [0, 1]."""
    balance = torch.tensor(scene.white_balance, device=frames.device)[:, None, None] * scene.exposure
    frames.mul_(balance * scene.contrast).add_(0.45 - 0.45 * scene.contrast)
    # A soft shoulder instead of hard clipping preserves the shading of bright skin.
    beyond = (frames - 0.8).clamp_min_(0)
    frames.sub_(beyond).add_(beyond.mul_(5).tanh_(), alpha=0.2)
    if scene.mixing is not None:
        frames = torch.einsum("ij,njhw->nihw", torch.tensor(scene.mixing, device=frames.device), frames)
    frames = frames.clamp_(0, 1)
    if scene.tone:
        frames = torch.addcmul(frames, frames, 1 - frames, value=scene.tone)
    return blur_image(frames, scene.blur)


def _add_noise(frames: Tensor, state: HeadState) -> Tensor:
    """Add camera noise, the same to every take of (k, t, 3, h, w)."""
    if state.scene.noise <= 0:
        return frames
    generator = torch.Generator(device=frames.device).manual_seed(state.scene.seed + state.first_frame)
    noise = torch.randn(frames.shape[1:], generator=generator, device=frames.device)
    return (frames + noise * state.scene.noise).clamp(0, 1)
