"""``Augmentation``: random crops, warps and intensity changes of an example, in 2D and 3D."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from napari_tileseg.training.vectors import turned

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_tileseg.training.data import Example

__all__ = ["Augmentation", "Crop", "cut", "random_field", "random_matrix", "recolor"]

_NODE_DISTANCE = 10  # pixels between two random displacements of an elastic warp


@dataclass(frozen=True)
class Augmentation:
    """How far a training crop may be from its image. Shares are probabilities, ranges are drawn from evenly (zooms in logarithms).

    Parameters
    ----------
    size : tuple of int
        Shape of a crop.
    zoom, wide_zoom : (float, float)
        Magnification; the wide range is used for `wide_share` of the crops.
    rotation : float
        Largest angle in degrees, about every axis.
    rotation_share : float
        Share of the crops that are rotated by any angle.
    stretch : float
        Largest relative difference of magnification between two axes.
    elastic : float
        Standard deviation, in pixels, of the displacements of an elastic warp; about ten pixels lie between two independent ones.
    elastic_share : float
        Share of the crops that are warped so.
    right_angles : bool
        Turn by a random multiple of 90 degrees in the plane (2D only).
    flips : tuple of bool
        Axes that may be mirrored.
    stain : float
        Largest relative change of the amount of each stain, for the red, green and blue of stained tissue on white ground.
    clip : (float, float), optional
        Limits of the result, as in the model's normalisation; none if None.
    padding : {"zeros", "reflect"}
        What a crop sees beyond its image.
    """

    size: tuple[int, ...]
    zoom: tuple[float, float] = (0.85, 1.18)
    wide_zoom: tuple[float, float] = (0.5, 2.0)
    wide_share: float = 0.0
    rotation: float = 0.0
    rotation_share: float = 0.0
    stretch: float = 0.0
    elastic: float = 0.0
    elastic_share: float = 0.0
    right_angles: bool = False
    flips: tuple[bool, ...] = ()
    gamma: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0
    noise: float = 0.0
    blur: float = 0.0
    blur_share: float = 0.0
    gradient: float = 0.0
    inversion_share: float = 0.0
    grey_share: float = 0.0
    permute_share: float = 0.0
    stain: float = 0.0
    clip: tuple[float, float] | None = (-5.0, 5.0)
    padding: str = "zeros"


@dataclass(frozen=True)
class Crop:
    """A crop of an example.

    Parameters
    ----------
    image : Tensor of float32, shape (C, *size)
    labels : Tensor of int64, shape (*size), or of masks (K, *size)
    maps : Tensor of float32, shape (M, *size)
    zoom : float
        Magnification against the example (geometric mean over the axes).
    """

    image: Tensor
    labels: Tensor
    maps: Tensor
    zoom: float


def random_matrix(augmentation: Augmentation, generator: np.random.Generator) -> tuple[NDArray[np.float64], float]:
    """Draw a matrix that maps offsets in the crop to offsets in the example, and the magnification it stands for."""
    ndim = len(augmentation.size)
    wide = generator.random() < augmentation.wide_share
    zoom = float(np.exp(generator.uniform(*np.log(augmentation.wide_zoom if wide else augmentation.zoom))))
    stretches = np.exp(generator.uniform(-augmentation.stretch, augmentation.stretch, ndim)) if augmentation.stretch else np.ones(ndim)
    matrix = np.diag(stretches / zoom)
    if generator.random() < augmentation.rotation_share:
        for first in range(ndim):
            for second in range(first + 1, ndim):
                angle = np.deg2rad(generator.uniform(-augmentation.rotation, augmentation.rotation))
                turn = np.eye(ndim)
                plane = np.ix_([first, second], [first, second])
                turn[plane] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
                matrix = matrix @ turn
    if augmentation.right_angles and generator.random() < 0.5:
        matrix = matrix[:, ::-1]
    flips = [-1.0 if flip and generator.random() < 0.5 else 1.0 for flip in augmentation.flips or (False,) * ndim]
    return matrix * np.asarray(flips), zoom


def random_field(augmentation: Augmentation, generator: np.random.Generator) -> Tensor | None:
    """Draw the displacements of an elastic warp (Simard et al., ICDAR 2003), or none.

    Returns
    -------
    Tensor of float32, shape (*size, D), or None
        Pixels in the crop's own directions, interpolated linearly between nodes.
    """
    if not augmentation.elastic or generator.random() >= augmentation.elastic_share:
        return None
    size = augmentation.size
    nodes = [length // _NODE_DISTANCE + 2 for length in size]
    coarse = generator.standard_normal((1, len(size), *nodes), dtype=np.float32) * augmentation.elastic
    mode = "bilinear" if len(size) == 2 else "trilinear"
    return F.interpolate(torch.from_numpy(coarse), size=size, mode=mode, align_corners=True)[0].movedim(0, -1)


def cut(
    example: Example,
    matrix: NDArray[np.float64],
    centre: NDArray[np.float64],
    size: tuple[int, ...],
    zoom: float = 1.0,
    field: Tensor | None = None,
    *,
    padding: str = "zeros",
) -> Crop:
    """Sample a crop from an example: linear for image and maps, nearest for labels; outside, zero and the example's own label.

    Parameters
    ----------
    matrix : ndarray, shape (D, D)
        Maps offsets from the crop's centre to offsets from `centre`.
    centre : ndarray, shape (D,)
        Position in the example, in pixels, that comes to lie at ``(size - 1) / 2``.
    field : Tensor of float32, shape (*size, D), optional
        Displacements that are added to the offsets in the crop, in pixels.
    padding : {"zeros", "reflect"}
        What the image is outside.
    """
    shape = np.asarray(example.image.shape[1:])
    furthest = (np.asarray(size) - 1) / 2
    if field is not None:
        furthest = furthest + field.abs().amax(dim=tuple(range(len(size)))).numpy()
    reach = np.abs(matrix) @ furthest
    start = np.clip(np.floor(centre - reach).astype(int) - 1, 0, shape - 1)
    stop = np.clip(np.ceil(centre + reach).astype(int) + 2, start + 1, shape)
    window = tuple(slice(int(low), int(high)) for low, high in zip(start, stop, strict=True))
    axes = [torch.arange(length, dtype=torch.float32) - (length - 1) / 2 for length in size]
    offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    if field is not None:
        offsets = offsets + field
    positions = offsets @ torch.from_numpy(matrix.T.astype(np.float32)) + torch.from_numpy((centre - start).astype(np.float32))
    # grid_sample wants x first and the centres of the first and last pixel at -1 and 1; a single pixel lies at 0.
    lengths = torch.from_numpy(np.maximum(stop - start - 1, 1).astype(np.float32))
    grid = (positions / lengths * 2 - 1).flip(-1)[None]
    stacked = np.concatenate([example.image[(slice(None), *window)], example.maps[(slice(None), *window)]])
    smooth = torch.from_numpy(stacked.astype(np.float32))
    labels = torch.from_numpy(example.labels[(slice(None),) * (example.labels.ndim - len(size)) + window].astype(np.float32))
    warped = F.grid_sample(smooth[None], grid, mode="bilinear", padding_mode="zeros", align_corners=True)[0]
    labels = labels - example.outside
    channels = labels.reshape(1, -1, *labels.shape[-len(size) :])
    drawn = F.grid_sample(channels, grid, mode="nearest", padding_mode="zeros", align_corners=True)[0]
    nearest = drawn.reshape(*labels.shape[: -len(size)], *size) + example.outside
    count = len(example.image)
    if example.vectors:
        directions = slice(count, count + len(size))
        warped[directions] = turned(warped[directions], matrix, field)
    if padding == "reflect":
        mirrored = F.grid_sample(smooth[None, :count], grid, mode="bilinear", padding_mode="reflection", align_corners=True)[0]
        return Crop(mirrored, nearest.round().long(), warped[count:], zoom)
    return Crop(warped[:count], nearest.round().long(), warped[count:], zoom)


def recolor(image: Tensor, augmentation: Augmentation, generator: np.random.Generator) -> Tensor:
    """Change intensities at random: colour, gamma, contrast, brightness, slope, blur, noise, inversion.

    Parameters
    ----------
    image : Tensor of float32, shape (C, *spatial)
        Normalised; for gamma, intensities between 0 and 1 count.
    """
    a = augmentation
    if len(image) == 3 and generator.random() < a.grey_share:
        image = image.mean(dim=0, keepdim=True)
    if len(image) == 3 and generator.random() < a.permute_share:
        image = image[torch.from_numpy(generator.permutation(3))]
    if a.stain and len(image) == 3:
        image = _restain(image, a.stain, generator)
    if a.blur and generator.random() < a.blur_share:
        sigma = generator.uniform(0.4, a.blur)
        image = torch.from_numpy(ndimage.gaussian_filter(image.numpy(), (0, *(sigma,) * (image.ndim - 1)), truncate=2.5))
    if a.gamma and generator.random() < 0.5:
        exponent = float(np.exp(generator.uniform(-a.gamma, a.gamma)))
        image = torch.where(image > 0, image.clamp(min=0) ** exponent, image)
    count = (len(image), *(1,) * (image.ndim - 1))
    common = generator.uniform(-1, 1, 1), generator.uniform(-1, 1, 1)
    own = 0.5 * generator.uniform(-1, 1, len(image)), 0.5 * generator.uniform(-1, 1, len(image))
    slopes = torch.from_numpy(np.exp(a.contrast * (common[0] + own[0])).astype(np.float32)).reshape(count)
    shifts = torch.from_numpy((a.brightness * (common[1] + own[1])).astype(np.float32)).reshape(count)
    image = image * slopes + shifts
    if a.gradient and generator.random() < 0.25:
        for axis in range(1, image.ndim):
            ramp = torch.linspace(-1, 1, image.shape[axis]) * float(generator.uniform(-a.gradient, a.gradient))
            image = image + ramp.reshape([-1 if index == axis else 1 for index in range(image.ndim)])
    if a.noise and generator.random() < 0.35:
        sigma = generator.uniform(0, a.noise)
        image = image + torch.from_numpy(generator.standard_normal(image.shape, dtype=np.float32)) * float(sigma)
    if generator.random() < a.inversion_share:
        image = 1 - image
    return image if a.clip is None else image.clamp(*a.clip)


_STAINS = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]])
"""How much red, green and blue haematoxylin, eosin and DAB take away (Ruifrok and Johnston, Anal. Quant. Cytol. Histol. 23, 2001)."""


def _restain(image: Tensor, strength: float, generator: np.random.Generator) -> Tensor:
    """Change the amounts of stain in an image whose white is 1 and whose black is 0."""
    basis = _STAINS / np.linalg.norm(_STAINS, axis=1, keepdims=True)
    factors = np.diag(1 + strength * generator.uniform(-1, 1, 3))
    # Amounts are taken apart, changed, and put together again: one matrix for the optical densities.
    matrix = torch.from_numpy((np.linalg.inv(basis) @ factors @ basis).astype(np.float32))
    density = -torch.log(image.clamp(1 / 255, 1.0))
    restained = torch.exp(-torch.einsum("c...,cd->d...", density, matrix))
    return torch.where(image > 1, image, restained)
