import numpy as np
import pytest
import torch
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st

from latentsync.errors import ConfigError
from latentsync.face.compositing import restore as restore_module
from latentsync.face.compositing.masks import load_mask
from latentsync.face.compositing.restore import FaceRestorer, feathered_mask
from latentsync.face.geometry.affine import apply_affine, crop_size, face_template, fit_affine, invert_affine
from latentsync.face.geometry.patches import Patches
from latentsync.face.geometry.warp import crop_boxes, warp_faces

BLENDS = ("mask", "published")


def matrix_for(center, brows=40.0, roll=0.2, resolution=64):
    """Image -> crop for a face whose brows are `brows` pixels apart."""
    shape = (face_template(256) - face_template(256).mean(axis=0)) / 114.8 * brows
    turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    return fit_affine((shape @ turn.T + np.array(center))[None], face_template(resolution))


def smooth_frames(frames=1, height=240, width=320):
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    waves = torch.stack([torch.sin(x / 17) + torch.cos(y / 11), torch.sin(x / 23 + y / 19), torch.cos(x / 13)])
    return ((waves / waves.abs().amax() * 0.45 + 0.5) * 255).to(torch.uint8).repeat(frames, 1, 1, 1)


@pytest.mark.parametrize(("resolution", "step"), [(256, 1), (512, 2)])
def test_published_blend_matches_the_golden_paste(golden, resolution, step):
    case = golden(f"face_restore_{resolution}")
    frames = rearrange(golden("face_warp").inputs["image"], "h w c -> 1 c h w")
    faces = case.inputs["face_u8"].float()[None] / 127.5 - 1
    pasted = FaceRestorer(resolution, "published").restore(frames, faces, case.inputs["M"][None], [1.0])
    actual = rearrange(pasted[0], "c h w -> h w c")[::step, ::step].int()
    difference = (actual - case.outputs["restored"].int()).abs()
    assert int(difference.max()) <= 1
    assert float((difference == 0).float().mean()) >= case.tol["frac_within_0"]


@pytest.mark.parametrize("blend", BLENDS)
@settings(max_examples=20)
@given(x=st.floats(-40, 200), y=st.floats(-40, 160), brows=st.floats(8, 60), roll=st.floats(-3, 3))
def test_pixels_outside_the_crop_are_unchanged(blend, x, y, brows, roll):
    frames = smooth_frames(1, 120, 160)
    matrices = matrix_for((x, y), brows, roll)
    pasted = FaceRestorer(64, blend).restore(frames, torch.ones(1, 3, 64, 64), matrices, [1.0])
    width, height = crop_size(64)
    rows, columns = np.mgrid[:120, :160]
    crop = apply_affine(matrices[0], np.stack([columns.ravel(), rows.ravel()], 1))
    outside = ((crop < -1.5) | (crop > np.array([width, height]) + 0.5)).any(axis=1).reshape(120, 160)
    changed = (pasted != frames).any(dim=1)[0].numpy()
    assert not (changed & outside).any()


@pytest.mark.parametrize("blend", BLENDS)
def test_face_is_pasted_at_the_mouth_position(blend):
    frames = smooth_frames()
    matrices = matrix_for((160, 110), 60)
    pasted = FaceRestorer(64, blend).restore(frames, -torch.ones(1, 3, 64, 64), matrices, [1.0])
    width, height = crop_size(64)
    mouth = apply_affine(invert_affine(matrices[0]), np.array([[width / 2, 0.7 * height]]))[0]
    assert pasted[0, :, round(float(mouth[1])), round(float(mouth[0]))].tolist() == [0, 0, 0]


@pytest.mark.parametrize("blend", BLENDS)
def test_pasting_a_face_onto_itself_changes_little(blend):
    frames = smooth_frames()
    matrices = matrix_for((160, 100), 60, resolution=256)
    faces = warp_faces(frames, torch.from_numpy(matrices), 256).float() / 127.5 - 1
    pasted = FaceRestorer(256, blend).restore(frames, faces, matrices, [1.0])
    assert not torch.equal(pasted, frames)
    error = (pasted.float() - frames.float()).abs()
    assert float(error.max()) <= 4
    assert float(error.mean()) < 0.3


def test_mask_blend_leaves_the_upper_face_unchanged():
    frames = smooth_frames()
    matrices = matrix_for((160, 110), 70, resolution=256)
    pasted = FaceRestorer(256).restore(frames, torch.ones(1, 3, 256, 256), matrices, [1.0])
    changed = (pasted != frames).any(dim=1, keepdim=True)
    seen = warp_faces(changed.to(torch.uint8).repeat(1, 3, 1, 1) * 255, torch.from_numpy(matrices), 256)[0]
    upper_face = torch.zeros(256, 256, dtype=torch.bool)
    upper_face[:90] = True
    assert int(seen[:, upper_face].max()) == 0


