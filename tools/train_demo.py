"""Train the encoders of the bundled demo model from nothing: made speech, audio encoder, autoencoder.

    python -m tools.train_demo --out /tmp/demo_run
    python -m tools.train_demo --out /tmp/tiny_run --tiny --device cpu

Trained files appear in ``OUT/demo`` (copy them to ``checkpoints/demo``) and are renewed while training goes on; logs,
figures and picture sheets in ``OUT/report``. The autoencoder is trained beside speech and audio, on the same device.
SyncNet and U-Net come afterwards, by ./train_syncnet.sh and ./train_unet.sh: see docs/training.md.
"""

import argparse
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latentsync.training.demo.config import DemoConfig

logger = logging.getLogger("train_demo")

_CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "training"


def main() -> int:
    """Read the command line and run one stage, or all of them in order."""
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    # The processes that make speech import this file again; they need none of the networks' libraries.
    from latentsync.training.demo.config import load_demo_config  # noqa: PLC0415

    path = arguments.config or _CONFIGS / ("tiny.yaml" if arguments.tiny else "demo.yaml")
    config = load_demo_config(path, tuple(arguments.set))
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.stage == "all":
        return _run_all(arguments, config)
    _run_stage(arguments, config)
    return 0


def _run_stage(arguments: argparse.Namespace, config: "DemoConfig") -> None:
    import torch  # noqa: PLC0415

    from latentsync.training.demo.run import STAGES, DemoRun  # noqa: PLC0415

    # TF32 stays off for matrix products: the renderer's coordinates need float32, and the networks run in bfloat16.
    torch.backends.cudnn.benchmark = True
    device = torch.device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    seconds = arguments.seconds or getattr(config.seconds, arguments.stage)
    STAGES[arguments.stage](DemoRun(config, arguments.out, device), seconds)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="recipe (default: configs/training/demo.yaml, or tiny.yaml)")
    parser.add_argument("--stage", choices=["speech", "audio", "vae", "all"], default="all")
    parser.add_argument("--out", type=Path, required=True, help="folder of this run; made if missing")
    parser.add_argument("--device", help="torch device (default: the GPU if there is one)")
    parser.add_argument("--tiny", action="store_true", help="everything small: a test of the stages, no model")
    parser.add_argument("--seconds", type=float, help="time budget of the one stage")
    parser.add_argument("--set", nargs="*", default=[], metavar="SECTION.KEY=VALUE", help="change the recipe")
    return parser


def _run_all(arguments: argparse.Namespace, config: "DemoConfig") -> int:
    """Each stage in a process of its own, so that they can run side by side and leave no memory behind."""
    start = time.monotonic()
    vae = _start(arguments, "vae", config.seconds.vae)
    try:
        for stage in ("speech", "audio"):
            _finish(_start(arguments, stage, getattr(config.seconds, stage)), stage)
        _finish(vae, "vae")
    finally:
        if vae.poll() is None:
            vae.terminate()
    logger.info("done in %.0f s", time.monotonic() - start)
    return 0


def _start(arguments: argparse.Namespace, stage: str, seconds: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tools.train_demo", "--stage", stage, "--seconds", str(seconds)]
    command += ["--out", str(arguments.out)]
    if arguments.device:
        command += ["--device", arguments.device]
    if arguments.config:
        command += ["--config", str(arguments.config)]
    if arguments.tiny:
        command.append("--tiny")
    if arguments.set:
        command += ["--set", *arguments.set]
    return subprocess.Popen(command)


def _finish(process: subprocess.Popen[bytes], stage: str) -> None:
    if process.wait() != 0:
        raise SystemExit(f"Stage {stage} failed with exit code {process.returncode}; its messages are above.")


if __name__ == "__main__":
    sys.exit(main())
