"""What a data set hands over: the windows of one sample, and of a batch of them (the same fields with a leading b)."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class SampleKey:
    """Names one sample of a run: together with the data set's seed it decides everything that is random in it.

    Attributes:
        epoch: from 0.
        index: place in the epoch's order, from 0.
        sample_id: unique in a run: ``epoch * epoch length + index``.
    """

    epoch: int
    index: int
    sample_id: int


@dataclass(frozen=True)
class UNetBatch:
    """Windows for the lip-sync network.

    Attributes:
        gt_frames: (b, f, 3, R, R) uint8, the faces to be painted.
        source_frames: (b, f, 3, R, R) uint8, the faces whose lower part is blanked: those of ``gt_frames``, or the same
            scene with other words, where the clip has a second take.
        ref_frames: (b, f, 3, R, R) uint8, another window of the source's clip.
        mel: (b, 1, 80, m) float32 SyncNet mel of the window, m = ceil(f / 5 * 16); m = 0 where it was not asked for.
        clips: b paths of the clips that ``gt_frames`` come from.
        starts: (b,) int64, the window's first frame in its clip, at 25 frames a second.
        sample_ids: (b,) int64, see `SampleKey`.
        problems: clips that could not be used on the way to this batch: path -> reason.
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
    """Pairs of a mouth window and a speech window.

    Attributes:
        frames: (b, f, 3, R, R) uint8.
        mel: (b, 1, 80, m) float32.
        labels: (b,) float32, 1 = in sync, 0 = the frames are from another moment than the sound.
        shifts: (b,) int64, start of the frames minus start of the sound, in frames; 0 for pairs in sync.
        clips: b paths.
        sample_ids: (b,) int64, see `SampleKey`.
        problems: as in `UNetBatch`.
        video_mouth_curves, audio_mouth_curves: (b, f, k) float32, mouth motion in video and audio, where sidecars
            say so; else None.
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
