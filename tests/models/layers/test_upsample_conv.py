import pytest
import torch
import torch.nn.functional as F

from latentsync.models.layers.upsample_conv import double_and_convolve, doubled_kernel
from latentsync.models.unet.resnet import Upsample


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (8, 8)])
def test_one_transposed_convolution_equals_doubling_and_convolving(height, width):
    hidden, weight, bias = torch.randn(2, 6, height, width), torch.randn(5, 6, 3, 3), torch.randn(5)
    expected = F.conv2d(F.interpolate(hidden, scale_factor=2.0, mode="nearest"), weight, bias, padding=1)
    torch.testing.assert_close(
        double_and_convolve(hidden, doubled_kernel(weight), bias), expected, atol=1e-5, rtol=1e-4
    )


def test_unet_upsampler_gives_the_same_with_and_without_gradients():
    upsample, packed, hidden = Upsample(4), Upsample(4), torch.randn(2, 4, 3, 5)
    packed.load_state_dict(upsample.state_dict())
    packed.pack()
    for size in (torch.Size((6, 10)), torch.Size((5, 9))):
        trained = upsample(hidden, size)
        with torch.no_grad():
            torch.testing.assert_close(upsample(hidden, size), trained, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(packed(hidden, size), trained, atol=1e-5, rtol=1e-4)
