"""Backward warping on a coarse lattice: invert displacement fields, and restrict work to boxes of the output.

Sampling positions are normalized as `torch.nn.functional.grid_sample` expects them with aligned corners: -1 and 1 are
the centers of the portrait's first and last pixel. A lattice node lies on every fourth output pixel.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import Tensor

LATTICE_STEP = 4


@dataclass(frozen=True)
class LatticeBox:
    """A rectangle of output pixels between lattice nodes: rows ``top`` to ``bottom``, columns ``left`` to ``right``.

    Nodes are inclusive; ``size`` is the side of the output, where the last nodes may lie beyond it.
    """

    top: int
    bottom: int
    left: int
    right: int
    size: int

    @property
    def rows(self) -> slice:
        """Pixel rows."""
        return slice(self.top * LATTICE_STEP, min(self.bottom * LATTICE_STEP + 1, self.size))

    @property
    def columns(self) -> slice:
        """Pixel columns."""
        return slice(self.left * LATTICE_STEP, min(self.right * LATTICE_STEP + 1, self.size))

    def intersect(self, other: "LatticeBox") -> "LatticeBox | None":
        """Intersection with ``other``; None if it is empty."""
        top, bottom = max(self.top, other.top), min(self.bottom, other.bottom)
        left, right = max(self.left, other.left), min(self.right, other.right)
        return LatticeBox(top, bottom, left, right, self.size) if top < bottom and left < right else None

    def slices_within(self, other: "LatticeBox") -> tuple[slice, slice]:
        """Rows and columns of this box relative to the corner of ``other``, which contains it."""
        down, right = other.rows.start, other.columns.start
        return (
            slice(self.rows.start - down, self.rows.stop - down),
            slice(self.columns.start - right, self.columns.stop - right),
        )


class Lattice:
    """The nodes of square output images.

    Args:
        matrices: (t, 2, 3) affine maps from output pixels to frame pixels.
        size: side of the output in pixels.
        portrait_size: side of the portrait, which is also the side of the frame.
    """

    def __init__(self, matrices: Tensor, size: int, portrait_size: int) -> None:
        self.size = size
        self.count = -(-(size - 1) // LATTICE_STEP) + 1
        ticks = LATTICE_STEP * torch.arange(self.count, device=matrices.device, dtype=matrices.dtype)
        rows, columns = torch.meshgrid(ticks, ticks, indexing="ij")
        nodes = torch.stack([columns, rows, torch.ones_like(rows)], dim=-1)
        self._unit = 2 / (portrait_size - 1)
        self.frame = torch.einsum("tij,hwj->thwi", matrices, nodes) * self._unit - 1

    @property
    def full_box(self) -> LatticeBox:
        """The box of the whole output."""
        return LatticeBox(0, self.count - 1, 0, self.count - 1, self.size)

    def rows(self, top: int, bottom: int) -> LatticeBox:
        """All columns between two rows of nodes."""
        return LatticeBox(top, bottom, 0, self.count - 1, self.size)

    def invert(self, shifts: Tensor, iterations: int) -> Tensor:
        """Find the source position that the displacement moves onto every node.

        Args:
            shifts: (t, 2, G, G) displacement fields over the portrait, in pixels.
            iterations: number of fixed-point iterations.

        Returns:
            (t, n, n, 2) sampling positions in the portrait.
        """
        shifts = shifts * self._unit
        source = self.frame
        for _ in range(iterations):
            moved = F.grid_sample(shifts, source, align_corners=True, padding_mode="border").permute(0, 2, 3, 1)
            # Damping: where a lid or lip collapses the skin, the plain iteration would oscillate.
            source = torch.lerp(source, self.frame - moved, 0.8)
        return source

    def bounding_box(self, rows: npt.NDArray[np.bool_], columns: npt.NDArray[np.bool_]) -> LatticeBox | None:
        """Bounding box of the marked rows and columns (n,) of nodes plus a margin of one; None if none is marked."""
        row_indices, column_indices = np.flatnonzero(rows), np.flatnonzero(columns)
        if not len(row_indices):
            return None
        last = self.count - 1
        starts = [max(0, int(indices[0]) - 1) for indices in (row_indices, column_indices)]
        ends = [min(last, int(indices[-1]) + 1) for indices in (row_indices, column_indices)]
        return LatticeBox(starts[0], ends[0], starts[1], ends[1], self.size)

    def pixels(self, positions: Tensor, box: LatticeBox) -> Tensor:
        """Interpolate sampling positions (t, n, n, 2) of the nodes to the pixels of ``box``: (t, h, w, 2)."""
        part = positions[:, box.top : box.bottom + 1, box.left : box.right + 1].permute(0, 3, 1, 2)
        size = tuple((nodes - 1) * LATTICE_STEP + 1 for nodes in part.shape[2:])
        full = F.interpolate(part, size=size, mode="bilinear", align_corners=True)
        height, width = box.rows.stop - box.rows.start, box.columns.stop - box.columns.start
        return full[:, :, :height, :width].permute(0, 2, 3, 1)


def sample_image(image: Tensor, positions: Tensor) -> Tensor:
    """Bilinear sampling of one image (c, S, S) at positions (t, h, w, 2) of all frames: (t, c, h, w)."""
    return F.grid_sample(
        image.expand(len(positions), *image.shape), positions, align_corners=True, padding_mode="border"
    )
