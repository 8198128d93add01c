"""One generator per device, which make different windows of one video at the same time.

On CUDA nothing here waits for a device, only for the host's part: queueing the work. That is done by a thread per
device, since a device whose queue is full would keep the others waiting. Everything runs on the devices' default
streams, and torch makes a copy between two GPUs wait for both.
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
    """A generator, its device and the thread that works for it.

    Attributes:
        warmed_up: what it has been asked for before, so that nothing is compiled or recorded when it is asked again.
    """

    def __init__(self, generator: DiffusionGenerator) -> None:
        self.generator, self.device = generator, generator.mask.device
        self.warmed_up: set[Any] = set()
        # Started by the first work; ends with the program or when the generator is dropped.
        self._worker = ThreadPoolExecutor(1, str(self.device), _choose_device, (self.device,))

    def submit(self, work: Callable[..., T], *arguments: Any) -> Future[T]:
        """Have the thread do something with the generator."""
        return self._worker.submit(work, self.generator, *arguments)


class ShardedGenerator:
    """A `FaceGenerator` whose windows and decodings are dealt out to several devices of one kind.

    The first device takes what comes in, draws the noise and finishes the faces, and the video is the one that it
    would make alone. Stages are timed on the first device.

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
        """See `FaceGenerator.sample_windows`; every device takes its turn."""
        count = len(self._shards)
        drawn = [(window, self._first.draw_noise(len(window.faces))) for window in windows]
        # Sent before any work is queued, since a copy waits for what its source has queued before.
        parts = [[_moved(*each, shard.device) for each in drawn[k::count]] for k, shard in enumerate(self._shards)]
        made = [iter(codes) for codes in self._dispatch(_sample_all, parts)]
        return [self._to_primary(next(made[index % count])) for index in range(len(windows))]

    @torch.inference_mode()
    def decode(self, codes: Tensor, faces: Tensor) -> Tensor:
        """See `FaceGenerator.decode`; the frames are split among the devices."""
        # Whole batches of the autoencoder, so that no rounding tells how many devices there are.
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
        """Give each device its part, if there is one for it; results in the same order.

        An error of one of them is raised when all have ended. What is new to a device, it is given alone: compilers and
        recorders of graphs cannot stand others beside them.
        """
        busy = [(shard, part) for shard, part in zip(self._shards, parts, strict=True) if len(part)]
        # Windows are recorded for each number of them; decodings are padded to one size.
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
