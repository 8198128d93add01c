"""`python -m scripts.inference` from end to end, with random networks: what it makes, refuses and leaves behind."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from latentsync.cli.inference import run_inference
from latentsync.media.audio.reader import audio_seconds
from latentsync.media.video_reader import VideoReader
from latentsync.runtime.resources import REPOSITORY
from tests.media.clips import Clip, make_clip, steady
from tests.tiny_models import TinyModels, write_tiny_models

VIDEO = REPOSITORY / "assets" / "demo_video.mp4"
SPEECH = REPOSITORY / "assets" / "demo_speech.wav"
PREVIEW = ("--preview", "0.4")
PATIENCE = 600  # seconds after which a test gives up; it says nothing about how long anything takes
ODD_NAME = 'it\'s "a" $(touch pwned) `touch pwned` ünï 影; &'

Run = Callable[..., int]


@pytest.fixture(scope="session")
def models() -> Iterator[TinyModels]:
    # Not in pytest's own folder, which only its owner may enter: one test steps down from root.
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield write_tiny_models(Path(folder))


@pytest.fixture
def run(models: TinyModels) -> Iterator[Run]:
    """Runs the command line in this process: options override video, audio and output, further words follow."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}

    def start(out: Path, *words: str, video: Path = VIDEO, audio: Path = SPEECH) -> int:
        return run_inference([*models.options, *named(video, audio, out), *words])

    yield start
    for number, handler in before.items():
        signal.signal(number, handler)


def named(video: Path, audio: Path, out: Path) -> list[str]:
    return ["--video_path", str(video), "--audio_path", str(audio), "--video_out_path", str(out)]


