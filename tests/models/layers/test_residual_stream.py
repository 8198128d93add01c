"""Adding in place, as compiled CUDA networks do it, against the plain sums."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch._dynamo import lookup_backend

from latentsync.models.kernels import dispatch as kernels
from latentsync.models.layers.attention import FeedForward, PointwiseConv
from latentsync.models.layers.residual_stream import TokenStream, add_product, project_wide, repeat_wide
from latentsync.models.unet.blocks import Condition, DownLevel
from latentsync.models.unet.fused_output import WayBack
from tests.models.builders import SMALL_SPEC
from tests.models.plain_kernels import use_plain_kernels


def layers() -> list[nn.Linear]:
    return [nn.Linear(12, 8), nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 6)]


def run(parts, inputs, more, outside, frames):
    """Two streams with every operation; the second one's tokens end in the first."""
    first, second, third, last = parts
    inner = TokenStream.project(first, inputs)
    inner.add(second, more)
    if frames > len(inner):
        inner.repeat()
    read = inner.read(last=2)
    inner.add(third, read)
    stream = TokenStream(outside)
    stream.join(last, inner)
    return read, stream.read()


@torch.no_grad()
@pytest.mark.parametrize("frames", [4, 8])
def test_adding_in_place_gives_the_same_sums(monkeypatch, frames):
    inputs, more, outside = torch.randn(4, 3, 12), torch.randn(4, 3, 5), torch.randn(4, 3, 6)
    parts = layers()
    expected = run(parts, inputs, more, outside, frames)
    monkeypatch.setattr(kernels, "adds_in_place", lambda tensor: True)
    for found, plain in zip(run(parts, inputs, more, outside.clone(), frames), expected, strict=True):
        torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_stream_is_the_sum_of_its_layers():
    parts = layers()
    first, second, third, last = parts
    inputs, more, outside = torch.randn(4, 3, 12), torch.randn(4, 3, 5), torch.randn(4, 3, 6)
    tokens = first(inputs) + second(more)
    tokens[:2] += third.bias
    read = tokens[2:].clone()
    tokens[2:] += third(read)
    found = run(parts, inputs, more, outside, 4)
    torch.testing.assert_close(found[0], read, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[1], outside + last(tokens), atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("frames", [4, 8])
@pytest.mark.parametrize("heard", [True, False])
def test_a_packed_way_back_gives_the_same(monkeypatch, frames, heard):
    """The feed-forward's last matrix and the projection outside as one, over tokens with their gate beside them."""
    project, audio, norm, feed, proj_out = (
        nn.Linear(12, 8),
        nn.Linear(5, 8),
        nn.LayerNorm(8),
        FeedForward(8),
        PointwiseConv(8, 8),
    )
    inputs, more, outside = torch.randn(4, 3, 12), torch.randn(4, 3, 5), torch.randn(4, 3, 8)

    def run(back, outside):
        inner, outer = TokenStream.project(project, inputs, back.room), TokenStream(outside)
        if heard:
            inner.add(audio, more)
        if frames > len(inner):
            inner.repeat()
        back(outer, inner, feed, norm, proj_out, heard)
        return outer.read()

    expected = run(WayBack(), outside)
    use_plain_kernels(monkeypatch)
    back = WayBack()
    feed.net[0].pack()
    back.pack(proj_out, feed.projection, [project.bias, feed.projection.bias], audio.bias)
    assert not back.state_dict(), "published files know nothing of it"
    torch.testing.assert_close(run(back, outside.clone()), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_caller_keeps_what_lies_in_another_order():
    hidden = torch.randn(4, 6, 3)
    before = hidden.clone()
    stream = TokenStream(hidden.transpose(1, 2))
    stream.add(nn.Linear(5, 6), torch.randn(4, 3, 5))
    assert torch.equal(hidden, before)


@torch.no_grad()
def test_a_compiled_layer_adds_in_place_and_gives_the_same(monkeypatch):
    down, up = ("CrossAttnDownBlock3D",), ("CrossAttnUpBlock3D",)
    spec = replace(SMALL_SPEC, block_out_channels=(32,), down_block_types=down, up_block_types=up)
    layer = DownLevel(spec, 0).eval()
    for parameter in layer.parameters():  # the motion module's last projection too, which starts as zero
        parameter.add_(torch.randn_like(parameter), alpha=0.05)
    hidden, audio, time_emb = torch.randn(4, 32, 6, 6), torch.randn(4, 3, 24), torch.randn(1, 128)

    def run(hidden):
        heard = [transformer.hear(audio, guided=True) for transformer in layer.attentions]
        return layer.layer(0, [hidden], Condition(time_emb, heard, 4))

    expected, before = run(hidden), hidden.clone()
    monkeypatch.setattr(kernels, "adds_in_place", lambda tensor: torch.compiler.is_compiling())
    products: list[torch.fx.Node] = []

    def backend(graph, inputs):
        products.extend(node for node in graph.graph.nodes if "add_product" in str(node.target))
        return lookup_backend("aot_eager")(graph, inputs)

    found = torch.compile(run, fullgraph=True, backend=backend)(hidden)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
    assert torch.equal(hidden, before)
    assert len(products) == 8, "of each of two transformers: two attentions, the feed-forward, the way back"


def test_the_operation_is_sound_for_the_compiler():
    total, inputs, weight = torch.randn(4, 3, 6), torch.randn(2, 3, 5), torch.randn(6, 5)
    torch.library.opcheck(add_product, (total, inputs, weight, 2))
    # Without room, which is left unfilled and so differs from run to run.
    torch.library.opcheck(project_wide, (inputs, weight, 0))
    torch.library.opcheck(repeat_wide, (total, 6))


def test_a_layer_without_bias_is_refused():
    with pytest.raises(ValueError, match="needs a bias"):
        TokenStream.project(nn.Linear(3, 4, bias=False), torch.randn(1, 2, 3))
