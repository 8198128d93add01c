"""Latents that are made once: the same windows as from frames that are read anew, and bad clips left out."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from latentsync.data.audio_embeddings import ClipAudioEmbeddings
from latentsync.data.clip_dataset import ClipDatasetOptions
from latentsync.data.clips.clip_reader import UnusableClip
from latentsync.data.fixed_set import FixedSet
from latentsync.data.loader import BatchLoader, LoaderOptions
from latentsync.data.unet_dataset import UNetDataset, UNetSampling
from latentsync.data.whole_clips import read_whole_clips
from latentsync.errors import DataError
from latentsync.training.unet.cached_latents import CachedLatentSource, LatentCache, LatentSampling, ReadyWindows
from latentsync.training.unet.latent_windows import LatentWindows, WindowEncoder
from tests.data.corpus import SIDE, bad_clips, good_clip
from tests.models.builders import golden_vae
from tests.whisper.micro import micro_encoder

FRAMES, SEED, SHARE = 8, 3, 0.4
OPTIONS = ClipDatasetOptions(num_frames=FRAMES, resolution=SIDE, seed=SEED, windows_per_clip=2)
MASK = torch.ones(3, SIDE, SIDE)
MASK[:, SIDE // 2 :] = 0


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two takes of one scene, of different length, and a clip by itself."""
    folder = tmp_path_factory.mktemp("clips")
    sizes = {"a": 40, "b": 33, "c": 30}
    made = [good_clip(folder / f"{name}.mp4", size, ord(name), 40 * ord(name) % 90) for name, size in sizes.items()]
    for name, other in (("a", "b"), ("b", "a")):
        (folder / f"{name}.json").write_text(json.dumps({"other_take": f"{other}.mp4"}))
    return made


@pytest.fixture(scope="module")
def audio() -> ClipAudioEmbeddings:
    return ClipAudioEmbeddings(micro_encoder())


def filled(clips: list[Path], audio: ClipAudioEmbeddings, paired: bool = True) -> LatentCache:
    dataset = UNetDataset(clips, OPTIONS)
    store = LatentCache(golden_vae(), audio, MASK, paired, chunk_size=7)
    store.fill(read_whole_clips(clips, SIDE, dataset.inspector, dataset.reader, 0), len(clips))
    return store


@pytest.fixture(scope="module")
def store(clips: list[Path], audio: ClipAudioEmbeddings) -> LatentCache:
    return filled(clips, audio)


def source(store: LatentCache, rank: int = 0, world: int = 1, share: float = SHARE) -> CachedLatentSource:
    return CachedLatentSource(store, LatentSampling(FRAMES, 2, share, seed=SEED), 2, rank, world)


def check_same(found: LatentWindows, expected: LatentWindows) -> None:
    assert found.gt_pixel_values is None
    assert torch.equal(found.sample_ids, expected.sample_ids)
    assert torch.equal(found.mel, expected.mel)
    for name in ("clean", "masked", "reference", "audio"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert ours.dtype == torch.float32
        # Kept in bfloat16, which has eight bits.
        torch.testing.assert_close(ours, theirs, atol=0.01, rtol=2**-8)


def test_windows_are_those_that_frames_give(clips, audio, store) -> None:
    encode = WindowEncoder(golden_vae(), audio.windows, MASK)
    dataset = UNetDataset(clips, OPTIONS, UNetSampling(True, True, SHARE))
    frames, latents = BatchLoader(dataset, LoaderOptions(2)), source(store)
    assert latents.steps_per_epoch == frames.steps_per_epoch == 3
    held_out = FixedSet(dataset, 4, 3, frames.record_problems)
    pairs = [(epoch, first) for epoch in range(3) for first in (0, 1)]
    seen = [
        *((ours, theirs) for at in pairs for ours, theirs in zip(latents.batches(*at), frames.batches(*at))),
        *zip(latents.fixed(4, 3), held_out),
    ]
    assert len(seen) == 3 * (3 + 2) + 3
    for ours, theirs in seen:
        check_same(ReadyWindows(MASK)(ours), encode(theirs))


def test_processes_share_a_batch(store) -> None:
    for epoch in range(2):
        whole = list(source(store).batches(epoch, 0))
        parts = [list(source(store, rank, 2).batches(epoch, 0)) for rank in (0, 1)]
        assert [len(part) for part in parts] == [3, 3]
        for batch, first, second in zip(whole, *parts):
            ids = torch.cat([first.windows.sample_ids, second.windows.sample_ids])
            assert torch.equal(batch.windows.sample_ids, ids)
            assert torch.equal(batch.windows.clean, torch.cat([first.windows.clean, second.windows.clean]))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_reference_windows_keep_their_distance_or_are_the_source_itself(store, share: float) -> None:
    """Which frames a window holds is found by looking for its latents in the clips."""

    def place(window: Tensor, kind: int) -> tuple[int, int]:
        for number, clip in enumerate(store.clips):
            for start in range(clip.num_frames - FRAMES + 1):
                if torch.equal(clip.latents[kind, start : start + FRAMES].float(), window.transpose(0, 1)):
                    return number, start
        raise AssertionError("no such window")

    drawn = [batch.windows for epoch in range(6) for batch in source(store, share=share).batches(epoch, 0)]
    for windows in drawn:
        for clean, masked, reference in zip(windows.clean, windows.masked, windows.reference):
            (number, start), (other, at), (shown, ref) = place(clean, 0), place(masked, 1), place(reference, 0)
            assert (other, at) == ({0: 1, 1: 0, 2: 2}[number], start) and shown == other
            assert ref == start if share else abs(ref - start) >= FRAMES


def test_without_pairing_the_source_is_the_clip_itself(clips, audio) -> None:
    assert [clip.other for clip in filled(clips, audio, paired=False).clips] == [0, 1, 2]


def test_bad_clips_are_left_out_and_named(tmp_path: Path, clips, audio, store) -> None:
    bad = bad_clips(tmp_path)
    torn = good_clip(tmp_path / "torn.mp4")
    torn.with_suffix(".json").write_text('{"other_take": ')
    alone = good_clip(tmp_path / "alone.mp4")
    alone.with_suffix(".json").write_text('{"other_take": "corrupt.mp4"}')
    found = filled([clips[0], *bad.values(), torn, alone, *clips[1:]], audio)
    assert [clip.other for clip in found.clips] == [2, 1, 0, 3]
    assert set(found.problems) == {str(clip) for clip in [*bad.values(), torn]}
    for word, clip in [*bad.items(), ("sidecar torn.json cannot be read", torn)]:
        assert word in found.problems[str(clip)]
    assert source(found).problems() == found.problems
    with pytest.raises(DataError, match=r"(?s)None of the 6 clips can be used.*\n  .*: .*\n.*right folder"):
        filled(list(bad.values()), audio)


def test_a_clip_that_cannot_be_heard_is_left_out(clips, audio) -> None:
    class Deaf(ClipAudioEmbeddings):
        def features(self, clip: Path) -> Tensor:
            if clip.name == "b.mp4":
                raise UnusableClip(clip, "cannot be heard")
            return super().features(clip)

    found = filled(clips, Deaf(audio.encoder))
    assert found.problems == {str(clips[1]): "cannot be heard"}
    assert [clip.num_frames for clip in found.clips] == [40, 30] and [clip.other for clip in found.clips] == [0, 1]
