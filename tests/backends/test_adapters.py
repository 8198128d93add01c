"""Adapters of the real peft library: effective on the plain network and on every backend, or refused."""

import copy

import pytest
import torch
from torch import nn

from latentsync.backends.adapters import merge_adapters
from latentsync.backends.cpu_unet import optimize_unet_for_cpu
from latentsync.backends.cuda import prepare_unet
from latentsync.errors import ConfigError
from tests.models.builders import small_inputs, small_unet
from tests.models.plain_kernels import use_plain_kernels

peft = pytest.importorskip("peft")


def projections(unet):
    return [name for name, module in unet.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))]


def attach(unet, targets, **options):
    """Random adapters of rank 2; returns the layers that wrap the targets."""
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=targets, **options)
    peft.inject_adapter_in_model(config, unet)
    unet.eval()
    layers = [module for module in unet.modules() if isinstance(module, peft.tuners.lora.LoraLayer)]
    for layer in layers:
        for matrix in (layer.lora_A["default"], layer.lora_B["default"]):
            nn.init.normal_(matrix.weight, std=0.1)
    return layers


def prepare_compiled(unet):
    prepare_unet(unet, compiled=True)


BACKENDS = [optimize_unet_for_cpu, prepare_unet, prepare_compiled]


def test_a_lora_on_any_projection_changes_the_plain_network():
    unet, inputs = small_unet(), small_inputs(size=4)
    names = projections(unet)
    layers = attach(unet, names)
    assert len(layers) == len(names) > 80
    # The derivative of the output with respect to every adapter, instead of one run for each.
    unet(*inputs).square().sum().backward()
    for name, layer in zip(names, layers, strict=True):
        assert layer.lora_B["default"].weight.grad.abs().max() > 0, name


@pytest.mark.parametrize("prepare", BACKENDS)
@pytest.mark.parametrize("options", [{}, {"use_dora": True}], ids=["lora", "dora"])
@torch.no_grad()
def test_every_backend_runs_the_effective_weights(monkeypatch, prepare, options):
    unet, (sample, timesteps, audio) = small_unet().double(), small_inputs()
    sample, audio = sample.double(), audio.double()
    plain = unet(sample, timesteps, audio)
    attach(unet, projections(unet) if not options else ["to_q", "to_out.0", "proj"], **options)
    unet.double()
    expected = unet(sample, timesteps, audio)
    assert (expected - plain).norm() > 0.01 * plain.norm()
    if prepare is prepare_compiled:
        use_plain_kernels(monkeypatch)
    prepare(unet)
    assert (unet(sample, timesteps, audio) - expected).norm() < 1e-6 * expected.norm()
    assert not any(isinstance(module, peft.tuners.lora.LoraLayer) for module in unet.modules())


@torch.no_grad()
def test_a_disabled_adapter_stays_without_effect():
    unet, inputs = small_unet(), small_inputs()
    expected = unet(*inputs)
    for layer in attach(unet, ["to_q"]):
        layer.enable_adapters(False)
    optimize_unet_for_cpu(unet)
    torch.testing.assert_close(unet(*inputs), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "target", ["to_q", "to_out.0", "proj_in", "net.2", "net.0.proj", "conv1", "conv_out", "linear_1"]
)
def test_attaching_to_a_prepared_network_is_refused(target):
    unet = small_unet()
    prepare_unet(unet)
    with pytest.raises(ValueError, match="not supported"):
        attach(unet, [target])


def test_a_prepared_network_has_no_projection_that_could_be_wrapped():
    unet = small_unet()
    prepare_unet(unet)
    assert not projections(unet)


@pytest.mark.parametrize("target", ["proj_in", "net.0.proj"])
def test_attaching_to_a_rearranged_cpu_layer_is_refused(target):
    unet = small_unet(use_motion_module=False)
    optimize_unet_for_cpu(unet)
    with pytest.raises(ValueError, match="not supported"):
        attach(unet, [target])


@torch.no_grad()
def test_attaching_to_another_cpu_layer_takes_effect():
    unet, inputs = small_unet(), small_inputs()
    optimize_unet_for_cpu(unet)
    before = unet(*inputs)
    attach(unet, ["to_q"])
    assert (unet(*inputs) - before).abs().max() > 1e-4


@pytest.mark.parametrize("prepare", BACKENDS[:2])
def test_hooks_and_unknown_wrappers_are_refused(prepare):
    class Wrapper(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.base_layer = layer

    hooked, wrapped, subclassed = (copy.deepcopy(small_unet()) for _ in range(3))
    hooked.conv_in.register_forward_hook(lambda *_: None)
    wrapped.register_module("conv_in", Wrapper(wrapped.conv_in))
    subclassed.conv_out = type("Calibrated", (nn.Conv2d,), {})(32, 4, 3, padding=1)
    for unet, message in ((hooked, "conv_in has forward hooks"), (wrapped, "Wrapper"), (subclassed, "is a Calibrated")):
        with pytest.raises(ConfigError, match=message):
            prepare(unet)


def test_merging_counts_layers():
    unet = small_unet()
    wrapped = attach(unet, ["to_q", "conv1"])
    assert merge_adapters(unet) == len(wrapped) > 8
    assert merge_adapters(unet) == 0
