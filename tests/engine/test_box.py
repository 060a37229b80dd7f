"""A part of an image computed by itself equals that part of the whole, to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tileseg.engine.events import Progress, SlabDone
from napari_tileseg.engine.run import run
from napari_tileseg.engine.tiles import Tile
from napari_tileseg.errors import DeviceMemoryError
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.predictor import Predictor, from_module
from napari_tileseg.models.spec import ModelSpec

OBJECTS = {"output": "instances", "decoder": "watershed", "heads": ["foreground", "border", "distance"], "classes": ["background", "cell"]}


class Network(torch.nn.Module):
    """Three channels that depend on the pixel and on its place in the window."""

    def __init__(self, lost: int = 0) -> None:
        super().__init__()
        self.lost = lost

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        ramp = torch.linspace(-0.3, 0.3, batch[0, 0].numel()).reshape(batch.shape[2:])
        scores = torch.cat([batch - 0.1, -batch + ramp, batch * 0.5 - ramp], dim=1)
        keep = tuple(slice(self.lost, size - self.lost) for size in batch.shape[2:])
        return scores[(slice(None), slice(None), *keep)]


class Whole:
    """An image in memory."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array
        self.shape = array.shape

    def read(self, region: tuple[slice, ...]) -> np.ndarray:
        return self._array[(slice(None), *region)]


class Place:
    """Labels and scores in memory."""

    def __init__(self, shape: tuple[int, ...], masks: bool) -> None:
        self.labels = np.full((3, *shape) if masks else shape, 99, np.int32)
        self.scores = np.full((3, *shape), 99, np.float32)

    def write(self, region: tuple[slice, ...], labels: np.ndarray) -> None:
        self.labels[(..., *region)] = labels

    def write_scores(self, region: tuple[slice, ...], scores: np.ndarray) -> None:
        self.scores[(..., *region)] = scores

    def write_uncertainty(self, region: tuple[slice, ...], uncertainty: np.ndarray) -> None:
        raise AssertionError("nobody has asked")


def model(ndim: int, **changes: Any) -> Predictor:
    lost = changes.pop("lost", 0)
    values = {"name": "m", "axes": "C" + "ZYX"[3 - ndim :], "channels": 1, "classes": ["background", "a", "b"], "window": (8, 6, 10)[:ndim]}
    if lost:
        changes["output_offset"] = (lost,) * ndim
    return from_module(Network(lost), ModelSpec.model_validate({**values, **changes}), device="cpu")


@settings(max_examples=60)
@given(
    data=st.data(),
    ndim=st.integers(2, 3),
    blending=st.sampled_from(["gaussian", "nnunet", "constant", "crop"]),
    steps=st.sampled_from(["fixed", "even"]),
    output=st.sampled_from(["softmax", "sigmoid", "instances"]),
    scores=st.booleans(),
    lost=st.sampled_from([0, 1]),
    padding=st.sampled_from(["zeros", "reflect"]),
    holes=st.booleans(),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.7]),
)
def test_a_box_equals_that_part_of_the_whole(
    data: st.DataObject,
    ndim: int,
    blending: str,
    steps: str,
    output: str,
    scores: bool,
    lost: int,
    padding: str,
    holes: bool,
    overlap: float,
) -> None:
    shape = tuple(data.draw(st.integers(1, most)) for most in (40, 30, 25)[:ndim])
    axis = data.draw(st.integers(0, ndim - 1))
    starts = [data.draw(st.integers(0, size - 1)) for size in shape]
    stops = [data.draw(st.integers(start + 1, size)) for start, size in zip(starts, shape, strict=True)]
    box = Tile(tuple(starts), tuple(stops))
    changes = OBJECTS if output == "instances" else {"output": output}
    if output == "sigmoid":
        changes = {**changes, "classes": ["a", "b", "c"]}
    predictor = model(ndim, lost=lost, blending=blending, steps=steps, overlap=overlap, padding=padding, **changes)
    image = Whole(np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32))
    options = SegmentOptions(scores=scores or output == "instances")
    wanted = (lambda tile: sum(tile.start) % 3 > 0) if holes else None
    places = []
    for part in (None, box):
        place = Place(shape, masks=output == "sigmoid")
        events = list(run(image, predictor, place, options=options, axis=axis, wanted=wanted, box=part))
        places.append(place)
    progress = [event for event in events if isinstance(event, Progress)]
    assert holes or progress[-1].done == progress[-1].total
    inside = (..., *box.slices)
    if options.scores:
        np.testing.assert_array_equal(places[0].scores[inside], places[1].scores[inside])
        assert (places[1].scores[inside] != 99).all()
    if output == "instances":
        assert (places[1].labels == 99).all(), "objects may go on outside"
        return
    np.testing.assert_array_equal(places[0].labels[inside], places[1].labels[inside])
    told = np.zeros(shape, int)
    for event in events:
        if isinstance(event, SlabDone):
            told[tuple(slice(*span) for span in event.region)] += 1
    assert (told[box.slices] == 1).all()


def test_a_box_that_finds_too_little_memory_is_computed_anew() -> None:
    class Greedy(Network):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            if batch.shape[-1] > 64:
                raise DeviceMemoryError("too large")
            return super().forward(batch)

    spec = {"name": "m", "axes": "CYX", "channels": 1, "classes": ["background", "a", "b"], "window": (128, 128)}
    predictor = from_module(Greedy(), ModelSpec.model_validate(spec), device="cpu")
    image = Whole(np.random.default_rng(0).normal(size=(1, 300, 300)).astype(np.float32))
    whole, part = Place((300, 300), masks=False), Place((300, 300), masks=False)
    list(run(image, predictor, whole))
    list(run(image, predictor, part, box=Tile((100, 150), (260, 290))))
    np.testing.assert_array_equal(whole.labels[100:260, 150:290], part.labels[100:260, 150:290])


@pytest.mark.parametrize("box", [((0, 0), (1, 1)), ((99, 49), (100, 50))])
def test_only_tiles_that_touch_the_box_are_computed(box: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    image = Whole(np.zeros((1, 100, 50), np.float32))
    events = list(run(image, model(2), Place((100, 50), masks=False), box=Tile(*box)))
    assert sum(isinstance(event, Progress) for event in events) == 1
