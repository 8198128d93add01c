"""Make the whole demo model with one command: encoders, corpus, SyncNet, both stages of the U-Net, packing.

    python -m tools.make_demo_model --out outputs/demo_run --gpus 0 1

Independent steps run in parallel, each by the command that docs/training.md names. The same command resumes an
interrupted run: finished steps are not repeated, and trainings resume from their last checkpoint. The model comes to
OUT/model, the output of every step to OUT/logs.
"""

import argparse
import logging
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

from latentsync.errors import ConfigError
from latentsync.runtime.resources import REPOSITORY
from latentsync.training.demo.step_graph import Step, StepGraph
from tools.command import exit_code

_FIRST, _SECOND = 0, 1  # which of the GPUs; with one GPU both are the same
_STEPS = ("vae", "speech", "audio", "corpus", "syncnet", "unet1", "unet2", "pack")


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line and run the steps; returns the exit code."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    return exit_code(lambda: StepGraph(Recipe.of(arguments).steps(), arguments.out).run())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; made if missing")
    parser.add_argument(
        "--gpus", nargs="*", default=["0"], help="numbers of the GPUs to use, two at most; none: the CPU"
    )
    parser.add_argument("--scenes", type=int, default=2000, help="scenes of the corpus (default %(default)s)")
    parser.add_argument("--val_scenes", type=int, default=64, help="scenes of held-out people (default %(default)s)")
    parser.add_argument("--encoders", type=Path, help="folder with vae/ and audio_encoder.safetensors to keep")
    parser.add_argument("--configs", type=Path, default=REPOSITORY / "configs", help="folder laid out as configs/")
    parser.add_argument("--extra", nargs=2, action="append", default=[], metavar=("STEP", "ARGUMENTS"),
                        help=f"more arguments for the command of a step, one of {', '.join(_STEPS)}")  # fmt: skip
    return parser


