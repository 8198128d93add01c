"""Values that a run cannot have."""

import pytest

from latentsync.errors import ConfigError
from tests.training.line_task import options


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", 0.0),
        ("ema_decay", 1.0),
        ("max_grad_norm", -1.0),
        ("gradient_accumulation_steps", 0),
        ("lr_scheduler", "step"),
        ("keep_last", 0),
        ("resume", "yes"),
        ("max_train_steps", 0),
        ("mixed_precision", "fp8"),
        ("log_steps", 0),
        ("lr_warmup_fraction", 1.0),
        ("save_ckpt_seconds", -1.0),
    ],
)
def test_values_out_of_range_are_named(tmp_path, name, value):
    with pytest.raises(ConfigError, match=rf"{name} is {value!r}; expected"):
        options(tmp_path, **{"max_train_steps": 5, name: value})


def test_a_run_needs_an_end(tmp_path):
    with pytest.raises(ConfigError, match="Nothing would end this run"):
        options(tmp_path)
    options(tmp_path, max_train_seconds=1.0)
