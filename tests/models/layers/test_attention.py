import torch

from latentsync.models.layers.attention import Attention
from latentsync.models.unet.spatial_transformer import AudioKeysValues, SpatialTransformer, TransformerBlock


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
def test_without_audio_the_audio_attention_and_its_norm_are_skipped():
    block = TransformerBlock(16, heads=2, audio_dim=6)
    tokens = torch.randn(3, 5, 16)
    silent = block(tokens, None)
    assert block.attn2 is not None
    for parameter in block.attn2.to_out.parameters():
        parameter.zero_()
    audio = AudioKeysValues(*block.attn2.project_context(torch.randn(3, 4, 6)), guided=False)
    torch.testing.assert_close(block(tokens, audio), silent)


@torch.no_grad()
def test_transformer_treats_every_frame_independently():
    transformer = SpatialTransformer(32, heads=4, groups=8, audio_dim=6)
    hidden, audio = torch.randn(3, 32, 4, 5), torch.randn(3, 7, 6)
    together = transformer(hidden, transformer.project_audio(audio, guided=False))
    alone = transformer(hidden[1:2], transformer.project_audio(audio[1:2], guided=False))
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-4)
