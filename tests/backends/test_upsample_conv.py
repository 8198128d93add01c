import pytest
import torch
import torch.nn.functional as F

from latentsync.backends.cpu_unet import TransposedUpsample
from latentsync.backends.fused.resnet import FusedUpsample
from latentsync.backends.upsample_conv import double_and_convolve, doubled_kernel
from latentsync.models.unet.resnet import Upsample


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (8, 8)])
def test_one_transposed_convolution_equals_doubling_and_convolving(height, width):
    hidden, weight, bias = torch.randn(2, 6, height, width), torch.randn(5, 6, 3, 3), torch.randn(5)
    expected = F.conv2d(F.interpolate(hidden, scale_factor=2.0, mode="nearest"), weight, bias, padding=1)
    torch.testing.assert_close(
        double_and_convolve(hidden, doubled_kernel(weight), bias), expected, atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("size", [(6, 10), (5, 9)])
@torch.no_grad()
def test_the_upsamplers_of_both_backends_equal_the_plain_one(size):
    upsample, hidden = Upsample(4), torch.randn(2, 4, 3, 5)
    expected = upsample(hidden, torch.Size(size))
    for prepared in (
        TransposedUpsample(upsample),
        *(FusedUpsample(upsample, packed=packed) for packed in (False, True)),
    ):
        torch.testing.assert_close(prepared(hidden, torch.Size(size)), expected, atol=1e-5, rtol=1e-4)
        assert prepared.conv.weight is upsample.conv.weight
