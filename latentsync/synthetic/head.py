"""The renderer of the synthetic talking head: batched over frames, on any device, without a loop over frames.

A clip is a ``HeadState`` of plain numbers. Each frame's displacement field is a sum of the portrait's modes
(``fields.py``); the renderer inverts it on a coarse lattice by fixed-point iteration and samples the layers through it.
Coordinates are (x, y) in frame pixels, pixel centres at whole numbers, for a frame as large as the portrait (768).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import Tensor

from latentsync.errors import ConfigError
from latentsync.face.affine import crop_size, face_template, fit_affine
from latentsync.face.mediapipe_detector import LEFT_BROW, NOSE, RIGHT_BROW
from latentsync.synthetic.blend import load_face
from latentsync.synthetic.fields import (
    FACE_MODES,
    LOWER,
    MODES,
    OPEN_SHIFT,
    STILL,
    UPPER,
    Fields,
    build_fields,
)
from latentsync.synthetic.identity import MOTION_COLUMNS, Identity, Scene
from latentsync.synthetic.interior import InteriorLook, mouth_interior
from latentsync.synthetic.texture import (
    PortraitTensors,
    background_texture,
    face_texture,
    gaussian_blur,
    paint_mouth_out,
    portrait_tensors,
)
from latentsync.synthetic.visemes import MOUTH_PARAMETERS

FloatArray = npt.NDArray[np.float32]

CONTROL_MESH: tuple[tuple[int, ...], ...] = (LEFT_BROW, RIGHT_BROW, NOSE)
"""Mesh points whose means are the control points: those that the detector uses."""

_ITERATIONS = 8
_LATTICE_STEP = 4  # output pixels between places where the field is inverted
_MAX_PIXELS = 6_000_000  # of one chunk of frames, to bound memory


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
        return self._draw(state, matrix.expand(state.num_frames, 2, 3), size)

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
        return self._draw(state, self._crop_to_frame(state, resolution, jitter), resolution)

    def render_takes(self, states: Sequence[HeadState], resolution: int, jitter: float = 0.0) -> Tensor:
        """Draw takes of one scene into the aligned crop; see `render_aligned`.

        Args:
            states: of one length, identity, scene and motion; they differ in the mouth.
            resolution: side length R.
            jitter: as for `render_aligned`; all takes have the same error.

        Returns:
            (k, t, 3, R, R) float32 in [0, 1].
        """
        return torch.stack([self.render_aligned(state, resolution, jitter) for state in states])

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

    def _draw(self, state: HeadState, matrices: Tensor, size: int) -> Tensor:
        """Frames (t, 3, size, size) in [0, 1]; ``matrices`` (t, 2, 3) lead from output to frame pixels."""
        tensors, fields = self._portrait(state.identity.portrait)
        if state.identity.mirrored:
            flip = torch.tensor([[-1.0, 0.0], [0.0, 1.0]], device=self.device)
            matrices = flip @ matrices
            matrices = matrices + torch.tensor([[0, 0, tensors.portrait.size - 1.0], [0, 0, 0]], device=self.device)
        texture = face_texture(tensors, state.identity, state.scene)
        background = background_texture(tensors, state.scene)
        coefficients = torch.from_numpy(state.coefficients()).to(self.device)
        chunk = (
            max(1, _MAX_PIXELS // (size * size)) if self.device.type == "cpu" else max(1, 8 * _MAX_PIXELS // size**2)
        )
        pieces = []
        for start in range(0, state.num_frames, chunk):
            part = slice(start, start + chunk)
            places = _Places(matrices[part], size, tensors.portrait.size)
            layers = places.invert(torch.einsum("tk,klcyx->tlcyx", coefficients[part], fields.grids))
            pieces.append(self._compose(state, tensors, (texture, background), (places, layers, coefficients[part])))
        return self._develop(torch.cat(pieces), state)

    def _compose(
        self,
        state: HeadState,
        tensors: PortraitTensors,
        pictures: tuple[Tensor, Tensor],
        where: tuple["_Places", Tensor, Tensor],
    ) -> Tensor:
        """Put background, mouth, lower and upper layer on top of each other: (t, 3, size, size)."""
        texture, background = pictures
        places, layers, coefficients = where
        size = tensors.portrait.size
        above, below = paint_mouth_out(tensors, texture)
        matte = tensors.regions["matte"][None]
        opaque_above, opaque_below, eyes = tensors.layers.split(1)
        upper = _sample(torch.cat([above, matte, opaque_above, eyes]), layers[:, UPPER], size)
        lower = _sample(torch.cat([below, matte, opaque_below]), layers[:, LOWER], size)
        eye_colour = _sample(texture, layers[:, STILL], size)
        skull = layers[:, STILL]
        centre = torch.from_numpy(tensors.portrait.mouth_centre).to(self.device)
        axes = torch.from_numpy(np.stack(tensors.portrait.mouth_axis)).to(self.device) / tensors.portrait.mouth_width
        local = torch.einsum("ac,thwc->athw", axes, skull - centre)
        jaw = coefficients[:, FACE_MODES.index("open")] * OPEN_SHIFT
        skin_mask = tensors.regions["skin"]
        brightness = (1.7 * (texture.mean(0) * skin_mask).sum() / skin_mask.sum()).clamp(0.5, 1.1)
        look = InteriorLook(state.identity.teeth, state.identity.teeth_size, brightness)
        tongue = coefficients[:, FACE_MODES.index("tongue")]
        rounding = coefficients[:, FACE_MODES.index("rounding")]
        inside = mouth_interior((local[0], local[1]), jaw, tongue, rounding, look)
        # Lips that touch leave no slit, however roughly the two layers meet.
        shut = (1 - coefficients[:, FACE_MODES.index("open")] / 0.04).clamp(0, 1)[:, None, None, None]
        mouth = inside + (lower[:, :3] - inside) * torch.maximum(lower[:, 4:5], shut)
        skin = upper[:, :3] + (eye_colour - upper[:, :3]) * upper[:, 5:6]
        cover = upper[:, 4:5]
        face = mouth + (skin - mouth) * cover
        opacity = lower[:, 3:4] + (upper[:, 3:4] - lower[:, 3:4]) * cover
        behind = _sample(background, places.frame, size)
        return behind + (face - behind) * opacity

    def _develop(self, frames: Tensor, state: HeadState) -> Tensor:
        """Exposure, contrast, white balance, blur and noise of the camera."""
        scene = state.scene
        balance = torch.tensor(scene.white_balance, device=frames.device)[:, None, None] * scene.exposure
        frames = (frames * balance - 0.45) * scene.contrast + 0.45
        # A shoulder instead of a hard clip: bright skin keeps its shape.
        frames = torch.where(frames > 0.8, 0.8 + 0.2 * torch.tanh((frames - 0.8) / 0.2), frames).clamp(0, 1)
        frames = gaussian_blur(frames, scene.blur)
        if scene.noise > 0:
            generator = torch.Generator(device=frames.device).manual_seed(scene.seed + state.first_frame)
            noise = torch.randn(frames.shape, generator=generator, device=frames.device)
            frames = (frames + noise * scene.noise).clamp(0, 1)
        return frames


class _Places:
    """Where the pixels of square output pictures lie in the frame, and through displacement fields in the portrait."""

    def __init__(self, matrices: Tensor, size: int, portrait_size: int) -> None:
        self.size, self.portrait_size = size, portrait_size
        count = -(-size // _LATTICE_STEP) + 1
        self.lattice = self._grid(matrices, torch.linspace(0, size - 1, count, device=matrices.device))
        self.frame = self._grid(matrices, torch.arange(size, device=matrices.device, dtype=matrices.dtype))

    @staticmethod
    def _grid(matrices: Tensor, ticks: Tensor) -> Tensor:
        rows, columns = torch.meshgrid(ticks, ticks, indexing="ij")
        here = torch.stack([columns, rows, torch.ones_like(rows)], dim=-1)
        return torch.einsum("tij,hwj->thwi", matrices, here)

    def invert(self, shifts: Tensor) -> Tensor:
        """(t, 3, 2, G, G) fields -> portrait pixel that comes to lie under each output pixel: (t, 3, h, w, 2)."""
        frames, layers = shifts.shape[:2]
        flat = shifts.flatten(0, 1)
        target = self.lattice[:, None].expand(-1, layers, -1, -1, -1).flatten(0, 1)
        source = target
        for _ in range(_ITERATIONS):
            moved = F.grid_sample(flat, self._normalised(source), align_corners=True, padding_mode="border")
            # Damped: where a lid or lip squeezes skin to nothing the plain iteration would swing to and fro.
            source = source + 0.8 * (target - moved.permute(0, 2, 3, 1) - source)
        full = F.interpolate(source.permute(0, 3, 1, 2), size=(self.size,) * 2, mode="bilinear", align_corners=True)
        return full.permute(0, 2, 3, 1).unflatten(0, (frames, layers))

    def _normalised(self, pixels: Tensor) -> Tensor:
        return pixels * (2 / (self.portrait_size - 1)) - 1


def _sample(picture: Tensor, pixels: Tensor, size: int) -> Tensor:
    """Bilinear look-up of one picture (c, S, S) at (t, h, w, 2) pixels for all frames at once: (t, c, h, w)."""
    frames, height, width, _ = pixels.shape
    grid = (pixels * (2 / (size - 1)) - 1).reshape(1, frames * height, width, 2)
    taken = F.grid_sample(picture[None], grid, align_corners=True, padding_mode="border")
    return taken.reshape(picture.shape[0], frames, height, width).transpose(0, 1)
