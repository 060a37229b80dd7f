"""Networks that find objects by shapes or flows learn one batch by heart, from nothing, and their own decoder finds its objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from napari_tileseg.engine.decoders import find_decoder
from napari_tileseg.models.nets import build_network
from napari_tileseg.models.object_cards import flow_card, star_card
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.training.metrics import average_precision
from napari_tileseg.training.object_targets import targets_of
from napari_tileseg.training.objective import Objective
from napari_tileseg.training.sampling import Batch

SAMPLES = Path(__file__).parents[2] / "sample_data"
COMMON: dict[str, Any] = {"name": "m", "channels": 1, "classes": ["background", "object"]}


def stars(dims: int) -> ModelSpec:
    arguments = {
        **{"spatial_dims": dims, "in_channels": 1, "rays": 32 if dims == 2 else 48, "grid": [1] * dims, "depth": 2, "filters": 12},
        **{"kernel_size": [3] * dims, "pool": [2] * dims, "convolutions": 2, "expansion": 2, "features": 32},
    }
    return ModelSpec.model_validate({**COMMON, **star_card(arguments)})


def flowing() -> ModelSpec:
    network = {
        "architecture": "cellpose_unet",
        "arguments": {"in_channels": 1, "channels": [12, 24, 48]},
        "window": (96, 96),
        "multiple_of": 4,
    }
    return ModelSpec.model_validate({**COMMON, **flow_card(), **network})


def nuclei() -> tuple[np.ndarray, np.ndarray]:
    """Return two pieces of the sample, (2, 112, 112), and their objects; without splinters that lie at the border."""
    image = tifffile.imread(SAMPLES / "nuclei_fluorescence.tif").astype(np.float32)
    labels = tifffile.imread(SAMPLES / "nuclei_fluorescence_labels.tif").astype(np.int32)
    places = [(slice(200, 312), slice(300, 412)), (slice(300, 412), slice(450, 562))]
    return np.stack([image[place] for place in places]), np.stack([whole(labels[place]) for place in places])


def balls() -> tuple[np.ndarray, np.ndarray]:
    labels = np.zeros((1, 16, 40, 40), np.int32)
    grid = np.indices(labels.shape[1:])
    for number, (centre, radius) in enumerate([((7, 10, 11), 6), ((8, 27, 12), 7), ((8, 20, 29), 6.5)], start=1):
        labels[0][sum((axis - middle) ** 2 for axis, middle in zip(grid, centre, strict=True)) < radius**2] = number
    return (labels > 0) + np.random.default_rng(0).normal(0, 0.2, labels.shape), labels


def whole(labels: np.ndarray) -> np.ndarray:
    found = np.zeros_like(labels)
    for number, value in enumerate([value for value in np.unique(labels) if value and (labels == value).sum() >= 60], start=1):
        found[labels == value] = number
    return found


CASES: dict[str, tuple[ModelSpec, Any]] = {"shapes": (stars(2), nuclei), "shapes, 3D": (stars(3), balls), "flows": (flowing(), nuclei)}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_objects_of_one_batch_are_learnt_by_heart(case: str) -> None:
    spec, make = CASES[case]
    images, labels = make()
    images = (images - images.min()) / (np.percentile(images, 99.8) - images.min())
    learnt = targets_of(spec)
    maps = np.stack([learnt.make_maps(each, spec) for each in labels]).astype(np.float32)
    batch = Batch(
        torch.from_numpy(images.astype(np.float32))[:, None],
        torch.from_numpy(labels).long(),
        torch.from_numpy(maps),
        torch.ones(len(labels)),
    )
    torch.manual_seed(0)
    network, loss = build_network(spec.architecture, **spec.arguments), Objective(learnt.loss, learnt.arguments(spec))
    optimizer = torch.optim.AdamW([value for value in network.parameters() if value.requires_grad], lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=300)  # so few objects: one that is missed is 0.1 of AP
    decoder = find_decoder(spec.decoder)
    precision = 0.0
    for step in range(1, 301):
        value = loss(network.train()(batch.image), batch)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0 and step > 100:
            with torch.no_grad():
                scores = network.eval()(batch.image).numpy()
            found = [decoder.decode(each, spec.decoder_parameters) for each in scores]
            precision = float(np.mean([average_precision(one, true)[0] for one, true in zip(found, labels, strict=True)]))
            if precision > 0.9:
                return
    pytest.fail(f"AP {precision} after 300 steps")
