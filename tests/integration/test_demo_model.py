"""The bundled model does what it is there for: its mouths follow speech it never heard, on a face it never saw."""

from __future__ import annotations

import json
import subprocess
import sys

from latentsync.runtime.resources import REPOSITORY

WEIGHTS = ("unet.safetensors", "audio_encoder.safetensors", "vae/diffusion_pytorch_model.safetensors")


def test_mouth_follows_held_out_speech() -> None:
    command = [sys.executable, "-m", "tools.evaluate_demo", "--clips", "1", "--bundled_clips", "0", "--seconds", "3"]
    done = subprocess.run([*command, "--seed", "90211"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    metrics = json.loads(done.stdout)["mean"]["held_out"]
    assert metrics["face_rate"] == 1.0
    assert metrics["r"] >= 0.6
    assert metrics["r_shifted"] < 0.5 * metrics["r"]
    assert metrics["psnr_mouth"] > metrics["psnr_mouth_source"] + 3


def test_bundled_files_are_small() -> None:
    folder = REPOSITORY / "checkpoints" / "demo"
    assert all((folder / name).is_file() for name in WEIGHTS)
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 40e6
