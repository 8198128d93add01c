"""Train the encoders of the bundled demo model from scratch: speech corpus, audio encoder, VAE.

    python -m tools.train_demo --out /tmp/demo_run
    python -m tools.train_demo --out /tmp/tiny_run --tiny --device cpu

The trained files come to ``OUT/demo`` (copy them to ``checkpoints/demo``). Both trainings are runs like any other, in
``OUT/audio`` and ``OUT/vae``: the same command resumes them. The VAE trains beside speech and audio, on the same
device; the output of each stage goes to ``OUT/logs``. SyncNet and U-Net follow by ./train_syncnet.sh and
./train_unet.sh: see docs/training.md.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latentsync.training.demo.config import DemoConfig

logger = logging.getLogger("train_demo")

_CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "training"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one stage, or all of them: 0, 1 after an error, 130 if a signal ended a stage."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    # The processes that synthesize speech import this file again, and need none of these libraries.
    from latentsync.errors import LatentSyncError  # noqa: PLC0415
    from latentsync.training.demo.config import load_demo_config  # noqa: PLC0415

    try:
        path = arguments.config or _CONFIGS / ("tiny.yaml" if arguments.tiny else "demo.yaml")
        config = load_demo_config(path, tuple(arguments.set))
        arguments.out.mkdir(parents=True, exist_ok=True)
        if arguments.stage == "all":
            _run_all(arguments, path)
            return 0
        return 0 if _run_stage(arguments, config) else 130
    except LatentSyncError as error:
        logger.error("%s", error)
        return 1


def _run_stage(arguments: argparse.Namespace, config: "DemoConfig") -> bool:
    import torch  # noqa: PLC0415

    from latentsync.training.demo.run import STAGES, DemoRun  # noqa: PLC0415

    # TF32 stays off for matrix products: the renderer's coordinates need float32, and the networks run in bfloat16.
    torch.backends.cudnn.benchmark = True
    cuda = torch.cuda.is_available() and arguments.device != "cpu"
    device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
    seconds = arguments.seconds or getattr(config.seconds, arguments.stage)
    return STAGES[arguments.stage](DemoRun(config, arguments.out, device), seconds)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="recipe (default: configs/training/demo.yaml, or tiny.yaml)")
    parser.add_argument("--stage", choices=["speech", "audio", "vae", "all"], default="all")
    parser.add_argument("--out", type=Path, required=True, help="folder of this run; made if missing")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto", help="where to train")
    parser.add_argument("--tiny", action="store_true", help="use tiny.yaml: seconds, but no useful model")
    parser.add_argument("--seconds", type=float, help="time limit of a single stage")
    parser.add_argument("--set", nargs="*", default=[], metavar="SECTION.KEY=VALUE", help="override the recipe")
    return parser


def _run_all(arguments: argparse.Namespace, config_path: Path) -> None:
    """Each stage in a process of its own, so that they run side by side and free their memory."""
    from latentsync.training.demo.step_graph import Step, StepGraph  # noqa: PLC0415

    def step(stage: str, *needs: str) -> Step:
        command = [sys.executable, "-m", "tools.train_demo", "--stage", stage, "--out", str(arguments.out)]
        command += ["--config", str(config_path), "--device", arguments.device]
        command += ["--set", *arguments.set] if arguments.set else []
        return Step(stage, lambda: command, needs)

    StepGraph([step("vae"), step("speech"), step("audio", "speech")], arguments.out).run()


if __name__ == "__main__":
    sys.exit(main())
