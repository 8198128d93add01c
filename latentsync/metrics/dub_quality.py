"""Figures of one finished lip-sync video whose true answer is known.

A case is a folder with ``source.mp4``, ``truth.mp4``, ``truth.wav``, a JSON sidecar of each clip, and ``result.mp4``,
what a model made of ``source.mp4`` and ``truth.wav``; all at 25 frames a second and of one size.
"""

import json
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange
from torch import Tensor

from latentsync.errors import MediaError
from latentsync.face.geometry.affine import face_template, fit_affine
from latentsync.face.geometry.warp import warp_faces
from latentsync.media.audio.reader import read_audio
from latentsync.media.audio.syncnet_mel import syncnet_mel
from latentsync.media.video_reader import VideoReader
from latentsync.metrics.film_strip import Box
from latentsync.metrics.mouth_opening import MouthMeter, correlation
from latentsync.metrics.sync_conf import SyncMeter
from latentsync.metrics.visual_quality import flicker, mouth_region, psnr, ssim, still_frames

FPS = 25
_SHIFT = round(0.4 * FPS)
_AT_ONCE = 8
Metrics = dict[str, float]


@dataclass(frozen=True)
class DubFolder:
    """A case on disk, one of whose results is looked at. Raises MediaError where files are missing or damaged."""

    path: Path
    result_name: str = "result.mp4"

    @property
    def source(self) -> Path:
        """The clip that was given to lip-sync."""
        return self.path / "source.mp4"

    @property
    def truth(self) -> Path:
        """What should come out."""
        return self.path / "truth.mp4"

    @property
    def speech(self) -> Path:
        """The sound that drives the dub."""
        return self.path / "truth.wav"

    @property
    def result(self) -> Path:
        """What came out."""
        return self.path / self.result_name

    @cached_property
    def source_truth(self) -> dict[str, Any]:
        """Ground truth of the source clip."""
        return self._sidecar("source.json")

    @cached_property
    def dub_truth(self) -> dict[str, Any]:
        """Ground truth of the perfect dub."""
        return self._sidecar("truth.json")

    @property
    def control_points(self) -> npt.NDArray[np.float32]:
        """(t, 3, 2) of every source frame, in its pixels."""
        return np.array(self.source_truth["control_points"], np.float32)

    def face_box(self) -> Box:
        """Left, top, width, height round brows, nose and mouth of all frames, for a strip; 10:11."""
        points = self.control_points
        center = points.reshape(-1, 2).mean(0)
        brows = float(np.linalg.norm(points[:, 1] - points[:, 0], axis=-1).mean())
        info = VideoReader(self.source).info
        width = min(round(2.2 * brows), info.width)
        height = min(round(2.42 * brows), info.height)
        left = int(np.clip(round(center[0] - width / 2), 0, info.width - width))
        top = int(np.clip(round(center[1] - 0.33 * height), 0, info.height - height))
        return left, top, width, height

    def _sidecar(self, name: str) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise MediaError(
                f"{self.path / name} cannot be read ({error}); expected the sidecar of a clip made by "
                "tools.evaluate_demo. Make the case again in an empty folder"
            ) from error
        return content


def aligned_crops(video: Path, control_points: npt.ArrayLike, resolution: int) -> Tensor:
    """Faces of a video whose control points are known.

    Args:
        video: any video; read at 25 frames a second.
        control_points: (t, 3, 2) of its frames, (x, y) in its pixels; frames beyond are left out.
        resolution: side R of the crops.

    Returns:
        (min(t, frames), 3, R, R) uint8.

    Raises:
        MediaError: the video cannot be read.
    """
    matrices = torch.from_numpy(fit_affine(control_points, face_template(resolution)))
    frames = iter(VideoReader(video, Fraction(FPS)))
    crops = []
    for part in matrices.split(_AT_ONCE):
        images = [frame.pixels for frame in islice(frames, len(part))]
        if images:
            stacked = rearrange(torch.from_numpy(np.stack(images)), "f h w c -> f c h w")
            crops.append(warp_faces(stacked, part[: len(images)], resolution))
    return torch.cat(crops)


def image_metrics(case: DubFolder, repaint_mask: Tensor) -> Metrics:
    """Likeness to the truth and flicker, on aligned crops.

    Args:
        case: with a result.
        repaint_mask: (R, R) in [0, 1], 1 where the model repaints; R is the resolution to judge at.

    Returns:
        ``psnr_mouth``, ``ssim_mouth`` (box round the mouth), ``psnr_painted`` (all that is repainted), and
        ``psnr_mouth_source``: how near the untouched source comes, the least that a dub must beat;
        ``flicker``, ``flicker_true``, ``flicker_still``, ``flicker_still_true`` in grey levels.
    """
    points, resolution = case.control_points, repaint_mask.shape[-1]
    true, pred = (aligned_crops(video, points, resolution) for video in (case.truth, case.result))
    count = min(len(true), len(pred))
    true, pred = true[:count], pred[:count]
    source = aligned_crops(case.source, points[:count], resolution)
    mouth_true, mouth_made, mouth_source = (mouth_region(crops) for crops in (true, pred, source))
    still = still_frames(torch.tensor(case.dub_truth["mouth"])[:count])
    moves, moves_true = flicker(mouth_made, still), flicker(mouth_true, still)
    return {
        "psnr_mouth": psnr(mouth_made, mouth_true),
        "ssim_mouth": ssim(mouth_made, mouth_true),
        "psnr_painted": psnr(pred, true, repaint_mask.double()),
        "psnr_mouth_source": psnr(mouth_source, mouth_true),
        "flicker": moves.moving,
        "flicker_true": moves_true.moving,
        "flicker_still": moves.still,
        "flicker_still_true": moves_true.still,
    }


