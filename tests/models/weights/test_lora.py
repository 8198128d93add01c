"""LoRA files in both layouts, merged into the plain network."""

import json

import pytest
import torch
from safetensors.torch import save_file

from latentsync.backends.cuda import prepare_unet
from latentsync.errors import CheckpointError
from latentsync.models.weights.lora import merge_lora
from tests.models.builders import small_inputs, small_unet

ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
TARGETS = [f"{ATTENTION}.to_q", f"{ATTENTION}.to_out.0", "down_blocks.0.attentions.0.proj_in", "conv_in"]
RANK = 2


def random_lora(unet):
    """Down and up matrices for every kind of target, and the update that they stand for."""
    matrices = {}
    for name in TARGETS:
        weight = unet.get_submodule(name).weight
        kernel = weight.shape[2:]
        down = torch.randn(RANK, weight.shape[1], *kernel) / 10
        matrices[name] = down, torch.randn(len(weight), RANK, *(1 for _ in kernel)) / 10
    return matrices


def update(down, up):
    return torch.einsum("or,r...->o...", up.flatten(1), down)


def write(matrices, path, layout, alpha=None):
    prefix, down_name, up_name = {
        "peft": ("base_model.model.", "lora_A.weight", "lora_B.weight"),
        "peft with adapter name": ("base_model.model.", "lora_A.default.weight", "lora_B.default.weight"),
        "diffusers": ("unet.", "lora.down.weight", "lora.up.weight"),
        "diffusers as peft": ("unet.", "lora_A.weight", "lora_B.weight"),
    }[layout]
    tensors = {}
    for name, (down, up) in matrices.items():
        tensors[f"{prefix}{name}.{down_name}"], tensors[f"{prefix}{name}.{up_name}"] = down, up
        if alpha is not None:
            tensors[f"{prefix}{name}.alpha"] = torch.tensor(float(alpha))
    if path.suffix == ".pt":
        torch.save(tensors, path)
    else:
        save_file(tensors, path)
    return path