def popen(models: TinyModels, *words: str) -> subprocess.Popen[str]:
    """Start the real program in a session of its own, so that whatever it starts can be found."""
    command = [sys.executable, "-m", "scripts.inference", *models.options, *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def pixels(path: Path) -> np.ndarray:
    """(t, H, W, 3) uint8."""
    return np.stack([frame.pixels for frame in VideoReader(path)])


def report_of(video: Path) -> dict[str, Any]:
    return json.loads(video.with_suffix(".json").read_text(encoding="utf-8"))


def content(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder, with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@contextmanager
def unchanged(folder: Path) -> Iterator[None]:
    before = content(folder)
    yield
    assert content(folder) == before


def test_two_runs_at_once_with_odd_paths_make_equal_videos(models: TinyModels, tmp_path: Path) -> None:
    folder = tmp_path / ODD_NAME
    folder.mkdir()
    video, audio = folder / f"{ODD_NAME}.mp4", folder / f"{ODD_NAME}.wav"
    shutil.copy(VIDEO, video)
    shutil.copy(SPEECH, audio)
    outs = [folder / f"-{ODD_NAME} {number}.mp4" for number in (1, 2)]
    processes = [popen(models, *named(video, audio, out), *PREVIEW) for out in outs]
    for process, out in zip(processes, outs):
        printed, told = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, told
        assert printed == ""
        assert f"{out}: 10 frames at 25 fps" in told
        # Native libraries' chatter would make people think that something is wrong.
        assert not [word for word in ("W0000", "XNNPACK", "absl", "Traceback", "Warning") if word in told], told
        report = report_of(out)
        assert (report["num_frames"], report["generated_frames"], report["fps"]) == (10, 10, "25")
        assert report["video_out_path"] == str(out)
        assert report["warnings"] == report["spans"] == []
        assert audio_seconds(out) == pytest.approx(0.4, abs=0.001)
    first, second = map(pixels, outs)
    assert len(first) == 10
    assert np.array_equal(first, second)
    assert sorted(os.listdir(folder)) == sorted(
        [video.name, audio.name, *(path.name for out in outs for path in (out, out.with_suffix(".json")))]
    )
    assert not (REPOSITORY / "pwned").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_leaves_neither_files_nor_processes(
    models: TinyModels, tmp_path: Path, number: signal.Signals
) -> None:
    process = popen(models, *named(VIDEO, SPEECH, tmp_path / "out.mp4"))
    wait_until(lambda: process.poll() is not None or is_being_written(tmp_path))
    assert process.poll() is None, process.communicate()
    process.send_signal(number)
    _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, told
    assert "Stopped" in told and "Traceback" not in told
    assert list(tmp_path.iterdir()) == []
    # Helper processes that the program started end when its pipes close, which is not at the same instant.
    started = [other for other in psutil.process_iter() if session_of(other) == process.pid]
    _, running = psutil.wait_procs(started, timeout=PATIENCE)
    assert [other for other in running if other.status() != psutil.STATUS_ZOMBIE] == []


def wait_until(happened: Callable[[], bool]) -> None:
    """Poll until something has happened."""
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, f"nothing happened in {PATIENCE} seconds"
        time.sleep(0.02)


def is_being_written(folder: Path) -> bool:
    try:
        return any(path.stat().st_size for path in folder.iterdir())
    except FileNotFoundError:  # the program tries at first whether it may write here
        return False


def session_of(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except OSError:
        return None


def text_named_mp4(folder: Path) -> Path:
    (folder / "text.mp4").write_text("Not a video.\n" * 50)
    return folder / "text.mp4"


def sound_named_mp4(folder: Path) -> Path:
    return Path(shutil.copy(SPEECH, folder / "sound.mp4"))


def silent_video(folder: Path) -> Path:
    return make_clip(folder / "silent.mp4", Clip(steady(10)))


def header_only(folder: Path) -> Path:
    with wave.open(str(folder / "zero.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
    return folder / "zero.wav"


def no_bytes(folder: Path) -> Path:
    (folder / "empty.wav").touch()
    return folder / "empty.wav"


def missing(folder: Path) -> Path:
    return folder / "gone.mp4"


@pytest.mark.parametrize(
    ("role", "make", "message"),
    [
        ("video", missing, "Video file .*gone.mp4 does not exist"),
        ("audio", missing, "Audio file .*gone.mp4 does not exist"),
        ("video", text_named_mp4, "Cannot read '.*text.mp4' as video .* not a media file"),
        ("audio", text_named_mp4, "Cannot read '.*text.mp4' as video or audio"),
        ("video", sound_named_mp4, "sound.mp4' has no video stream.* Give a video file"),
        ("audio", silent_video, "silent.mp4' has no audio track.* Give an audio file"),
        ("audio", header_only, "zero.wav' has zero length"),
        ("audio", no_bytes, "empty.wav': the file is empty"),
        ("video", silent_video, "No usable face in any of the 10 frames of .*silent.mp4"),
    ],
)
def test_unusable_inputs_are_refused(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture, role: str, make: Callable[[Path], Path], message: str
) -> None:
    given = make(tmp_path)
    with unchanged(tmp_path):
        assert run(tmp_path / "out.mp4", *PREVIEW, **{role: given}) == 1
    assert_told(caplog, message)


def assert_told(caplog: pytest.LogCaptureFixture, message: str) -> None:
    """One error was told, and it matches."""
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1 and re.search(message, errors[0]), errors


def test_weights_that_do_not_fit_are_named(
    models: TinyModels, run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    demo = str(REPOSITORY / "configs" / "unet" / "demo.yaml")
    with unchanged(tmp_path):
        assert run(tmp_path / "out.mp4", "--unet_config_path", demo) == 1
    assert_told(caplog, r"unet.safetensors does not fit .* looks like a lip-sync U-Net .* 32 wide, .* configs: demo or")
    caplog.clear()
    with unchanged(tmp_path):
        encoder = str(models.root / "demo" / "audio_encoder.safetensors")
        assert run(tmp_path / "out.mp4", "--inference_ckpt_path", encoder) == 1
    assert_told(caplog, "audio_encoder.safetensors does not fit .* looks like a Whisper model .* Choose the config")


def test_damaged_weights_are_named(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    damaged = tmp_path / "unet.pt"
    damaged.write_bytes(b"x" * 500)
    with unchanged(tmp_path):
        assert run(tmp_path / "out.mp4", "--inference_ckpt_path", str(damaged)) == 1
    assert_told(caplog, "unet.pt is damaged, no weights file")
    assert "weights_only" not in caplog.text


def test_missing_insightface_models_are_named(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with unchanged(tmp_path):
        assert run(tmp_path / "out.mp4", "--detector", "insightface", *PREVIEW) == 1
    assert_told(caplog, "insightface' needs det_10g.onnx.* or use the detector 'mediapipe'")


def test_output_that_is_an_input_is_refused(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    video = Path(shutil.copy(VIDEO, tmp_path / "in.mp4"))
    (tmp_path / "link.mp4").symlink_to(video)
    os.link(video, tmp_path / "hard.mp4")
    with unchanged(tmp_path):
        for name in ("in.mp4", "link.mp4", "hard.mp4"):
            caplog.clear()
            assert run(tmp_path / name, "--overwrite", *PREVIEW, video=video) == 1
            assert_told(caplog, f"{name}': it is one of the inputs. Give another output name")


def test_results_are_kept_unless_overwriting(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("out.mp4", "out.json"):
        (tmp_path / name).write_text("mine")
        with unchanged(tmp_path):
            caplog.clear()
            assert run(tmp_path / "out.mp4", *PREVIEW) == 1
        assert_told(caplog, f"{name}'? exists already.*--overwrite")
        (tmp_path / name).unlink()


@contextmanager
def powerless() -> Iterator[None]:
    """Give up root's right to write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_read_only_folder_is_refused(run: Run, models: TinyModels, caplog: pytest.LogCaptureFixture) -> None:
    inputs = {"video": models.root / "in.mp4", "audio": models.root / "in.wav"}
    shutil.copy(VIDEO, inputs["video"])
    shutil.copy(SPEECH, inputs["audio"])
    folder = models.root / "locked"
    folder.mkdir(mode=0o555)
    with powerless():
        assert run(folder / "out.mp4", *PREVIEW, **inputs) == 1
    assert_told(caplog, "Cannot write into '.*locked'.*Choose a folder you may write to")
    assert list(folder.iterdir()) == []


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes, which programs meet as they meet a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_is_told_and_leaves_nothing(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with unchanged(tmp_path), disk_of(20_000):
        assert run(tmp_path / "out.mp4", *PREVIEW) == 1
    assert_told(caplog, "Writing '.*out.mp4' failed .*free disk space.*nothing was left behind")


def test_of_a_damaged_video_the_readable_part_is_used(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(VIDEO.read_bytes()[: VIDEO.stat().st_size // 4])
    assert run(tmp_path / "out.mp4", "--preview", "0.8", video=cut) == 0
    report = report_of(tmp_path / "out.mp4")
    assert report["num_frames"] == len(pixels(tmp_path / "out.mp4")) == 20
    assert any(re.search(r"cut.mp4: only the first 0.\d\d s of .* could be read", text) for text in report["warnings"])
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert sorted(told) == sorted(report["warnings"])


def test_a_bad_task_does_not_stop_the_good_one(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    entries = [("gone", tmp_path / "gone.mp4"), ("unreadable", text_named_mp4(tmp_path)), ("good", VIDEO)]
    tasks = [
        {"video_path": str(video), "audio_path": str(SPEECH), "video_out_path": str(tmp_path / f"{name}.mp4")}
        for name, video in entries
    ]
    (tmp_path / "tasks.yaml").write_text(json.dumps(tasks))  # JSON is YAML
    assert run(tmp_path / "unused.mp4", "--preview", "0.2", "--tasks", str(tmp_path / "tasks.yaml")) == 1
    assert sorted(os.listdir(tmp_path)) == ["good.json", "good.mp4", "tasks.yaml", "text.mp4"]
    assert report_of(tmp_path / "good.mp4")["num_frames"] == 5
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    for error, expected in zip(errors, ("gone.mp4: Video file", "unreadable.mp4: Cannot read", "2 of 3 jobs failed")):
        assert expected in error
    assert len(errors) == 3


def test_the_chosen_face_of_two_is_changed_in_a_clip_shorter_than_a_window(run: Run, tmp_path: Path) -> None:
    pair, out = tmp_path / "pair.mp4", tmp_path / "out.mp4"
    assert run(pair, "--side_by_side", "--preview", "0.2") == 0
    before = pixels(pair)
    width = pixels(VIDEO).shape[2]
    assert before.shape[0] == 5 and before.shape[2] == 2 * width == report_of(pair)["width"]
    assert run(out, "--face", "rightmost", "--preview", "0.2", video=pair) == 0
    changes = np.abs(pixels(out).astype(int) - before)
    assert report_of(out)["generated_frames"] == 5
    assert changes[:, :, :width].max() < 40 < changes[:, :, width:].max()


def test_published_windows_from_the_command_line(run: Run, tmp_path: Path) -> None:
    assert run(tmp_path / "out.mp4", "--windows", "published", *PREVIEW) == 0
    report = report_of(tmp_path / "out.mp4")
    assert report["generated_frames"] == len(pixels(tmp_path / "out.mp4")) == 10
    assert report["settings"]["windows"] == "published" and report["settings"]["sampler"]["published"]
