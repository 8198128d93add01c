"""Paste generated faces back into their frames, touching only the region around each face.

There are two blend modes. ``mask`` (default) blends only the repainted region, with a soft edge inside it: the
surroundings keep the source pixels, which are sharper than any resampled copy, and neither the hard mask edge nor a
color shift of the autoencoder shows. ``published`` pastes the whole crop as the published system does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from latentsync.errors import ConfigError
from latentsync.face.compositing.masks import load_mask
from latentsync.face.compositing.morphology import blur_masks, erode
from latentsync.face.geometry.affine import apply_affine, crop_size, invert_affine, stretch_matrix
from latentsync.face.geometry.patches import Boxes, IntArray, bounding_boxes, max_batch_pixels
from latentsync.face.geometry.warp import sampling_points
from latentsync.runtime.transfer import to_device

Blend = Literal["mask", "published"]

_MARGIN = 3  # pixels around the face, so that its mask is zero at the border of the region
_MIN_SIDE = 64
_MAX_PADDING_RATIO = 1.5  # regions share a batch while the padded area is at most this multiple of the smallest region
_FEATHER = 32  # the soft edge extends resolution / _FEATHER to either side of its center line


def _clip_polygon(
    polygon: list[tuple[float, float]], normal: tuple[float, float], limit: float
) -> list[tuple[float, float]]:
    """Clip a convex polygon to the half-plane normal . point <= limit."""
    kept: list[tuple[float, float]] = []
    for index, point in enumerate(polygon):
        before = polygon[index - 1]
        here = normal[0] * point[0] + normal[1] * point[1] - limit
        there = normal[0] * before[0] + normal[1] * before[1] - limit
        if (here <= 0) != (there <= 0):
            alpha = there / (there - here)
            kept.append((before[0] + alpha * (point[0] - before[0]), before[1] + alpha * (point[1] - before[1])))
        if here <= 0:
            kept.append(point)
    return kept


def _mask_area(matrix: npt.NDArray[np.float32], size: tuple[int, int], frame_size: tuple[int, int]) -> float:
    """Area of an all-ones mask after warping and one 2 x 2 erosion, computed from geometry without a device sync.

    The 2 x 2 erosion moves every edge inward by the extent to which its normal points up or left.
    """
    width, height = size
    m = matrix.astype(np.float64)
    right, low = frame_size[0] - 0.5, frame_size[1] - 0.5
    polygon = [(-0.5, -0.5), (right, -0.5), (right, low), (-0.5, low)]
    for row, limit in ((m[0], width - 0.5), (m[1], height - 0.5)):
        for normal, bound in ((row[:2], limit - row[2]), (-row[:2], 0.5 + row[2])):
            eroded = bound + min(0.0, normal[0]) + min(0.0, normal[1])
            polygon = _clip_polygon(polygon, (float(normal[0]), float(normal[1])), float(eroded))
    area = sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(polygon, polygon[1:] + polygon[:1]))
    return abs(area) / 2


def feathered_mask(mask: Tensor) -> Tensor:
    """(3, R, R) mask, 1 = keep -> (1, R, R) alpha of the generated face: 0 on kept pixels, 1 well inside."""
    radius = max(1, mask.shape[-1] // _FEATHER)
    repaint = F.pad(1 - mask[:1].float(), (1, 1, 1, 1))[None]
    inner = erode((repaint > 0.5).float(), radius, radius)
    return blur_masks(inner, radius, radius / 2)[0, :, 1:-1, 1:-1].contiguous()


class FaceRestorer:
    """Pastes faces of one resolution back into frames of any size.

    Args:
        resolution: R, side of the square faces.
        blend: "mask" blends the repainted region only; "published" the whole crop with an eroded, blurred border.
        mask: (3, R, R) float32, 1 = keep, the mask that the faces were generated with; None = the fixed mask "mask".
            Used by blend "mask" only.

    Raises ConfigError for an unknown blend, or a mask of another size or without a repainted region.
    """

    def __init__(self, resolution: int, blend: Blend = "mask", mask: Tensor | None = None) -> None:
        if blend not in ("mask", "published"):
            raise ConfigError(f"Unknown blend '{blend}': choose 'mask' or 'published'.")
        mask = load_mask("mask", resolution) if mask is None else mask
        if mask.shape[-2:] != (resolution, resolution):
            raise ConfigError(
                f"The mask is {tuple(mask.shape)}, but faces are {resolution} pixels wide: load it at that size."
            )
        self.resolution = resolution
        self.blend = blend
        self._alpha = feathered_mask(mask)
        self._outline = self._find_outline()

    def _find_outline(self) -> npt.NDArray[np.float32]:
        """(4, 2) corners, in crop pixels, of the area that a paste can change."""
        width, height = crop_size(self.resolution)
        x0, y0, x1, y1 = -1.0, -1.0, float(width), float(height)
        if self.blend == "mask":
            rows, columns = torch.nonzero(self._alpha[0], as_tuple=True)
            if len(rows) == 0:
                raise ConfigError("The mask keeps every pixel, so nothing would be pasted: use another mask.")
            scale_x, scale_y = width / self.resolution, height / self.resolution
            x0, x1 = (int(columns.min()) - 2) * scale_x, (int(columns.max()) + 3) * scale_x
            y0, y1 = (int(rows.min()) - 2) * scale_y, (int(rows.max()) + 3) * scale_y
        return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float32)

    def restore(
        self, frames: Tensor, faces: Tensor, matrices: npt.ArrayLike, weights: npt.ArrayLike, inplace: bool = False
    ) -> Tensor:
        """Paste the faces into the frames.

        Args:
            frames: (f, 3, H, W) uint8, on the device that does the work.
            faces: (f, 3, R, R) float in [-1, 1], same device; blend "published" accepts any size and resizes it.
            matrices: (f, 2, 3) image -> crop, an array or CPU tensor (a device tensor costs a synchronizing copy).
            weights: (f,) in [0, 1], likewise; 0 leaves the frame unchanged, whatever its matrix and face.
            inplace: write into `frames` instead of a copy.

        Returns (f, 3, H, W) uint8. Pixels outside the face region equal the source bit for bit.
        Raises ConfigError when the lengths or the face size do not match.
        """
        alphas = _to_host(weights)
        host_matrices = _to_host(matrices)
        if not len(frames) == len(faces) == len(alphas) == len(host_matrices):
            raise ConfigError(
                f"Cannot paste faces: got frames {tuple(frames.shape)}, faces {tuple(faces.shape)}, matrices "
                f"{host_matrices.shape}, weights {alphas.shape}; expected one of each per frame."
            )
        result = frames if inplace else frames.clone()
        active = [index for index, alpha in enumerate(alphas) if alpha > 0]
        if active:
            regions = self.regions(host_matrices[active], (frames.shape[-1], frames.shape[-2]))
            sources = [result[(frame, slice(None), *regions.slices(index))] for index, frame in enumerate(active)]
            active_faces = torch.stack([faces[index] for index in active])
            for source, pasted in zip(
                sources, self.paste(sources, active_faces, host_matrices[active], alphas[active], regions)
            ):
                source.copy_(pasted)
        return result

    def regions(self, matrices: npt.NDArray[np.float32], frame_size: tuple[int, int]) -> Boxes:
        """The region of each (width, height) frame that a paste with matrices (f, 2, 3) image -> crop can change."""
        outlines = apply_affine(invert_affine(matrices), self._outline)
        return bounding_boxes(outlines, frame_size, _MARGIN, _MIN_SIDE)

    def paste(
        self,
        sources: Sequence[Tensor],
        faces: Tensor,
        matrices: npt.NDArray[np.float32],
        weights: npt.NDArray[np.float32],
        regions: Boxes,
    ) -> list[Tensor]:
        """Paste faces into frame regions, without a device sync; the result does not depend on the batching.

        Args:
            sources: the region of each frame, (3, h, w) uint8, on the device that does the work.
            faces: (f, 3, R, R) float in [-1, 1], same device; blend "published" accepts any size and resizes it.
            matrices: (f, 2, 3) image -> crop, on the host.
            weights: (f,) in (0, 1], on the host.
            regions: the result of `regions` for these matrices.

        Returns the composited regions, (3, h, w) uint8 each.
        Raises ConfigError when the face size does not match.
        """
        if self.blend == "mask" and faces.shape[-1] != self.resolution:
            raise ConfigError(
                f"Cannot paste faces {tuple(faces.shape)}: they must be {self.resolution} wide, like the mask."
            )
        targets = self._face_sizes(matrices)
        result: list[Tensor] = []
        for run in _group_regions(regions, targets, max_batch_pixels(faces.device)):
            source = _stack_padded(sources[run], regions[run])
            pasted = self._pasted(source, faces[run].float(), matrices[run], regions[run], targets[run.start])
            weight = to_device(weights[run], source.device)[:, None, None, None]
            mixed = torch.where(weight < 1, torch.lerp(source, pasted, weight), pasted)
            # The published system truncates; the mask blend is free to round, which is more accurate.
            levels = (mixed if self.blend == "published" else mixed.round_()).clamp_(0, 255).to(torch.uint8)
            sizes = regions.sizes[run].tolist()
            result.extend(image[:, :height, :width] for image, (width, height) in zip(levels, sizes))
        return result

    def _face_sizes(self, matrices: npt.NDArray[np.float32]) -> IntArray:
        """(f, 2) width and height to which each face is downscaled (antialiased) before it is sampled.

        A face that is smaller in the frame than R is downscaled to its size there; a larger one is sampled directly.
        """
        if self.blend == "published":
            return np.tile(np.array([crop_size(self.resolution)], np.int64), (len(matrices), 1))
        scale = np.sqrt(np.abs(np.linalg.det(matrices[..., :2]))).astype(np.float64)  # crop pixels per frame pixel
        sizes = np.ceil(np.array(crop_size(self.resolution)) / scale[:, None])
        return np.minimum(sizes, self.resolution).astype(np.int64)

    def _pasted(
        self,
        source: Tensor,
        faces: Tensor,
        matrices: npt.NDArray[np.float32],
        regions: Boxes,
        target: IntArray,
    ) -> Tensor:
        """Regions with the faces pasted at full weight: (f, 3, h, w) float32 in [0, 255]."""
        if self.blend == "mask":
            return self._paste_mask(source, faces, matrices, regions, target)
        return self._paste_published(source, faces, matrices, regions)

    def _paste_mask(
        self,
        source: Tensor,
        faces: Tensor,
        matrices: npt.NDArray[np.float32],
        regions: Boxes,
        target: IntArray,
    ) -> Tensor:
        target_w, target_h = target.tolist()
        if self._alpha.device != faces.device:
            self._alpha = to_device(self._alpha, faces.device)
        layers = torch.cat([faces, self._alpha.expand(len(faces), -1, -1, -1)], 1)
        if (target_h, target_w) != layers.shape[-2:]:
            layers = F.interpolate(layers, (target_h, target_w), mode="bicubic", antialias=True)
        shifted = _to_region_coords(matrices, regions.corners)
        local = to_device(stretch_matrix(shifted, crop_size(self.resolution), (target_w, target_h)), faces.device)
        grid, _, _ = _grid(local, source, (target_h, target_w))
        sampled = F.grid_sample(layers, grid, mode="bicubic", padding_mode="border", align_corners=True)
        alpha = sampled[:, 3:].clamp(0, 1)
        # Bicubic resampling rings around zero: below half a gray level keep the source pixel.
        off_crop = rearrange((grid.abs() > 1).any(-1), "f h w -> f 1 h w")
        alpha = alpha.masked_fill((alpha < 1 / 512) | off_crop, 0)
        return torch.lerp(source, _to_levels(sampled[:, :3]), alpha)

    def _paste_published(
        self, source: Tensor, faces: Tensor, matrices: npt.NDArray[np.float32], regions: Boxes
    ) -> Tensor:
        width, height = crop_size(self.resolution)
        resized = F.interpolate(faces, (height, width), mode="bicubic", antialias=True)
        local = to_device(_to_region_coords(matrices, regions.corners), faces.device)
        grid, x, y = _grid(local, source, (height, width))
        # The published system has white outside the crop, but its mask is zero there, so border padding is equivalent.
        levels = _to_levels(F.grid_sample(resized, grid, padding_mode="border", align_corners=True))
        ramp_x = torch.minimum(x + 1, width - x).clamp_(0, 1)
        ramp_y = torch.minimum(y + 1, height - y).clamp_(0, 1)
        eroded = erode((ramp_x * ramp_y)[:, None], 1, 0)
        soft = torch.zeros_like(eroded)
        for index, (matrix, (region_w, region_h)) in enumerate(zip(matrices, regions.sizes.tolist())):
            edge = int(math.sqrt(_mask_area(matrix, (width, height), regions.frame_size))) // 20
            unpadded = (slice(index, index + 1), slice(None), slice(region_h), slice(region_w))
            soft[unpadded] = _soften(eroded[unpadded], edge)
        # The blur may reach a pixel past the crop, where the published system slightly darkens the frame. Avoid that.
        soft = soft.masked_fill(eroded <= 0, 0)
        return soft * (eroded * levels) + (1 - soft) * source


def _soften(mask: Tensor, edge: int) -> Tensor:
    """Erode a (1, 1, h, w) mask by `edge` pixels and blur it over twice that width, as the published system does."""
    if edge == 0:  # OpenCV treats an empty kernel as 3 x 3, and a one-tap blur is the identity
        return erode(mask, 1, 1)
    return blur_masks(erode(mask, edge, edge - 1), edge, 0.3 * (edge - 1) + 0.8)


def _to_levels(pixels: Tensor) -> Tensor:
    """[-1, 1] -> [0, 255], clamped."""
    return (pixels / 2 + 0.5).clamp_(0, 1) * 255


def _to_host(values: npt.ArrayLike) -> npt.NDArray[np.float32]:
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    return np.asarray(array, np.float32)


def _to_region_coords(matrices: npt.NDArray[np.float32], corners: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Frame -> crop matrices become region -> crop matrices; corners: (f, 2) left and top of the regions."""
    shifted = matrices.astype(np.float64)
    shifted[..., 2] += np.einsum("fij,fj->fi", shifted[..., :2], corners)
    return shifted.astype(np.float32)


