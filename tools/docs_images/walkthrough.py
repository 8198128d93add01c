"""One frame at every stage of the pipeline, computed by the pipeline's own functions; the animation of a result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from latentsync.backends.placement import choose_placement
from latentsync.build.pipeline import build_face_detector, build_pipeline
from latentsync.build.presets import preset_files
from latentsync.config.load import load_config
from latentsync.diffusion.speed import SamplerRequest
from latentsync.errors import FaceNotFoundError
from latentsync.face.compositing.masks import prepare_masked_pixels
from latentsync.face.compositing.restore import FaceRestorer
from latentsync.face.detection.detector import FaceDetector
from latentsync.face.geometry.affine import apply_affine, crop_size, invert_affine
from latentsync.face.geometry.warp import warp_faces
from latentsync.face.tracking.tracker import FaceTracker
from latentsync.media.audio.reader import load_speech
from latentsync.media.video_reader import VideoReader
from latentsync.pipelines.generator import WindowInput
from latentsync.profiling import StageClock
from latentsync.whisper.audio_windows import AudioWindows

ImageArray = npt.NDArray[np.uint8]

_LENGTH = 16
_COLORS = 48  # of the GIF; more cost more than they show
_POINT_COLORS = ("#ffd33d", "#ffd33d", "#ff5da2")
_CYAN = "#00e5ff"


@dataclass(frozen=True)
class Walkthrough:
    """One frame at every stage.

    Attributes:
        source, result: (H, W, 3) uint8, the frame before and after.
        landmarks: (478, 2) face mesh, (x, y) in pixels of the frame.
        control_points: (3, 2) left brow, right brow, nose.
        outline: (4, 2) corners of the aligned crop in the frame.
        aligned, masked, generated: (R, R, 3) uint8.
        alpha: (H, W) uint8, weight of the new face in the frame, 255 = 1.
    """

    source: ImageArray
    result: ImageArray
    landmarks: npt.NDArray[np.float32]
    control_points: npt.NDArray[np.float32]
    outline: npt.NDArray[np.float32]
    aligned: ImageArray
    masked: ImageArray
    generated: ImageArray
    alpha: ImageArray


def walk(video: Path, speech: Path, checkpoints: Path, first: int, shown: int) -> Walkthrough:
    """Generate one window of a video and keep what becomes of one frame.

    Args:
        video: source.
        speech: drives the mouth.
        checkpoints: folder of the bundled model.
        first: first frame of the window.
        shown: the frame to keep, counted from ``first``.

    Raises:
        FaceNotFoundError: a frame has no usable face.
    """
    files, placement = preset_files("demo", checkpoints), choose_placement("cpu")
    pipeline = build_pipeline(files, placement, build_face_detector("mediapipe", checkpoints, placement.devices[0]))
    run = load_config(files.config_path).run
    reader = VideoReader(video)
    frames = [frame.pixels for frame in islice(reader, first, first + _LENGTH)]
    resolution = pipeline.generator.resolution
    points, matrices = _track(pipeline.make_detector(), resolution, frames, float(reader.fps))
    stack = torch.from_numpy(rearrange(np.stack(frames), "f h w c -> f c h w").copy())
    faces = warp_faces(stack, torch.from_numpy(matrices), resolution)
    waveform = torch.from_numpy(load_speech(speech).waveform)
    audio = AudioWindows(pipeline.audio_encoder, waveform, reader.fps, first + _LENGTH)[first : first + _LENGTH]
    sampler = SamplerRequest().options(run.inference_steps, run.guidance_scale)
    pipeline.generator.start(1247, sampler, StageClock(pipeline.device))
    (codes,) = pipeline.generator.sample_windows([WindowInput(faces, audio)])
    generated = pipeline.generator.decode(codes, faces).float()
    restorer, weights = FaceRestorer(resolution, "mask", pipeline.mask), np.ones(_LENGTH, np.float32)
    result = restorer.restore(stack, generated, matrices, weights)
    # A white face pasted into black frames shows the weight of the paste itself.
    alpha = restorer.restore(torch.zeros_like(stack), torch.ones_like(generated), matrices, weights)
    masked = prepare_masked_pixels(faces, pipeline.mask)[1]
    width, height = crop_size(resolution)
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    return Walkthrough(
        source=frames[shown],
        result=_image(result[shown]),
        landmarks=_mesh(frames[shown]),
        control_points=points[shown],
        outline=apply_affine(invert_affine(matrices[shown]), corners),
        aligned=_image(faces[shown]),
        masked=_image((masked[shown] + 1) * 127.5),
        generated=_image((generated[shown] + 1) * 127.5),
        alpha=_image(alpha[shown])[..., 0],
    )


def _track(
    detector: FaceDetector, resolution: int, frames: Sequence[ImageArray], fps: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Control points (f, 3, 2) as detected, and smoothed matrices (f, 2, 3) image -> crop."""
    height, width, _ = frames[0].shape
    tracker = FaceTracker("largest", (width, height), fps, resolution)
    found = [detector.detect(frame) for frame in frames]
    detector.close()
    tracked = [face for index, faces in enumerate(found) for face in tracker.push(index, faces)] + tracker.flush()
    matrices = [face.matrix for face in tracked if face.matrix is not None]
    if len(matrices) < len(frames):
        raise FaceNotFoundError(f"Only {len(matrices)} of {len(frames)} frames have a usable face; choose others")
    return np.stack([faces[0].control_points for faces in found]), np.stack(matrices)


