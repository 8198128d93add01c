"""Figures of finished videos: the perfect dub, and the source that nobody touched."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from latentsync.errors import MediaError
from latentsync.media.video_reader import VideoReader
from latentsync.metrics.dub_quality import (
    DubFolder,
    aligned_crops,
    image_metrics,
    mean_metrics,
    mouth_opening_metrics,
    similarity_metrics,
    sync_metrics,
)
from latentsync.metrics.sync_conf import SyncMeter
from latentsync.models.stable_syncnet import StableSyncNet, StableSyncNetSpec, SyncNetEncoderSpec
from latentsync.synthetic.dub_cases import held_out_case, write_case
from latentsync.synthetic.head.renderer import HeadRenderer

RESOLUTION = 128


@pytest.fixture(scope="module")
def made_case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_case(held_out_case(7, 0, seconds=1.4, size=256), tmp_path_factory.mktemp("case"), HeadRenderer())


def with_result(made_case: Path, folder: Path, video: str) -> DubFolder:
    shutil.copytree(made_case, folder / "case")
    shutil.copyfile(made_case / video, folder / "case" / "result.mp4")
    return DubFolder(folder / "case")


def repaint_mask() -> torch.Tensor:
    mask = torch.zeros(RESOLUTION, RESOLUTION)
    mask[RESOLUTION // 2 :] = 1
    return mask


def test_the_perfect_dub_gets_perfect_figures(made_case: Path, tmp_path: Path):
    metrics = image_metrics(with_result(made_case, tmp_path, "truth.mp4"), repaint_mask())
    assert metrics["psnr_mouth"] == metrics["psnr_painted"] == 100
    assert metrics["ssim_mouth"] == pytest.approx(1)
    assert metrics["flicker"] == metrics["flicker_true"] > 0
    assert 15 < metrics["psnr_mouth_source"] < 45


def test_results_of_one_case_are_compared_with_each_other(made_case: Path):
    case = DubFolder(made_case, "source.mp4")
    assert similarity_metrics(case, case.result, RESOLUTION) == {"psnr_mouth": 100, "ssim_mouth": pytest.approx(1)}
    metrics = similarity_metrics(case, case.truth, RESOLUTION)
    assert 15 < metrics["psnr_mouth"] < 45 and metrics["ssim_mouth"] < 0.995


def test_the_untouched_source_is_the_least_to_beat(made_case: Path, tmp_path: Path):
    metrics = image_metrics(with_result(made_case, tmp_path, "source.mp4"), repaint_mask())
    assert metrics["psnr_mouth"] == pytest.approx(metrics["psnr_mouth_source"])
    assert metrics["psnr_painted"] > metrics["psnr_mouth"]
    assert metrics["ssim_mouth"] < 0.995


def test_the_face_mesh_tells_the_dub_from_the_source(made_case: Path, tmp_path: Path):
    dubbed = mouth_opening_metrics(with_result(made_case, tmp_path / "dub", "truth.mp4"))
    assert dubbed["found"] == 1
    assert dubbed["r"] == dubbed["r_ceiling"] > 0.8
    kept = mouth_opening_metrics(with_result(made_case, tmp_path / "kept", "source.mp4"))
    assert kept["r_source"] > 0.8 > kept["r"]


def test_the_network_judges_result_truth_and_source(made_case: Path, tmp_path: Path):
    spec = StableSyncNetSpec(
        SyncNetEncoderSpec(48, (32, 32), ((4, 8), (4, 4))), SyncNetEncoderSpec(1, (32, 32), ((10, 13), (4, 2)))
    )
    meter = SyncMeter(StableSyncNet(spec).eval())
    metrics = sync_metrics(with_result(made_case, tmp_path, "truth.mp4"), meter, 64)
    assert metrics["sync_conf"] == metrics["sync_conf_true"]
    assert metrics["sync_cosine"] == metrics["sync_cosine_true"] != metrics["sync_cosine_source"]
    assert set(metrics) == {
        f"{name}{of}" for name in ("sync_conf", "sync_cosine", "av_offset") for of in ("", "_true", "_source")
    }


def test_crops_end_with_the_shorter_of_video_and_points(made_case: Path):
    case = DubFolder(made_case)
    assert aligned_crops(case.truth, case.control_points[:5], 64).shape == (5, 3, 64, 64)
    longer = np.concatenate([case.control_points] * 2)
    assert len(aligned_crops(case.truth, longer, 64)) == len(case.control_points) == 35


def test_the_box_of_a_strip_lies_round_the_face(made_case: Path):
    case = DubFolder(made_case)
    left, top, width, height = case.face_box()
    info = VideoReader(case.source).info
    assert 0 <= left < left + width <= info.width
    assert 0 <= top < top + height <= info.height
    inside = (case.control_points > (left, top)) & (case.control_points < (left + width, top + height))
    assert inside.all()


def test_a_folder_without_truth_is_refused(tmp_path: Path):
    with pytest.raises(MediaError, match=r"source\.json cannot be read"):
        _ = DubFolder(tmp_path).control_points


def test_means_leave_out_what_is_unknown_and_compare():
    clips = [
        {"r": 0.5, "sync_conf": 0.2, "sync_conf_true": 0.3, "av_offset": -1.0, "flicker_still": math.nan},
        {"r": math.nan, "sync_conf": 0.4, "sync_conf_true": 0.5, "av_offset": 3.0, "flicker_still": math.nan},
    ]
    means = mean_metrics(clips)
    assert means["r"] == 0.5
    assert means["sync_share"] == 0.75
    assert means["av_offset_within_one"] == 0.5
    assert "av_offset" not in means
    assert math.isnan(means["flicker_still"])
    assert "flicker_ratio" not in means
