"""Training images: rendered clips of an aligned talking face, and crops of photographs."""

import math
import time
from typing import Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


class ClipSource(Protocol):
    """Renders aligned face crops; every call shows another person, light and motion."""

    resolution: int

    def clips(self, curves: Tensor, generator: torch.Generator) -> Tensor:
        """Render the same scene once per mouth curve.

        Args:
            curves: (k, t, 7) mouth curves at 25 frames a second, on the generator's device.
            generator: of everything that is random.

        Returns:
            (k, t, 3, R, R) in [-1, 1]; the takes differ only in the mouth and what moves with it.
        """
        ...


def augment_colors(clips: Tensor, generator: torch.Generator) -> Tensor:
    """One random color matrix, gamma and mirroring for a whole clip: (k, t, 3, h, w) in [-1, 1], same shape."""
    draw = torch.rand(4, generator=generator, device=generator.device).tolist()
    mixing = torch.eye(3, device=clips.device) + 0.04 * torch.randn(
        (3, 3), generator=generator, device=generator.device
    ).to(clips.device)
    gain, offset, gamma = 0.85 + 0.27 * draw[0], 0.08 * (draw[1] - 0.5), math.exp(0.4 * (draw[2] - 0.5))
    unit = ((clips + 1) / 2).clamp(1e-4, 1).pow(gamma)
    coloured = torch.einsum("ij,ktjhw->ktihw", mixing * gain, unit) + offset
    mirrored = coloured.flip(-1) if draw[3] < 0.5 else coloured
    return mirrored.clamp(0, 1) * 2 - 1


class PhotoCrops:
    """Randomly rotated, scaled and recolored crops of photographs, so that the VAE does not fit faces alone.

    Args:
        photos: (3, h, w) uint8, h and w at least 200.
        resolution: side of a crop.
        device: where crops are made.
    """

    def __init__(self, photos: list[Tensor], resolution: int, device: torch.device) -> None:
        self.photos = [photo.to(device).float() / 127.5 - 1 for photo in photos]
        self.resolution = resolution

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, 3, R, R) in [-1, 1]."""
        crops = []
        for _ in range(count):
            pick, scale, angle, x, y = torch.rand(5, generator=generator, device=generator.device).tolist()
            photo = self.photos[int(pick * len(self.photos))]
            height, width = photo.shape[-2:]
            # Side of the crop in photo pixels: from twofold magnification up to the whole photo.
            side = math.exp(math.log(self.resolution / 2) + scale * math.log(2 * min(height, width) / self.resolution))
            crops.append(_turned_square(photo, side, (angle - 0.5) * 1.2, (x, y), self.resolution))
        return augment_colors(torch.stack(crops)[:, None], generator)[:, 0]


def _turned_square(photo: Tensor, side: float, angle: float, position: tuple[float, float], resolution: int) -> Tensor:
    height, width = photo.shape[-2:]
    free_x, free_y = 1 - min(side / width, 1.0), 1 - min(side / height, 1.0)
    cosine, sine = math.cos(angle), math.sin(angle)
    theta = [
        [side / width * cosine, -side / width * sine, (2 * position[0] - 1) * free_x],
        [side / height * sine, side / height * cosine, (2 * position[1] - 1) * free_y],
    ]
    grid = F.affine_grid(
        torch.tensor([theta], device=photo.device), [1, 3, resolution, resolution], align_corners=False
    )
    return F.grid_sample(photo[None], grid, padding_mode="reflection", align_corners=False)[0]


class ImageBank:
    """A ring buffer of images on the device, filled once and refreshed while in use.

    Args:
        capacity: images kept, 3 R^2 bytes each.
        source: renders faces.
        photos: makes the rest; None = faces only.
        curves: (n, 7) mouth states to render, any order.
        clip_frames: frames rendered at a time.
        photo_fraction: fraction of the images that are crops of photographs.
    """

    def __init__(
        self,
        capacity: int,
        source: ClipSource,
        photos: PhotoCrops | None,
        curves: Tensor,
        clip_frames: int = 16,
        photo_fraction: float = 0.15,
    ) -> None:
        self.source, self.photos, self.curves, self.clip_frames = source, photos, curves, clip_frames
        self.photos_per_clip = round(clip_frames * photo_fraction / (1 - photo_fraction)) if photos else 0
        side = source.resolution
        self.images = torch.zeros((capacity, 3, side, side), dtype=torch.uint8, device=curves.device)
        self.filled = 0
        self._next = 0

    def add(self, generator: torch.Generator) -> None:
        """Render one more clip and crop a few photographs; they replace the oldest images."""
        picks = torch.randint(len(self.curves), (1, self.clip_frames), generator=generator, device=generator.device)
        clips = self.source.clips(self.curves[picks], generator)
        self._put(rearrange(augment_colors(clips, generator), "k t c h w -> (k t) c h w"))
        if self.photos is not None and self.photos_per_clip:
            self._put(self.photos.draw(self.photos_per_clip, generator))

    def fill(self, clips: int, max_seconds: float, generator: torch.Generator) -> None:
        """Add up to so many clips in up to so many seconds, at least one."""
        deadline = time.monotonic() + max_seconds
        for _ in range(clips):
            self.add(generator)
            if time.monotonic() >= deadline:
                return

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, 3, R, R) float32 in [-1, 1], random images of the ring."""
        picks = torch.randint(self.filled, (count,), generator=generator, device=generator.device)
        return self.images[picks].float() / 127.5 - 1

    def _put(self, pixels: Tensor) -> None:
        slots = (self._next + torch.arange(len(pixels), device=pixels.device)) % len(self.images)
        self.images[slots] = ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        self._next = (self._next + len(pixels)) % len(self.images)
        self.filled = min(self.filled + len(pixels), len(self.images))


def sample_mouth_states(curves: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(n, t, 7) curves -> (count, 7) float32 single moments of them."""
    flat = rearrange(curves, "n t p -> (n t) p")
    return flat[torch.randint(len(flat), (count,), generator=generator, device=flat.device)].float()