def _mesh(frame: ImageArray) -> npt.NDArray[np.float32]:
    """All points of the face mesh that the detector averages into control points: (478, 2) in pixels."""
    from mediapipe import solutions

    with solutions.face_mesh.FaceMesh(static_image_mode=True, max_num_faces=1, refine_landmarks=True) as mesh:
        (face,) = mesh.process(frame).multi_face_landmarks
    height, width, _ = frame.shape
    return np.array([(point.x * width, point.y * height) for point in face.landmark], np.float32) - 0.5


def _image(pixels: Tensor) -> ImageArray:
    """(3, h, w) of 0..255 -> (h, w, 3) uint8."""
    return np.asarray(rearrange(pixels, "c h w -> h w c").round().clamp(0, 255).to(torch.uint8).numpy())


def draw_walkthrough(step: Walkthrough, out: Path) -> None:
    """Six panels, from the source frame to the result, as JPEG."""
    figure: Figure = Figure(figsize=(880 / 96, 620 / 96), dpi=144, facecolor="white")
    titles = (
        "1  source: 478 landmarks,\n3 control points, crop outline",
        "2  aligned crop\n(256 x 256)",
        "3  masked input:\nthe mask keeps eyes and nose",
        "4  generated crop:\nU-Net + VAE decoder",
        "5  paste-back: soft mask,\nweight 0.5 (solid), 0 (dashed)",
        "6  result: all else is the\nsource, bit for bit",
    )
    axes = figure.subplots(2, 3).ravel()
    images = (step.source, step.aligned, step.masked, step.generated, step.result, step.result)
    for panel, image, title in zip(axes, images, titles):
        panel.imshow(image, interpolation="lanczos")
        panel.set_title(title, fontsize=9.5, color="#1f2328")
        panel.set_axis_off()
    view = _view(step.outline)
    for panel in (axes[0], axes[4], axes[5]):
        panel.set_xlim(view[0], view[0] + view[2])
        panel.set_ylim(view[1] + view[2], view[1])
    _draw_points(axes[0], step)
    for level, style in ((127, "-"), (0, "--")):
        contours, _ = cv2.findContours((step.alpha > level).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        for contour in contours:
            x, y = np.concatenate([contour, contour[:1]])[:, 0].T
            axes[4].plot(x, y, style, color=_CYAN, linewidth=1.5)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.92, bottom=0.01, wspace=0.04, hspace=0.2)
    figure.savefig(out, pil_kwargs={"quality": 86, "optimize": True})


def _view(outline: npt.NDArray[np.float32]) -> tuple[float, float, float]:
    """Left, top and side of a square round the crop."""
    low, high = outline.min(axis=0), outline.max(axis=0)
    side = 1.25 * float((high - low).max())
    x, y = (low + high) / 2
    return float(x) - side / 2, float(y) - side / 2, side


def _draw_points(panel: Axes, step: Walkthrough) -> None:
    x, y = step.landmarks.T
    panel.scatter(x, y, s=1.6, color="white", alpha=0.8, linewidths=0)
    x, y = step.control_points.T
    panel.scatter(x, y, s=42, c=_POINT_COLORS, edgecolors="black", linewidths=1, zorder=4)
    panel.plot(*np.concatenate([step.outline, step.outline[:1]]).T, color=_CYAN, linewidth=1.6)


def draw_animation(side_by_side: Path, out: Path, crop: tuple[int, int, int, int], width: int = 166) -> None:
    """A labelled GIF of about three seconds at half the frame rate.

    Args:
        side_by_side: made with ``--side_by_side``: source on the left, result on the right.
        out: .gif to write.
        crop: left, top, width and height in pixels of either half.
        width: of either half in the GIF.
    """
    reader = VideoReader(side_by_side)
    half, rate = reader.info.width // 2, float(reader.fps)
    left, top, across, down = crop
    size = (width, round(width * down / across))
    frames = []
    for frame in islice(reader, round(3 * rate)):
        if frame.index % 2 == 0:
            parts = [frame.pixels[top : top + down, x + left : x + left + across] for x in (0, half)]
            halves = [Image.fromarray(part).resize(size, Image.Resampling.LANCZOS) for part in parts]
            frames.append(_labeled(halves))
    # One palette for all frames, so that it does not flicker.
    sample = np.concatenate([np.asarray(frame) for frame in frames[:: max(1, len(frames) // 6)]])
    palette = Image.fromarray(sample).quantize(_COLORS, method=Image.Quantize.MEDIANCUT)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    delay = round(2000 / rate)
    indexed[0].save(out, save_all=True, append_images=indexed[1:], duration=delay, loop=0, optimize=False)


def _labeled(halves: Sequence[Image.Image]) -> Image.Image:
    """Pictures side by side under the words source and result."""
    width, height = halves[0].size
    canvas = Image.new("RGB", (2 * width + 6, height + 26), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(16)
    for column, (word, half) in enumerate(zip(("source", "result"), halves)):
        x = column * (width + 6)
        canvas.paste(half, (x, 26))
        draw.text((x + width / 2, 13), word, fill=(31, 35, 40), font=font, anchor="mm")
    return canvas
