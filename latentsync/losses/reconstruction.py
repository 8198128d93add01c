"""Errors of a prediction against the ground truth, position by position."""

import torch.nn.functional as F
from torch import Tensor


def noise_prediction_loss(predicted: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error of the predicted noise, computed in float32: two tensors of one shape -> ()."""
    return F.mse_loss(predicted.float(), noise.float())


def denoising_loss(error: Tensor, weight_map: Tensor, window_weights: Tensor) -> Tensor:
    """Weighted mean squared error.

    Args:
        error: (b, 4, f, h, w) prediction minus target.
        weight_map: (h, w) weight of each position, mean 1.
        window_weights: (b,) weight of each window.

    Returns:
        ().
    """
    return ((error.square() * weight_map).mean(dim=(1, 2, 3, 4)) * window_weights).mean()


def flicker_loss(error: Tensor, weight_map: Tensor, window_weights: Tensor) -> Tensor:
    """Weighted mean squared change of the error from frame to frame; arguments as for `denoising_loss`.

    A constant error gives a slightly wrong face, a changing one flicker or a mouth that lags. 0 for a single frame.
    """
    if error.shape[2] < 2:
        return error.sum() * 0
    return denoising_loss(error[:, :, 1:] - error[:, :, :-1], weight_map, window_weights)


def pixel_loss(predicted: Tensor, target: Tensor, importance: Tensor | None = None) -> Tensor:
    """Mean absolute error of frames, computed in float32.

    Args:
        predicted: (b, 3, f, h, w) in [-1, 1], e.g. the decoded one-step clean estimate.
        target: the same shape; gets no gradient.
        importance: weights that broadcast against the frames, e.g. 1 - mask (1, 1, 1, h, w) for the repainted region
            only or (b, 1, 1, 1, 1) to trust less noisy windows more; None = uniform.

    Returns:
        () the weighted mean, 0 if all weights are 0.
    """
    error = (predicted.float() - target.detach().float()).abs()
    if importance is None:
        return error.mean()
    weights = importance.float().expand_as(error)
    return (error * weights).sum() / weights.sum().clamp(min=1e-8)
