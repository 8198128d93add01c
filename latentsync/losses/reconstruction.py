"""How far a prediction is from the truth, place by place."""

import torch.nn.functional as F
from torch import Tensor


def noise_prediction_loss(predicted: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error of the predicted noise, computed in float32: two tensors of one shape -> ()."""
    return F.mse_loss(predicted.float(), noise.float())


def pixel_loss(predicted: Tensor, target: Tensor, importance: Tensor | None = None) -> Tensor:
    """Mean absolute error of pictures, computed in float32.

    Args:
        predicted: (b, 3, f, h, w) in [-1, 1], e.g. the decoded one-step clean estimate.
        target: the same shape; gets no gradient.
        importance: weights that broadcast against the pictures, e.g. 1 - mask (1, 1, 1, h, w) for the repainted region
            only or (b, 1, 1, 1, 1) to trust less noisy windows more; None = all alike.

    Returns:
        () the weighted mean, 0 where nothing has a weight.
    """
    error = (predicted.float() - target.detach().float()).abs()
    if importance is None:
        return error.mean()
    weights = importance.float().expand_as(error)
    return (error * weights).sum() / weights.sum().clamp(min=1e-8)
