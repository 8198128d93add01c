"""The source's detail comes back exactly where the generator changed nothing, and nowhere else."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from latentsync.face.compositing.detail import SmoothedDetailWeight, detail_weight

SIZE = 128


def test_an_unchanged_face_gets_all_its_detail() -> None:
    source = torch.rand(2, 3, SIZE, SIZE) * 2 - 1
    reconstruction = F.avg_pool2d(source, 5, 1, 2)
    weight = detail_weight(reconstruction, reconstruction, source)
    torch.testing.assert_close(reconstruction + weight * (source - reconstruction), source)


def test_a_changed_mouth_keeps_what_was_generated_there() -> None:
    source = torch.rand(1, 3, SIZE, SIZE) * 0.2
    reconstruction = F.avg_pool2d(source, 5, 1, 2)
    generated = reconstruction.clone()
    generated[..., 70:100, 40:90] -= 0.8
    weight = detail_weight(generated, reconstruction, source)
    assert weight.shape == (1, 1, SIZE, SIZE)
    assert weight[..., 72:98, 42:88].max() < 1e-3
    assert weight[..., :50, :].min() > 0.999
    steps = (weight[..., 60:110, 64].diff(dim=-1).abs()).max()
    assert steps < 0.6  # a soft edge, no cut-out


def test_small_differences_cost_little_detail() -> None:
    source = torch.zeros(1, 3, SIZE, SIZE)
    weight = detail_weight(source + 0.02, source, source)
    assert weight.min() > 0.9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_detail_goes_at_once_and_comes_back_slowly_however_frames_are_batched(dtype) -> None:
    source = torch.zeros(40, 3, 32, 32, dtype=dtype)
    generated = source.clone()
    generated[10:12] = 0.8
    alone = detail_weight(generated, source, source)[:, 0, 16, 16]
    whole = SmoothedDetailWeight()(generated, source, source)[:, 0, 16, 16]
    assert alone[9] > 0.99 and alone[10:12].max() < 1e-3 and alone[12] > 0.99
    assert whole[:10].min() > 0.99 and whole[10:12].max() < 1e-3
    assert 0 < whole.diff()[11:].max() < 0.1
    assert (whole.diff()[11:] >= 0).all() and whole[-1] > 0.99
    steady = SmoothedDetailWeight()
    parts = [steady(*(each[part] for each in (generated, source, source))) for part in torch.arange(40).split(7)]
    torch.testing.assert_close(torch.cat(parts)[:, 0, 16, 16], whole)


def test_shares_are_those_of_the_recurrence() -> None:
    """Frame by frame: no more than a sixteenth above the last, but at a cut."""
    generator = torch.Generator().manual_seed(3)
    source = torch.zeros(60, 3, 32, 32)
    source[33:] = 0.9
    generated = source + 0.2 * torch.rand(60, 1, 8, 8, generator=generator).repeat_interleave(4, 2).repeat_interleave(
        4, 3
    )
    alone = detail_weight(generated, source, source)
    expected = [alone[0]]
    for index in range(1, 60):
        limit = expected[-1] + 1 / 16
        expected.append(alone[index] if index == 33 else torch.minimum(alone[index], limit))
    steady = SmoothedDetailWeight()
    parts = [steady(generated[part], source[part], source[part]) for part in torch.arange(60).split(25)]
    torch.testing.assert_close(torch.cat(parts), torch.stack(expected))


def test_a_cut_brings_detail_back_at_once() -> None:
    source = torch.zeros(6, 3, 32, 32)
    source[3:] = 0.9
    generated = source.clone()
    generated[2] += 0.8
    weight = SmoothedDetailWeight()(generated, source, source)[:, 0, 16, 16]
    assert weight[2] < 1e-3 and weight[3:].min() > 0.99


def test_a_frame_that_overflowed_does_not_spoil_the_next() -> None:
    source = torch.zeros(30, 3, 32, 32)
    generated = source.clone()
    generated[1] = torch.nan
    weight = SmoothedDetailWeight()(generated, source, source)
    assert weight.isfinite().all() and weight[-1].min() > 0.99
