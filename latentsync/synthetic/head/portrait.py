"""Portraits that the renderer animates: image, region masks and mesh points, read from ``assets/portraits``.

Images are square, S x S pixels; points are (x, y) in these pixels, with pixel centers at integers. The image is used
twice: once with the mouth opening inpainted from the upper lip and once from the lower lip, so that the teeth of the
photograph never show when the lips move.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from latentsync.errors import ConfigError, DependencyError, MediaError
from latentsync.runtime.resources import REPOSITORY

DEFAULT_FOLDER = REPOSITORY / "assets" / "portraits"
PORTRAITS: tuple[str, ...] = ("collins", "hopper")

INNER_UPPER = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
INNER_LOWER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
OUTER_UPPER = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291)
OUTER_LOWER = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291)
EYE_UPPER = ((33, 246, 161, 160, 159, 158, 157, 173, 133), (263, 466, 388, 387, 386, 385, 384, 398, 362))
EYE_LOWER = ((33, 7, 163, 144, 145, 153, 154, 155, 133), (263, 249, 390, 373, 374, 380, 381, 382, 362))
FACE_OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149),
    *(150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
LIP_CUT = 1.6
"""How far inside the lips the layers end, in pixels, so that no fringe of the photograph's teeth remains."""

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Portrait:
    """A preprocessed portrait.

    Attributes:
        name: file stem in the portrait folder.
        image: (S, S, 3) float32 in [0, 1], RGB.
        lips, skin, matte, beard: (S, S) float32 masks in [0, 1]; the matte is 1 on the person.
        points: (478, 3) float32 mesh points, x, y and z in pixels; smaller z is nearer to the camera.
        still_clothes: whether collar and shoulders keep still while the jaw moves. In the unblended portraits, which
            the bundled clip uses, they follow the jaw.
    """

    name: str
    image: FloatArray
    lips: FloatArray
    skin: FloatArray
    matte: FloatArray
    beard: FloatArray
    points: FloatArray
    still_clothes: bool = False

    @property
    def size(self) -> int:
        """Side length S in pixels."""
        return self.image.shape[0]

    @cached_property
    def eye_distance(self) -> float:
        """Distance of the outer eye corners in pixels, the unit of the renderer's head shifts."""
        return float(np.linalg.norm(self.points[33, :2] - self.points[263, :2]))

    @cached_property
    def mouth_axis(self) -> tuple[FloatArray, FloatArray]:
        """Unit vectors along (toward the right of the image) and across (down) the mouth, each (2,)."""
        along = self.points[263, :2] - self.points[33, :2]
        along = (along / np.linalg.norm(along)).astype(np.float32)
        return along, np.array([-along[1], along[0]], np.float32)

    @cached_property
    def mouth_width(self) -> float:
        """Width in pixels of the mouth at rest; the smile of the portrait is wider than this."""
        return 0.59 * self.eye_distance

    @cached_property
    def mouth_center(self) -> FloatArray:
        """(2,) the center of the closed lip line in pixels."""
        along, across = self.mouth_axis
        corners = self.points[[78, 308], :2].mean(0)
        upper, lower = self.points[13, :2] @ across, self.points[14, :2] @ across
        return np.asarray(along * (corners @ along) + across * (0.5 * upper + 0.5 * lower), np.float32)

    def lip_line(self, indices: tuple[int, ...], columns: FloatArray, outside: float) -> FloatArray:
        """Height of a lip contour at positions ``columns`` along it, all in mouth widths around ``mouth_center``.

        Beyond the mouth corners the contour continues at the height of the corner plus ``outside``.
        """
        along, across = self.mouth_axis
        local = (self.points[list(indices), :2] - self.mouth_center) / self.mouth_width
        x, y = local @ along, local @ across
        height = np.interp(columns, x, y)
        beyond = np.clip(np.maximum(x[0] - columns, columns - x[-1]) / 0.08, 0, 1)
        return (height + outside * beyond).astype(np.float32)

    def mouth_coordinates_of(self, positions: npt.NDArray[np.floating]) -> tuple[FloatArray, FloatArray]:
        """(..., 2) pixels -> position along and across the mouth, each (...), in mouth widths around its center."""
        local = (positions - self.mouth_center) / self.mouth_width
        along, across = self.mouth_axis
        return (local @ along).astype(np.float32), (local @ across).astype(np.float32)

    def mouth_coordinates(self) -> tuple[FloatArray, FloatArray]:
        """`mouth_coordinates_of` every pixel, each (S, S)."""
        rows, columns = np.mgrid[0 : self.size, 0 : self.size].astype(np.float32)
        return self.mouth_coordinates_of(np.stack([columns, rows], axis=-1))

    @cached_property
    def lip_layers(self) -> tuple[FloatArray, FloatArray]:
        """Opacity of the upper and of the lower layer, each (S, S) in [0, 1]; their edges lie inside the lips."""
        u, v = self.mouth_coordinates()
        pixel = 1 / self.mouth_width
        upper_line = self.lip_line(INNER_UPPER, u, 0.0) - LIP_CUT * pixel
        lower_line = self.lip_line(INNER_LOWER, u, -0.06) + LIP_CUT * pixel
        corners = self.lip_line(INNER_UPPER, np.array([-9.0, 9.0], np.float32), 0.0)
        slant = corners[0] + (corners[1] - corners[0]) * np.clip(u + 0.5, 0, 1)
        upper_line = np.where(np.abs(u) > 0.6, slant, upper_line)
        # Away from the mouth both layers show the same image; a soft edge hides their small differences.
        softness = pixel * (0.8 + 14 * np.clip(np.abs(u) - 0.62, 0, 1))
        upper = 1 / (1 + np.exp(np.clip((v - upper_line) / softness, -40, 40)))
        lower = 1 / (1 + np.exp(np.clip((lower_line - v) / (0.8 * pixel), -40, 40)))
        return upper.astype(np.float32), np.where(np.abs(u) > 0.75, 1.0, lower).astype(np.float32)

    @cached_property
    def eye_opening(self) -> FloatArray:
        """(S, S) in [0, 1]: 1 between the lids."""
        rows, columns = np.mgrid[0 : self.size, 0 : self.size].astype(np.float32)
        result = np.zeros((self.size, self.size), np.float32)
        for upper, lower in zip(EYE_UPPER, EYE_LOWER, strict=True):
            top, bottom = self.points[list(upper), :2], self.points[list(lower), :2]
            top, bottom = top[np.argsort(top[:, 0])], bottom[np.argsort(bottom[:, 0])]
            above = np.interp(columns, top[:, 0], top[:, 1])
            below = np.interp(columns, bottom[:, 0], bottom[:, 1])
            inside = np.clip(rows - above + 0.5, 0, 1) * np.clip(below - rows + 0.5, 0, 1)
            result = np.maximum(result, inside * ((columns > top[0, 0]) & (columns < top[-1, 0])))
        return result

    @cached_property
    def mouth_inpaint_rows(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Source rows that inpaint the mouth opening, from the upper and from the lower lip, each (S, S).

        For every pixel, the row to copy from: its own, or within the opening the row at the edge of the lip.
        """
        u, v = self.mouth_coordinates()
        rows = np.mgrid[0 : self.size, 0 : self.size][0]
        pixel = 1 / self.mouth_width
        above = self.lip_line(INNER_UPPER, u, 0.0) - 3.0 * pixel
        below = self.lip_line(INNER_LOWER, u, 0.0) + 3.0 * pixel
        inside = (v > above) & (v < below) & (np.abs(u) < 0.75)
        up = np.where(inside, rows - np.ceil((v - above) / pixel), rows)
        down = np.where(inside, rows + np.ceil((below - v) / pixel), rows)
        return (
            np.clip(up, 0, self.size - 1).astype(np.int64),
            np.clip(down, 0, self.size - 1).astype(np.int64),
        )


def smoothstep(x: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.float64]:
    """0 below ``low``, 1 above ``high``, with a smooth ramp in between."""
    ramp = np.clip((x - low) / (high - low), 0, 1)
    return np.asarray(ramp * ramp * (3 - 2 * ramp))


def load_portrait(name: str, folder: Path | None = None) -> Portrait:
    """Read one of ``PORTRAITS`` from ``folder`` (``assets/portraits`` of the repository by default).

    Raises:
        ConfigError: there is no such portrait, or files of it are missing.
        DependencyError: Pillow is missing.
        MediaError: the files do not match each other.
    """
    try:
        from PIL import Image  # noqa: PLC0415 - optional, only reading portraits needs it
    except ImportError as error:
        raise DependencyError("Reading portraits needs Pillow. Install it with: pip install pillow") from error
    folder = DEFAULT_FOLDER if folder is None else folder
    paths = [folder / f"{name}.jpg", folder / f"{name}_regions.png", folder / f"{name}.json"]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise ConfigError(
            f"Portrait {name!r} is incomplete: {', '.join(missing)} missing; available are {', '.join(PORTRAITS)}."
        )
    with Image.open(paths[0]) as file:
        image = np.asarray(file.convert("RGB"), np.float32) / 255
    with Image.open(paths[1]) as file:
        skin, lips, matte, beard = _regions(np.asarray(file.convert("RGBA"), np.float32) / 255)
    points = np.array(json.loads(paths[2].read_text())["points"], np.float32)
    if points.shape != (478, 3) or skin.shape != image.shape[:2]:
        raise MediaError(
            f"Portrait {name!r} is damaged: got points {points.shape} and regions {skin.shape} for an image "
            f"{image.shape}; expected points (478, 3) and equal sizes. Run: python -m tools.prepare_portraits"
        )
    return Portrait(name, image, lips, skin, matte, beard, points)


def _regions(rgba: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """(S, S, 4) -> skin, lips, matte, beard."""
    return rgba[..., 1], rgba[..., 2], rgba[..., 0], rgba[..., 3]
