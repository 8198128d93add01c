"""The predictor for CUDA: the network's work recorded once as CUDA graphs, then only replayed.

A call of the network is more than a thousand kernels; started one by one by Python, they keep a fast GPU waiting. A
graph starts them all at once. Whatever changes from call to call is copied into the memory that the graph reads.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from latentsync.backends.predictor import Features, UNetPredictor, guide
from latentsync.models.unet.spatial_transformer import HeardAudio
from latentsync.models.unet.unet import Heard, UNet3DConditionModel


class GraphPredictor(UNetPredictor):
    """As `UNetPredictor`, for windows of one length. Others, as the published cutting may end in, are not recorded.

    Args:
        unet: on a CUDA device, not trained any more.
        window_length: frames of the windows that are worth recording.
        compiled: also let torch.compile fuse the network, which takes minutes at the first start and less later.
    """

    def __init__(self, unet: UNet3DConditionModel, window_length: int, *, compiled: bool = False) -> None:
        super().__init__(unet)
        self._window_length, self._compiled = window_length, compiled
        self._recordings: dict[tuple[int, ...], _Recording] = {}
        self._current: _Recording | None = None

    @torch.inference_mode()
    def begin(self, fixed: Tensor, audio: Tensor) -> None:
        """See `UNetPredictor.begin`."""
        super().begin(fixed, audio)
        self._current = None
        if fixed.shape[2] != self._window_length:
            return
        (heard,) = self._runs[False]
        shape = (*fixed.shape, audio.shape[2])
        if shape not in self._recordings:
            self._recordings[shape] = _Recording(self._unet, fixed, heard, compiled=self._compiled)
        self._current = self._recordings[shape]
        self._current.begin(fixed, heard)

    @torch.inference_mode()
    def predict(self, latents: Tensor, timestep: int, guidance_scale: float, features: Features = "fresh") -> Tensor:
        """See `UNetPredictor.predict`."""
        if self._current is None:
            return super().predict(latents, timestep, guidance_scale, features)
        return self._current.predict(latents, timestep, guidance_scale, features)


class _Recording:
    """The graphs of one shape and the memory they read: the full and the shallow step, each guided or not."""

    def __init__(self, unet: UNet3DConditionModel, fixed: Tensor, heard: Heard, *, compiled: bool) -> None:
        batch, _, *size = fixed.shape
        self._full: Callable[..., tuple[Tensor, Tensor]] = unet.forward_full
        self._shallow: Callable[..., Tensor] = unet.forward_shallow
        if compiled:
            self._full = torch.compile(unet.forward_full, dynamic=False)
            self._shallow = torch.compile(unet.forward_shallow, dynamic=False)
        self._sample = fixed.new_zeros((batch, unet.spec.in_channels, *size))
        self._timestep = torch.zeros((), dtype=torch.int64, device=fixed.device)
        self._guidance_scale = torch.zeros((), device=fixed.device)
        plain = [
            audio and HeardAudio(torch.empty_like(audio.key), torch.empty_like(audio.value), False) for audio in heard
        ]
        self._heard = {False: plain, True: [audio and audio._replace(guided=True) for audio in plain]}
        self._graphs: dict[tuple[bool, bool], tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self._kept: dict[bool, Tensor] = {}
        self._kept_guided: bool | None = None
        self._pool = torch.cuda.graph_pool_handle()
        # Left to torch, the first stream that any recording took serves all, whatever device it is on.
        self._stream = torch.cuda.Stream(fixed.device)

    def begin(self, fixed: Tensor, heard: Heard) -> None:
        """Copy a window's constants to where the graphs read them."""
        self._sample[:, -fixed.shape[1] :].copy_(fixed)
        for place, audio in zip(self._heard[False], heard, strict=True):
            if place is not None and audio is not None:
                place.key.copy_(audio.key)
                place.value.copy_(audio.value)
        self._kept_guided = None

    def predict(self, latents: Tensor, timestep: int, guidance_scale: float, features: Features) -> Tensor:
        """See `UNetPredictor.predict`."""
        guided, shallow = guidance_scale > 1, features == "reuse"
        if shallow and self._kept_guided != guided:
            raise RuntimeError("Nothing was kept under this guidance: predict with features 'keep' first.")
        self._sample[:, : latents.shape[1]].copy_(latents)
        self._timestep.fill_(timestep)
        self._guidance_scale.fill_(guidance_scale)
        if not shallow:
            self._kept_guided = guided if features == "keep" else None
        if (guided, shallow) not in self._graphs:
            self._graphs[guided, shallow] = self._record(guided=guided, shallow=shallow)
        graph, output = self._graphs[guided, shallow]
        graph.replay()
        return output.clone()

    def _record(self, *, guided: bool, shallow: bool) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        # What is prepared at a first run (compilation, plans of libraries) must not be part of the graph.
        self._stream.wait_stream(torch.cuda.current_stream(self._sample.device))
        with torch.cuda.stream(self._stream):
            for _ in range(2):
                self._step(guided=guided, shallow=shallow)
        torch.cuda.current_stream(self._sample.device).wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        # The graphs never run at the same time, so they may share their working memory.
        with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
            output, deep = self._step(guided=guided, shallow=shallow)
        if not shallow:
            self._kept[guided] = deep
        return graph, output

    def _step(self, *, guided: bool, shallow: bool) -> tuple[Tensor, Tensor]:
        heard = self._heard[guided]
        if shallow:
            deep = self._kept[guided]
            output = self._shallow(self._sample, self._timestep, heard, deep)
        else:
            output, deep = self._full(self._sample, self._timestep, heard)
        if guided and len(output) > len(self._sample):
            output = guide(output, self._guidance_scale)
        return output, deep