def test_the_soft_mask_never_leaves_the_repainted_region():
    for name in ("mask", "mask2", "mask3", "mask4"):
        mask = load_mask(name, 256)
        alpha = feathered_mask(mask)
        assert float(alpha[mask[:1] == 1].max()) < 1e-6
        assert float(alpha.max()) == pytest.approx(1, abs=1e-5)
        assert float(alpha[0, 150, 128]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("blend", BLENDS)
def test_weight_zero_leaves_the_frame_and_ignores_its_matrix(blend):
    frames = smooth_frames(3)
    matrices = np.repeat(matrix_for((160, 110), 60), 3, axis=0)
    matrices[1] = np.nan
    pasted = FaceRestorer(64, blend).restore(frames, torch.ones(3, 3, 64, 64), matrices, [1.0, 0.0, 1.0])
    assert torch.equal(pasted[1], frames[1])
    assert not torch.equal(pasted[0], frames[0])
    assert torch.equal(pasted[0], pasted[2])


def test_half_weight_gives_half_the_change():
    frames = torch.full((2, 3, 240, 320), 100, dtype=torch.uint8)
    matrices = np.repeat(matrix_for((160, 110), 60), 2, axis=0)
    pasted = FaceRestorer(64).restore(frames, torch.ones(2, 3, 64, 64), matrices, [1.0, 0.5]).int() - 100
    assert int(pasted[0].max()) == 155
    assert torch.all((pasted[1] * 2 - pasted[0]).abs() <= 2)


@pytest.mark.parametrize("blend", BLENDS)
def test_chunks_do_not_change_the_result(blend, monkeypatch):
    frames = smooth_frames(4)
    matrices = np.concatenate([matrix_for((120 + 12 * index, 100 + 5 * index), 50) for index in range(4)])
    faces = torch.rand(4, 3, 64, 64) * 2 - 1
    weights = [1.0, 1.0, 0.0, 0.7]
    whole = FaceRestorer(64, blend).restore(frames, faces, matrices, weights)
    monkeypatch.setattr(restore_module, "max_batch_pixels", lambda device: 1)
    single = FaceRestorer(64, blend).restore(frames, faces, matrices, weights)
    assert torch.equal(whole, single)


@pytest.mark.parametrize("blend", BLENDS)
@settings(max_examples=20)
@given(x=st.floats(-40, 360), y=st.floats(-40, 280), brows=st.floats(4, 250), roll=st.floats(-3, 3))
def test_pasting_into_patches_equals_pasting_into_full_frames(blend, x, y, brows, roll):
    """Across the border, rotated, tiny, huge and outside; batched with faces of another size."""
    frames = smooth_frames(3)
    poses = [((x, y), brows, roll), ((160, 100), 50, 0.1), ((x - 3, y + 2), brows * 1.01, roll)]
    matrices = np.concatenate([matrix_for(*pose) for pose in poses])
    faces, weights = torch.rand(3, 3, 64, 64) * 2 - 1, np.array([1.0, 0.3, 1.0], np.float32)
    restorer = FaceRestorer(64, blend)
    whole = restorer.restore(frames, faces, matrices, weights)
    regions = restorer.regions(matrices, (320, 240))
    boxes = crop_boxes(matrices, 64, (320, 240)).union(regions)
    images = [rearrange(frame, "c h w -> h w c").numpy() for frame in frames]
    patches = Patches.upload(images, boxes, torch.device("cpu"))
    sources = [rearrange(patches.crop(index, regions, index), "h w c -> c h w") for index in range(3)]
    alone = frames.clone()
    for index, pasted in enumerate(restorer.paste(sources, faces, matrices, weights, regions)):
        alone[(index, slice(None), *regions.slices(index))] = pasted
    assert torch.equal(alone, whole)
    single = [
        restorer.restore(frames[part], faces[part], matrices[part], weights[part])
        for part in (slice(index, index + 1) for index in range(3))
    ]
    assert torch.equal(torch.cat(single), whole)


def test_source_is_modified_only_inplace():
    frames = smooth_frames()
    before = frames.clone()
    faces, matrices = torch.ones(1, 3, 64, 64), matrix_for((160, 110), 60)
    restorer = FaceRestorer(64)
    pasted = restorer.restore(frames, faces, matrices, [1.0])
    assert torch.equal(frames, before)
    assert restorer.restore(frames, faces, matrices, [1.0], inplace=True) is frames
    assert torch.equal(frames, pasted)


def test_geometric_mask_area_gives_the_published_blur_size(golden):
    case = golden("face_restore_256")
    area = restore_module._mask_area(case.inputs["M"].numpy(), crop_size(256), (480, 360))
    edge = int(np.sqrt(area)) // 20
    assert 2 * edge + 1 == int(case.outputs["blur_size"][0])


def test_mismatched_arguments_are_refused():
    frames, matrices = smooth_frames(), matrix_for((160, 110))
    with pytest.raises(ConfigError, match="one of each"):
        FaceRestorer(64).restore(frames, torch.ones(2, 3, 64, 64), matrices, [1.0])
    with pytest.raises(ConfigError, match="64 wide"):
        FaceRestorer(64).restore(frames, torch.ones(1, 3, 32, 32), matrices, [1.0])
    with pytest.raises(ConfigError, match="blend"):
        FaceRestorer(64, "soft")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="keeps every pixel"):
        FaceRestorer(64, mask=torch.ones(3, 64, 64))
    with pytest.raises(ConfigError, match="load it at that size"):
        FaceRestorer(64, mask=torch.ones(3, 32, 32))


@pytest.mark.gpu
@pytest.mark.parametrize("blend", BLENDS)
def test_gpu_paste_matches_cpu_without_a_device_sync(blend):
    frames, matrices = smooth_frames(3), np.repeat(matrix_for((160, 110), 60), 3, axis=0)
    faces = torch.rand(3, 3, 64, 64) * 2 - 1
    restorer = FaceRestorer(64, blend)
    here = restorer.restore(frames, faces, matrices, [1.0, 0.4, 1.0])
    there_frames, there_faces = frames.to("cuda"), faces.to("cuda")
    restorer.restore(there_frames, there_faces, matrices, [1.0, 0.4, 1.0])
    torch.cuda.set_sync_debug_mode("error")
    try:
        there = restorer.restore(there_frames, there_faces, matrices, [1.0, 0.4, 1.0])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert int((there.cpu().int() - here.int()).abs().max()) <= 1