def _stack_padded(sources: Sequence[Tensor], regions: Boxes) -> Tensor:
    """Stack regions (3, h, w) uint8 into (f, 3, H, W) float32, padded at the right and bottom to the largest one."""
    width, height = regions.sizes.max(axis=0).tolist()
    batch = torch.zeros(len(sources), 3, height, width, device=sources[0].device)
    for slot, source in zip(batch, sources, strict=True):
        slot[:, : source.shape[-2], : source.shape[-1]] = source
    return batch


def _group_regions(regions: Boxes, targets: IntArray, limit: int) -> Iterator[slice]:
    """Group consecutive frames to compute together: up to `limit` pixels, similar region sizes, equal face sizes.

    Each frame keeps its own region and face size, so its pixels do not depend on the grouping.
    """
    start, padded_size, min_area = 0, regions.sizes[0], regions.sizes[0].prod()
    for index in range(1, len(regions)):
        size = regions.sizes[index]
        new_size, new_min = np.maximum(padded_size, size), min(min_area, size.prod())
        area = new_size.prod()
        fits = area * (index + 1 - start) <= limit and area <= _MAX_PADDING_RATIO * new_min
        if fits and (targets[index] == targets[start]).all():
            padded_size, min_area = new_size, new_min
        else:
            yield slice(start, index)
            start, padded_size, min_area = index, size, size.prod()
    yield slice(start, len(regions))


def _grid(matrices: Tensor, source: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Sampling grid of regions (f, 3, h, w) in a face of `size` (height, width): (f, h, w, 2) for grid_sample, x and y.

    The grid is normalized for ``align_corners=True``; x and y (f, h, w) are the same positions in pixels.
    """
    x, y = sampling_points(matrices, source.shape[-2], source.shape[-1])
    normalized = torch.stack([x * (2 / max(size[1] - 1, 1)) - 1, y * (2 / max(size[0] - 1, 1)) - 1])
    return rearrange(normalized, "k f h w -> f h w k"), x, y
