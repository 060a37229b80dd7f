"""``probe``: a few steps and one validation image, to say how long a training is going to take, and how much memory."""

from __future__ import annotations

import contextlib
import math
import tempfile
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch

from napari_tileseg.errors import Cancelled
from napari_tileseg.estimation import estimate
from napari_tileseg.models.predictor import pick_device
from napari_tileseg.training.adversary import make_adversary
from napari_tileseg.training.events import TrainingExpected
from napari_tileseg.training.fit import BatchSplit, Step, fit
from napari_tileseg.training.items import open_image
from napari_tileseg.training.objective import Objective
from napari_tileseg.training.prepare import prepare_items
from napari_tileseg.training.ranks import ALONE
from napari_tileseg.training.sampling import Sampler
from napari_tileseg.training.start import start_network
from napari_tileseg.training.validate import Validation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.training.config import TrainConfig
    from napari_tileseg.training.items import Item
    from napari_tileseg.training.plan import Plan
    from napari_tileseg.training.report import Report

__all__ = ["probe"]

_STEPS = 3
_PATIENCE = 4.0
"""Seconds after which no further step is taken."""


def probe(config: TrainConfig, report: Report, plan: Plan, *, cancel: Callable[[], bool] = lambda: False) -> TrainingExpected:
    """Learn a few batches of one image and validate on one, and reckon from that; nothing is kept.

    Parameters
    ----------
    config : TrainConfig
    report : Report
    plan : Plan
    cancel : callable
        Asked between the steps.

    Raises
    ------
    Cancelled
    InputError, ModelError, DeviceMemoryError
        As the training would.
    """
    device = pick_device(config.device)
    network = start_network(config, plan.spec)[0].to(device)
    learnt = min(report.train, key=lambda item: _pixels(report, item))
    with tempfile.TemporaryDirectory(prefix="tileseg-probe-") as folder, _peak(device) as peak:
        examples = prepare_items(
            [learnt], report, plan.spec, folder=Path(folder), unlabelled=config.unlabelled, axes=config.axes, cancel=cancel
        )
        of_one = sum(example.image.nbytes + example.labels.nbytes + example.maps.nbytes for example in examples)
        sampler = Sampler(
            examples,
            plan.augmentation,
            channels=plan.channels,
            batch=plan.batch * config.accumulation,
            centred=config.foreground,
            seed=config.seed,
        )
        # Without a warm-up, since a discriminator counts after it only.
        options = replace(plan.fit_options(config, device), steps=_STEPS, warmup=0.0, epoch_steps=None)
        objective = Objective(plan.loss, plan.loss_arguments(config), masks=plan.spec.output == "sigmoid")
        times, parts = [0.0], 0
        adversary = make_adversary(config, plan.spec, device, ALONE)
        events = fit(network, objective, sampler.batch, options, report_every=1, cancel=cancel, adversary=adversary)
        with contextlib.closing(events):  # type: ignore[type-var]  # it is a generator
            for event in events:
                if isinstance(event, BatchSplit):
                    parts = event.size
                elif isinstance(event, Step):
                    times.append(event.seconds)
                    if event.seconds > _PATIENCE:
                        break
        if cancel():
            raise Cancelled("Stopped before the training began.")
        step = min(after - before for before, after in pairwise(times))  # the first one also waits for the first batch
        checked = _validated(config, report, plan, network, device, cancel)
    prepared = of_one * sum(_pixels(report, item) for item in report.train) / max(1, _pixels(report, learnt))
    limit = config.memory_limit if config.memory_limit is not None else int(0.25 * psutil.virtual_memory().available)
    epoch = plan.epoch_steps * step + checked
    return TrainingExpected(step, checked, epoch, epoch * config.epochs, peak[0] + int(min(prepared, limit)), device, parts)


def _validated(config: TrainConfig, report: Report, plan: Plan, network: torch.nn.Module, device: str, cancel: Callable[[], bool]) -> float:
    """Return how many seconds a validation takes."""
    if not report.val:
        return 0.0
    item = min(report.val, key=lambda item: _pixels(report, item))
    part = _part(report, item, plan.spec)
    validation = Validation([part], plan.spec, values=report.values, rule=report.rule, unlabelled=config.unlabelled, axes=config.axes)
    seconds = _timed(validation, network, device, cancel)
    if seconds < _PATIENCE:
        seconds = min(seconds, _timed(validation, network, device, cancel))  # what is done once only does not count
    whole, tried = (estimate(open_image(each, config.axes), plan.spec).tiles for each in (item, part))
    return seconds * whole / tried * sum(_pixels(report, other) for other in report.val) / _pixels(report, item)


def _timed(validation: Validation, network: torch.nn.Module, device: str, cancel: Callable[[], bool]) -> float:
    began = time.monotonic()
    validation.run(network, device=device, cancel=cancel)
    return time.monotonic() - began


def _part(report: Report, item: Item, spec: ModelSpec) -> Item:
    """Return the first corner of an item, two windows wide: of a large volume that is enough."""
    spatial = [axis for axis in report.of(item).axes if axis in "ZYX"]
    box = item.box or tuple((0, report.of(item).sizes[axis]) for axis in spatial)
    sides = dict(zip(spec.spatial_axes, spec.window, strict=True))
    return replace(
        item, box=tuple((low, min(high, low + 2 * sides.get(axis, high))) for axis, (low, high) in zip(spatial, box, strict=True))
    )


def _pixels(report: Report, item: Item) -> int:
    facts = report.of(item)
    spatial = [axis for axis in facts.axes if axis in "ZYX"]
    sides = [stop - start for start, stop in item.box] if item.box else [facts.sizes[axis] for axis in spatial]
    return math.prod(sides) * math.prod(size for axis, size in facts.sizes.items() if axis not in "ZYXC")


@contextlib.contextmanager
def _peak(device: str) -> Iterator[list[int]]:
    """Give a list whose number becomes the bytes that were taken at most: on the device, or by this process beyond what it had."""
    found = [0]
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        yield found
        found[0] = int(torch.cuda.max_memory_allocated(device))
        return
    process, over = psutil.Process(), threading.Event()
    before = process.memory_info().rss

    def watch() -> None:
        while not over.wait(0.01):
            found[0] = max(found[0], process.memory_info().rss - before)

    watcher = threading.Thread(target=watch, name="memory of a probe", daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()
