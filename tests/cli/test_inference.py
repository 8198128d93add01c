"""The command line: its options are a promise, so their list is frozen here; jobs follow from them."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from latentsync.backends import placement as placements
from latentsync.build import pipeline
from latentsync.build.pipeline import build_face_detector
from latentsync.build.presets import ModelFiles, preset_files
from latentsync.cli.inference import (
    inference_parser,
    load_pipeline,
    prepare_benchmark,
    read_jobs,
    run_inference,
    select_files,
)
from latentsync.diffusion.speed import SamplerRequest
from latentsync.errors import CheckpointError, ConfigError
from latentsync.models.weights.state_dict import read_state_dict
from latentsync.pipelines.job import ModelDefaults
from latentsync.runtime.resources import REPOSITORY
from tests.tiny_models import write_tiny_models

ASSETS = REPOSITORY / "assets"
DEFAULTS = ModelDefaults(inference_steps=12, guidance_scale=1.25, seed=9)
PATHS = ["--video_path", "v.mp4", "--audio_path", "a.wav", "--video_out_path", "o.mp4"]
PUBLISHED = {
    "--unet_config_path",
    "--inference_ckpt_path",
    "--video_path",
    "--audio_path",
    "--video_out_path",
    "--inference_steps",
    "--guidance_scale",
    "--temp_dir",
    "--seed",
    "--enable_deepcache",
}
ADDED = {
    "--window_batch_size",
    "--compile",
    "--speed",
    "--cache_interval",
    "--solver",
    "--guidance_interval",
    "--tasks",
    "--preset",
    "--lora",
    "--checkpoints",
    "--device",
    "--devices",
    "--memory",
    "--dtype",
    "--detector",
    "--face",
    "--windows",
    "--output_fps",
    "--loop",
    "--keep_silent_frames",
    "--preview",
    "--side_by_side",
    "--crf",
    "--overwrite",
    "--verbose",
}


def test_the_list_of_options_is_frozen() -> None:
    options = {flag for action in inference_parser()._actions for flag in action.option_strings}
    assert options - {"-h", "--help"} == PUBLISHED | ADDED


def test_options_win_over_the_models_own_defaults() -> None:
    (job,) = read_jobs(inference_parser().parse_args(PATHS))
    plain = job.resolved(DEFAULTS)
    assert (plain.inference_steps, plain.guidance_scale, plain.seed) == (12, 1.25, 9)
    assert plain.cache_interval == 1 and plain.windows == "blend"
    options = [*PATHS, "--inference_steps", "5", "--guidance_scale", "2", "--seed", "1", "--enable_deepcache"]
    (given,) = read_jobs(inference_parser().parse_args([*options, "--windows", "published"]))
    assert (given.inference_steps, given.guidance_scale, given.seed) == (5, 2.0, 1)
    assert given.resolved(DEFAULTS).cache_interval == 3 and given.windows == "published"


def test_compiling_needs_a_gpu() -> None:
    options = inference_parser().parse_args([*PATHS, "--preset", "demo", "--device", "cpu", "--compile"])
    with pytest.raises(ConfigError, match="--compile on cpu"):
        load_pipeline(options, select_files(options))


def test_speed_sets_what_is_not_given() -> None:
    options = [*PATHS, "--speed", "realtime", "--guidance_interval", "0", "0.5"]
    (job,) = read_jobs(inference_parser().parse_args(options))
    expected = replace(SamplerRequest("realtime").options(20, 1.5), guidance_interval=(0.0, 0.5))
    assert job.sampler_options(ModelDefaults()) == expected and expected.steps < 20


def test_tasks_may_differ_in_how_they_are_sampled(tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.yaml"
    paths = "video_path: a.mp4, audio_path: a.wav"
    tasks.write_text(
        f"- {{{paths}, video_out_path: one.mp4, solver: dpm++, cache_interval: 2, guidance_interval: [0.1, 0.9]}}\n"
        f"- {{{paths}, video_out_path: two.mp4, speed: exact}}\n"
    )
    one, two = read_jobs(inference_parser().parse_args(["--tasks", str(tasks), "--speed", "fast"]))
    assert one.sampler_options(DEFAULTS) == SamplerRequest("fast", None, None, "dpm++", 2, False, (0.1, 0.9)).options(
        12, 1.25
    )
    assert two.sampler_options(DEFAULTS) == SamplerRequest().options(12, 1.25)


def test_task_files_hold_jobs_that_may_differ_in_any_option(tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.yaml"
    tasks.write_text(
        "- {video_path: a.mp4, audio_path: a.wav, video_out_path: one.mp4}\n"
        "- {video_path: b.mp4, audio_path: b.wav, video_out_path: two.mp4, seed: 3, face: 1, output_fps: 25}\n"
    )
    one, two = read_jobs(inference_parser().parse_args(["--tasks", str(tasks), "--crf", "20"]))
    assert (one.video_path, one.seed, one.face, one.crf) == (Path("a.mp4"), None, "largest", 20)
    assert (two.video_path, two.seed, two.face, two.output_fps) == (Path("b.mp4"), 3, "1", "25")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("video_path: a", "expected a list"),
        ("", "expected a list"),
        ("[]", "expected a list"),
        ("- {video_path: [", "not readable as YAML"),
        ("- {video: a}", "unknown video"),
        ("- {seed: 1}", "Task 1: Job: got no video_path, audio_path, video_out_path"),
        ("- {video_path: null, audio_path: a, video_out_path: o.mp4}", "Task 1: Job: got no video_path;"),
        ("- {crf: high}", "Task 1: crf: got 'high', expected a whole number"),
        ("- {inference_steps: 7.5}", "inference_steps: got 7.5, expected a whole number"),
        ("- {seed: true}", "seed: got True, expected a whole number"),
        ("- {video_path: 3}", "Task 1: video_path: got 3, expected a path"),
        ("- {side_by_side: 'no'}", "side_by_side: got 'no', expected true or false"),
        ("- {guidance_interval: 0.5}", "guidance_interval: got 0.5, expected two numbers"),
        ("- {guidance_interval: [0, 0.5, 1]}", "expected two numbers"),
        ("- {video_path: v, audio_path: a, video_out_path: o.mp4, speed: warp}", "exact, fast, realtime"),
        ("- &job {video_path: v, audio_path: a, video_out_path: o.mp4}\n- *job", "two results would be called o"),
    ],
)
def test_bad_task_files_are_refused(tmp_path: Path, content: str, message: str) -> None:
    tasks = tmp_path / "tasks.yaml"
    tasks.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_jobs(inference_parser().parse_args(["--tasks", str(tasks)]))


def test_a_measurement_is_of_the_bundled_clip_unless_paths_are_given(tmp_path: Path) -> None:
    models = write_tiny_models(tmp_path / "models")
    own = tmp_path / "words.wav"
    own.touch()
    options = inference_parser().parse_args([*models.options, "--audio_path", str(own), "--seed", "3"])
    pipeline, job = prepare_benchmark(options, tmp_path / "out.mp4")
    assert job.video_path == REPOSITORY / "assets" / "demo_video.mp4" and job.audio_path == own
    assert (job.video_out_path, job.seed, pipeline.settings["model"]) == (tmp_path / "out.mp4", 3, "custom")
    options.tasks = Path("tasks.yaml")
    with pytest.raises(ConfigError, match="--tasks tasks.yaml: one job is measured"):
        prepare_benchmark(options, tmp_path / "out.mp4")


def test_own_configuration_and_weights_belong_together() -> None:
    with pytest.raises(ConfigError, match="belong together"):
        select_files(inference_parser().parse_args([*PATHS, "--unet_config_path", "x.yaml"]))
    both = ["--unet_config_path", "x.yaml", "--inference_ckpt_path", "x.pt", "--preset", "demo"]
    with pytest.raises(ConfigError, match="already names"):
        select_files(inference_parser().parse_args([*PATHS, *both]))


def test_a_lora_is_merged_and_named_in_the_report(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    models = write_tiny_models(tmp_path / "models")
    out, inputs = read_state_dict(models.unet)["conv_out.weight"].shape[:2]
    (tmp_path / "mine").mkdir()
    random = torch.Generator().manual_seed(0)
    shapes = {"lora_A": (2, inputs, 3, 3), "lora_B": (out, 2, 1, 1)}
    matrices = {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
    layers = {f"base_model.model.conv_out.{name}.weight": matrix for name, matrix in matrices.items()}
    save_file(layers, tmp_path / "mine" / "adapter_model.safetensors")
    paths = ["--video_path", str(ASSETS / "demo_video.mp4"), "--audio_path", str(ASSETS / "demo_speech.wav")]
    arguments = [*models.options, *paths, "--preview", "0.12"]
    plain, adapted = tmp_path / "plain.mp4", tmp_path / "adapted.mp4"
    assert run_inference([*arguments, "--video_out_path", str(plain)]) == 0
    assert run_inference([*arguments, "--video_out_path", str(adapted), "--lora", str(tmp_path / "mine")]) == 0
    named = [json.loads(path.with_suffix(".json").read_text())["settings"]["lora"] for path in (plain, adapted)]
    assert named == [None, str(tmp_path / "mine")]
    assert plain.read_bytes() != adapted.read_bytes()
    assert run_inference([*arguments, "--video_out_path", str(tmp_path / "no.mp4"), "--lora", "gone"]) == 1
    assert "LoRA gone does not exist" in caplog.text


def test_the_best_complete_preset_is_chosen(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="demo-unet"):
        preset_files(None, tmp_path)
    for file in ("1.5/latentsync_unet.pt", "whisper/tiny.pt", "sd-vae-ft-mse/config.json"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    (tmp_path / "sd-vae-ft-mse/diffusion_pytorch_model.safetensors").touch()
    chosen = preset_files(None, tmp_path)
    assert (chosen.name, chosen.config_path.name) == ("1.5", "stage2.yaml")
    with pytest.raises(CheckpointError, match="fetch unet-1.6"):
        preset_files("1.6", tmp_path)


def test_errors_end_with_exit_code_one_and_a_message(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for file in ("unet.safetensors", "audio_encoder.safetensors", "vae/config.json"):
        (tmp_path / "demo" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "demo" / file).touch()
    (tmp_path / "demo/vae/diffusion_pytorch_model.safetensors").touch()
    arguments = ["--video_path", str(tmp_path / "gone.mp4"), "--audio_path", "a.wav", "--video_out_path", "o.mp4"]
    assert run_inference([*arguments, "--checkpoints", str(tmp_path)]) == 1
    assert "gone.mp4 does not exist" in caplog.text


def test_a_full_device_is_told_without_a_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")

    monkeypatch.setattr(pipeline, "build_pipeline", full)
    for name in ("v.mp4", "a.wav"):
        (tmp_path / name).touch()
    paths = ["--video_path", str(tmp_path / "v.mp4"), "--audio_path", str(tmp_path / "a.wav")]
    assert run_inference([*paths, "--video_out_path", str(tmp_path / "o.mp4"), "--device", "cpu"]) == 1
    assert "memory is full (CUDA out of memory. Tried to allocate 2 GiB.). Close" in caplog.text


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system knows no closing terminal")
def test_nohup_is_respected(tmp_path: Path) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        for handler, ignored in ((signal.SIG_IGN, True), (signal.SIG_DFL, False)):
            signal.signal(signal.SIGHUP, handler)
            assert run_inference([*PATHS, "--checkpoints", str(tmp_path)]) == 1
            assert (signal.getsignal(signal.SIGHUP) is signal.SIG_IGN) == ignored
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


@pytest.mark.parametrize(("name", "message"), [("cuda:99", "cannot be used"), ("toaster", "cannot be used")])
def test_devices_that_are_not_there_are_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        placements.choose_device(name)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "cpu", "--devices", "cpu,cpu"], "--device cpu and --devices cpu,cpu: give one of them"),
        (["--devices", "cpu,toaster"], "Device 'toaster' cannot be used"),
        (["--devices", "cpu,"], "Device '' cannot be used"),
        (["--devices", "cpu,meta"], "got cpu,meta; expected one or more of one kind"),
    ],
)
def test_devices_that_do_not_go_together_are_refused(tmp_path: Path, words: list[str], message: str) -> None:
    files = ModelFiles("none", *[tmp_path] * 4)
    with pytest.raises(ConfigError, match=message):
        load_pipeline(inference_parser().parse_args([*PATHS, *words]), files)


@pytest.mark.skipif(torch.cuda.is_available(), reason="here, all are some")
def test_all_devices_are_cuda_devices() -> None:
    with pytest.raises(ConfigError, match="every CUDA device, and there is none"):
        placements.choose_devices("all")


def test_devices_are_placed_in_the_order_given() -> None:
    placement = placements.choose_placement("cpu, cpu", "bfloat16", memory="low")
    assert placement.devices == (torch.device("cpu"), torch.device("cpu")) and placement.dtype == torch.bfloat16
    assert (placement.names, placement.low, placement.compiled) == ("cpu,cpu", True, False)
    with pytest.raises(ConfigError, match="takes the memory that --memory low saves"):
        placements.Placement(placement.devices, compiled=True, memory="low")
    with pytest.raises(ConfigError, match="expected usual or low"):
        placements.choose_placement("cpu", memory="little")
    with pytest.raises(ConfigError, match="got none"):
        placements.Placement(())


def test_unknown_face_detectors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mediapipe, insightface"):
        build_face_detector("haar", tmp_path, torch.device("cpu"))