@pytest.mark.parametrize("layout", ["peft", "peft with adapter name", "diffusers", "diffusers as peft"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_both_layouts_are_merged(tmp_path, layout, suffix):
    unet = small_unet()
    matrices, before = random_lora(unet), {name: unet.get_submodule(name).weight.clone() for name in TARGETS}
    others = {key: tensor.clone() for key, tensor in unet.state_dict().items() if key[: -len(".weight")] not in TARGETS}
    path = write(matrices, tmp_path / f"lora{suffix}", layout)
    assert merge_lora(unet, path, 0.7) == len(TARGETS)
    for name, weight in before.items():
        torch.testing.assert_close(unet.get_submodule(name).weight, weight + 0.7 * update(*matrices[name]))
    assert all(torch.equal(unet.state_dict()[key], tensor) for key, tensor in others.items())
    assert merge_lora(unet, path, -0.7) == len(TARGETS)
    for name, weight in before.items():
        torch.testing.assert_close(unet.get_submodule(name).weight, weight, atol=1e-6, rtol=1e-5)


def test_alpha_scales_the_update(tmp_path):
    unet = small_unet()
    matrices, before = random_lora(unet), unet.conv_in.weight.clone()
    merge_lora(unet, write(matrices, tmp_path / "lora.safetensors", "diffusers", alpha=6))
    torch.testing.assert_close(unet.conv_in.weight, before + 6 / RANK * update(*matrices["conv_in"]))


@pytest.mark.parametrize(("rslora", "factor"), [(False, 4 / RANK), (True, 4 / RANK**0.5)])
def test_the_configuration_of_peft_scales_the_update(tmp_path, rslora, factor):
    unet = small_unet()
    matrices, before = random_lora(unet), {name: unet.get_submodule(name).weight.clone() for name in TARGETS}
    write(matrices, tmp_path / "adapter_model.safetensors", "peft")
    config = {"r": RANK, "lora_alpha": 4, "use_rslora": rslora, "alpha_pattern": {"to_q": 10}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    merge_lora(unet, tmp_path)
    torch.testing.assert_close(unet.conv_in.weight, before["conv_in"] + factor * update(*matrices["conv_in"]))
    query, ratio = TARGETS[0], 10 / 4
    expected = before[query] + ratio * factor * update(*matrices[query])
    torch.testing.assert_close(unet.get_submodule(query).weight, expected)


@torch.no_grad()
def test_a_file_of_the_real_peft_gives_what_peft_computes(tmp_path):
    peft = pytest.importorskip("peft")
    unet, inputs = small_unet(), small_inputs()
    adapted = small_unet()
    adapted.load_state_dict(unet.state_dict())
    targets = ["to_q", "to_v", "to_out.0", "proj_in", "proj_out", "net.0.proj", "net.2", "time_emb_proj", "conv_in"]
    config = peft.LoraConfig(r=3, lora_alpha=6, target_modules=targets, init_lora_weights=False)
    model = peft.get_peft_model(adapted, config).eval()
    model.save_pretrained(tmp_path)
    expected = adapted(*inputs)
    assert (expected - unet(*inputs)).norm() > 0.01 * expected.norm()
    count = merge_lora(unet, tmp_path)
    assert count == sum(isinstance(module, peft.tuners.lora.LoraLayer) for module in adapted.modules()) > 20
    torch.testing.assert_close(unet(*inputs), expected, atol=1e-4, rtol=1e-3)


def wrong(matrices, kind):
    """The file of a defective LoRA: its tensors."""
    down, up = matrices["conv_in"]
    return {
        "unknown layer": {"unet.conv_nowhere.lora_A.weight": down, "unet.conv_nowhere.lora_B.weight": up},
        "norm": {"unet.conv_norm_out.lora_A.weight": down, "unet.conv_norm_out.lora_B.weight": up},
        "rank": {"unet.conv_in.lora_A.weight": down, "unet.conv_in.lora_B.weight": up[:, :1].contiguous()},
        "size": {"unet.conv_in.lora_A.weight": down[:, :4].contiguous(), "unet.conv_in.lora_B.weight": up},
        "half": {"unet.conv_in.lora_A.weight": down},
        "no lora": {"conv_in.weight": torch.zeros(32, 13, 3, 3)},
        "dora": {
            "unet.conv_in.lora_A.weight": down,
            "unet.conv_in.lora_B.weight": up,
            "unet.conv_in.lora_magnitude_vector": torch.ones(32),
        },
    }[kind]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("unknown layer", "conv_nowhere, but the network has no such layer"),
        ("norm", "conv_norm_out, but there the network has a FrameGroupNorm"),
        ("rank", "down has rank 2, up has rank 1"),
        ("size", "the layer's weight is"),
        ("half", r"no up \(lora_B\) matrix"),
        ("no lora", "is no LoRA file"),
        ("dora", "lora_magnitude_vector"),
    ],
)
def test_a_file_that_does_not_fit_changes_nothing(tmp_path, kind, message):
    unet = small_unet()
    before = {key: tensor.clone() for key, tensor in unet.state_dict().items()}
    matrices = random_lora(unet)
    path = tmp_path / "lora.safetensors"
    valid = {f"unet.{TARGETS[0]}.lora_A.weight": matrices[TARGETS[0]][0]}
    valid[f"unet.{TARGETS[0]}.lora_B.weight"] = matrices[TARGETS[0]][1]
    save_file((valid if kind != "no lora" else {}) | wrong(matrices, kind), path)
    with pytest.raises(CheckpointError, match=message):
        merge_lora(unet, path)
    assert all(torch.equal(tensor, before[key]) for key, tensor in unet.state_dict().items())


def test_a_missing_file_and_an_empty_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(CheckpointError, match="none.safetensors|no weights"):
            merge_lora(small_unet(), path)


def test_a_damaged_configuration_is_refused(tmp_path):
    unet = small_unet()
    write(random_lora(unet), tmp_path / "adapter_model.safetensors", "peft")
    (tmp_path / "adapter_config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="adapter_config.json is damaged"):
        merge_lora(unet, tmp_path)


def test_a_prepared_network_is_refused(tmp_path):
    unet = small_unet()
    path = write(random_lora(unet), tmp_path / "lora.safetensors", "peft")
    prepare_unet(unet)
    with pytest.raises(CheckpointError, match="before the network is prepared"):
        merge_lora(unet, path)
