"""Copies between host and device."""

import numpy as np
import pytest
import torch

from latentsync.runtime.transfer import AsyncHostCopy, host_buffer, to_device


def test_values_arrive_as_they_left():
    values = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    there = to_device(values, torch.device("cpu"))
    assert np.array_equal(AsyncHostCopy(there * 2).wait(), values * 2)
    assert np.array_equal(AsyncHostCopy(there.transpose(0, 2)).wait(), values.transpose(2, 1, 0))


def test_a_host_buffer_is_plain_memory_for_a_cpu():
    buffer = host_buffer((4, 3), torch.uint8, torch.device("cpu"))
    assert buffer.shape == (4, 3) and not buffer.is_pinned()
    assert to_device(buffer, torch.device("cpu")) is buffer


@pytest.mark.gpu
def test_nothing_waits_and_no_buffer_is_used_again_while_it_is_read():
    device = torch.device("cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        downloads = []
        for number in range(40):
            buffer = host_buffer((1 << 20,), torch.uint8, device)
            buffer.numpy()[...] = number
            downloads.append(AsyncHostCopy(to_device(buffer, device) + 1))
            del buffer
    finally:
        torch.cuda.set_sync_debug_mode("default")
    read = [download.wait() for download in downloads]
    del downloads
    later = [AsyncHostCopy(torch.zeros(1 << 20, dtype=torch.uint8, device=device)) for _ in range(40)]
    assert all((values.wait() == 0).all() for values in later)
    assert all((values == number + 1).all() for number, values in enumerate(read))
