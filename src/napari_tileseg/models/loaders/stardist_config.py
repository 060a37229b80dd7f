"""The configuration of a StarDist model: which network it describes, and how far that sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_tileseg.errors import ModelError
from napari_tileseg.models.archive import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["CONFIG", "anisotropy", "halvings", "network_arguments", "reach"]

CONFIG = "config.json"


def network_arguments(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of the network that a configuration describes.

    Raises
    ------
    ModelError
        If it is none of StarDist, or of a network that is not known here.
    """
    label = f"{CONFIG} of {printable(path.name)}"

    def whole(name: str, low: int, high: int, default: Any = None) -> int:
        value = config.get(name, default)
        if not isinstance(value, int) or not low <= value <= high:
            raise ModelError(f"{label} says {name} = {printable(str(value))}; a whole number from {low} to {high} is accepted.")
        return value

    def sizes(name: str, count: int, high: int, default: Any = None) -> list[int]:
        value = config.get(name, default)
        if not isinstance(value, list) or len(value) != count or not all(isinstance(size, int) and 1 <= size <= high for size in value):
            raise ModelError(f"{label} says {name} = {printable(str(value))}; {count} whole numbers from 1 to {high} are accepted.")
        return value

    ndim = whole("n_dim", 2, 3)
    if config.get("backbone", "unet") != "unet":
        raise ModelError(f'{printable(path.name)} has the backbone "{printable(str(config["backbone"]))}"; only "unet" is known here.')
    grid = sizes("grid", ndim, 32, [1] * ndim)
    if any(step & (step - 1) for step in grid):
        raise ModelError(f"{label} says grid = {grid}; powers of 2 are accepted.")
    kernel = sizes("unet_kernel_size", ndim, 15, [3] * ndim)
    if any(size % 2 == 0 for size in kernel):
        raise ModelError(f"{label} says unet_kernel_size = {kernel}; odd sizes are accepted.")
    expansion = config.get("unet_expansion", 2)
    if not isinstance(expansion, int | float) or not 0.1 <= expansion <= 8:
        raise ModelError(f"{label} says unet_expansion = {printable(str(expansion))}; a number up to 8 is accepted.")
    return {
        "spatial_dims": ndim,
        "in_channels": whole("n_channel_in", 1, 1024, 1),
        "rays": whole("n_rays", ndim + 1, 1024),
        "grid": grid,
        "depth": whole("unet_n_depth", 1, 10, 3 if ndim == 2 else 2),
        "kernel_size": kernel,
        "pool": sizes("unet_pool", ndim, 8, [2] * ndim),
        "filters": whole("unet_n_filter_base", 1, 4096, 32),
        "convolutions": whole("unet_n_conv_per_depth", 1, 16, 2),
        "activation": str(config.get("unet_activation", "relu")),
        "last_activation": str(config.get("unet_last_activation", "relu")),
        "batch_norm": config.get("unet_batch_norm") is True,
        "expansion": expansion,
        "features": whole("net_conv_after_unet", 0, 65_536, 128),
        "prefix": str(config.get("unet_prefix", "")),
    }


def anisotropy(path: Path, config: Mapping[str, Any], ndim: int) -> dict[str, float]:
    """Return how the rays of a 3D model are spread, as parameters of the decoder.

    Raises
    ------
    ModelError
        If they are not spread along a spiral.
    """
    if ndim == 2:
        return {}
    told = config.get("rays_json")
    kind = told.get("name") if isinstance(told, dict) else None
    if kind != "Rays_GoldenSpiral":
        raise ModelError(f'{printable(path.name)} has the rays "{printable(str(kind))}"; only Rays_GoldenSpiral is known here.')
    options = told.get("kwargs") if isinstance(told, dict) else None
    sizes = options.get("anisotropy") if isinstance(options, dict) else None
    sizes = [1.0, 1.0, 1.0] if sizes is None else sizes
    if not isinstance(sizes, list) or len(sizes) != 3 or not all(isinstance(size, int | float) and 1e-3 < size < 1e3 for size in sizes):
        raise ModelError(f"{CONFIG} of {printable(path.name)} says anisotropy = {printable(str(sizes))}; three numbers are accepted.")
    return {f"anisotropy_{axis}": float(size) for axis, size in zip("zyx", sizes, strict=True)}


def halvings(grid: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the poolings that bring an image to a grid, one after another: all axes that are not there yet at once."""
    found = []
    done = [1] * len(grid)
    while any(step < wanted for step, wanted in zip(done, grid, strict=True)):
        found.append(tuple(2 if step < wanted else 1 for step, wanted in zip(done, grid, strict=True)))
        done = [step * by for step, by in zip(done, found[-1], strict=True)]
    return found


def reach(arguments: Mapping[str, Any]) -> int:
    """Return how far from a pixel another one can change its scores at most, along the axis on which the network sees furthest."""
    return max(_reach(arguments, axis) for axis in range(arguments["spatial_dims"]))


def _reach(arguments: Mapping[str, Any], axis: int) -> int:
    half, pool = arguments["kernel_size"][axis] // 2, arguments["pool"][axis]
    seen = arguments["convolutions"] * half
    pixel, total = 1, 0
    for halving in halvings(arguments["grid"]):
        total += seen * pixel + (halving[axis] - 1) * pixel
        pixel *= halving[axis]
    for level in range(arguments["depth"]):
        step = pixel * pool**level
        # On the way up as many convolutions as on the way down; pooling and enlarging see up to a neighbour each.
        total += 2 * (seen + pool - 1) * step
    return int(total + seen * pixel * pool ** arguments["depth"] + half * pixel * (arguments["features"] > 0) + pixel - 1)
