"""Photographs in the public domain that scikit-image carries in its wheel, as material for the autoencoder."""

import importlib.util
import logging
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

logger = logging.getLogger(__name__)

_NAMES = (
    *("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "camera.png"),
    *("brick.png", "grass.png", "gravel.png", "coins.png"),
)


def load_photos() -> list[Tensor]:
    """(3, h, w) uint8 photos, both sides at least 200; none, with a warning, without scikit-image."""
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        logger.warning("scikit-image is not installed: the autoencoder is trained on faces alone")
        return []
    folder = Path(package.origin).parent / "data"
    photos = []
    for name in _NAMES:
        if (folder / name).is_file():
            with Image.open(folder / name) as image:
                pixels = np.asarray(image.convert("RGB")).copy()
            if min(pixels.shape[:2]) >= 200:
                photos.append(torch.from_numpy(pixels).movedim(-1, 0).contiguous())
    return photos
