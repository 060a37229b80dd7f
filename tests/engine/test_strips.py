"""Strips give the labels of the whole slab, bit by bit, in less memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tileseg.engine.arrays import ArraySink, ArraySource, FunctionPredictor
from napari_tileseg.engine.decode import Classes
from napari_tileseg.engine.journal import Keeper
from napari_tileseg.engine.run import run
from napari_tileseg.engine.stitch import Slab
from napari_tileseg.engine.strips import Strips
from napari_tileseg.engine.tiles import plan_tiles
from napari_tileseg.engine.weights import importance
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Keep torch from starting threads for a few pixels."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    ndim = draw(st.integers(2, 3))
    window = tuple(draw(st.integers(2, 16 if ndim == 2 else 8)) for _ in range(ndim))
    return {
        "shape": tuple(draw(st.integers(1, 4 * size if ndim == 2 else 3 * size)) for size in window),
        "window": window,
        "steps": draw(st.sampled_from(["fixed", "even"])),
        "overlap": draw(st.sampled_from([0.0, 0.25, 0.5, 0.6, 0.85])),
        "batch": draw(st.integers(1, 5)),
        "output": draw(st.sampled_from(["softmax", "sigmoid"])),
        "seed": draw(st.integers(0, 2**31)),
    }


@pytest.mark.parametrize("blending", ["gaussian", "nnunet", "crop"])
@settings(max_examples=60, deadline=None)
@given(case=cases(), data=st.data())
def test_labels_are_those_of_the_whole_slab(blending: Any, case: dict[str, Any], data: st.DataObject) -> None:
    ramp = torch.linspace(-1, 1, int(np.prod(case["window"]))).reshape(case["window"])

    def network(batch: torch.Tensor) -> torch.Tensor:  # what a pixel gets depends on where in the window it lies
        return torch.cat([batch + ramp, batch.roll(1, -1) - ramp, -batch], 1)

    spec = ModelSpec(
        name="m",
        axes="CYX" if len(case["shape"]) == 2 else "CZYX",
        channels=1,
        classes=["a", "b", "c"],
        window=case["window"],
        overlap=case["overlap"],
        steps=case["steps"],
        output=case["output"],
    )
    image = np.random.default_rng(case["seed"]).normal(size=(1, *case["shape"])).astype(np.float32)
    skip = data.draw(st.integers(0, case["shape"][0] - 1))
    found = {}
    for scores in (False, True):
        sink = ArraySink(case["shape"])
        options = SegmentOptions(blending=blending, batch=case["batch"], scores=scores)
        list(run(ArraySource(image), FunctionPredictor(spec, network), sink, options=options, keeper=Keeper(skip)))
        found[scores] = sink.labels
    np.testing.assert_array_equal(found[False], found[True])


@pytest.mark.parametrize("overlap", [0.25, 0.5, 0.75])
def test_strips_are_smaller_than_the_slab_and_do_not_grow(overlap: float) -> None:
    sizes = {}
    for rows in (4, 400):
        plan = plan_tiles((16 * rows, 160, 20), (16, 16, 16), overlap=overlap)
        weights = importance(plan.output, "gaussian")
        sizes[rows] = Strips(plan, weights, 4, Classes(["a", "b", "c", "d"]), normalized=False).nbytes
        assert sizes[rows] < (overlap + 0.15) * Slab(plan, weights, 4, normalized=False).nbytes
    assert sizes[4] == sizes[400]
