"""Contact sheets of sample images."""

from collections.abc import Sequence
from pathlib import Path

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor


def save_sheet(path: Path, rows: Sequence[Tensor]) -> None:
    """Write images as one sheet, PNG or JPEG by the path's suffix.

    Args:
        path: the folder is made if missing.
        rows: one tensor (n, 3, h, w) per row of the sheet, in [-1, 1]; all of one size and count.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet = torch.cat([rearrange(row.float().cpu(), "n c h w -> h (n w) c") for row in rows])
    pixels = ((sheet + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    Image.fromarray(pixels.numpy()).save(path)
