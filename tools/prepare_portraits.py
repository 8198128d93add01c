"""Create assets/portraits/ from two public-domain photographs that ship with installed packages.

For each portrait: NAME.jpg (768 x 768), NAME_regions.png (red = person, green = skin, blue = lips, alpha = beard area)
and NAME.json (478 face-mesh points: x, y, z in pixels, smaller z is nearer). Run it once from the repository root;
needs mediapipe, scikit-image and matplotlib:

    python -m tools.prepare_portraits
"""

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

SIZE = 768
FACE_OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149),
    *(150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
LIPS = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
INNER = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
EYES = (
    (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7),
    (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249),
)
BEARD = (
    *(234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361, 323, 454),
    *(411, 426, 327, 326, 2, 97, 98, 206, 187),
)


def photographs() -> dict[str, np.ndarray]:
    """The two photographs as square RGB images (SIZE, SIZE, 3) uint8."""
    import matplotlib
    from skimage import data

    hopper = cv2.imread(str(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"))
    crops = {"collins": data.astronaut()[0:300, 70:370], "hopper": hopper[0:512, :, ::-1]}
    return {
        name: np.ascontiguousarray(cv2.resize(crop, (SIZE, SIZE), interpolation=cv2.INTER_LANCZOS4))
        for name, crop in crops.items()
    }


def face_mesh(image: np.ndarray) -> np.ndarray:
    """(478, 3) float64: x, y, z in pixels."""
    import mediapipe as mp

    with mp.solutions.face_mesh.FaceMesh(static_image_mode=True, refine_landmarks=True) as mesh:
        result: Any = mesh.process(image)
    return np.array([(p.x * SIZE, p.y * SIZE, p.z * SIZE) for p in result.multi_face_landmarks[0].landmark])


def person_matte(image: np.ndarray) -> np.ndarray:
    """(SIZE, SIZE) float32 in [0, 1]: 1 on the person, eroded slightly so that no background shows at its edge."""
    import mediapipe as mp

    with mp.solutions.selfie_segmentation.SelfieSegmentation(model_selection=0) as segmentation:
        matte = segmentation.process(image).segmentation_mask
    mask = np.full(image.shape[:2], cv2.GC_PR_BGD, np.uint8)
    mask[matte > 0.5] = cv2.GC_PR_FGD
    solid = (matte > 0.5).astype(np.uint8)
    mask[cv2.erode(solid, np.ones((25, 25))) > 0] = cv2.GC_FGD
    mask[cv2.dilate(solid, np.ones((25, 25))) == 0] = cv2.GC_BGD
    models = np.zeros((2, 1, 65))
    full_frame = (0, 0, SIZE, SIZE)
    cv2.grabCut(image[..., ::-1].copy(), mask, full_frame, models[0], models[1], 4, cv2.GC_INIT_WITH_MASK)
    foreground: Any = np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    foreground = cv2.morphologyEx(foreground, cv2.MORPH_OPEN, np.ones((7, 7)))
    foreground = cv2.morphologyEx(foreground, cv2.MORPH_CLOSE, np.ones((9, 9)))
    return cv2.GaussianBlur(cv2.erode(foreground, np.ones((3, 3))).astype(np.float32), (0, 0), 1.6)


def polygon(points: np.ndarray, indices: tuple[int, ...], blur: float) -> np.ndarray:
    """(SIZE, SIZE) float32: 1 inside the polygon through the given mesh points, with an edge blurred by ``blur``."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillPoly(mask, [np.rint(points[list(indices), :2] * 16).astype(np.int32)], (255,), cv2.LINE_AA, 4)
    return cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), blur)


def skin_mask(image: np.ndarray, points: np.ndarray, matte: np.ndarray) -> np.ndarray:
    """(SIZE, SIZE) float32: skin-colored pixels on face, ears and neck."""
    oval = polygon(points, FACE_OVAL, 1.0)
    colors = cv2.cvtColor(cv2.GaussianBlur(image, (0, 0), 1.5), cv2.COLOR_RGB2YCrCb).astype(np.float64)
    inside = cv2.erode((oval > 0.9).astype(np.uint8), np.ones((31, 31))) > 0
    samples = colors[inside]
    samples = samples[samples[:, 0] > np.percentile(samples[:, 0], 15)]
    center = np.median(samples, axis=0)
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    # Fair hair differs from skin only in brightness, and hair covers the forehead, not the cheeks.
    forehead = 1 / (1 + np.exp((rows - points[[105, 334], 1].mean() + 14) / 4))
    spread = np.stack([95.0 - 75.0 * forehead, np.full(forehead.shape, 9.0), np.full(forehead.shape, 9.0)], axis=-1)
    colors[..., 0] = np.minimum(colors[..., 0], center[0])
    distance = (((colors - center) / spread) ** 2).sum(-1)
    likely = 1 / (1 + np.exp(np.clip((distance - 5.0) * 1.2, -50, 50)))
    chin, height = points[152, 1], points[152, 1] - points[10, 1]
    middle, width = points[[234, 454], 0].mean(), points[454, 0] - points[234, 0]
    near = (np.abs(columns - middle) < 0.62 * width) & (rows < chin + 0.3 * height) & (rows > points[10, 1] - 20)
    # Above the eyes, restrict the mask to the outline of the mesh.
    near = near & ((rows > points[[33, 263], 1].mean()) | (cv2.dilate(oval, np.ones((7, 7))) > 0.5))
    result = np.maximum(likely * near, cv2.erode(oval, np.ones((9, 9))) * (likely > 0.05) * (forehead < 0.5))
    for eye in EYES:
        result = result * (1 - polygon(points, eye, 1.0))
    return cv2.GaussianBlur((result * matte).astype(np.float32), (0, 0), 1.5)


def main() -> None:
    """Write the files of every portrait."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("assets/portraits"))
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in photographs().items():
        points = face_mesh(image)
        matte = person_matte(image)
        lips = polygon(points, LIPS, 1.5) * (1 - polygon(points, INNER, 0.7))
        beard = polygon(points, BEARD, 7.0) * (1 - polygon(points, LIPS, 2.5))
        regions = np.stack([lips, skin_mask(image, points, matte), matte, beard], axis=-1)
        cv2.imwrite(str(folder / f"{name}.jpg"), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        cv2.imwrite(str(folder / f"{name}_regions.png"), np.rint(regions * 255).clip(0, 255).astype(np.uint8))
        rounded = [[round(float(value), 2) for value in point] for point in points]
        (folder / f"{name}.json").write_text(json.dumps({"size": SIZE, "points": rounded}) + "\n")


if __name__ == "__main__":
    main()
