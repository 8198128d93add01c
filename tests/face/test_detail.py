"""The source's detail comes back exactly where the generator changed nothing, and nowhere else."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from latentsync.face.detail import detail_share

SIZE = 128


def test_an_unchanged_face_gets_all_its_detail() -> None:
    source = torch.rand(2, 3, SIZE, SIZE) * 2 - 1
    rendered = F.avg_pool2d(source, 5, 1, 2)
    share = detail_share(rendered, rendered, source)
    torch.testing.assert_close(rendered + share * (source - rendered), source)


def test_a_changed_mouth_keeps_what_was_generated_there() -> None:
    source = torch.rand(1, 3, SIZE, SIZE) * 0.2
    rendered = F.avg_pool2d(source, 5, 1, 2)
    generated = rendered.clone()
    generated[..., 70:100, 40:90] -= 0.8
    share = detail_share(generated, rendered, source)
    assert share.shape == (1, 1, SIZE, SIZE)
    assert share[..., 72:98, 42:88].max() < 1e-3
    assert share[..., :50, :].min() > 0.999
    steps = (share[..., 60:110, 64].diff(dim=-1).abs()).max()
    assert steps < 0.6  # a soft edge, no cut-out


def test_small_differences_cost_little_detail() -> None:
    source = torch.zeros(1, 3, SIZE, SIZE)
    share = detail_share(source + 0.02, source, source)
    assert share.min() > 0.9
