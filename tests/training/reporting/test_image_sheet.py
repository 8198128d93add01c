"""Sheets of pictures."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from latentsync.training.reporting.image_sheet import save_sheet


def test_pictures_stand_in_rows_and_columns(tmp_path: Path) -> None:
    rows = [torch.full((3, 3, 4, 6), -1.0), torch.full((3, 3, 4, 6), 1.0)]
    rows[0][2, 0] = 0.0
    save_sheet(tmp_path / "new" / "sheet.png", rows)
    pixels = np.asarray(Image.open(tmp_path / "new" / "sheet.png"))
    expected = np.zeros((8, 18, 3), np.uint8)
    expected[4:] = 255
    expected[:4, 12:, 0] = 128
    assert np.array_equal(pixels, expected)


def test_values_beyond_the_range_are_cut_off(tmp_path: Path) -> None:
    save_sheet(tmp_path / "sheet.png", [torch.tensor([-3.0, 3.0]).view(2, 1, 1, 1).expand(2, 3, 2, 2)])
    assert np.asarray(Image.open(tmp_path / "sheet.png"))[0, :, 0].tolist() == [0, 0, 255, 255]
