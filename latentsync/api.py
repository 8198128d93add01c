"""The Python interface: load a model once, lip-sync many videos with it. See ``docs/python_api.md``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from latentsync.build.presets import PRESETS, ModelFiles, copy_model, folder_files, preset_files, with_lora
from latentsync.checkpoints.registry import default_root
from latentsync.errors import ConfigError
from latentsync.pipelines.job import LipsyncJob, LipsyncResult, ModelDefaults, ProgressCallback

if TYPE_CHECKING:
    import torch

    from latentsync.face.detection.detector import FaceDetector
    from latentsync.pipelines.lipsync_pipeline import LipsyncEngine

_Path = str | PathLike[str]


def load_pipeline(  # noqa: PLR0913 - the keywords of the front door
    name: _Path | None = None,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    compile: bool = False,
    memory: Literal["usual", "low"] = "usual",
    detector: str | Callable[[], FaceDetector] = "auto",
    checkpoints: _Path | None = None,
    window_batch_size: int = 1,
    lora: _Path | None = None,
) -> LipsyncPipeline:
    """Load a model.

    Args:
        name: a preset ("1.6", "1.5", "demo"), or a model folder as of `LipsyncPipeline.from_pretrained`; None takes the
            best preset whose weights are present.
        device: "auto" (CUDA, then MPS, then CPU), "cpu", "cuda", "cuda:1", "mps"; several with commas between, such as
            "cuda:0,cuda:1", or "all" CUDA devices.
        dtype: "auto" (float16 on CUDA; on CPUs bfloat16 where the CPU computes in it, else float32), "float32",
            "float16" or "bfloat16".
        compile: fuse the networks by torch.compile: minutes at the first start, faster afterwards; CUDA only.
        memory: "low" for GPUs of 8 GB: slower, the same video up to rounding.
        detector: "auto", "mediapipe", "insightface", or a callable without arguments, such as a class, that returns a
            `latentsync.face.detection.detector.FaceDetector`; it is called once per video.
        checkpoints: folder of the weights; None is the default one.
        window_batch_size: windows that go through the U-Net together, for large GPUs.
        lora: low-rank adaptation to merge into the U-Net: a file, or the folder that peft saves.

    Raises:
        ConfigError: an unknown name, or an option that cannot be used here.
        CheckpointError: weights are missing, damaged, or do not fit the configuration.
    """
    from latentsync.backends.placement import choose_placement
    from latentsync.build.pipeline import build_face_detector, build_pipeline

    root = default_root() if checkpoints is None else Path(checkpoints)
    files = with_lora(_model_files(name, root), None if lora is None else Path(lora))
    placement = choose_placement(
        str(device),
        str(dtype).removeprefix("torch."),
        compiled=compile,
        memory=memory,
        window_batch_size=window_batch_size,
    )
    make_detector = detector if callable(detector) else build_face_detector(detector, root, placement.devices[0])
    return LipsyncPipeline(build_pipeline(files, placement, make_detector), files)


def _model_files(name: _Path | None, root: Path) -> ModelFiles:
    """The files of a preset or a model folder."""
    if name is None or name in PRESETS:
        return preset_files(None if name is None else str(name), root)
    if not Path(name).is_dir():
        raise ConfigError(f"Model: got {str(name)!r}; expected {', '.join(PRESETS)} or an existing model folder")
    return folder_files(Path(name), root)


class LipsyncPipeline:
    """A loaded model. Calls of several threads run one after the other.

    Usable as a context manager; `close` releases the model's memory.

    Args:
        engine: see `latentsync.build.pipeline.build_pipeline`. Use `load_pipeline` or `from_pretrained` instead.
        files: what it was loaded from.
    """

    def __init__(self, engine: LipsyncEngine, files: ModelFiles) -> None:
        self._engine: LipsyncEngine | None = engine
        self.files = files

    def __repr__(self) -> str:
        """The model, and the device or that the pipeline is closed."""
        where = "closed" if self._engine is None else f"device={self._engine.settings.get('device')!r}"
        return f"<LipsyncPipeline {self.name!r}, {where}>"

    @classmethod
    def from_pretrained(cls, source: _Path, **options: Any) -> LipsyncPipeline:
        """Load a model folder, or a preset by its name.

        A model folder holds ``config.yaml`` and ``unet.safetensors`` or ``unet.pt``. It may hold ``vae/`` (a diffusers
        folder) and ``audio_encoder.safetensors`` or ``.pt``; what it lacks is taken from the checkpoint folder: the
        networks that the configuration is made for.

        Args:
            source: the folder, or the preset.
            options: the keywords of `load_pipeline`.

        Raises:
            ConfigError: no such folder or preset, no configuration in it, or an option that cannot be used here.
            CheckpointError: weights are missing, damaged, or do not fit the configuration.
        """
        return load_pipeline(source, **options)

    @property
    def name(self) -> str:
        """The preset, or the model folder's name."""
        return self.files.name

    @property
    def engine(self) -> LipsyncEngine:
        """The engine that runs the jobs.

        Raises:
            ConfigError: the pipeline is closed.
        """
        if self._engine is None:
            raise ConfigError(f"The pipeline of model {self.name} is closed; load it again")
        return self._engine

    @property
    def defaults(self) -> ModelDefaults:
        """Steps, guidance scale and seed that a job gets where it leaves them open."""
        return self.engine.defaults

    def __call__(
        self,
        video_path: _Path,
        audio_path: _Path,
        video_out_path: _Path,
        *,
        progress: ProgressCallback | None = None,
        cancel: threading.Event | None = None,
        **options: Any,
    ) -> LipsyncResult:
        """Lip-sync one video.

        Args:
            video_path: the talking head.
            audio_path: the speech: any file with sound.
            video_out_path: the result; a JSON report is written beside it.
            progress: as of `run`.
            cancel: as of `run`.
            options: further fields of `LipsyncJob`, for example ``guidance_scale=1.5, seed=7``.

        Returns:
            What was made.

        Raises:
            ConfigError: an unknown option or a value out of range.
            LatentSyncError: see `run`.
        """
        paths = {"video_path": video_path, "audio_path": audio_path, "video_out_path": video_out_path}
        return self.run(LipsyncJob.from_dict({**options, **paths}), progress=progress, cancel=cancel)

    def run(
        self, job: LipsyncJob, *, progress: ProgressCallback | None = None, cancel: threading.Event | None = None
    ) -> LipsyncResult:
        """Lip-sync one video.

        Args:
            job: what to make.
            progress: called as ``progress(done, total)`` with numbers of frames, in the calling thread: first with 0
                when the inputs have proved usable, then after every frame. An exception that it raises ends the job.
            cancel: set it, from any thread, to end the job within about one window of frames.

        Returns:
            What was made.

        Raises:
            MediaError: an input cannot be read or the output cannot be written.
            FaceNotFoundError: no frame has a usable face.
            Cancelled: ``cancel`` was set; neither video nor report is left behind.
            ConfigError: the pipeline is closed.
        """
        return self.engine(job, progress, cancel)

    def save_pretrained(self, folder: _Path) -> Path:
        """Copy configuration and weights into a model folder that `from_pretrained` loads.

        Args:
            folder: created where it does not exist; files in it are replaced.

        Returns:
            The folder.

        Raises:
            ConfigError: the pipeline was loaded with a LoRA, which is merged in memory only.
            CheckpointError: the folder cannot be written.
        """
        if self.files.lora is not None:
            raise ConfigError(
                f"Model {self.name}: got LoRA {self.files.lora}, which is merged in memory only; expected a model "
                "without one. Copy the LoRA's file beside the saved folder and give it as lora= when loading"
            )
        return copy_model(self.files, Path(folder))

    def close(self) -> None:
        """Wait for a running job, then release the model. Closing twice does nothing."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def __enter__(self) -> LipsyncPipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
