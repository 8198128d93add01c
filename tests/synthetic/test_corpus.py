"""A corpus on disk: its layout, resuming after an interruption, and takes that differ only in the mouth."""

import json
from dataclasses import replace

import numpy as np
import pytest

from latentsync.errors import ConfigError
from latentsync.media.audio.reader import read_audio
from latentsync.media.probe import probe_video
from latentsync.media.video_reader import VideoReader
from latentsync.synthetic.corpus import CorpusOptions, make_corpus
from latentsync.synthetic.head.renderer import HeadRenderer
from latentsync.synthetic.scene_writer import FPS, is_complete, make_scene_script, read_sidecar
from latentsync.synthetic.speech.tts import PAUSE, SAMPLE_RATE

SIZE = 64


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    options = CorpusOptions(
        tmp_path_factory.mktemp("corpus"), 2, 1, resolution=SIZE, seconds=1.2, workers=1, whole_frames=96
    )
    progress = []
    report = make_corpus(options, lambda done, total: progress.append((done, total)))
    return options, report, progress


def pixels(path):
    return np.stack([frame.pixels for frame in VideoReader(path)]).astype(np.float32)


def test_folder_has_the_documented_layout(corpus):
    options, report, progress = corpus
    names = [f"{number:05d}_{take}{suffix}" for number in (0, 1) for take in "ab" for suffix in (".json", ".mp4")]
    assert sorted(path.name for path in (options.out / "train").iterdir()) == names
    assert sorted(path.name for path in (options.out / "val").iterdir()) == names[:4]
    assert sorted(path.name for path in (options.out / "whole" / "train").iterdir()) == names
    assert sorted(path.name for path in options.out.iterdir()) == ["corpus.json", "train", "val", "whole"]
    assert progress == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert json.loads((options.out / "corpus.json").read_text()) == report
    assert report["complete"] and report["train"]["clips"] == 4 and report["val"]["seconds"] == 2.4


def test_video_audio_and_ground_truth_of_clips_have_the_same_length(corpus):
    folder = corpus[0].out / "train"
    for path in sorted(folder.glob("*.mp4")):
        info, truth = probe_video(path), json.loads(path.with_suffix(".json").read_text())
        assert (info.width, info.height, info.fps) == (SIZE, SIZE, FPS)
        assert len(pixels(path)) == 30 == len(truth["mouth"]) == len(truth["mouth_opening"])
        assert len(read_audio(path)) == pytest.approx(1.2 * SAMPLE_RATE, abs=2)
        other = json.loads((folder / truth["other_take"]).with_suffix(".json").read_text())
        assert other["other_take"] == path.name and truth["split"] == "train"
        assert other["text"] != truth["text"] and other["mouth"] != truth["mouth"]
        for key in ("identity", "scene", "motion", "jitter"):
            assert other[key] == truth[key]


def test_lips_close_in_bilabials_and_audio_is_silent_in_pauses(corpus):
    for path in sorted((corpus[0].out / "train").glob("*.mp4")):
        truth = json.loads(path.with_suffix(".json").read_text())
        audio, opening = np.abs(read_audio(path)), np.array(truth["mouth_opening"])
        for symbol, start, end in truth["phonemes"]:
            middle = (start + end) / 2
            if symbol in ("m", "b", "p") and 0.1 < middle < 1.1:
                assert opening[int(middle * 25) : int(middle * 25) + 2].min() < 0.03
            if symbol == PAUSE and end - start > 0.15:
                assert audio[int((start + 0.06) * SAMPLE_RATE) : int((end - 0.06) * SAMPLE_RATE)].max() < 0.03
        assert opening.max() > 0.05 and audio.max() > 0.1


def test_takes_differ_only_in_the_lower_face(corpus):
    first, second = (pixels(corpus[0].out / "train" / f"00000_{take}.mp4") for take in "ab")
    change = np.abs(first - second).mean((0, 3))
    # The remaining difference above the nose is compression error.
    assert change[: SIZE * 3 // 8].mean() < 2
    assert change[SIZE // 2 : SIZE * 7 // 8, SIZE // 3 : SIZE * 2 // 3].mean() > 4


@pytest.mark.parametrize("number", [0, 1])
def test_rendered_takes_are_equal_above_the_nose(number):
    script = make_scene_script(0, "train", number, 0.4)
    first, second = HeadRenderer("cpu").render_takes(script.states, 96, script.setting.jitter)
    change = (first - second).abs().amax((0, 1))
    assert float(change[:32].max()) < 1e-3 and float(change[50:80].max()) > 0.05


def test_clip_can_be_rendered_again_from_its_sidecar(corpus):
    path = corpus[0].out / "train" / "00001_b.mp4"
    state, truth = read_sidecar(path)
    rendered = HeadRenderer("cpu").render_takes([state], SIZE, truth["jitter"])[0]
    error = np.abs(rendered.permute(0, 2, 3, 1).numpy() * 255 - pixels(path))
    assert error.mean() < 4


def test_interrupted_corpus_is_resumed(corpus):
    options, *_ = corpus
    kept, lost = (options.out / "train" / f"0000{number}_a.mp4" for number in (0, 1))
    before = kept.stat().st_mtime_ns
    lost.unlink()
    (options.out / ".unfinished" / "train_00001").mkdir(parents=True)
    (options.out / ".unfinished" / "train_00001" / "00001_a.mp4").write_bytes(b"half a file")
    assert not is_complete(options.out, "train", 1)
    report = make_corpus(options)
    assert report["rendered_scenes"] == 1 and kept.stat().st_mtime_ns == before and len(pixels(lost)) == 30
    assert not (options.out / ".unfinished").exists()


def test_corpus_with_other_options_is_rejected(corpus):
    with pytest.raises(ConfigError, match="'seed': 0"):
        make_corpus(replace(corpus[0], seed=1))


def test_same_seed_gives_the_same_scene(tmp_path):
    first, again = (make_scene_script(7, "train", 3, 0.8) for _ in range(2))
    assert first.setting.identity == again.setting.identity and first.setting.scene == again.setting.scene
    for one, two in zip(first.states, again.states):
        np.testing.assert_allclose(one.mouth, two.mouth, atol=0.05)
        np.testing.assert_array_equal(one.motion, two.motion)
    assert [u.text for u in first.utterances] == [u.text for u in again.utterances]
    assert make_scene_script(7, "train", 4, 0.8).setting.identity != first.setting.identity
    assert make_scene_script(7, "val", 3, 0.8).setting.identity != first.setting.identity


@pytest.mark.parametrize(
    "wrong", [{"scenes": 0}, {"resolution": 65}, {"seconds": 0}, {"workers": -1}, {"devices": ()}, {"whole_frames": 8}]
)
def test_options_out_of_range_are_rejected(tmp_path, wrong):
    with pytest.raises(ConfigError):
        CorpusOptions(**({"out": tmp_path, "scenes": 1} | wrong))


def test_missing_sidecar_is_reported_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.json"):
        read_sidecar(tmp_path / "nothing.mp4")
