import torch
import torch.nn.functional as F

from latentsync.models.layers.attention import Attention, PointwiseConv
from latentsync.models.layers.residual_stream import TokenStream
from latentsync.models.unet.spatial_transformer import HeardAudio, SpatialTransformer, TransformerBlock
from tests.models.builders import transform


@torch.no_grad()
def test_attention_is_softmax_of_scaled_products_per_head():
    attention = Attention(12, heads=3, context_dim=5)
    tokens, context = torch.randn(2, 7, 12), torch.randn(2, 4, 5)
    query, key, value = attention.to_q(tokens), attention.to_k(context), attention.to_v(context)
    heads = []
    for part in (slice(0, 4), slice(4, 8), slice(8, 12)):
        weights = (query[..., part] @ key[..., part].transpose(1, 2) / 2.0).softmax(dim=-1)
        heads.append(weights @ value[..., part])
    expected = attention.to_out[0](torch.cat(heads, dim=-1))
    torch.testing.assert_close(attention(tokens, context), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_pointwise_conv_is_a_1x1_convolution():
    layer = PointwiseConv(6, 9)
    hidden = torch.randn(2, 6, 3, 4)
    expected = F.conv2d(hidden, layer.weight, layer.bias)
    tokens = layer(hidden.flatten(2).transpose(1, 2))
    torch.testing.assert_close(tokens.transpose(1, 2).unflatten(2, (3, 4)), expected)


@torch.no_grad()
def test_without_audio_the_audio_attention_and_its_norm_are_left_out():
    block = TransformerBlock(16, heads=2, audio_dim=6)
    tokens = torch.randn(3, 5, 16)

    def run(audio):
        stream = TokenStream(tokens)
        block(stream, audio)
        return stream.read()

    silent = run(None)
    assert block.attn2 is not None
    for parameter in block.attn2.to_out.parameters():
        parameter.zero_()
    heard = HeardAudio(*block.attn2.keys_and_values(torch.randn(3, 4, 6)), guided=False)
    torch.testing.assert_close(run(heard), silent)


@torch.no_grad()
def test_transformer_treats_every_picture_by_itself():
    transformer = SpatialTransformer(32, heads=4, groups=8, audio_dim=6)
    hidden, audio = torch.randn(3, 32, 4, 5), torch.randn(3, 7, 6)
    together = transform(transformer, hidden, transformer.hear(audio, guided=False))
    alone = transform(transformer, hidden[1:2], transformer.hear(audio[1:2], guided=False))
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_packed_projections_are_made_once(monkeypatch):
    attention, tokens, products = Attention(16, 2), torch.randn(2, 5, 16), []
    expected = attention.mix(tokens)
    attention.pack()
    linear = torch.nn.functional.linear

    def counted(*given):
        products.append(given)
        return linear(*given)

    monkeypatch.setattr("latentsync.models.layers.attention.F.linear", counted)
    torch.testing.assert_close(attention.mix(tokens), expected)
    assert len(products) == 1
