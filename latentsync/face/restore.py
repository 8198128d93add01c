"""Paste generated faces back into the frames: only the face's neighbourhood is computed, the rest is left untouched.

Two ways of blending. ``mask`` (default) blends only the region that the model repainted, with a soft edge inside that
region: the surround keeps the source's own pixels, sharper than any resampled copy, and the hard edge of the mask and
a colour shift of the autoencoder do not show. ``published`` pastes the whole crop as the published system does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from latentsync.errors import ConfigError
from latentsync.face.affine import apply_affine, crop_size, invert_affine, stretch_matrix
from latentsync.face.masks import load_mask
from latentsync.face.morphology import erode, gaussian_blur
from latentsync.face.warp import sampling_points

Blend = Literal["mask", "published"]

_MARGIN = 3  # pixels round the face, so that its mask is zero at the rim of the region
_MIN_SIDE = 64
_PIXELS_AT_ONCE = 2_000_000  # bounds the working memory for 4K pictures to a few hundred megabytes
_FEATHER = 32  # the soft edge is resolution / _FEATHER wide on either side of its middle


@dataclass(frozen=True)
class _Regions:
    """Rectangles of one size, one per frame: `corners` (f, 2) int left and top; all lie inside the picture."""

    corners: npt.NDArray[np.int64]
    width: int
    height: int

    def cut(self, frames: Tensor, index: int) -> Tensor:
        """View (3, h, w) of frame `index`, which must be the frame of row `index` of the corners."""
        left, top = self.corners[index].tolist()
        return frames[index, :, top : top + self.height, left : left + self.width]


def _regions(outlines: npt.NDArray[np.float32], frame_size: tuple[int, int]) -> _Regions:
    """Smallest common-size rectangles round outlines (f, k, 2) inside a picture of (width, height)."""
    limit = np.array(frame_size)
    low = np.clip(np.floor(outlines.min(axis=1)) - _MARGIN, 0, limit - 1)
    high = np.clip(np.ceil(outlines.max(axis=1)) + _MARGIN + 1, low + 1, limit)
    side = np.minimum(np.maximum((high - low).max(axis=0), _MIN_SIDE), limit).astype(np.int64)
    corners = np.minimum(low.astype(np.int64), limit - side)
    return _Regions(corners, int(side[0]), int(side[1]))


def _clip(polygon: list[tuple[float, float]], normal: tuple[float, float], limit: float) -> list[tuple[float, float]]:
    """The part of a convex polygon where normal . point <= limit."""
    kept: list[tuple[float, float]] = []
    for index, point in enumerate(polygon):
        before = polygon[index - 1]
        here = normal[0] * point[0] + normal[1] * point[1] - limit
        there = normal[0] * before[0] + normal[1] * before[1] - limit
        if (here <= 0) != (there <= 0):
            share = there / (there - here)
            kept.append((before[0] + share * (point[0] - before[0]), before[1] + share * (point[1] - before[1])))
        if here <= 0:
            kept.append(point)
    return kept


def _mask_area(matrix: npt.NDArray[np.float32], size: tuple[int, int], frame_size: tuple[int, int]) -> float:
    """Sum of the warped, once eroded mask of ones, from geometry: no picture is made and no device is waited for.

    The 2 x 2 erosion moves every edge inward by how far its normal points up or left.
    """
    width, height = size
    m = matrix.astype(np.float64)
    right, low = frame_size[0] - 0.5, frame_size[1] - 0.5
    polygon = [(-0.5, -0.5), (right, -0.5), (right, low), (-0.5, low)]
    for row, limit in ((m[0], width - 0.5), (m[1], height - 0.5)):
        for normal, bound in ((row[:2], limit - row[2]), (-row[:2], 0.5 + row[2])):
            eroded = bound + min(0.0, normal[0]) + min(0.0, normal[1])
            polygon = _clip(polygon, (float(normal[0]), float(normal[1])), float(eroded))
    area = sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(polygon, polygon[1:] + polygon[:1]))
    return abs(area) / 2


def soft_repaint(mask: Tensor) -> Tensor:
    """(3, R, R) mask, 1 = keep -> (1, R, R) share of the new face: 0 wherever pixels are kept, 1 well inside."""
    radius = max(1, mask.shape[-1] // _FEATHER)
    repaint = F.pad(1 - mask[:1].float(), (1, 1, 1, 1))[None]
    inner = erode((repaint > 0.5).float(), radius, radius)
    return gaussian_blur(inner, radius, radius / 2)[0, :, 1:-1, 1:-1].contiguous()


class FaceRestorer:
    """Pastes faces of one resolution back into frames of any size.

    Args:
        resolution: R, side of the square faces.
        blend: "mask" blends the repainted region only; "published" the whole crop with an eroded, blurred rim.
        mask: (3, R, R) float32, 1 = keep, the mask that the faces were made with; None = the fixed mask "mask".
            Only blend "mask" reads it.
    """

    def __init__(self, resolution: int, blend: Blend = "mask", mask: Tensor | None = None) -> None:
        if blend not in ("mask", "published"):
            raise ConfigError(f"Unknown blend '{blend}': choose 'mask' or 'published'.")
        given = load_mask("mask", resolution) if mask is None else mask
        if given.shape[-2:] != (resolution, resolution):
            raise ConfigError(f"The mask is {tuple(given.shape)}, faces are {resolution} wide: load it at that size.")
        self.resolution = resolution
        self.blend = blend
        self._share = soft_repaint(given)
        self._outline = self._find_outline()

    def _find_outline(self) -> npt.NDArray[np.float32]:
        """(4, 2) corners, in crop pixels, of what a paste can touch."""
        width, height = crop_size(self.resolution)
        x0, y0, x1, y1 = -1.0, -1.0, float(width), float(height)
        if self.blend == "mask":
            rows, columns = torch.nonzero(self._share[0], as_tuple=True)
            if len(rows) == 0:
                raise ConfigError("The mask keeps every pixel, so nothing would be pasted: give another mask.")
            scale_x, scale_y = width / self.resolution, height / self.resolution
            x0, x1 = (int(columns.min()) - 2) * scale_x, (int(columns.max()) + 3) * scale_x
            y0, y1 = (int(rows.min()) - 2) * scale_y, (int(rows.max()) + 3) * scale_y
        return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float32)

    def restore(
        self, frames: Tensor, faces: Tensor, matrices: npt.ArrayLike, weights: npt.ArrayLike, inplace: bool = False
    ) -> Tensor:
        """Frames with the faces pasted in.

        Args:
            frames: (f, 3, H, W) uint8, on the device where the work shall run.
            faces: (f, 3, R, R) float in [-1, 1], same device; blend "published" takes any size and resizes it.
            matrices: (f, 2, 3) image -> crop, an array or CPU tensor (a tensor elsewhere is waited for and copied).
            weights: (f,) in [0, 1], likewise; 0 leaves the frame exactly as it is, whatever its matrix and face.
            inplace: write into `frames` instead of a copy.

        Returns (f, 3, H, W) uint8. Pixels outside the face's region equal the source's bit for bit.
        Raises ConfigError when the lengths or the face size do not fit.
        """
        shares = _on_host(weights)
        places = _on_host(matrices)
        wrong_size = self.blend == "mask" and faces.shape[-1] != self.resolution
        if wrong_size or not len(frames) == len(faces) == len(shares) == len(places):
            raise ConfigError(
                f"Cannot paste faces: got frames {tuple(frames.shape)}, faces {tuple(faces.shape)}, matrices "
                f"{places.shape}, weights {shares.shape}; expected one of each per frame, faces {self.resolution} wide."
            )
        result = frames if inplace else frames.clone()
        for chosen, regions in self._chunks(places, shares, (frames.shape[-1], frames.shape[-2])):
            local = result[chosen[0] : chosen[-1] + 1]
            source = torch.stack([regions.cut(local, index) for index in range(len(chosen))]).float()
            pasted = self._paste(source, faces[chosen[0] : chosen[-1] + 1].float(), places[chosen], regions, local)
            weight = _on_device(shares[chosen], frames.device)[:, None, None, None]
            mixed = torch.where(weight < 1, torch.lerp(source, pasted, weight), pasted)
            # The published system cuts off the fraction; rounding is right where we are free to choose.
            levels = (mixed if self.blend == "published" else mixed.round_()).clamp_(0, 255).to(torch.uint8)
            for index in range(len(chosen)):
                regions.cut(local, index).copy_(levels[index])
        return result

    def _chunks(
        self, matrices: npt.NDArray[np.float32], weights: npt.NDArray[np.float32], frame_size: tuple[int, int]
    ) -> Iterator[tuple[list[int], _Regions]]:
        """Runs of neighbouring frames with a face, short enough for bounded memory, with their regions."""
        run: list[int] = []
        limit = len(weights)
        for index in range(len(weights) + 1):
            if index < len(weights) and weights[index] > 0:
                if not run:
                    one = _regions(apply_affine(invert_affine(matrices[index]), self._outline)[None], frame_size)
                    limit = max(1, _PIXELS_AT_ONCE // (one.width * one.height))
                run.append(index)
            if run and (len(run) >= limit or index == len(weights) or weights[index] <= 0):
                outlines = apply_affine(invert_affine(matrices[run]), self._outline)
                yield run, _regions(outlines, frame_size)
                run = []

    def _paste(
        self, source: Tensor, faces: Tensor, matrices: npt.NDArray[np.float32], regions: _Regions, frames: Tensor
    ) -> Tensor:
        """Regions with the face in them at full weight: (f, 3, h, w) float32 in [0, 255]."""
        if self.blend == "mask":
            return self._paste_mask(source, faces, matrices, regions)
        return self._paste_published(source, faces, matrices, regions, (frames.shape[-1], frames.shape[-2]))

    def _paste_mask(
        self, source: Tensor, faces: Tensor, matrices: npt.NDArray[np.float32], regions: _Regions
    ) -> Tensor:
        width, height = crop_size(self.resolution)
        scale = float(np.sqrt(np.abs(np.linalg.det(matrices[..., :2])).mean()))  # crop pixels per picture pixel
        # A face that is small in the picture is shrunk first (antialiased); one that is large is sampled as it is.
        target_w = min(self.resolution, math.ceil(width / scale))
        target_h = min(self.resolution, math.ceil(height / scale))
        if self._share.device != faces.device:
            self._share = self._share.to(faces.device)
        layers = torch.cat([faces, self._share.expand(len(faces), -1, -1, -1)], 1)
        if (target_h, target_w) != layers.shape[-2:]:
            layers = F.interpolate(layers, (target_h, target_w), mode="bicubic", antialias=True)
        local = stretch_matrix(_shifted(matrices, regions.corners), (width, height), (target_w, target_h))
        grid, _, _ = _grid(_on_device(local, faces.device), regions, (target_h, target_w))
        sampled = F.grid_sample(layers, grid, mode="bicubic", padding_mode="border", align_corners=True)
        share = sampled[:, 3:].clamp(0, 1)
        # Bicubic weights ring around zero: below half a grey level the source's own pixel stays.
        off_crop = rearrange((grid.abs() > 1).any(-1), "f h w -> f 1 h w")
        share = share.masked_fill((share < 1 / 512) | off_crop, 0)
        return torch.lerp(source, _to_levels(sampled[:, :3]), share)

    def _paste_published(
        self,
        source: Tensor,
        faces: Tensor,
        matrices: npt.NDArray[np.float32],
        regions: _Regions,
        frame_size: tuple[int, int],
    ) -> Tensor:
        width, height = crop_size(self.resolution)
        resized = F.interpolate(faces, (height, width), mode="bicubic", antialias=True)
        local = _on_device(_shifted(matrices, regions.corners), faces.device)
        grid, x, y = _grid(local, regions, (height, width))
        # Off the crop the published system has white, but no mask reaches there: the edge pixel will do.
        levels = _to_levels(F.grid_sample(resized, grid, padding_mode="border", align_corners=True))
        ramp_x = torch.minimum(x + 1, width - x).clamp_(0, 1)
        ramp_y = torch.minimum(y + 1, height - y).clamp_(0, 1)
        eroded = erode((ramp_x * ramp_y)[:, None], 1, 0)
        edges = [int(math.sqrt(_mask_area(matrix, (width, height), frame_size))) // 20 for matrix in matrices]
        soft = torch.cat([_soften(eroded[index : index + 1], edge) for index, edge in enumerate(edges)])
        # The blur may reach a pixel past the crop, where the published system darkens the frame a little: not here.
        soft = soft.masked_fill(eroded <= 0, 0)
        return soft * (eroded * levels) + (1 - soft) * source


def _soften(mask: Tensor, edge: int) -> Tensor:
    """(1, 1, h, w) mask -> shrunk by `edge` pixels and blurred over twice that, the published way."""
    if edge == 0:  # an empty kernel acts as 3 x 3 there, and a blur of one tap is none
        return erode(mask, 1, 1)
    return gaussian_blur(erode(mask, edge, edge - 1), edge, 0.3 * (edge - 1) + 0.8)


def _to_levels(pixels: Tensor) -> Tensor:
    """[-1, 1] -> [0, 255], clamped."""
    return (pixels / 2 + 0.5).clamp_(0, 1) * 255


def _on_host(values: npt.ArrayLike) -> npt.NDArray[np.float32]:
    given = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    return np.asarray(given, np.float32)


def _on_device(values: npt.NDArray[np.float32], device: torch.device) -> Tensor:
    """Copied without waiting for the work queued on the device."""
    return torch.from_numpy(values).to(device, non_blocking=True)


def _shifted(matrices: npt.NDArray[np.float32], corners: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Matrices from the picture -> matrices from the region whose left top corner is given."""
    moved = matrices.astype(np.float64)
    moved[..., 2] += np.einsum("fij,fj->fi", moved[..., :2], corners)
    return moved.astype(np.float32)


def _grid(matrices: Tensor, regions: _Regions, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Where the regions look in a picture of (height, width): a grid (f, h, w, 2), corners aligned, and its x, y."""
    x, y = sampling_points(matrices, regions.height, regions.width)
    pair = torch.stack([x * (2 / max(size[1] - 1, 1)) - 1, y * (2 / max(size[0] - 1, 1)) - 1])
    return rearrange(pair, "k f h w -> f h w k"), x, y
