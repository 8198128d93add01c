"""Training from the command line, from clips to weights that inference takes: whole runs on tiny networks."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml

from latentsync.cli.inference import run_inference
from latentsync.cli.train import train_syncnet, train_unet
from latentsync.models.weights.state_dict import read_state_dict
from latentsync.runtime.resources import REPOSITORY
from latentsync.training.loop.curves import read_curves
from tests.data.corpus import noise
from tests.media.shifted_sound import write_clip
from tests.training.tiny_training import TinyTraining

STAGE2 = ("run.pixel_space_supervise=true", "run.use_syncnet=true", "run.pixel_loss_weight=0.5")
TERMS = {"recon", "sync", "perceptual", "pixel", "total"}
LONG = ("run.max_train_steps=8", "ckpt.save_ckpt_steps=2", "ckpt.keep_ckpts=-1", "run.validation_steps=50")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    package = logging.getLogger("latentsync")
    level = package.level
    yield
    package.setLevel(level)


def curve(run: Path, kind: str = "train") -> dict[int, dict[str, float]]:
    return {line["step"]: line[kind] for line in read_curves(run / "curves.jsonl") if kind in line}


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    (file,) = (run / "checkpoints" / f"step_{step:08d}").glob("*-*.pt")
    return read_state_dict(file)


def assert_close(first: dict, second: dict, tolerance: float) -> None:
    assert first.keys() == second.keys() and first
    for step, metrics in first.items():
        assert metrics == pytest.approx(second[step], abs=tolerance, rel=tolerance), step


def command(script: str, *words: str) -> list[str]:
    return [sys.executable, "-m", f"scripts.{script}", *words]


def into(run: Path, device: str = "cpu") -> tuple[str, ...]:
    """Where to train and what to leave where; a GPU's last digits would differ from run to run."""
    return "--device", device, f"data.train_output_dir={run}"


