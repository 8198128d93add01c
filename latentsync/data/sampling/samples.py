"""Sample keys and the batches that the data sets return."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class SampleKey:
    """Identifies one sample of a run; together with the seed it determines every random choice in the sample.

    Attributes:
        epoch: from 0.
        index: position in the epoch's order, from 0.
        sample_id: unique in a run: ``epoch * epoch length + index``.
    """

    epoch: int
    index: int
    sample_id: int


@dataclass(frozen=True)
class UNetBatch:
    """Windows for the lip-sync U-Net.

    Attributes:
        gt_frames: (b, f, 3, R, R) uint8, the target faces.
        source_frames: (b, f, 3, R, R) uint8, the faces that are masked: those of ``gt_frames``, or the other take of
            the same scene for paired clips.
        ref_frames: (b, f, 3, R, R) uint8, the reference window from the source clip.
        mel: (b, 1, 80, m) float32 SyncNet mel of the window, m = ceil(f / 5 * 16); m = 0 if not requested.
        clips: b paths of the clips of ``gt_frames``.
        starts: (b,) int64, first frame of each window in its clip, at 25 frames per second.
        sample_ids: (b,) int64, see `SampleKey`.
        problems: unusable clips encountered for this batch: path -> reason.
    """

    gt_frames: Tensor
    source_frames: Tensor
    ref_frames: Tensor
    mel: Tensor
    clips: list[str]
    starts: Tensor
    sample_ids: Tensor
    problems: dict[str, str]


@dataclass(frozen=True)
class SyncNetBatch:
    """Pairs of a video window and an audio window.

    Attributes:
        frames: (b, f, 3, R, R) uint8.
        mel: (b, 1, 80, m) float32.
        labels: (b,) float32, 1 = in sync, 0 = the windows start at different frames.
        shifts: (b,) int64, start of the video window minus start of the audio window, in frames; 0 if in sync.
        clips: b paths.
        sample_ids: (b,) int64, see `SampleKey`.
        problems: as in `UNetBatch`.
        video_mouth_curves, audio_mouth_curves: (b, f, k) float32, mouth motion during the video and the audio window,
            from sidecars; None if unavailable.
    """

    frames: Tensor
    mel: Tensor
    labels: Tensor
    shifts: Tensor
    clips: list[str]
    sample_ids: Tensor
    problems: dict[str, str]
    video_mouth_curves: Tensor | None = None
    audio_mouth_curves: Tensor | None = None
