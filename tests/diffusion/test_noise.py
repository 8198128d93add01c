"""Mixed noise against golden values and as a distribution."""

from collections.abc import Callable

import pytest
import torch

from latentsync.diffusion.noise import draw_mixed_noise, mix_noise
from latentsync.errors import ConfigError
from tests.golden_files import Golden


@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_mix_equals_golden(golden: Callable[[str], Golden], alpha: float) -> None:
    case = golden(f"mixed_noise_a{alpha}")
    noise = mix_noise(case.inputs["shared_raw"], case.inputs["individual_raw"], alpha)
    torch.testing.assert_close(noise, case.outputs["noise"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 3.0])
def test_frames_correlate_as_alpha_says(alpha: float) -> None:
    noise = draw_mixed_noise((4, 4, 2, 64, 64), alpha, torch.Generator().manual_seed(3), torch.float32)
    assert noise.var().item() == pytest.approx(1.0, abs=0.03)
    first, second = noise[:, :, 0].flatten(), noise[:, :, 1].flatten()
    correlation = torch.corrcoef(torch.stack([first, second]))[0, 1].item()
    assert correlation == pytest.approx(alpha**2 / (1 + alpha**2), abs=0.03)


def test_negative_alpha_is_refused() -> None:
    noise = torch.zeros(1, 4, 2, 8, 8)
    with pytest.raises(ConfigError, match="alpha"):
        mix_noise(noise, noise, -1.0)
