import logging

import pytest
import torch
from safetensors.torch import save_file

from latentsync.errors import CheckpointError
from latentsync.models.unet.load import load_unet
from latentsync.models.unet.spec import UNetSpec
from latentsync.models.weights.state_dict import copy_network, read_state_dict
from tests.models.builders import SMALL_SPEC, golden_vae, small_inputs, small_unet

STAGE1 = UNetSpec(**{**SMALL_SPEC.__dict__, "use_motion_module": False})
DECODER_ONLY = UNetSpec(**{**SMALL_SPEC.__dict__, "motion_module_decoder_only": True})


def save(state_dict, path, layout):
    if layout == "safetensors":
        save_file({key: tensor.contiguous() for key, tensor in state_dict.items()}, path)
    elif layout == "nested":
        torch.save({"state_dict": state_dict, "global_step": 12}, path)
    else:
        torch.save(state_dict, path, _use_new_zipfile_serialization=layout != "legacy")
    return path


def load_small(path, spec=SMALL_SPEC, **options):
    return load_unet(spec, path, "cpu", torch.float32, **options)


@pytest.mark.parametrize(
    ("layout", "name"),
    [("nested", "a.pt"), ("bare", "a.pt"), ("legacy", "a.pth"), ("safetensors", "a.safetensors")],
)
@torch.no_grad()
def test_every_layout_gives_back_the_saved_network(tmp_path, layout, name):
    model, inputs = small_unet(), small_inputs()
    loaded = load_small(save(model.state_dict(), tmp_path / name, layout))
    torch.testing.assert_close(loaded(*inputs), model(*inputs))
    assert not loaded.training
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert loaded.conv_in.weight.is_contiguous(memory_format=torch.channels_last)


def test_half_precision_file_loads_in_the_asked_dtype(tmp_path):
    path = save(small_unet().half().state_dict(), tmp_path / "a.safetensors", "safetensors")
    assert {tensor.dtype for tensor in load_small(path).state_dict().values()} == {torch.float32}
    halved = load_unet(SMALL_SPEC, path, "cpu", torch.bfloat16)
    assert {tensor.dtype for tensor in halved.state_dict().values()} == {torch.bfloat16}


@pytest.mark.parametrize(("layout", "name"), [("nested", "a.pt"), ("safetensors", "a.safetensors")])
def test_loaded_network_does_not_hang_on_the_file(tmp_path, layout, name):
    path = save(small_unet().state_dict(), tmp_path / name, layout)
    model = load_small(path)
    before = model.conv_in.weight.clone()
    path.write_bytes(b"\0" * path.stat().st_size)
    torch.testing.assert_close(model.conv_in.weight, before)


@torch.no_grad()
def test_a_copied_network_computes_the_same_from_tensors_of_its_own():
    model, inputs = small_unet(), small_inputs()
    expected = model(*inputs)
    copied = copy_network(model, torch.device("cpu"))
    for parameter in model.parameters():
        parameter.zero_()
    torch.testing.assert_close(copied(*inputs), expected)
    assert copied.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    vae = golden_vae()
    copied_vae, latents = copy_network(vae, torch.device("cpu")), torch.randn(1, 4, 8, 8)
    torch.testing.assert_close(copied_vae.decode(latents).sample, vae.decode(latents).sample)
    assert not any(parameter.requires_grad for parameter in copied_vae.parameters())


def test_a_network_is_copied_from_one_device_to_another():
    copied = copy_network(small_unet(), torch.device("meta"))
    assert all(tensor.is_meta for tensor in (*copied.parameters(), *copied.buffers()))


@pytest.mark.parametrize("spec", [STAGE1, DECODER_ONLY], ids=["stage1", "decoder_only"])
@torch.no_grad()
def test_surplus_motion_modules_are_left_out_and_named(tmp_path, caplog, spec):
    model = small_unet()
    path = save(model.state_dict(), tmp_path / "a.pt", "nested")
    with caplog.at_level(logging.WARNING):
        loaded = load_small(path, spec)
    assert "down_blocks.0.motion_modules.0" in caplog.text
    assert ("up_blocks.0.motion_modules.0" in caplog.text) == (spec is STAGE1)
    assert loaded.state_dict().keys() == {key for key in model.state_dict() if key in loaded.state_dict()}


