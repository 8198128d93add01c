"""Textures of the face: a portrait recolored and relit for one identity and scene."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import Tensor

from latentsync.synthetic.head.appearance import Color, Identity, Scene
from latentsync.synthetic.head.fields import GRID, head_weight, relief
from latentsync.synthetic.head.portrait import FACE_OVAL, Portrait


@dataclass(frozen=True)
class PortraitTensors:
    """Images and masks of a portrait on one device, S x S each, float32.

    Attributes:
        portrait: the portrait they are derived from.
        image: (3, S, S) in [0, 1].
        smooth: (3, S, S) the image with wrinkles and pores of the skin removed.
        backdrop: (3, S, S) the background of the photograph with the person removed.
        regions: masks of lips, skin, matte, beard, hair and clothes by name, each (S, S) in [0, 1].
        slope: (2, S, S) slope of the facial surface to the right and down.
        layers: (3, S, S) opacity of the upper and of the lower layer, and the eye opening.
        inpaint_rows: source rows that inpaint the mouth opening from the upper and the lower lip, each (S, S).
        grain: (3, S, S) fine noise with zero mean and unit standard deviation.
    """

    portrait: Portrait
    image: Tensor
    smooth: Tensor
    backdrop: Tensor
    regions: dict[str, Tensor]
    slope: Tensor
    layers: Tensor
    inpaint_rows: tuple[Tensor, Tensor]
    grain: Tensor


def portrait_tensors(portrait: Portrait, device: torch.device | str) -> PortraitTensors:
    """Move a portrait to ``device`` and derive hair, clothes, surface slope and backdrop."""
    size = portrait.size
    regions = {
        name: torch.from_numpy(np.ascontiguousarray(getattr(portrait, name))).to(device)
        for name in ("lips", "skin", "matte", "beard")
    }
    oval = portrait.points[list(FACE_OVAL), :2]
    low, high = oval.min(0), oval.max(0)
    rows, columns = torch.meshgrid(*(torch.arange(size, device=device),) * 2, indexing="ij")
    center, radius = (low + high) / 2, (high - low) / 2
    distance = (((columns - center[0]) / radius[0]) ** 2 + ((rows - center[1]) / radius[1]) ** 2).float()
    brows = float(portrait.points[[105, 334], 1].mean())
    # Hair may cover the forehead; below it, anything within the face that is not skin is an eye or spectacles.
    outside_face = torch.maximum(torch.sigmoid((distance - 0.97) * 30), torch.sigmoid((brows - 16 - rows.float()) / 3))
    other = regions["matte"] * (1 - regions["skin"]) * outside_face
    above = torch.sigmoid((float(high[1]) - rows.float()) / 6)
    regions["hair"], regions["clothes"] = other * above, other * (1 - above)
    image = sharpen_portrait(portrait, torch.from_numpy(portrait.image).to(device).permute(2, 0, 1).contiguous())
    layers = np.stack([*portrait.lip_layers, portrait.eye_opening]).astype(np.float32)
    upper_rows, lower_rows = portrait.mouth_inpaint_rows
    generator = torch.Generator().manual_seed(size)
    grain = blur_image(torch.randn(3, size, size, generator=generator).to(device), 0.7)
    return PortraitTensors(
        portrait=portrait,
        image=image,
        smooth=_smooth_skin(image, regions["skin"] * (1 - regions["lips"])),
        backdrop=_remove_person(image, regions["matte"]),
        regions=regions,
        slope=_slope(portrait).to(device),
        layers=torch.from_numpy(layers).to(device),
        inpaint_rows=(torch.from_numpy(upper_rows).to(device), torch.from_numpy(lower_rows).to(device)),
        grain=grain / grain.std(),
    )


def sharpen_portrait(portrait: Portrait, image: Tensor) -> Tensor:
    """Unsharp-mask the portrait's ``image`` (3, S, S) if its photograph was upscaled and lost sharpness."""
    if portrait.name != "collins":
        return image
    return (image + 40.0 / portrait.eye_distance * (image - blur_image(image, 2.0))).clamp(0, 1)


def inpaint_mouth(tensors: PortraitTensors, image: Tensor) -> tuple[Tensor, Tensor]:
    """(3, S, S) -> the image with its mouth opening inpainted from the upper and from the lower lip, each (3, S, S)."""
    columns = torch.arange(image.shape[-1], device=image.device)
    upper, lower = tensors.inpaint_rows
    return image[:, upper, columns], image[:, lower, columns]


