"""A handwritten trace, small enough to verify its metrics by hand; times in microseconds from 1000."""

from __future__ import annotations

from typing import Any

from latentsync.profiling.trace import RUN_RANGE

HOST, MAIN, OTHER, GPU, STREAM = 50, 51, 52, 0, 7
START = 1000.0


def event(category: str, name: str, lane: tuple[int, int], times: tuple[float, float], **args: Any) -> dict[str, Any]:
    """A complete event of a Chrome trace; ``times`` are (start, stop) relative to the start of the run."""
    start, stop = times
    pid, tid = lane
    fields = {"ph": "X", "cat": category, "name": name, "pid": pid, "tid": tid, "args": args}
    return fields | {"ts": START + start, "dur": stop - start}


def sample_events() -> list[dict[str, Any]]:
    """Events of a run of 1000 us.

    In "denoise", the main thread copies 4096 bytes to the GPU and launches two kernels, one of which still runs when
    the thread is in "decode", where it copies 64 and 36 bytes back and waits for them. Another thread is in "read" at
    the same time. There are also a kernel outside all stages, two events outside the run, and events of other kinds.
    """
    main, other, stream = (HOST, MAIN), (HOST, OTHER), (GPU, STREAM)
    runtime, copy = "cuda_runtime", "gpu_memcpy"
    return [
        {"ph": "M", "name": "process_name", "pid": HOST, "tid": 0, "args": {"name": "python"}},
        {"ph": "s", "id": 1, "cat": "ac2g", "name": "ac2g", "pid": HOST, "tid": MAIN, "ts": START + 120},
        event("user_annotation", RUN_RANGE, main, (0, 1000)),
        event("gpu_user_annotation", RUN_RANGE, stream, (150, 800)),
        event("user_annotation", "stage:denoise", main, (100, 300)),
        event("user_annotation", "stage:decode", main, (300, 720)),
        event("user_annotation", "stage:read", other, (50, 350)),
        event("user_annotation", "stage:read", other, (400, 500)),
        event("cpu_op", "aten::mm", main, (110, 200)),
        event(runtime, "cudaMemcpyAsync", main, (110, 120), correlation=1),
        event(runtime, "cudaLaunchKernel", main, (130, 140), correlation=2),
        event("cuda_driver", "cuLaunchKernel", main, (150, 160), correlation=3),
        event(runtime, "cudaMemcpyAsync", main, (400, 410), correlation=4),
        event(runtime, "cudaMemcpyAsync", main, (410, 420), correlation=5),
        event(runtime, "cudaStreamSynchronize", main, (420, 620), correlation=6),
        event(runtime, "cudaEventSynchronize", main, (650, 660), correlation=7),
        event(runtime, "cudaLaunchKernel", main, (750, 760), correlation=8),
        event(copy, "Memcpy HtoD (Pageable -> Device)", stream, (150, 200), correlation=1, bytes=4096, stream=STREAM),
        event("kernel", "gemm", stream, (200, 400), correlation=2, device=GPU, stream=STREAM),
        event("kernel", "softmax", stream, (350, 500), correlation=3, device=GPU, stream=STREAM),
        event(copy, "Memcpy DtoH (Device -> Pinned)", stream, (500, 550), correlation=4, bytes=64, stream=STREAM),
        event(copy, "Memcpy DtoH (Device -> Pageable)", stream, (550, 600), correlation=5, bytes=36, stream=STREAM),
        event("kernel", "late", stream, (780, 800), correlation=8, device=GPU, stream=STREAM),
        event(runtime, "cudaDeviceSynchronize", main, (-100, -50), correlation=9),
        event("kernel", "before", stream, (-90, -60), correlation=10, device=GPU, stream=STREAM),
    ]
