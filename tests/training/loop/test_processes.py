"""What a run takes over from an earlier one of the same program: nothing."""

import pytest

from latentsync.errors import ConfigError
from latentsync.training.loop.processes import ProcessGroup, resolve_precision


def test_a_run_has_its_own_precision() -> None:
    for precision in ("no", "bf16", "no"):
        processes = ProcessGroup(precision, cpu=True)
        assert processes.accelerator.mixed_precision == precision == processes.precision
        assert processes.device.type == "cpu" and processes.shard.world_size == 1


def test_half_precision_needs_a_gpu() -> None:
    with pytest.raises(ConfigError, match="needs a GPU"):
        resolve_precision("fp16", cuda=False)
