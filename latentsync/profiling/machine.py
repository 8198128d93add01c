"""What a figure was measured on, and the memory it took."""

from __future__ import annotations

import os
import platform
import resource
import sys
from typing import Any

import torch

_MIB = 2**20


def machine_info(device: torch.device) -> dict[str, Any]:
    """Processor, cores this process may use, threads of torch, GPU (None without one), and torch's version."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "torch": torch.__version__,
    }


def reset_peak_memory(device: torch.device) -> None:
    """Let the GPU's peaks of `peak_memory` begin anew; that of the process cannot."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> dict[str, int]:
    """Peaks in MiB: resident memory of the process; on a GPU also of its tensors and of what was reserved for them."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes on Linux
    peak = {"resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // _MIB}
    if device.type == "cuda":
        peak["cuda_tensors"] = torch.cuda.max_memory_allocated(device) // _MIB
        peak["cuda_reserved"] = torch.cuda.max_memory_reserved(device) // _MIB
    return peak