@pytest.fixture(scope="module")
def unet_run(tiny_training: TinyTraining, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run on stored latents."""
    run = tmp_path_factory.mktemp("runs") / "unet"
    assert train_unet([str(tiny_training.unet), *into(run), *LONG]) == 0
    return run


def test_a_syncnet_is_trained_and_trained_on(
    tiny_training: TinyTraining, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = [str(tiny_training.syncnet), *into(tmp_path / "run")]
    done = subprocess.run(
        command("train_syncnet", *words), env=ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    chart = tmp_path / "run" / "charts" / "syncnet.png"
    assert f"Charts: {chart}" in done.stderr and "4/4" in done.stderr and chart.is_file()
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    assert set(curve(tmp_path / "run", "validation")[4]) == {"bce", "accuracy"}
    with caplog.at_level(logging.INFO):
        assert train_syncnet([*words, "run.max_train_steps=6"]) == 0
    assert "Resuming after step 4" in caplog.text and "Ended by steps: 6 steps" in caplog.text
    assert sorted(curve(tmp_path / "run", "validation")) == [4, 6]
    before, after = weights(tmp_path / "run", 4), weights(tmp_path / "run", 6)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    # It is the critic of the next U-Net.
    critic = tmp_path / "critic.yaml"
    file = tmp_path / "run" / "checkpoints" / "step_00000006" / "stable_syncnet-6.pt"
    critic.write_text(yaml.safe_dump({"base": str(tiny_training.syncnet), "ckpt": {"inference_ckpt_path": str(file)}}))
    words = [str(tiny_training.unet), *into(tmp_path / "unet"), *STAGE2]
    assert train_unet([*words, f"data.syncnet_config_path={critic}", "run.max_train_steps=1"]) == 0


@pytest.mark.parametrize("extra", [(), ("run.mouth_weight=1.0", "run.contrastive_weight=0.5")], ids=["plain", "guided"])
def test_a_syncnet_is_trained_on_stored_frames(tiny_training: TinyTraining, tmp_path: Path, extra: tuple) -> None:
    words = [str(tiny_training.syncnet), *into(tmp_path), "data.cache_frames=true", *extra]
    assert train_syncnet([*words, "data.augment=true", "run.ema_decay=0.9"]) == 0
    names = {"bce", "total", "accuracy"} | ({"mouth", "contrastive"} if extra else set())
    assert {name for metrics in curve(tmp_path).values() for name in metrics} == names
    file = tmp_path / "checkpoints" / "step_00000004" / "stable_syncnet-4.pt"
    words = [str(tiny_training.syncnet), *into(tmp_path / "next"), f"ckpt.resume_ckpt_path={file}"]
    assert train_syncnet([*words, "run.max_train_steps=1"]) == 0


def test_a_syncnet_of_latents_supervises_a_unet_without_decoding(tiny_training: TinyTraining, tmp_path: Path) -> None:
    own = {
        "base": str(tiny_training.syncnet),
        "data": {"latent_space": True, "lower_half": False},
        "model": {"visual_encoder": {"in_channels": 16, "downsample_factors": [2, 4]}},
    }
    (tmp_path / "latent.yaml").write_text(yaml.safe_dump(own))
    assert train_syncnet([str(tmp_path / "latent.yaml"), *into(tmp_path / "syncnet")]) == 0
    file = tmp_path / "syncnet" / "checkpoints" / "step_00000004" / "stable_syncnet-4.pt"
    own["ckpt"] = {"inference_ckpt_path": str(file)}
    (tmp_path / "critic.yaml").write_text(yaml.safe_dump(own))
    words = [str(tiny_training.unet), "run.use_syncnet=true", f"data.syncnet_config_path={tmp_path}/critic.yaml"]
    for cached in ("true", "false"):
        run = tmp_path / cached
        assert train_unet([*words, *into(run), f"data.cache_latents={cached}", "run.max_train_steps=1"]) == 0
        assert set(curve(run)[1]) == {"recon", "sync", "total"}
        assert {"sync_loss", "sync_loss_of_truth"} <= set(curve(run, "validation")[1])


def test_a_run_leaves_what_it_promises(tiny_training: TinyTraining, unet_run: Path, tmp_path: Path) -> None:
    assert sorted(entry.name for entry in (unet_run / "checkpoints").iterdir()) == [
        f"step_{step:08d}" for step in range(2, 9, 2)
    ]
    assert (unet_run / "charts" / "unet.png").is_file() and list((unet_run / "samples").glob("unet-8.jpg"))
    assert json.loads((unet_run / "bad_clips.json").read_text()) == {}
    config = yaml.safe_load((unet_run / "config.yaml").read_text())
    assert config["run"]["max_train_steps"] == 8 and config["optimizer"]["lr_scheduler"] == "constant"
    # What it was told to do can be told again.
    again = [str(unet_run / "config.yaml"), *into(tmp_path / "again"), "run.max_train_steps=2"]
    assert train_unet(again) == 0
    found = weights(tmp_path / "again", 2)
    assert all(torch.equal(value, found[name]) for name, value in weights(unet_run, 2).items())


def test_the_trained_unet_makes_a_video(tiny_training: TinyTraining, unet_run: Path, tmp_path: Path) -> None:
    file = unet_run / "checkpoints" / "step_00000008" / "latentsync_unet-8.pt"
    models = tiny_training.models
    words = ["--unet_config_path", str(models.config), "--inference_ckpt_path", str(file)]
    words += ["--checkpoints", str(models.root), "--device", "cpu", "--preview", "0.2"]
    assets = REPOSITORY / "assets"
    words += ["--video_path", str(assets / "demo_video.mp4"), "--audio_path", str(assets / "demo_speech.wav")]
    assert run_inference([*words, "--video_out_path", str(tmp_path / "out.mp4")]) == 0
    assert (tmp_path / "out.mp4").stat().st_size > 1000


def test_stored_latents_and_fresh_frames_give_the_same_curve(tiny_training: TinyTraining, tmp_path: Path) -> None:
    for cached in ("true", "false"):
        words = [str(tiny_training.unet), *into(tmp_path / cached), f"data.cache_latents={cached}", *STAGE2]
        assert train_unet([*words, "run.max_train_steps=2"]) == 0
    stored, fresh = curve(tmp_path / "true")[2], curve(tmp_path / "false")[2]
    assert set(stored) == set(fresh) == TERMS
    # Latents are kept in half precision; pictures of theirs, not the clips', are the truth of the other terms.
    assert stored["recon"] == pytest.approx(fresh["recon"], rel=5e-3)
    assert stored["sync"] == pytest.approx(fresh["sync"], rel=3e-2)
    for name in ("recon", "latent_mse", "sync_loss"):
        first, second = (curve(tmp_path / each, "validation")[2][name] for each in ("true", "false"))
        assert first == pytest.approx(second, rel=3e-2), name


def test_a_killed_run_goes_on_from_its_last_checkpoint(
    tiny_training: TinyTraining, unet_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = [str(tiny_training.unet), *into(tmp_path), *LONG]
    log = (tmp_path / "log").open("w")
    started = subprocess.Popen(command("train_unet", *words), env=ENVIRONMENT, stderr=log, start_new_session=True)
    try:
        until = time.monotonic() + 200
        while not list((tmp_path / "checkpoints").glob("step_00000002")) and time.monotonic() < until:
            assert started.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.005)
        os.kill(started.pid, signal.SIGKILL)
    finally:
        started.kill()
        assert started.wait() == -signal.SIGKILL
        log.close()
    last = max(int(entry.name[5:]) for entry in (tmp_path / "checkpoints").glob("step_*"))
    assert 2 <= last < 8
    with caplog.at_level(logging.INFO):
        assert train_unet(words) == 0
    assert f"Resuming after step {last}" in caplog.text
    expected = weights(unet_run, 8)
    assert all(torch.equal(value, expected[name]) for name, value in weights(tmp_path, 8).items())
    assert_close(curve(tmp_path), curve(unet_run), 1e-6)


def test_two_processes_give_the_curve_of_one(tiny_training: TinyTraining, tmp_path: Path) -> None:
    words = [str(tiny_training.unet), "run.max_train_steps=6", "run.validation_steps=3", "ckpt.save_ckpt_steps=3"]
    words += ["optimizer.lr=1e-3", "run.gradient_accumulation_steps=1"]
    assert train_unet([*words, *into(tmp_path / "one"), "data.batch_size=4"]) == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    both = [*launcher, "scripts.train_unet", *words, *into(tmp_path / "two"), "data.batch_size=2"]
    done = subprocess.run(both, env=ENVIRONMENT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    for kind in ("train", "validation"):
        first, second = (curve(tmp_path / run, kind) for run in ("one", "two"))
        assert_close(first, second, 1e-4)
    assert set(curve(tmp_path / "two", "validation")) == {3, 6}
    one, two = weights(tmp_path / "one", 6), weights(tmp_path / "two", 6)
    assert max((one[name] - two[name]).abs().max().item() for name in one) < 1e-3


def spoiled_corpus(tiny_training: TinyTraining, folder: Path) -> dict[str, str]:
    """A copy of the corpus with four clips that cannot be used; their names and a word of the reason."""
    shutil.copytree(tiny_training.corpus, folder)
    train = folder / "train"
    grey = torch.full((60, 64, 64, 3), 127, dtype=torch.uint8).numpy()
    (train / "corrupt.mp4").write_bytes((train / "00000_a.mp4").read_bytes()[1000:])
    write_clip(train / "silent.mp4", grey, noise(2.4, level=0.0))
    write_clip(train / "short.mp4", grey[:6], noise(0.24))
    write_clip(train / "faceless.mp4", grey, noise(2.4))
    words = {"corrupt": "damaged", "silent": "silent", "short": "too short", "faceless": "no face"}
    return {str(train / f"{name}.mp4"): word for name, word in words.items()}


@pytest.mark.parametrize(
    ("train", "cached"),
    [(train_unet, "data.cache_latents=true"), (train_unet, "data.cache_latents=false"), (train_syncnet, "")],
    ids=["stored", "read", "syncnet"],
)
def test_bad_clips_do_not_stop_a_run_and_are_named_at_its_end(
    tiny_training: TinyTraining,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    train: Callable[[list[str]], int],
    cached: str,
) -> None:
    bad = spoiled_corpus(tiny_training, tmp_path / "corpus")
    config = tiny_training.unet if train is train_unet else tiny_training.syncnet
    words = [str(config), *into(tmp_path / "run"), "data.check_faces=true", "run.max_train_epochs=1"]
    words += [f"data.{split}_data_dir={tmp_path}/corpus/{split}" for split in ("train", "val")] + [cached] * bool(
        cached
    )
    assert train([*words, "run.max_train_steps=-1"]) == 0
    listed = json.loads((tmp_path / "run" / "bad_clips.json").read_text())
    assert set(listed) == set(bad)
    assert all(word in listed[clip] for clip, word in bad.items())
    report = caplog.text[caplog.text.rindex("4 clips could not be used, listed in") :]
    assert all(f"{clip}: {listed[clip]}" in report for clip in bad)


def test_a_video_is_made_at_every_validation(tiny_training: TinyTraining, tmp_path: Path) -> None:
    speech = tmp_path / "speech.mp4"
    write_clip(speech, torch.zeros(8, 64, 64, 3, dtype=torch.uint8).numpy(), noise(0.32))
    words = [str(tiny_training.unet), *into(tmp_path / "run"), f"data.val_audio_path={speech}"]
    assert train_unet([*words, "data.val_video_path=assets/demo_video.mp4"]) == 0
    assert (tmp_path / "run" / "samples" / "val_video_4.mp4").stat().st_size > 1000


MISTAKES = {
    "no configuration": (None, (), "Name one configuration file"),
    "missing configuration": (None, ("nowhere.yaml",), "nowhere.yaml does not exist"),
    "unknown key": ("unet", ("run.learning=3",), "learning"),
    "missing folder": ("unet", ("data.train_data_dir=nowhere",), "'nowhere' does not exist"),
    "missing list": ("unet", ("data.train_fileslist=nowhere.txt",), "Cannot read the clip list 'nowhere.txt'"),
    "folder as list": ("unet", ("data.train_fileslist=.",), "Cannot read the clip list"),
    "empty list": ("unet", ("data.train_fileslist={tmp}/empty.txt",), "is empty"),
    "no list": ("unet", ("data.train_fileslist={root}/models/demo/unet.safetensors",), "is not a text file"),
    "empty folder": ("syncnet", ("data.train_data_dir={tmp}",), "contain no .mp4 file"),
    "empty validation folder": ("syncnet", ("data.val_data_dir={tmp}",), "contain no .mp4 file"),
    "missing weights": ("unet", ("ckpt.resume_ckpt_path=nowhere.pt",), "nowhere.pt does not exist"),
    "damaged weights": ("syncnet", ("ckpt.resume_ckpt_path={tmp}/empty.txt",), "empty.txt is damaged"),
    "other weights": ("unet", ("ckpt.resume_ckpt_path={root}/configs/syncnet.safetensors",), "does not fit"),
    "missing critic": ("unet", (*STAGE2, "data.syncnet_config_path=nowhere.yaml"), "nowhere.yaml does not exist"),
    "pixels without decoding": ("unet", ("run.use_syncnet=true",), "contradict each other"),
    "no such part": ("unet", ("run.trainable_modules=[nothing.]",), "fit no parameter"),
    "no such mask": ("unet", ("data.mask_image_path=nomask",), "Mask 'nomask' not found"),
    "too large a batch": ("unet", ("data.batch_size=1000",), "fewer than the batch of 1000"),
    "fresh seed": ("unet", ("run.seed=-1",), "run.seed"),
    "file in the way": ("unet", ("data.train_output_dir={tmp}/empty.txt",), "Cannot write into the run folder"),
    "no such schedule": ("syncnet", ("optimizer.lr_scheduler=step",), "optimizer.lr_scheduler"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_end_with_a_message(
    tiny_training: TinyTraining, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    kind, settings, message = MISTAKES[name]
    (tmp_path / "empty.txt").write_text("\n")
    words = [] if kind is None else [str(getattr(tiny_training, kind)), *into(tmp_path / "run")]
    words += [word.format(tmp=tmp_path, root=tiny_training.root) for word in settings]
    assert (train_syncnet if kind == "syncnet" else train_unet)(words) == 1
    (error,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert message in error.getMessage() and error.exc_info is None
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_run_of_other_settings_is_not_gone_on_with(
    tiny_training: TinyTraining, unet_run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = (unet_run / "config.yaml").read_bytes()
    assert train_unet([str(tiny_training.unet), *into(unet_run), *LONG, "optimizer.lr=0.5"]) == 1
    assert "optimizer.lr: was 0.001, is 0.5" in caplog.text
    assert (unet_run / "config.yaml").read_bytes() == before


def test_options_come_in_any_order(tiny_training: TinyTraining, tmp_path: Path) -> None:
    words = ["run.max_train_steps=1", *into(tmp_path), "run.val_batches=0", "--unet_config_path"]
    assert train_unet([*words, str(tiny_training.unet), "run.uncond_prob=0.5"]) == 0


def test_what_is_missing_of_a_corpus_is_made(
    tiny_training: TinyTraining, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = tmp_path / "corpus"
    made = [f"data.corpus.{each}" for each in ("scenes=1", "val_scenes=1", "resolution=64", "seconds=2.0", "seed=0")]
    folders = [f"data.train_data_dir={corpus}/train", f"data.val_data_dir={corpus}/val"]
    words = [str(tiny_training.unet), *made, *folders, "run.max_train_steps=1"]
    whole = tiny_training.corpus / "val"
    # Half of it is there: the scene of the validation.
    shutil.copytree(whole, corpus / "val")
    (corpus / "corpus.json").write_text((tiny_training.corpus / "corpus.json").read_text())
    assert train_unet([*words, *into(tmp_path / "first")]) == 0
    assert sorted(path.name for path in (corpus / "train").glob("*.mp4")) == ["00000_a.mp4", "00000_b.mp4"]
    assert all((corpus / "val" / path.name).read_bytes() == path.read_bytes() for path in whole.glob("*.mp4"))
    assert train_unet([*words, *into(tmp_path / "second"), "data.corpus.seed=5"]) == 1
    assert "holds a corpus generated with" in caplog.text
    assert train_unet([*words, *into(tmp_path / "third"), "data.val_data_dir="]) == 1
    assert "data.corpus makes FOLDER/train and FOLDER/val" in caplog.text


@pytest.mark.gpu
@pytest.mark.parametrize("cached", ["true", "false"])
def test_a_gpu_trains_both_stages(tiny_training: TinyTraining, tmp_path: Path, cached: str) -> None:
    for name, stage in (("first", ()), ("second", STAGE2)):
        words = [str(tiny_training.unet), *into(tmp_path / name, "cuda"), f"data.cache_latents={cached}", *stage]
        assert train_unet([*words, "run.ema_decay=0.9"]) == 0
        assert train_unet([*words, "run.ema_decay=0.9", "run.max_train_steps=6"]) == 0
        assert train_unet([str(tiny_training.unet), *into(tmp_path / f"{name}_cpu"), *stage]) == 0
        found, expected = (curve(tmp_path / each)[4]["recon"] for each in (name, f"{name}_cpu"))
        # Other noise, and bfloat16.
        assert found == pytest.approx(expected, rel=0.3)


@pytest.mark.gpu
@pytest.mark.parametrize("cached", ["true", "false"])
def test_a_gpu_trains_a_syncnet(tiny_training: TinyTraining, tmp_path: Path, cached: str) -> None:
    words = [str(tiny_training.syncnet), f"data.cache_frames={cached}", "data.augment=true"]
    assert train_syncnet([*words, *into(tmp_path / "gpu", "cuda")]) == 0
    assert train_syncnet([*words, *into(tmp_path / "gpu", "cuda"), "run.max_train_steps=6"]) == 0
    assert set(curve(tmp_path / "gpu", "validation")) == {4, 6}
