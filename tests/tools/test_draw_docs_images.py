"""The images of the documentation: drawn from the real code, reproducible, and legible."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentsync.errors import ConfigError
from latentsync.media.video_writer import VideoWriter
from tests.integration.sandbox import REPOSITORY
from tools.docs_images.architecture import read_imports, read_layers, without_shortcuts
from tools.docs_images.canvas import Box, Canvas
from tools.docs_images.speed import read_call_times, read_speeds
from tools.docs_images.walkthrough import Walkthrough, draw_animation, draw_walkthrough
from tools.draw_docs_images import DIAGRAMS, main

IMAGES = REPOSITORY / "docs" / "images"
SPEED_PAGE = """
| way | steps | network calls per window | compared with | PSNR | SSIM | `sync_conf` |
| --- | --- | --- | --- | --- | --- | --- |
| exact | 4 | 4 full | - | - | - | 0.8 |

| way | steps | network calls per window | compared with | PSNR | SSIM | `sync_conf` |
| --- | --- | --- | --- | --- | --- | --- |
| exact | 20 | 20 full guided | - | - | - | 0.83 |
| quick | 6 | 2 full guided, 1 full, 3 shallow | exact | 41.7 dB | 0.98 | 0.82 |
"""


def test_an_import_that_a_chain_implies_is_left_out():
    edges = {"cli": {"build", "models", "errors"}, "build": {"models", "config"}, "models": {"errors"}, "errors": set()}
    assert without_shortcuts(edges) == {"cli": {"build"}, "build": {"models"}, "models": set()}


def test_every_package_has_a_layer():
    layers = read_layers(REPOSITORY / "pyproject.toml")
    assert read_imports().keys() <= {name for layer in layers for name in layer}


def test_the_committed_map_shows_every_package():
    drawn = (IMAGES / "architecture.svg").read_text(encoding="utf-8")
    missing = [name for name in read_imports() if f"<!-- {name} -->" not in drawn]
    assert not missing, "draw the map anew: .venv/bin/python -m tools.draw_docs_images architecture"


def test_without_layers_there_is_no_map(tmp_path: Path):
    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text("[tool.ruff]\n")
    with pytest.raises(ConfigError, match="no .tool.importlinter."):
        read_layers(pyproject)
    pyproject.write_text('[tool.importlinter]\nroot_package = "latentsync"\n')
    with pytest.raises(ConfigError, match="no import contract"):
        read_layers(pyproject)


def test_diagrams_are_reproducible(tmp_path: Path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["--out", str(first)]) == main(["--out", str(second)]) == 0
    drawn = sorted(path.name for path in first.iterdir())
    assert len(drawn) == len(DIAGRAMS)
    for name in drawn:
        assert (first / name).read_bytes() == (second / name).read_bytes()
        assert (IMAGES / name).exists()


def test_text_that_leaves_its_box_is_refused(tmp_path: Path):
    canvas = Canvas(200, 100)
    canvas.box(Box(10, 10, 60, 40), "a title that is far too long")
    with pytest.raises(ConfigError, match="leaves its box"):
        canvas.save(tmp_path / "card.svg")


def test_speeds_are_those_of_the_page(tmp_path: Path):
    page = tmp_path / "speed.md"
    page.write_text(SPEED_PAGE)
    exact, quick = read_speeds(page)
    times = {("full", True): 70.0, ("full", False): 40.0, ("shallow", True): 8.0, ("shallow", False): 4.0}
    assert (exact.name, exact.psnr, exact.sync_conf, exact.milliseconds(times)) == ("exact", None, 0.83, 1400)
    assert (quick.psnr, quick.milliseconds(times)) == (41.7, 2 * 70 + 40 + 3 * 4)
    with pytest.raises(ConfigError, match="0 kinds of U-Net calls"):
        read_call_times(page)


def test_an_unknown_image_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["portrait", "--out", str(tmp_path)]) == 1
    assert "no image called portrait" in capsys.readouterr().err
    assert main(["animation", "--out", str(tmp_path)]) == 1
    assert "--side_by_side" in capsys.readouterr().err


def test_animation_shows_both_halves_at_the_video_speed(tmp_path: Path):
    frame = np.full((48, 128, 3), 40, np.uint8)
    frame[:, 64:] = 200
    with VideoWriter(tmp_path / "both.mp4", 128, 48, Fraction(25), None) as writer:
        for shade in range(10):
            frame[:8] = 20 * shade
            writer.write(frame)
    draw_animation(tmp_path / "both.mp4", tmp_path / "both.gif", (8, 0, 32, 40), width=64)
    with Image.open(tmp_path / "both.gif") as animation:
        assert animation.info["duration"] == 80
        pixels = np.asarray(animation.convert("RGB"))
    assert pixels.shape == (80 + 26, 2 * 64 + 6, 3)
    assert pixels[60:, :60].mean() == pytest.approx(40, abs=6)
    assert pixels[60:, 74:].mean() == pytest.approx(200, abs=6)
    assert pixels[:26].min() < 100  # the words


def test_walkthrough_has_six_panels(tmp_path: Path):
    frame, face = np.full((90, 120, 3), 90, np.uint8), np.full((64, 64, 3), 160, np.uint8)
    alpha = np.zeros((90, 120), np.uint8)
    alpha[40:70, 40:80] = 255
    outline = np.array([[30, 20], [90, 20], [90, 80], [30, 80]], np.float32)
    points = outline[:3]
    steps = Walkthrough(frame, frame, outline, points, outline, face, face, face, alpha)
    draw_walkthrough(steps, tmp_path / "steps.jpg")
    with Image.open(tmp_path / "steps.jpg") as drawn:
        assert drawn.size == (1320, 930)
        assert np.asarray(drawn.convert("L")).std() > 20


@pytest.mark.parametrize(
    "path", [*sorted(IMAGES.glob("*.svg")), IMAGES / "walkthrough.jpg"], ids=lambda each: each.name
)
def test_images_are_small(path: Path):
    assert path.stat().st_size < 250_000
