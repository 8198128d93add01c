"""The audio encoder and its files: layer outputs as published, both file layouts, rejection of invalid files."""

import dataclasses
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from latentsync.errors import CheckpointError, ConfigError
from latentsync.whisper.audio_encoder import AudioEncoder, AudioEncoderDims, load_audio_encoder, save_audio_encoder
from tests.golden_files import formula_weight, load_manifest
from tests.whisper.micro import chirp, micro_encoder, windows_of


def openai_checkpoint(golden, path, **changes):
    """Write the micro model in OpenAI's layout, including the decoder, in half precision."""
    case = golden("whisper_micro_weights")
    state = {key: value.half() for key, value in case.weights.items()}
    torch.save({"dims": {**case.attrs, **changes}, "model_state_dict": state}, path)
    return path


def test_tiny_features_match_the_published_ones(golden):
    case = golden("audio2feat_tiny_formula")
    encoder = AudioEncoder(AudioEncoderDims())
    state = encoder.state_dict()
    names = [name for name in state if name != "encoder.positional_embedding"]
    encoder.load_state_dict(state | {name: formula_weight(name, state[name].shape) for name in names})
    features = windows_of(encoder.eval(), chirp(case.attrs["samples"], case.attrs["chirp_seed"])).features(0, 150)
    case.check("features", features[case.attrs["rows"]])
    case.check("mean_per_frame", features.mean(dim=(1, 2)))
    final = encoder.encoder.ln_post(features[:3, -1])
    case.check("encoder_final_ln_post_row0_3", final)


def test_keys_and_shapes_of_whisper_tiny():
    dims = AudioEncoderDims.from_mapping(load_manifest("whisper_tiny_dims.json"))
    assert dims == AudioEncoderDims()
    with torch.device("meta"):
        state = AudioEncoder(dims).state_dict()
    manifest = load_manifest("whisper_tiny_encoder.json")
    assert {key: list(value.shape) for key, value in state.items()} == {
        key: entry["shape"] for key, entry in manifest.items()
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_openai_file_loads(golden, tmp_path, dtype):
    path = openai_checkpoint(golden, tmp_path / "micro.pt")
    encoder = load_audio_encoder(path, "cpu", dtype, cross_attention_dim=16)
    assert encoder.dtype == dtype
    assert not encoder.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    mel = torch.randn(2, 80, 3000)
    expected = micro_encoder()(mel)
    features = encoder(mel)
    assert features.shape == (2, 1500, 5, 16)
    assert features.dtype == dtype
    tolerance = 0.01 if dtype == torch.float32 else 0.1
    assert (features.float() - expected).abs().max() < tolerance * expected.abs().max()


def test_safetensors_round_trip(tmp_path):
    encoder = micro_encoder().half().float()
    path = tmp_path / "folder" / "audio_encoder.safetensors"
    save_audio_encoder(encoder, path)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    with safe_open(path, framework="pt") as file:
        assert "encoder.positional_embedding" not in file.keys()  # noqa: SIM118 - safe_open is not a mapping
        assert json.loads(file.metadata()["dims"]) == dataclasses.asdict(encoder.dims)
        assert file.get_tensor("encoder.conv1.weight").dtype == torch.float16
    loaded = load_audio_encoder(path, "cpu", torch.float32, 16)
    mel = torch.randn(1, 80, 3000)
    assert (loaded(mel) - encoder(mel)).abs().max() < 5e-3


def test_layer_norms_stay_float32():
    encoder = micro_encoder().half()
    assert encoder.encoder.ln_post.weight.dtype == torch.float32
    assert encoder.encoder.blocks[0].attn_ln.bias.dtype == torch.float32
    assert encoder.encoder.positional_embedding.dtype == torch.float32
    assert encoder.dtype == torch.float16


def test_gradients_flow_in_training():
    encoder = AudioEncoder(AudioEncoderDims(n_audio_ctx=10, n_audio_state=8, n_audio_head=2, n_audio_layer=1))
    encoder(torch.randn(1, 80, 20)).sum().backward()
    assert encoder.encoder.conv1.weight.grad.abs().sum() > 0


def test_width_mismatch_is_refused_with_advice(golden, tmp_path):
    path = openai_checkpoint(golden, tmp_path / "micro.pt")
    with pytest.raises(CheckpointError, match=r"width 16.*cross_attention_dim 768.*small\.pt"):
        load_audio_encoder(path, "cpu", torch.float32, 768)
    with pytest.raises(CheckpointError, match="trained with"):
        load_audio_encoder(path, "cpu", torch.float32, 100)


def test_wrong_input_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(b, 80, 3000\)"):
        micro_encoder()(torch.zeros(1, 80, 100))


def test_files_that_are_not_an_encoder_are_refused(golden, tmp_path):
    good = openai_checkpoint(golden, tmp_path / "good.pt")
    cut = tmp_path / "cut.pt"
    cut.write_bytes(good.read_bytes()[:5000])
    page = tmp_path / "page.pt"
    page.write_text("<html>not found</html>")
    empty = tmp_path / "empty.safetensors"
    empty.write_bytes(b"")
    unet = tmp_path / "unet.pt"
    torch.save({"state_dict": {}, "global_step": 3}, unet)
    other = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(1)}, other)
    wrong_dims = openai_checkpoint(golden, tmp_path / "wrong.pt", n_audio_layer=3)
    wrong_width = openai_checkpoint(golden, tmp_path / "wide.pt", n_audio_state=32)
    no_dims = tmp_path / "nodims.pt"
    torch.save({"dims": {"n_mels": 80}, "model_state_dict": {}}, no_dims)
    expected = {
        tmp_path / "missing.pt": "not found",
        tmp_path: "not found",
        cut: "cannot be read",
        page: "cannot be read",
        empty: "cannot be read",
        unet: "not a Whisper checkpoint.*global_step",
        other: "lacks 'dims'",
        wrong_dims: "unknown .*blocks.3",
        wrong_width: "contradicts its own dims",
        no_dims: "lack 'n_audio_ctx'",
    }
    for path, message in expected.items():
        with pytest.raises(CheckpointError, match=message):
            load_audio_encoder(path, "cpu", torch.float32)


def test_weights_beyond_fp16_are_not_saved(tmp_path):
    encoder = micro_encoder()
    encoder.encoder.conv1.weight.data[0, 0, 0] = 1e6
    with pytest.raises(CheckpointError, match="fp16"):
        save_audio_encoder(encoder, tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize("changes", [{"n_mels": 0}, {"n_audio_head": 5}, {"n_audio_state": 6.0}])
def test_invalid_dimensions_are_refused(changes):
    with pytest.raises(ConfigError, match="audio encoder"):
        AudioEncoderDims(**changes)
