"""The pictures that are pulled over the moving face: a portrait recoloured and lit for one identity and scene."""

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
    """A portrait's pictures on one device, S x S each, float32.

    Attributes:
        portrait: where they come from.
        image: (3, S, S) in [0, 1].
        smooth: (3, S, S) the same with its skin's wrinkles and pores evened out.
        backdrop: (3, S, S) the photograph's background with the person taken out.
        regions: lips, skin, matte, beard, hair and clothes by name, each (S, S) in [0, 1].
        slope: (2, S, S) how the face's surface leans to the right and down.
        layers: (3, S, S) opacity of the upper and the lower layer, and the eye opening.
        inpaint_rows: rows to copy from that paint the mouth opening out, from the upper and the lower lip, each (S, S).
        grain: (3, S, S) fine noise: zero mean, unit standard deviation.
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
    """Bring a portrait to ``device`` and derive hair, clothes, surface slope and backdrop."""
    size = portrait.size
    regions = {
        name: torch.from_numpy(np.ascontiguousarray(getattr(portrait, name))).to(device)
        for name in ("lips", "skin", "matte", "beard")
    }
    oval = portrait.points[list(FACE_OVAL), :2]
    low, high = oval.min(0), oval.max(0)
    rows, columns = torch.meshgrid(*(torch.arange(size, device=device),) * 2, indexing="ij")
    center, radius = (low + high) / 2, (high - low) / 2
    inside = (((columns - center[0]) / radius[0]) ** 2 + ((rows - center[1]) / radius[1]) ** 2).float()
    brows = float(portrait.points[[105, 334], 1].mean())
    # Hair hangs over the forehead; below it, what is not skin is an eye or a spectacle.
    outside_face = torch.maximum(torch.sigmoid((inside - 0.97) * 30), torch.sigmoid((brows - 16 - rows.float()) / 3))
    other = regions["matte"] * (1 - regions["skin"]) * outside_face
    above = torch.sigmoid((float(high[1]) - rows.float()) / 6)
    regions["hair"], regions["clothes"] = other * above, other * (1 - above)
    image = sharpened(portrait, torch.from_numpy(portrait.image).to(device).permute(2, 0, 1).contiguous())
    layers = np.stack([*portrait.lip_layers, portrait.eye_opening]).astype(np.float32)
    upper_rows, lower_rows = portrait.mouth_inpaint_rows
    generator = torch.Generator().manual_seed(size)
    grain = _blur(torch.randn(3, size, size, generator=generator).to(device), 0.7)
    return PortraitTensors(
        portrait=portrait,
        image=image,
        smooth=_evened(image, regions["skin"] * (1 - regions["lips"])),
        backdrop=_without_person(image, regions["matte"]),
        regions=regions,
        slope=_slope(portrait).to(device),
        layers=torch.from_numpy(layers).to(device),
        inpaint_rows=(torch.from_numpy(upper_rows).to(device), torch.from_numpy(lower_rows).to(device)),
        grain=grain / grain.std(),
    )


def sharpened(portrait: Portrait, image: Tensor) -> Tensor:
    """The portrait's ``image`` (3, S, S): the smaller photograph was enlarged more and needs its edges back."""
    if portrait.name != "collins":
        return image
    return (image + 40.0 / portrait.eye_distance * (image - _blur(image, 2.0))).clamp(0, 1)


def inpaint_mouth(tensors: PortraitTensors, image: Tensor) -> tuple[Tensor, Tensor]:
    """(3, S, S) -> the same without its mouth opening, filled from the upper and from the lower lip."""
    columns = torch.arange(image.shape[-1], device=image.device)
    upper, lower = tensors.inpaint_rows
    return image[:, upper, columns], image[:, lower, columns]


