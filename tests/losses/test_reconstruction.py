import torch

from latentsync.losses.reconstruction import noise_prediction_loss, pixel_loss


def test_noise_loss_is_the_mean_square_in_float32():
    predicted, noise = torch.full((1, 4, 2, 2, 2), 300.0, dtype=torch.float16), torch.zeros(1, 4, 2, 2, 2)
    loss = noise_prediction_loss(predicted, noise.half())
    assert loss.dtype == torch.float32 and loss.item() == 90000


def test_pixel_loss_weighs_places_and_windows():
    target = torch.zeros(2, 3, 2, 4, 4)
    predicted = torch.zeros(2, 3, 2, 4, 4)
    predicted[0, ..., 2:, :] = 0.5
    predicted[1, ..., 2:, :] = 1.0
    assert pixel_loss(predicted, target).item() == 0.375
    repainted = torch.zeros(1, 1, 1, 4, 4)
    repainted[..., 2:, :] = 1
    assert pixel_loss(predicted, target, repainted).item() == 0.75
    first_window_only = torch.tensor([1.0, 0.0]).reshape(2, 1, 1, 1, 1)
    assert pixel_loss(predicted, target, repainted * first_window_only).item() == 0.5
    assert pixel_loss(predicted, target, torch.zeros(1, 1, 1, 4, 4)).item() == 0


def test_pixel_loss_gives_the_target_no_gradient():
    predicted, target = torch.rand(1, 3, 1, 2, 2, requires_grad=True), torch.rand(1, 3, 1, 2, 2, requires_grad=True)
    pixel_loss(predicted, target).backward()
    assert predicted.grad.abs().min() > 0 and target.grad is None
