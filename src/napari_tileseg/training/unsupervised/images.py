"""``Images``: what a training without labels looks at, read from a folder or given, and looked through before it begins."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_tileseg.engine.axes import map_axes
from napari_tileseg.engine.prepare import measure_frame
from napari_tileseg.errors import InputError
from napari_tileseg.io import read_volume
from napari_tileseg.models.spec import ModelSpec, Normalization, NormalizationStep
from napari_tileseg.training.colours import RGB, colours_last
from napari_tileseg.training.matching import list_files, match, stem
from napari_tileseg.training.unsupervised.tiles import Part, parts_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_tileseg.training.unsupervised.config import UnsupervisedConfig
    from napari_tileseg.volume import Volume

__all__ = ["Images", "channels_of", "fitting_images", "gather", "read_images", "read_masks"]


@dataclass(frozen=True)
class Images:
    """Images that can be learnt from.

    Parameters
    ----------
    parts : list of Part
        Their planes, normalised.
    left_out : tuple of (str, str)
        Names of those that cannot be used, and why.
    channels : tuple of str
    normalization : Normalization
        To [-1, 1].
    grey : int
        How many of the images are grey among others with colours.
    """

    parts: list[Part]
    left_out: tuple[tuple[str, str], ...]
    channels: tuple[str, ...]
    normalization: Normalization
    grey: int = 0

    @property
    def names(self) -> list[str]:
        """Names of the images, in order."""
        return list(dict.fromkeys(part.name for part in self.parts))


def read_images(config: UnsupervisedConfig) -> tuple[list[Path], list[Volume], tuple[tuple[str, str], ...]]:
    """Open the images of a folder, or one image; those that cannot be opened are left out.

    Returns
    -------
    paths, volumes
        Of those that were opened.
    left_out : tuple of (str, str)
        Names of the others, and why.

    Raises
    ------
    InputError
        If there is none.
    """
    if not config.images:
        raise InputError("No images were given. Give a folder of images that show only what is normal.")
    root = Path(config.images).expanduser()
    files = [root] if root.is_file() or root.name.lower().endswith(".zarr") else list_files(root)
    paths, volumes, left_out = [], [], []
    for path in files:
        name = stem(path) if path == root else path.relative_to(root).with_name(stem(path)).as_posix()
        try:
            volume = read_volume(path)
        except InputError as error:
            left_out.append((name, str(error)))
            continue
        paths.append(path)
        volume = colours_last(volume if config.axes is None else volume.with_axes(config.axes))
        volumes.append(replace(volume, name=name, levels=()))
    if not volumes:
        raise InputError(f"None of the images can be opened. The first one: {left_out[0][1]}")
    return paths, volumes, tuple(left_out)


def read_masks(config: UnsupervisedConfig, paths: Sequence[Path]) -> list[Volume]:
    """Open the masks that belong to images.

    Raises
    ------
    InputError
        If one has none.
    """
    root = Path(config.labels).expanduser()
    images = Path(config.images).expanduser()
    matched = match(paths, list_files(root), root=images if images.is_dir() else images.parent, other=root)
    if matched.first_only:
        first = matched.first_only[0].name
        raise InputError(
            f'{len(matched.first_only)} images have no mask in "{root}", first of all "{first}". Give each a mask of its name.'
        )
    return [read_volume(mask) for _, mask in matched.pairs]


def gather(
    volumes: Sequence[Volume],
    config: UnsupervisedConfig,
    *,
    masks: Sequence[Volume] | None = None,
    left_out: tuple[tuple[str, str], ...] = (),
) -> Images:
    """Look through images and prepare their planes; those smaller than a tile are left out.

    Raises
    ------
    InputError
        If there is no image that can be used, or they differ in their channels.
    """
    fitting, small = fitting_images(volumes, config)
    channels = channels_of(volumes)
    colour = len(channels) > 1 and channels[0] == "red"
    grey = sum(volume.sizes.get("C", 1) < len(channels) for volume in volumes)
    fields: dict[str, Any] = {"grey": "repeat"} if grey else {}
    plain = ModelSpec(name=config.name, axes="CYX", channels=list(channels), classes=["normal"], window=config.tile, **fields)
    spec = plain.model_copy(update={"normalization": _normalization(volumes, config, plain, colour)})
    parts: list[Part] = []
    for index in fitting:
        parts += parts_of(volumes[index], spec, None if masks is None else masks[index])
    return Images(parts, left_out + small, channels, spec.normalization, grey)


def fitting_images(volumes: Sequence[Volume], config: UnsupervisedConfig) -> tuple[list[int], tuple[tuple[str, str], ...]]:
    """Find the images that are not smaller than a tile; nothing is read.

    Returns
    -------
    indices : list of int
    small : tuple of (str, str)
        Names of the others, and why.

    Raises
    ------
    InputError
        If there is none.
    """
    if not volumes:
        raise InputError("There are no images to learn from. Give at least one.")
    indices, small = [], []
    for index, volume in enumerate(volumes):
        height, width = (volume.sizes.get(axis, 1) for axis in "YX")
        if height < config.tile[0] or width < config.tile[1]:
            reason = f"It has {height} x {width} pixels, a tile {config.tile[0]} x {config.tile[1]}. Choose smaller tiles."
            small.append((volume.name, reason))
        else:
            indices.append(index)
    if not indices:
        raise InputError(f'No image is large enough. "{small[0][0]}": {small[0][1]}')
    return indices, tuple(small)


def channels_of(volumes: Sequence[Volume]) -> tuple[str, ...]:
    """Return the names of the channels that all images have; grey ones among colours are taken for colours.

    Raises
    ------
    InputError
        If one has more or fewer than the first.
    """
    first = next((volume for volume in volumes if _coloured(volume)), volumes[0])
    count = first.sizes.get("C", 1)
    for volume in volumes:
        if volume.sizes.get("C", 1) != count and not (_coloured(first) and volume.sizes.get("C", 1) == 1):
            raise InputError(
                f'"{volume.name}" has {_many(volume.sizes.get("C", 1))}, "{first.name}" has {_many(count)}. '
                "Give images with equal channels only."
            )
    if len(first.channel_names) == count:
        return tuple(first.channel_names)
    return RGB if _coloured(first) else tuple(f"channel {index + 1}" for index in range(count))


def _coloured(volume: Volume) -> bool:
    return volume.axes.endswith("C") and volume.sizes["C"] == 3


def _many(count: int) -> str:
    return f"{count} channel{'s' * (count != 1)}"


def _normalization(volumes: Sequence[Volume], config: UnsupervisedConfig, spec: ModelSpec, colour: bool) -> Normalization:
    """Return what brings the images to [-1, 1]: each by its own percentiles, or all by one range."""
    if config.normalization == "percentile":
        return Normalization(
            kind="steps",
            steps=(
                NormalizationStep(kind="percentiles", lower=0.5, upper=99.5, eps=1e-6, joint=colour),
                NormalizationStep(kind="linear", offset=(0.5,), scale=(0.5,)),
                NormalizationStep(kind="clip", low=-1.0, high=1.0),
            ),
        )
    low, high = 0.0, 255.0
    if any(volume.dtype != "uint8" for volume in volumes):
        rule = Normalization(kind="minmax", joint=True)
        found = [measure_frame(volume, map_axes(volume.axes, volume.shape, spec), rule, None) for volume in volumes]
        low = min(statistics.offset[0] for statistics in found)
        high = max(statistics.offset[0] + statistics.scale[0] for statistics in found)
    return Normalization(kind="range", low=(low + high) / 2, high=high, joint=True, clip=(-1.0, 1.0))