def similarity_metrics(case: DubFolder, other: Path, resolution: int) -> Metrics:
    """How near a result comes to another one of the same case, on aligned crops.

    Args:
        case: with a result.
        other: a video of the same frames.
        resolution: side R of the crops.

    Returns:
        ``psnr_mouth`` and ``ssim_mouth``, in the box round the mouth.
    """
    pred, wanted = (
        mouth_region(aligned_crops(video, case.control_points, resolution)) for video in (case.result, other)
    )
    return {"psnr_mouth": psnr(pred, wanted), "ssim_mouth": ssim(pred, wanted)}


def sync_metrics(case: DubFolder, meter: SyncMeter, resolution: int) -> Metrics:
    """What a SyncNet says of result and truth, each with the driving speech.

    Args:
        case: with a result, long enough for ``meter``.
        meter: a SyncNet that judges crops of ``resolution``.
        resolution: side R of the crops it was trained on.

    Returns:
        ``sync_conf``, ``sync_cosine`` and ``av_offset`` of the result, the same with ``_true`` of the true rendering
        and with ``_source`` of the untouched source, whose lips say something else.
    """
    mel = syncnet_mel(torch.from_numpy(read_audio(case.speech)))
    count = len(case.dub_truth["mouth"])
    metrics: Metrics = {}
    for suffix, video in (("", case.result), ("_true", case.truth), ("_source", case.source)):
        score = meter.score(aligned_crops(video, case.control_points[:count], resolution), mel)
        metrics |= {f"sync_conf{suffix}": score.sync_conf, f"sync_cosine{suffix}": score.cosine}
        metrics[f"av_offset{suffix}"] = float(score.av_offset)
    return metrics


def mouth_opening_metrics(case: DubFolder) -> Metrics:
    """How the opening of the mouth, read by the face mesh, follows the speech.

    Returns:
        ``r``: result against the true opening; ``r_shifted``: the same 0.4 s too early or too late, the larger one;
        ``r_source``: result against what the source's mouth did; ``r_ceiling``: the true rendering, read the same
        way, against its own true opening; ``found``: share of the result's frames with a face.

    Raises:
        DependencyError: mediapipe is missing.
    """
    measured, measured_true = _openings(case.result), _openings(case.truth)
    true = np.array(case.dub_truth["mouth_opening"], np.float64)
    before = np.array(case.source_truth["mouth_opening"], np.float64)
    count = min(len(measured), len(true), len(before))
    measured, true, before = measured[:count], true[:count], before[:count]
    return {
        "found": float(np.isfinite(measured).mean()),
        "r": correlation(measured, true),
        "r_shifted": max(correlation(measured, true, _SHIFT), correlation(measured, true, -_SHIFT)),
        "r_source": correlation(measured, before),
        "r_ceiling": correlation(measured_true[:count], true),
    }


def _openings(path: Path) -> npt.NDArray[np.float64]:
    """(t,) measured mouth opening of every frame, NaN where no face is found."""
    with MouthMeter() as meter:
        return np.array([meter.opening(frame.pixels) for frame in VideoReader(path, Fraction(FPS))], np.float64)


def mean_metrics(clips: list[Metrics]) -> Metrics:
    """Means over clips of every figure, and what they come to against the truth, rounded.

    ``sync_share``, ``flicker_ratio`` and ``flicker_still_ratio`` are result over truth; for offsets,
    ``av_offset_within_one`` is the share of clips at most one frame off. NaN, such as the correlation of a mouth that
    never moved, is left out.
    """
    names = list(dict.fromkeys(name for clip in clips for name in clip))
    means: Metrics = {}
    for name in names:
        values = [clip[name] for clip in clips if name in clip]
        if name.startswith("av_offset"):
            means[f"{name}_within_one"] = _mean([float(abs(value) <= 1) for value in values])
        else:
            means[name] = _mean(values)
    for name, above, below in (
        ("sync_share", "sync_conf", "sync_conf_true"),
        ("flicker_ratio", "flicker", "flicker_true"),
        ("flicker_still_ratio", "flicker_still", "flicker_still_true"),
    ):
        if means.get(below):
            means[name] = means[above] / means[below]
    return {name: round(value, 4) for name, value in means.items()}


def _mean(values: list[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")