def blur_image(image: Tensor, sigma: float) -> Tensor:
    """Separable Gaussian blur of (c, h, w) or (n, c, h, w); ``sigma`` in pixels, 0 returns the image unchanged."""
    if sigma <= 0:
        return image
    batch = image if image.dim() == 4 else image[None]
    radius = max(1, round(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(batch.shape[1], 1, 1, -1)
    padded = F.pad(batch, (radius,) * 4, mode="replicate")
    batch = F.conv2d(F.conv2d(padded, kernel, groups=batch.shape[1]), kernel.mT, groups=batch.shape[1])
    return batch if image.dim() == 4 else batch[0]


def _smooth_skin(image: Tensor, skin: Tensor) -> Tensor:
    """Edge-preserving smoothing within the mask ``skin`` (S, S): the guided filter of He et al. (2010)."""
    small, mask = F.avg_pool2d(image, 3), F.avg_pool2d(skin[None], 3)
    weight = blur_image(mask, 2.4) + 1e-4
    mean = blur_image(small * mask, 2.4) / weight
    variance = (blur_image(small**2 * mask, 2.4) / weight - mean**2).clamp_min(0)
    kept = variance / (variance + 0.008)
    both = blur_image(torch.cat([kept, (1 - kept) * mean]) * mask, 1.7) / (blur_image(mask, 1.7) + 1e-4)
    slope, base = F.interpolate(both[None], size=image.shape[-2:], mode="bilinear", align_corners=False)[0].split(3)
    return image + (slope * image + base - image) * skin


def _remove_person(image: Tensor, matte: Tensor) -> Tensor:
    """Inpaint the person coarsely from the surrounding background."""
    keep = (matte < 0.02).float()[None]
    keep = 1 - F.max_pool2d(F.max_pool2d(1 - keep, (21, 1), 1, (10, 0)), (1, 21), 1, (0, 10))
    small, weight = (F.avg_pool2d(x, 16) for x in (image * keep, keep))
    filled = blur_image(small, 1.0) / (blur_image(weight, 1.0) + 1e-4)
    known = (weight > 0.3).float()
    for sigma in (2.0, 4.0, 8.0):
        spread = blur_image(filled * known, sigma) / (blur_image(known, sigma) + 1e-4)
        filled = filled * known + spread * (1 - known)
    coarse = F.interpolate(filled[None], size=image.shape[-2:], mode="bicubic", align_corners=False)[0]
    soft = blur_image(keep, 6.0)
    return (image * soft + coarse * (1 - soft)).clamp(0, 1)


def _slope(portrait: Portrait) -> Tensor:
    """(2, S, S): derivative of the facial relief to the right and down, 0 off the head."""
    ticks = np.linspace(0, portrait.size - 1, GRID)
    grid = np.stack(np.meshgrid(ticks, ticks, indexing="xy"), axis=-1).reshape(-1, 2)
    height = (relief(portrait, grid) * head_weight(portrait, grid)).reshape(GRID, GRID)
    down, right = np.gradient(height, ticks[1])
    slope = torch.from_numpy(np.stack([right, down]).astype(np.float32))
    return F.interpolate(slope[None], size=(portrait.size,) * 2, mode="bicubic", align_corners=True)[0]


def _tint(image: Tensor, mask: Tensor, target: Color | None, flatten: float = 1.0) -> Tensor:
    """Shift the mean color within ``mask`` to ``target``, preserving the ratios between pixels."""
    if target is None:
        return image
    mean = (image * mask).sum((1, 2)) / mask.sum().clamp_min(1e-3)
    ratio = (image / mean.clamp_min(0.02)[:, None, None]).clamp(0, 3) ** flatten
    color = torch.tensor(target, device=image.device)[:, None, None]
    return image + (color * ratio - image) * mask


def face_texture(tensors: PortraitTensors, identity: Identity, scene: Scene) -> Tensor:
    """(3, S, S) in [0, 1]: the portrait with the colors of the identity and the light of the scene."""
    regions = tensors.regions
    grain = torch.roll(tensors.grain, (identity.seed % 509, identity.seed // 509 % 509), (1, 2))
    image = tensors.image + identity.smoothness * (tensors.smooth - tensors.image)
    image = _tint(image, regions["skin"] * (1 - regions["lips"]), identity.skin, identity.skin_contrast)
    image = _tint(image, regions["lips"], identity.lips, 0.8)
    image = _tint(image, regions["hair"], identity.hair, 0.9)
    if identity.skin is not None:
        # Darken the eyes along with the skin around them, so that they do not glow in a dark face.
        image = image * (1 - tensors.layers[2] * (0.55 - 0.55 * min(1.0, 0.35 + sum(identity.skin) / 3)))
    clothes = torch.tensor(identity.clothes, device=image.device)[:, None, None]
    image = image * (1 + (clothes - 1) * regions["clothes"])
    if identity.beard > 0:
        # Beards have gaps: coarser noise modulates the local density.
        hairs = blur_image(grain[:1], 1.0)
        coarseness = identity.beard_grain
        density = (identity.beard * (1 + 0.25 * coarseness * hairs / hairs.std())).clamp(0, 0.92) * regions["beard"]
        color = torch.tensor(identity.beard_colour, device=image.device)[:, None, None]
        beard = color * (1 + 0.15 * coarseness * grain[:1])
        image = image + (beard - image) * density
    image = image * (1 + identity.grain * grain * regions["skin"])
    if scene.light_strength > 0:
        shade = tensors.slope[0] * scene.light[0] + tensors.slope[1] * scene.light[1]
        # Surfaces facing away from the light darken faster than surfaces facing it brighten.
        image = image * torch.exp(-scene.light_strength * 1.6 * torch.tanh(-shade * 1.1)).clamp(0.3, 1.4)
    return image.clamp(0, 1)


def background_texture(tensors: PortraitTensors, scene: Scene) -> Tensor:
    """(3, S, S) in [0, 1]: the background behind the person."""
    if scene.background == "photo":
        return tensors.backdrop
    device, size = tensors.image.device, tensors.portrait.size
    first, second = (torch.tensor(c, device=device)[:, None, None] for c in scene.background_colours)
    generator = torch.Generator().manual_seed(scene.seed)
    cells = 2 if scene.background == "plain" else 7
    noise = torch.rand(3, cells, cells, generator=generator).to(device)
    weight = noise.mean(0, keepdim=True) if scene.background == "plain" else noise
    weight = F.interpolate(weight[None], size=(size, size), mode="bicubic", align_corners=True)[0]
    return (first + (second - first) * weight).clamp(0, 1)
