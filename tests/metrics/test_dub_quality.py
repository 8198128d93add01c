"""Metrics of finished videos, for the ground-truth dub and for the unmodified source as result."""

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
def rendered_case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_case(held_out_case(7, 0, seconds=1.4, size=256), tmp_path_factory.mktemp("case"), HeadRenderer())


def with_result(rendered_case: Path, folder: Path, video: str) -> DubFolder:
    shutil.copytree(rendered_case, folder / "case")
    shutil.copyfile(rendered_case / video, folder / "case" / "result.mp4")
    return DubFolder(folder / "case")


def repaint_mask() -> torch.Tensor:
    mask = torch.zeros(RESOLUTION, RESOLUTION)
    mask[RESOLUTION // 2 :] = 1
    return mask


def test_ground_truth_gets_perfect_scores(rendered_case: Path, tmp_path: Path):
    metrics = image_metrics(with_result(rendered_case, tmp_path, "truth.mp4"), repaint_mask())
    assert metrics["psnr_mouth"] == metrics["psnr_repainted"] == 100
    assert metrics["ssim_mouth"] == pytest.approx(1)
    assert metrics["flicker"] == metrics["flicker_true"] > 0
    assert 15 < metrics["psnr_mouth_source"] < 45


def test_results_of_one_case_can_be_compared_with_each_other(rendered_case: Path):
    case = DubFolder(rendered_case, "source.mp4")
    assert similarity_metrics(case, case.result, RESOLUTION) == {"psnr_mouth": 100, "ssim_mouth": pytest.approx(1)}
    metrics = similarity_metrics(case, case.truth, RESOLUTION)
    assert 15 < metrics["psnr_mouth"] < 45 and metrics["ssim_mouth"] < 0.995


def test_unmodified_source_scores_the_baseline(rendered_case: Path, tmp_path: Path):
    metrics = image_metrics(with_result(rendered_case, tmp_path, "source.mp4"), repaint_mask())
    assert metrics["psnr_mouth"] == pytest.approx(metrics["psnr_mouth_source"])
    assert metrics["psnr_repainted"] > metrics["psnr_mouth"]
    assert metrics["ssim_mouth"] < 0.995


def test_mouth_opening_distinguishes_the_dub_from_the_source(rendered_case: Path, tmp_path: Path):
    dubbed = mouth_opening_metrics(with_result(rendered_case, tmp_path / "dub", "truth.mp4"))
    assert dubbed["face_rate"] == 1
    assert dubbed["r"] == dubbed["r_ceiling"] > 0.8
    kept = mouth_opening_metrics(with_result(rendered_case, tmp_path / "kept", "source.mp4"))
    assert kept["r_source"] > 0.8 > kept["r"]


def test_syncnet_scores_result_truth_and_source(rendered_case: Path, tmp_path: Path):
    spec = StableSyncNetSpec(
        SyncNetEncoderSpec(48, (32, 32), ((4, 8), (4, 4))), SyncNetEncoderSpec(1, (32, 32), ((10, 13), (4, 2)))
    )
    meter = SyncMeter(StableSyncNet(spec).eval())
    metrics = sync_metrics(with_result(rendered_case, tmp_path, "truth.mp4"), meter, 64)
    assert metrics["sync_conf"] == metrics["sync_conf_true"]
    assert metrics["sync_cosine"] == metrics["sync_cosine_true"] != metrics["sync_cosine_source"]
    assert set(metrics) == {
        f"{name}{of}" for name in ("sync_conf", "sync_cosine", "av_offset") for of in ("", "_true", "_source")
    }


def test_number_of_crops_is_the_smaller_of_frames_and_points(rendered_case: Path):
    case = DubFolder(rendered_case)
    assert aligned_crops(case.truth, case.control_points[:5], 64).shape == (5, 3, 64, 64)
    longer = np.concatenate([case.control_points] * 2)
    assert len(aligned_crops(case.truth, longer, 64)) == len(case.control_points) == 35


def test_face_box_encloses_the_control_points(rendered_case: Path):
    case = DubFolder(rendered_case)
    left, top, width, height = case.face_box()
    info = VideoReader(case.source).info
    assert 0 <= left < left + width <= info.width
    assert 0 <= top < top + height <= info.height
    inside = (case.control_points > (left, top)) & (case.control_points < (left + width, top + height))
    assert inside.all()


def test_folder_without_ground_truth_is_rejected(tmp_path: Path):
    with pytest.raises(MediaError, match=r"source\.json cannot be read"):
        _ = DubFolder(tmp_path).control_points


def test_means_ignore_nan_and_add_ratios_to_the_ground_truth():
    clips = [
        {"r": 0.5, "sync_conf": 0.2, "sync_conf_true": 0.3, "av_offset": -1.0, "flicker_still": math.nan},
        {"r": math.nan, "sync_conf": 0.4, "sync_conf_true": 0.5, "av_offset": 3.0, "flicker_still": math.nan},
    ]
    means = mean_metrics(clips)
    assert means["r"] == 0.5
    assert means["sync_ratio"] == 0.75
    assert means["av_offset_within_one"] == 0.5
    assert "av_offset" not in means
    assert math.isnan(means["flicker_still"])
    assert "flicker_ratio" not in means