@torch.no_grad()
def test_missing_motion_modules_start_as_identity_and_are_named(tmp_path, caplog):
    without = small_unet(use_motion_module=False)
    path = save(without.state_dict(), tmp_path / "a.pt", "nested")
    with caplog.at_level(logging.WARNING):
        loaded = load_small(path)
    assert "up_blocks.1.motion_modules.1" in caplog.text
    inputs = small_inputs()
    torch.testing.assert_close(loaded(*inputs), without(*inputs))
    assert not any(tensor.is_meta for tensor in loaded.state_dict().values())
    assert loaded.state_dict()["up_blocks.1.motion_modules.1.temporal_transformer.proj_in.weight"].std() > 0


def test_complete_file_is_loaded_without_a_warning(tmp_path, caplog):
    path = save(small_unet().state_dict(), tmp_path / "a.pt", "nested")
    load_small(path)
    assert not caplog.records


def test_part_of_a_motion_module_is_refused(tmp_path):
    state_dict = small_unet().state_dict()
    del state_dict["up_blocks.0.motion_modules.0.temporal_transformer.proj_in.weight"]
    with pytest.raises(CheckpointError, match="1 entries missing, e.g. up_blocks.0.motion_modules.0"):
        load_small(save(state_dict, tmp_path / "a.pt", "nested"))


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"in_channels": 9}, "conv_in.weight"), ({"cross_attention_dim": 32}, "attn2.to_k"), ({"out_channels": 8}, "out")],
)
def test_other_widths_are_refused_for_use_but_started_afresh_for_training(tmp_path, caplog, changes, named):
    path = save(small_unet(**changes).state_dict(), tmp_path / "a.pt", "nested")
    with pytest.raises(CheckpointError, match=named):
        load_small(path)
    with caplog.at_level(logging.WARNING):
        loaded = load_small(path, allow_reinit=True)
    assert named in caplog.text
    assert loaded.conv_in.weight.shape[1] == SMALL_SPEC.in_channels
    assert all(tensor.isfinite().all() for tensor in loaded.state_dict().values())


@pytest.mark.parametrize("allow_reinit", [False, True])
def test_another_network_is_refused_and_named(tmp_path, allow_reinit):
    other = {"encoder.positional_embedding": torch.zeros(1500, 384)}
    path = save(other, tmp_path / "a.pt", "bare")
    with pytest.raises(CheckpointError, match="looks like a Whisper model"):
        load_small(path, allow_reinit=allow_reinit)


def test_a_network_of_other_size_is_refused_with_both_named(tmp_path):
    path = save(small_unet(block_out_channels=(32, 96)).state_dict(), tmp_path / "a.pt", "nested")
    with pytest.raises(CheckpointError, match=r"of another shape, e\.g\. .*in the file.*expected"):
        load_small(path, allow_reinit=True)


def damaged(path, kind):
    if kind == "missing":
        return path
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("version https://git-lfs.github.com/spec/v1\n")
    elif kind == "empty":
        path.touch()
    elif kind == "cut":
        whole = save(small_unet().state_dict(), path, "safetensors" if path.suffix == ".safetensors" else "bare")
        whole.write_bytes(whole.read_bytes()[:100_000])
    elif kind == "code":
        torch.save({"state_dict": {"a": ValueError}}, path)
    else:
        torch.save({"global_step": 3}, path)
    return path


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "empty", "cut"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_damaged_file_is_refused_by_name(tmp_path, kind, suffix):
    path = damaged(tmp_path / f"weights{suffix}", kind)
    with pytest.raises(CheckpointError, match="weights"):
        read_state_dict(path)


@pytest.mark.parametrize("kind", ["code", "no tensors"])
def test_pickle_without_weights_is_refused(tmp_path, kind):
    with pytest.raises(CheckpointError, match="weights"):
        read_state_dict(damaged(tmp_path / "weights.pt", kind))