def _blur(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (c, h, w) or (n, c, h, w) by two passes."""
    batch = image if image.dim() == 4 else image[None]
    reach = max(1, round(3 * sigma))
    offsets = torch.arange(-reach, reach + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(batch.shape[1], 1, 1, -1)
    padded = F.pad(batch, (reach,) * 4, mode="replicate")
    batch = F.conv2d(F.conv2d(padded, kernel, groups=batch.shape[1]), kernel.mT, groups=batch.shape[1])
    return batch if image.dim() == 4 else batch[0]


def _evened(image: Tensor, skin: Tensor) -> Tensor:
    """Smooth ``skin`` (S, S) of a picture but for its strong edges: the guided filter of He et al. (2010)."""
    small, mask = F.avg_pool2d(image, 3), F.avg_pool2d(skin[None], 3)
    weight = _blur(mask, 2.4) + 1e-4
    mean = _blur(small * mask, 2.4) / weight
    variance = (_blur(small**2 * mask, 2.4) / weight - mean**2).clamp_min(0)
    kept = variance / (variance + 0.008)
    both = _blur(torch.cat([kept, (1 - kept) * mean]) * mask, 1.7) / (_blur(mask, 1.7) + 1e-4)
    slope, base = F.interpolate(both[None], size=image.shape[-2:], mode="bilinear", align_corners=False)[0].split(3)
    return image + (slope * image + base - image) * skin


def gaussian_blur(image: Tensor, sigma: float) -> Tensor:
    """Blur (n, c, h, w) or (c, h, w) with standard deviation ``sigma`` in pixels; 0 returns it unchanged."""
    return image if sigma <= 0 else _blur(image, sigma)


def _without_person(image: Tensor, matte: Tensor) -> Tensor:
    """Fill the person's place from the background around it, coarsely."""
    keep = (matte < 0.02).float()[None]
    keep = 1 - F.max_pool2d(F.max_pool2d(1 - keep, (21, 1), 1, (10, 0)), (1, 21), 1, (0, 10))
    small, weight = (F.avg_pool2d(x, 16) for x in (image * keep, keep))
    filled = _blur(small, 1.0) / (_blur(weight, 1.0) + 1e-4)
    known = (weight > 0.3).float()
    for sigma in (2.0, 4.0, 8.0):
        spread = _blur(filled * known, sigma) / (_blur(known, sigma) + 1e-4)
        filled = filled * known + spread * (1 - known)
    coarse = F.interpolate(filled[None], size=image.shape[-2:], mode="bicubic", align_corners=False)[0]
    soft = _blur(keep, 6.0)
    return (image * soft + coarse * (1 - soft)).clamp(0, 1)


def _slope(portrait: Portrait) -> Tensor:
    """(2, S, S): derivative of the face's relief to the right and down, 0 off the head."""
    ticks = np.linspace(0, portrait.size - 1, GRID)
    grid = np.stack(np.meshgrid(ticks, ticks, indexing="xy"), axis=-1).reshape(-1, 2)
    height = (relief(portrait, grid) * head_weight(portrait, grid)).reshape(GRID, GRID)
    down, right = np.gradient(height, ticks[1])
    slope = torch.from_numpy(np.stack([right, down]).astype(np.float32))
    return F.interpolate(slope[None], size=(portrait.size,) * 2, mode="bicubic", align_corners=True)[0]


def _tint(image: Tensor, mask: Tensor, target: Color | None, flatten: float = 1.0) -> Tensor:
    """Bring the mean colour within ``mask`` to ``target`` and keep the relations of the pixels to each other."""
    if target is None:
        return image
    mean = (image * mask).sum((1, 2)) / mask.sum().clamp_min(1e-3)
    relation = (image / mean.clamp_min(0.02)[:, None, None]).clamp(0, 3) ** flatten
    wanted = torch.tensor(target, device=image.device)[:, None, None]
    return image + (wanted * relation - image) * mask


def face_texture(tensors: PortraitTensors, identity: Identity, scene: Scene) -> Tensor:
    """(3, S, S) in [0, 1]: the portrait with the identity's colours and the scene's light."""
    regions = tensors.regions
    grain = torch.roll(tensors.grain, (identity.seed % 509, identity.seed // 509 % 509), (1, 2))
    image = tensors.image + identity.smoothness * (tensors.smooth - tensors.image)
    image = _tint(image, regions["skin"] * (1 - regions["lips"]), identity.skin, identity.skin_contrast)
    image = _tint(image, regions["lips"], identity.lips, 0.8)
    image = _tint(image, regions["hair"], identity.hair, 0.9)
    if identity.skin is not None:
        # Eyes lie in the same light and shade as the skin around them: they must not glow in a dark face.
        image = image * (1 - tensors.layers[2] * (0.55 - 0.55 * min(1.0, 0.35 + sum(identity.skin) / 3)))
    clothes = torch.tensor(identity.clothes, device=image.device)[:, None, None]
    image = image * (1 + (clothes - 1) * regions["clothes"])
    if identity.beard > 0:
        # Hairs leave gaps: coarser noise decides how dense the beard is at each place.
        hairs = gaussian_blur(grain[:1], 1.0)
        rough = identity.beard_grain
        density = (identity.beard * (1 + 0.25 * rough * hairs / hairs.std())).clamp(0, 0.92) * regions["beard"]
        colour = torch.tensor(identity.beard_colour, device=image.device)[:, None, None]
        beard = colour * (1 + 0.15 * rough * grain[:1])
        image = image + (beard - image) * density
    image = image * (1 + identity.grain * grain * regions["skin"])
    if scene.light_strength > 0:
        shade = tensors.slope[0] * scene.light[0] + tensors.slope[1] * scene.light[1]
        # A surface that leans away from the light turns dark faster than one towards it turns bright.
        image = image * torch.exp(-scene.light_strength * 1.6 * torch.tanh(-shade * 1.1)).clamp(0.3, 1.4)
    return image.clamp(0, 1)


def background_texture(tensors: PortraitTensors, scene: Scene) -> Tensor:
    """(3, S, S) in [0, 1]: what is behind the person."""
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
