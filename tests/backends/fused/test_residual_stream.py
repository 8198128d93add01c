"""In-place accumulation, as compiled CUDA networks do it, against the plain sums."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch._dynamo import lookup_backend

from latentsync.backends.fused.attention import FusedFeedForward
from latentsync.backends.fused.layout import FusedLayout
from latentsync.backends.fused.levels import FusedDownLevel
from latentsync.backends.fused.output_projection import FusedOutput
from latentsync.backends.fused.residual_stream import ResidualStream, add_product, project_wide, repeat_wide
from latentsync.backends.fused.weights import FixedLinear, LayerWeights
from latentsync.models.kernels import dispatch as kernels
from latentsync.models.layers.attention import FeedForward
from latentsync.models.unet.blocks import Condition, DownLevel
from tests.models.builders import SMALL_SPEC
from tests.models.plain_kernels import use_plain_kernels


def linear(dim_in, dim_out):
    return FixedLinear(nn.Linear(dim_in, dim_out))


def layers() -> list[FixedLinear]:
    return [linear(12, 8), linear(5, 8), linear(8, 8), linear(8, 6)]


def run(parts, inputs, more, outside, frames):
    """Two streams with every operation; the second one is added to the first."""
    first, second, third, last = parts
    inner = ResidualStream.project(first, inputs)
    inner.add(second, more)
    if frames > len(inner):
        inner.repeat()
    read = inner.read(last=2)
    inner.add(third, read)
    stream = ResidualStream(outside)
    stream.add_stream(last, inner)
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
@pytest.mark.parametrize("with_audio", [True, False])
def test_a_packed_output_projection_gives_the_same(monkeypatch, frames, with_audio):
    """The feed-forward's second matrix and the output projection as one, over tokens with the GEGLU beside them."""
    project, audio, norm, feed, proj_out = (
        linear(12, 8),
        linear(5, 8),
        nn.LayerNorm(8),
        FeedForward(8),
        LayerWeights(nn.Conv2d(8, 8, 1)),
    )
    plain_feed, packed_feed = (FusedFeedForward(feed, interleaved=interleaved) for interleaved in (False, True))
    inputs, more, outside = torch.randn(4, 3, 12), torch.randn(4, 3, 5), torch.randn(4, 3, 8)

    def run(output, feed, outside):
        inner, outer = ResidualStream.project(project, inputs, output.extra_channels), ResidualStream(outside)
        if with_audio:
            inner.add(audio, more)
        if frames > len(inner):
            inner.repeat()
        output(outer, inner, feed, norm, proj_out, with_audio)
        return outer.read()

    expected = run(FusedOutput(), plain_feed, outside)
    use_plain_kernels(monkeypatch)
    output = FusedOutput()
    output.pack(proj_out, packed_feed.projection, [project.bias, packed_feed.projection.bias], audio.bias)
    assert not output.state_dict(), "published files have no such entries"
    torch.testing.assert_close(run(output, packed_feed, outside.clone()), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_tokens_in_another_memory_order_are_copied():
    hidden = torch.randn(4, 6, 3)
    before = hidden.clone()
    stream = ResidualStream(hidden.transpose(1, 2))
    stream.add(linear(5, 6), torch.randn(4, 3, 5))
    assert torch.equal(hidden, before)


@torch.no_grad()
def test_a_compiled_layer_adds_in_place_and_gives_the_same(monkeypatch):
    down, up = ("CrossAttnDownBlock3D",), ("CrossAttnUpBlock3D",)
    spec = replace(SMALL_SPEC, block_out_channels=(32,), down_block_types=down, up_block_types=up)
    layer = DownLevel(spec, 0).eval()
    for parameter in layer.parameters():  # the motion module's last projection too, which starts as zero
        parameter.add_(torch.randn_like(parameter), alpha=0.05)
    hidden, audio, time_emb = torch.randn(4, 32, 6, 6), torch.randn(4, 3, 24), torch.randn(1, 128)

    def run(hidden, level):
        context = [transformer.project_audio(audio, guided=True) for transformer in level.attentions]
        return level.layer(0, hidden, None, Condition(time_emb, context, 4))

    expected, before = run(hidden, layer), hidden.clone()
    layout = FusedLayout(inputs=False, upsample=False, geglu=False, outputs=False, winograd=False)
    fused = FusedDownLevel(copy.deepcopy(layer), layout)
    monkeypatch.setattr(kernels, "adds_in_place", lambda tensor: torch.compiler.is_compiling())
    products: list[torch.fx.Node] = []

    def backend(graph, inputs):
        products.extend(node for node in graph.graph.nodes if "add_product" in str(node.target))
        return lookup_backend("aot_eager")(graph, inputs)

    found = torch.compile(run, fullgraph=True, backend=backend)(hidden, fused)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
    assert torch.equal(hidden, before)
    assert len(products) == 8, "of each of two transformers: two attentions, the feed-forward, the output projection"


def test_the_operation_is_sound_for_the_compiler():
    total, inputs, weight = torch.randn(4, 3, 6), torch.randn(2, 3, 5), torch.randn(6, 5)
    torch.library.opcheck(add_product, (total, inputs, weight, 2))
    # Without extra channels, which are not filled and so differ from run to run.
    torch.library.opcheck(project_wide, (inputs, weight, 0))
    torch.library.opcheck(repeat_wide, (total, 6))


def test_a_layer_without_bias_is_refused():
    with pytest.raises(ValueError, match="needs a bias"):
        ResidualStream.project(LayerWeights(nn.Linear(3, 4, bias=False)), torch.randn(1, 2, 3))
