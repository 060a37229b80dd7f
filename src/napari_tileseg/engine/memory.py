"""What a run will need, and what the devices of this computer have."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_tileseg.engine.tiles import TilePlan
    from napari_tileseg.models.spec import ModelSpec

__all__ = ["Device", "Estimate", "by_strips", "default_batch", "devices", "estimate", "free_memory"]

_FLOAT = 4
_FEATURE_MAPS = 256
"""Feature maps at full size that a network is assumed to hold at once, for a first guess of the batch."""
_FILLS = 1 << 22
"""Pixels at once that a large GPU should be busy with: two tiles of 128 x 128 x 128, 64 of 256 x 256. A guess, not measured yet."""
_MOST_TILES = 64
_SMALL = 1 << 18
"""Pixels at once, one tile of 512 x 512, that a processor is busy with."""
_MOST_SMALL = 8


@dataclass(frozen=True)
class Estimate:
    """What one image needs.

    Parameters
    ----------
    tiles : int
        Number of tiles.
    device_bytes : int
        Scores that are open, their weights, and one batch in and out, without the network's own needs.
    host_bytes : int
        Pixels that are being read, and the labels of one slab.
    disk_bytes : int
        Labels (and scores, if they are kept) of the whole image.
    """

    tiles: int
    device_bytes: int
    host_bytes: int
    disk_bytes: int


def estimate(plan: TilePlan, spec: ModelSpec, *, batch: int = 1, scores: bool = False, counted: int | None = None) -> Estimate:
    """Add up the engine's buffers; nothing is allocated and nothing depends on the computer.

    Parameters
    ----------
    plan : TilePlan
        Where the tiles lie.
    spec : ModelSpec
        How many channels go in and out, and what becomes of them.
    batch : int
        Tiles at once.
    scores : bool
        Whether scores are kept.
    counted : int, optional
        Depth of the slab where the weights of tiles are counted (`counted_depth`), as some are left out or added.

    Returns
    -------
    Estimate
    """
    channels, heads = spec.inputs, len(spec.score_names)
    rest = math.prod(plan.canvas.shape[1:])
    slab = open_scores = plan.depth * rest
    if counted is not None:
        open_scores = counted * rest
    elif by_strips(plan, spec, scores=scores):
        held = plan.open_depth
        open_scores = held * rest + (plan.depth - held) * plan.column_width * math.prod(plan.canvas.shape[2:])
    alone = plan.blending in ("crop", "seam")
    averaged = (scores or spec.output != "softmax") and not alone
    weights = 0 if alone else math.prod(plan.output)
    sums = counted * rest if counted is not None else 2 * slab if averaged else 0
    device = heads * open_scores + sums + weights
    device += batch * (channels * math.prod(plan.window) + heads * math.prod(plan.output))
    fresh = max((low.finished[1] - low.finished[0] for low in plan.rows()), default=0)
    feed = channels * (plan.window[0] + fresh) * math.prod(plan.seen.shape[1:])
    of_class = 1 if len(spec.classes) <= 256 else 2
    pixel = {"softmax": of_class, "regions": of_class, "anomaly": 1, "sigmoid": heads}.get(spec.output, 4)
    held = plan.depth * rest * (pixel + (heads * _FLOAT * 2 if spec.output == "instances" else 0))
    disk = math.prod(plan.shape) * (pixel + (heads * _FLOAT if scores else 0))
    return Estimate(len(plan), device * _FLOAT, feed * _FLOAT + held, disk)


def by_strips(plan: TilePlan, spec: ModelSpec, *, scores: bool) -> bool:
    """Whether labels are made strip by strip: each pixel by itself, and no scores kept; a slab of whole rows is needed otherwise."""
    return spec.output in ("softmax", "sigmoid", "regions") and not scores and len(plan.shape) > 1


@dataclass(frozen=True)
class Device:
    """A place where a model can run.

    Parameters
    ----------
    name : str
        As torch and the options call it: ``"cpu"``, ``"cuda:0"``, ``"mps"``.
    label : str
        For people.
    free, total : int
        Bytes.
    """

    name: str
    label: str
    free: int
    total: int


def devices() -> list[Device]:
    """Return what is really there, the fastest first; the CPU is always the last."""
    import torch

    found = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            name = f"cuda:{index}"
            free, total = torch.cuda.mem_get_info(index)
            found.append(Device(name, torch.cuda.get_device_name(index), free, total))
    if torch.backends.mps.is_available():
        free, total = _host_memory()
        found.append(Device("mps", "Apple GPU", free, total))
    free, total = _host_memory()
    found.append(Device("cpu", f"CPU, {_cores()} cores", free, total))
    return found


def free_memory(device: str) -> int:
    """Return the bytes that are free on a device; a GPU that shares the computer's memory has what the computer has.

    What torch keeps of earlier runs or a training is free: it uses that before it asks the GPU, whose own figure leaves it out.
    """
    if device.startswith("cuda"):
        import torch

        place = torch.device(device)
        kept = torch.cuda.memory_reserved(place) - torch.cuda.memory_allocated(place)
        return int(torch.cuda.mem_get_info(place)[0]) + int(kept)
    return _host_memory()[0]


def default_batch(plan: TilePlan, device: str, *, fast: bool = False) -> int:
    """Return how many tiles to compute at once when nobody has said.

    One where there is no GPU: more is not faster there, but for small tiles in a faster way than exact arithmetic, of which what goes
    before and after each of a network's operations takes a good part. Otherwise what half of the free memory takes, under a cautious
    guess of what a network holds, and no more than keeps the device busy; a wrong guess costs a retry, not the run.
    """
    pixels = math.prod(plan.window)
    if not device.startswith("cuda"):
        return max(1, min(_MOST_SMALL, _SMALL // pixels, plan.tiles_per_row)) if fast and device == "cpu" else 1
    fills = min(_MOST_TILES, max(8, _FILLS // pixels))
    return max(1, min(fills, free_memory(device) // (2 * _FEATURE_MAPS * _FLOAT * pixels), plan.tiles_per_row))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _host_memory() -> tuple[int, int]:
    """Return free and total bytes of the computer's memory."""
    import psutil

    memory = psutil.virtual_memory()
    return int(memory.available), int(memory.total)