@dataclass(frozen=True)
class Recipe:
    """What to make and where.

    Attributes:
        out: folder of the run.
        gpus: numbers of the GPUs; none for the CPU.
        scenes, val_scenes: of the corpus.
        encoders: trained ones to keep, or None.
        configs: folder of the recipe.
        extra: step -> further arguments.
    """

    out: Path
    gpus: Sequence[str]
    scenes: int
    val_scenes: int
    encoders: Path | None
    configs: Path
    extra: dict[str, list[str]]

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> "Recipe":
        """From the command line. Raises ConfigError for a step that is not there, or too many GPUs."""
        extra: dict[str, list[str]] = {}
        for name, words in arguments.extra:
            if name not in _STEPS:
                raise ConfigError(f"--extra {name}: there is no such step; the steps are {', '.join(_STEPS)}")
            extra.setdefault(name, []).extend(shlex.split(words))
        if len(arguments.gpus) > _SECOND + 1:
            raise ConfigError(f"--gpus {' '.join(arguments.gpus)}: the recipe makes use of two at most")
        folders = (arguments.out, arguments.encoders, arguments.configs)
        out, encoders, configs = (folder and folder.resolve() for folder in folders)
        return cls(out, arguments.gpus, arguments.scenes, arguments.val_scenes, encoders, configs, extra)

    def steps(self) -> list[Step]:
        """All steps; without those of encoders that are kept."""
        corpus, encoders = self.out / "corpus", self.encoders or self.out / "demo"
        clips = (f"data.train_data_dir={corpus / 'train'}", f"data.val_data_dir={corpus / 'val'}")
        frozen = (f"ckpt.vae={encoders / 'vae'}", f"ckpt.audio_encoder={encoders / 'audio_encoder.safetensors'}")
        device = "cuda" if self.gpus else "cpu"
        scenes = ("--scenes", f"{self.scenes}", "--val-scenes", f"{self.val_scenes}", "--seconds", "2.72")
        made = () if self.encoders else ("vae", "audio")
        steps = [
            self._step("corpus", _SECOND, (), "tools.make_synthetic_dataset", "--out", f"{corpus}", *scenes,
                       "--seed", "1247", "--device", device),
            self._trained("syncnet", _SECOND, ("corpus",), "syncnet/demo_gpu.yaml", lambda: clips),
            self._trained("unet1", _FIRST, ("corpus", *made), "unet/demo_gpu.yaml", lambda: (*clips, *frozen)),
            self._trained("unet2", _FIRST, ("unet1", "syncnet"), "unet/demo_gpu_stage2.yaml",
                          lambda: (*clips, *frozen, *self._sync_critic())),
            Step("pack", lambda: self._packing(encoders), ("unet2",), self._environment(_FIRST)),
        ]  # fmt: skip
        return steps if self.encoders else [*self._encoder_steps(), *steps]

    def _encoder_steps(self) -> list[Step]:
        def stage(name: str, gpu: int, *needs: str) -> Step:
            words = ("--stage", name, "--out", f"{self.out}", "--config", f"{self.configs / 'training/demo.yaml'}")
            return self._step(name, gpu, needs, "tools.train_demo", *words)

        return [stage("vae", _FIRST), stage("speech", _SECOND), stage("audio", _SECOND, "speech")]

    def _step(self, name: str, gpu: int, needs: tuple[str, ...], module: str, *words: str) -> Step:
        command = [sys.executable, "-m", module, *words, *self.extra.get(name, [])]
        return Step(name, lambda: command, needs, self._environment(gpu))

    def _trained(
        self, name: str, gpu: int, needs: tuple[str, ...], config: str, words: Callable[[], Sequence[str]]
    ) -> Step:
        script = "scripts.train_syncnet" if name == "syncnet" else "scripts.train_unet"
        own = (f"{self.configs / config}", f"data.train_output_dir={self.out / name}")

        def command() -> list[str]:
            return [sys.executable, "-m", script, *own, *words(), *self.extra.get(name, [])]

        return Step(name, command, needs, self._environment(gpu))

    def _environment(self, gpu: int) -> dict[str, str]:
        chosen = self.gpus[min(gpu, len(self.gpus) - 1)] if self.gpus else ""
        path = os.pathsep.join(filter(None, (f"{REPOSITORY}", os.environ.get("PYTHONPATH"))))
        return {"CUDA_VISIBLE_DEVICES": chosen, "PYTHONPATH": path}

    def _sync_critic(self) -> tuple[str, str]:
        """Let the second stage start where the first ends, with the trained SyncNet as critic."""
        critic, base = self.out / "syncnet.yaml", self.configs / "syncnet/demo_gpu.yaml"
        weights = {"inference_ckpt_path": f"{self._weights('syncnet')}"}
        OmegaConf.save(OmegaConf.create({"base": f"{base}", "ckpt": weights}), critic)
        return f"data.syncnet_config_path={critic}", f"ckpt.resume_ckpt_path={self._weights('unet1')}"

    def _packing(self, encoders: Path) -> list[str]:
        files = ["--encoders", f"{encoders}", "--unet", f"{self._weights('unet2')}"]
        files += ["--syncnet", f"{self._weights('syncnet')}", "--out", f"{self.out / 'model'}", "--overwrite"]
        files += ["--unet_config", f"{self.configs / 'unet/demo_gpu.yaml'}"]
        files += ["--syncnet_config", f"{self.configs / 'syncnet/demo_gpu.yaml'}"]
        return [sys.executable, "-m", "tools.pack_demo", *files, *self.extra.get("pack", [])]

    def _weights(self, name: str) -> Path:
        """Last weights of a training."""
        found = sorted((self.out / name / "checkpoints").glob("step_*/*-*.pt"))
        if not found:
            raise ConfigError(
                f"{self.out / name} holds no weights although it is marked as done; remove {self.out}/done"
            )
        return found[-1]


if __name__ == "__main__":
    sys.exit(main())
