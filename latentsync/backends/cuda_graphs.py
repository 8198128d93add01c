"""The predictor for CUDA: the network is captured once as CUDA graphs and then replayed.

A call of the network is more than a thousand kernels; launched one by one from Python, they leave a fast GPU idle. A
graph launches them all at once. Whatever changes from call to call is copied into the memory that the graph reads.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from latentsync.backends.predictor import UNetPredictor, apply_guidance
from latentsync.diffusion.step_plan import FeatureCacheMode
from latentsync.models.unet.spatial_transformer import AudioKeysValues
from latentsync.models.unet.unet import AudioContext, UNet3DConditionModel


class GraphPredictor(UNetPredictor):
    """As `UNetPredictor`, for windows of one length; those of other lengths run without a graph.

    Args:
        unet: prepared for CUDA, see `latentsync.backends.cuda`.
        window_length: frames of the windows that are captured.
        compiled: also run torch.compile on the network, which takes minutes at the first start and less later.
    """

    def __init__(self, unet: UNet3DConditionModel, window_length: int, *, compiled: bool = False) -> None:
        super().__init__(unet)
        self._window_length, self._compiled = window_length, compiled
        self._recordings: dict[tuple[int, ...], _Recording] = {}
        self._current: _Recording | None = None

    @torch.inference_mode()
    def begin(self, conditioning: Tensor, audio: Tensor) -> None:
        """See `UNetPredictor.begin`."""
        super().begin(conditioning, audio)
        self._current = None
        if conditioning.shape[2] != self._window_length:
            return
        (context,) = self._runs[False]
        shape = (*conditioning.shape, audio.shape[2])
        if shape not in self._recordings:
            self._recordings[shape] = _Recording(self._unet, conditioning, context, compiled=self._compiled)
        self._current = self._recordings[shape]
        self._current.begin(conditioning, context)

    @torch.inference_mode()
    def predict(
        self, latents: Tensor, timestep: int, guidance_scale: float, cache_mode: FeatureCacheMode = "fresh"
    ) -> Tensor:
        """See `UNetPredictor.predict`."""
        if self._current is None:
            return super().predict(latents, timestep, guidance_scale, cache_mode)
        return self._current.predict(latents, timestep, guidance_scale, cache_mode)


class _Recording:
    """The graphs of one shape and the memory they read: the full and the shallow step, each guided or not."""

    def __init__(
        self, unet: UNet3DConditionModel, conditioning: Tensor, context: AudioContext, *, compiled: bool
    ) -> None:
        batch, _, *size = conditioning.shape
        self._full: Callable[..., tuple[Tensor, Tensor]] = unet.forward_full
        self._shallow: Callable[..., Tensor] = unet.forward_shallow
        if compiled:
            self._full = torch.compile(unet.forward_full, dynamic=False)
            self._shallow = torch.compile(unet.forward_shallow, dynamic=False)
        self._sample = conditioning.new_zeros((batch, unet.spec.in_channels, *size))
        self._timestep = torch.zeros((), dtype=torch.int64, device=conditioning.device)
        self._guidance_scale = torch.zeros((), device=conditioning.device)
        static = [
            audio and AudioKeysValues(torch.empty_like(audio.key), torch.empty_like(audio.value), False)
            for audio in context
        ]
        self._static_audio = {False: static, True: [audio and audio._replace(guided=True) for audio in static]}
        self._graphs: dict[tuple[bool, bool], tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self._kept: dict[bool, Tensor] = {}
        self._kept_guided: bool | None = None
        self._pool = torch.cuda.graph_pool_handle()
        # By default torch captures on one stream for all graphs, whatever device it is on.
        self._stream = torch.cuda.Stream(conditioning.device)

    def begin(self, conditioning: Tensor, context: AudioContext) -> None:
        """Copy a window's constants to where the graphs read them."""
        self._sample[:, -conditioning.shape[1] :].copy_(conditioning)
        for static, audio in zip(self._static_audio[False], context, strict=True):
            if static is not None and audio is not None:
                static.key.copy_(audio.key)
                static.value.copy_(audio.value)
        self._kept_guided = None

    def predict(self, latents: Tensor, timestep: int, guidance_scale: float, cache_mode: FeatureCacheMode) -> Tensor:
        """See `UNetPredictor.predict`."""
        guided, shallow = guidance_scale > 1, cache_mode == "reuse"
        if shallow and self._kept_guided != guided:
            raise RuntimeError("No cached features under this guidance: predict with 'keep' first.")
        self._sample[:, : latents.shape[1]].copy_(latents)
        self._timestep.fill_(timestep)
        self._guidance_scale.fill_(guidance_scale)
        if not shallow:
            self._kept_guided = guided if cache_mode == "keep" else None
        if (guided, shallow) not in self._graphs:
            self._graphs[guided, shallow] = self._record(guided=guided, shallow=shallow)
        graph, output = self._graphs[guided, shallow]
        graph.replay()
        return output.clone()

    def _record(self, *, guided: bool, shallow: bool) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        # What only a first run does (compilation, library plans) must not be part of the graph.
        self._stream.wait_stream(torch.cuda.current_stream(self._sample.device))
        with torch.cuda.stream(self._stream):
            for _ in range(2):
                self._step(guided=guided, shallow=shallow)
        torch.cuda.current_stream(self._sample.device).wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        # The graphs never run concurrently, so they may share one memory pool.
        with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
            output, deep = self._step(guided=guided, shallow=shallow)
        if not shallow:
            self._kept[guided] = deep
        return graph, output

    def _step(self, *, guided: bool, shallow: bool) -> tuple[Tensor, Tensor]:
        context = self._static_audio[guided]
        if shallow:
            deep = self._kept[guided]
            output = self._shallow(self._sample, self._timestep, context, deep)
        else:
            output, deep = self._full(self._sample, self._timestep, context)
        if guided and len(output) > len(self._sample):
            output = apply_guidance(output, self._guidance_scale)
        return output, deep
