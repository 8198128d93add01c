"""Copies between host and device for which neither waits.

On CUDA they pass through page-locked memory of PyTorch's own pool. It hands a block out again only when nothing refers
to the block any more, numpy views included, and all copies queued from and to it are done.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor


def host_buffer(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """An uninitialised host tensor to fill and then give to `to_device`: page-locked where the device is CUDA."""
    return torch.empty(shape, dtype=dtype, pin_memory=device.type == "cuda")


def to_device(values: Tensor | npt.NDArray[Any], device: torch.device) -> Tensor:
    """The values on the device; on CUDA the copy is queued on its current stream and the host goes on at once.

    Do not write into `values` afterwards: where they are in the right place already, they are not copied.
    """
    tensor = values if isinstance(values, Tensor) else torch.from_numpy(values)
    if device.type == "cuda" and tensor.device.type == "cpu" and tensor.numel():
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class AsyncHostCopy:
    """Values on their way from the device to the host: who makes it goes on, who reads it waits.

    Args:
        values: any tensor; on CUDA the copy is queued on the current stream behind what computes them.
    """

    def __init__(self, values: Tensor) -> None:
        self._arrived: torch.cuda.Event | None = None
        if values.device.type != "cuda":
            self._host = values.cpu()
            return
        self._host = host_buffer(tuple(values.shape), values.dtype, values.device)
        self._host.copy_(values, non_blocking=True)
        self._arrived = torch.cuda.Event(blocking=True)  # a reader's thread sleeps instead of taking a core
        self._arrived.record(torch.cuda.current_stream(values.device))

    def wait(self) -> npt.NDArray[Any]:
        """The values, from any thread; do not write into them."""
        if self._arrived is not None:
            self._arrived.synchronize()
        array: npt.NDArray[Any] = self._host.numpy()
        return array
