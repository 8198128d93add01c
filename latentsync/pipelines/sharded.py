"""One generator per device; the windows of a video are distributed over them.

On CUDA the host only queues work and never waits for a device. One thread per device queues, since a full queue blocks
its thread and would stall the other devices. All work runs on the devices' default streams; torch synchronizes a copy
between two GPUs with both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor

from latentsync.diffusion.denoise import SamplerOptions
from latentsync.pipelines.generator import DiffusionGenerator, WindowInput, WindowNoise
from latentsync.profiling import StageClock

T = TypeVar("T")


class _Shard:
    """A generator, its device and the thread that queues its work.

    Attributes:
        warmed_up: keys of the work done before, which needs no compilation or graph capture any more.
    """

    def __init__(self, generator: DiffusionGenerator) -> None:
        self.generator, self.device = generator, generator.mask.device
        self.warmed_up: set[Any] = set()
        # The thread starts with the first work and ends with `close`, the program, or the shard's garbage collection.
        self._worker = ThreadPoolExecutor(1, str(self.device), _choose_device, (self.device,))

    def submit(self, work: Callable[..., T], *arguments: Any) -> Future[T]:
        """Call ``work`` with the generator in the shard's thread."""
        return self._worker.submit(work, self.generator, *arguments)

    def close(self) -> None:
        """End the thread after its current work."""
        self._worker.shutdown()


class ShardedGenerator:
    """A `FaceGenerator` that distributes windows and decoding over several devices of one kind.

    The first device holds the inputs, draws the noise and postprocesses the faces, so the video equals the one that it
    makes alone, up to rounding. Stages are timed on the first device.

    Args:
        generators: one per device, of the same networks and options.
    """

    def __init__(self, generators: Sequence[DiffusionGenerator]) -> None:
        self._shards = [_Shard(generator) for generator in generators]
        self._first = generators[0]
        self._options = SamplerOptions()
        self.resolution = self._first.resolution
        self.window_batch_size = sum(generator.window_batch_size for generator in generators)

    def start(self, seed: int, options: SamplerOptions, clock: StageClock) -> None:
        """See `FaceGenerator.start`."""
        self._options = options
        for shard in self._shards:
            own = clock if shard.generator is self._first else StageClock(shard.device)
            shard.generator.start(seed, options, own)

    @torch.inference_mode()
    def sample_windows(self, windows: Sequence[WindowInput]) -> list[Tensor]:
        """See `FaceGenerator.sample_windows`; windows are assigned round-robin."""
        count = len(self._shards)
        drawn = [(window, self._first.draw_noise(len(window.faces))) for window in windows]
        # Copied before any work is queued, since a copy waits for everything its source device has queued before.
        parts = [[_moved(*each, shard.device) for each in drawn[k::count]] for k, shard in enumerate(self._shards)]
        made = [iter(codes) for codes in self._dispatch(_sample_all, parts)]
        return [self._to_primary(next(made[index % count])) for index in range(len(windows))]

    @torch.inference_mode()
    def decode(self, codes: Tensor, faces: Tensor) -> Tensor:
        """See `FaceGenerator.decode`; the frames are split among the devices."""
        # Split at whole VAE batches, so that rounding does not depend on the number of devices.
        batch, count = self._first.vae_batch, len(self._shards)
        batches = -(-len(codes) // batch)
        bounds = pairwise(batch * (batches * k // count) for k in range(count + 1))
        parts = [
            codes[start:stop].to(shard.device, non_blocking=True)
            for (start, stop), shard in zip(bounds, self._shards, strict=True)
        ]
        decoded, reconstruction = zip(*self._dispatch(DiffusionGenerator.vae_decode, parts), strict=True)
        source = [self._to_primary(part) for part in reconstruction if part is not None]
        return self._first.postprocess(
            torch.cat([self._to_primary(part) for part in decoded]), torch.cat(source) if source else None, faces
        )

    def _dispatch(self, work: Callable[[DiffusionGenerator, Any], T], parts: Sequence[Any]) -> list[T]:
        """Run each device's part, if it has one; results in the same order.

        An error of one device is raised when all have finished. Work that is new to a device runs alone: compilation
        and graph capture do not tolerate concurrent work.
        """
        busy = [(shard, part) for shard, part in zip(self._shards, parts, strict=True) if len(part)]
        # Graphs are captured for each number of windows; decoding is padded to one batch size.
        keys = [(work, self._options, len(part) if work is _sample_all else 0) for _, part in busy]
        alone = any(key not in shard.warmed_up for (shard, _), key in zip(busy, keys))
        futures = []
        for (shard, part), key in zip(busy, keys):
            futures.append(shard.submit(work, part))
            if alone:
                futures[-1].result()
                shard.warmed_up.add(key)
        wait(futures)
        return [future.result() for future in futures]

    def close(self) -> None:
        """End the threads of all devices. The generator cannot be used afterwards."""
        for shard in self._shards:
            shard.close()

    def _to_primary(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._shards[0].device, non_blocking=True)


def _choose_device(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_device(device)  # of this thread; streams and graphs belong to the current device


def _sample_all(generator: DiffusionGenerator, parts: Sequence[tuple[WindowInput, WindowNoise]]) -> list[Tensor]:
    return generator.sample(parts)


def _moved(window: WindowInput, noise: WindowNoise, device: torch.device) -> tuple[WindowInput, WindowNoise]:
    move = partial(Tensor.to, device=device, non_blocking=True)
    initial, *draws = noise
    window = replace(window, faces=move(window.faces), audio=move(window.audio))
    return window, WindowNoise(
        move(initial), *(None if draw_noise is None else move(draw_noise) for draw_noise in draws)
    )
