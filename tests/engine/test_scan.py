"""A scan along another axis gives the same labels; it is chosen by sizes alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tileseg.engine import scan
from napari_tileseg.engine.arrays import ArraySink, ArraySource, FunctionPredictor
from napari_tileseg.engine.events import Event, Planned, SlabDone
from napari_tileseg.engine.journal import Keeper
from napari_tileseg.engine.memory import estimate
from napari_tileseg.engine.run import run
from napari_tileseg.engine.scan import Turn, plan_scan
from napari_tileseg.errors import Cancelled, PredictorError
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.predictor import from_module
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.pipeline import estimate as estimate_run
from napari_tileseg.pipeline import segment
from napari_tileseg.volume import Volume

OBJECTS = {"output": "instances", "decoder": "watershed", "heads": ["foreground", "border", "distance"], "classes": ["background", "cell"]}

KINDS: dict[str, dict[str, Any]] = {"classes": {}, "masks": {"output": "sigmoid"}, "objects": OBJECTS}


def lopsided(batch: torch.Tensor) -> torch.Tensor:
    """Return three channels that depend on the pixel, on one neighbour along each axis, and on the place in the window."""
    assert batch.is_contiguous(), "the network gets its usual memory order"
    turned = sum(batch.roll(step, 2 + step) for step in range(batch.ndim - 2)) / (batch.ndim - 2)
    ramp = torch.linspace(-0.3, 0.3, batch[0, 0].numel()).reshape(batch.shape[2:])
    return torch.cat([turned, batch * 0.5 + ramp, -turned], dim=1)


def spec_of(ndim: int, window: tuple[int, ...], **changes: Any) -> ModelSpec:
    values = {"name": "m", "axes": "CZYX"[:1] + "ZYX"[-ndim:], "channels": 1, "classes": ["background", "a", "b"], "window": window}
    return ModelSpec.model_validate({**values, **changes})


def collect(image: np.ndarray, spec: ModelSpec, axis: int, **options: Any) -> tuple[ArraySink, list[Event]]:
    sink = ArraySink(image.shape[1:])
    events = list(
        run(ArraySource(image), FunctionPredictor(spec, lopsided), sink, options=SegmentOptions(scores=True, **options), axis=axis)
    )
    return sink, events


def same_partition(first: np.ndarray, second: np.ndarray) -> bool:
    pairs = np.unique(np.stack([first.ravel(), second.ravel()]), axis=1)
    return len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]


CASES = st.sampled_from([2, 3]).flatmap(
    lambda ndim: st.tuples(
        st.tuples(*[st.integers(1, 30 if ndim == 2 else 14)] * ndim), st.tuples(*[st.integers(4, 8)] * ndim), st.integers(0, ndim - 1)
    )
)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**31), case=CASES, blending=st.sampled_from(["gaussian", "constant", "crop"]), kind=st.sampled_from([*KINDS]))
def test_every_axis_gives_the_same_labels(seed: int, case: Any, blending: str, kind: str) -> None:
    shape, window, axis = case
    image = np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32)
    spec = spec_of(len(shape), window, **KINDS[kind])
    plain, _ = collect(image, spec, 0, blending=blending)
    turned, events = collect(image, spec, axis, blending=blending)
    assert turned.labels is not None
    assert turned.scores is not None
    np.testing.assert_allclose(turned.scores, plain.scores, rtol=0, atol=1e-5)
    clear = np.abs(np.sort(turned.scores, axis=0)[-1] - np.sort(turned.scores, axis=0)[-2]) > 1e-5
    if kind == "classes":  # a rounding may decide a draw either way
        np.testing.assert_array_equal(turned.labels[clear], plain.labels[clear])  # type: ignore[index]
    elif kind == "masks":
        clear = np.abs(turned.scores) > 1e-5
        np.testing.assert_array_equal(turned.labels[clear], plain.labels[clear])  # type: ignore[index]
    elif np.abs(turned.scores[0]).min() > 1e-5:
        assert same_partition(turned.labels, plain.labels)  # type: ignore[arg-type]
    covered = np.zeros(shape, int)
    for event in events:
        if isinstance(event, SlabDone):
            covered[tuple(slice(*span) for span in event.region)] += 1
    assert (covered == 1).all(), "regions are told in the image's own order"
    planned = next(event for event in events if isinstance(event, Planned))
    assert (planned.shape, planned.window) == (shape, window)


@given(case=CASES, seed=st.integers(0, 99))
@settings(max_examples=20)
def test_the_decoder_sees_the_images_orientation(case: Any, seed: int) -> None:
    """Objects on plateaus depend on the order in which neighbours are visited; it is the image's, whatever the scan's is."""
    shape, window, axis = case
    image = np.random.default_rng(seed).integers(-1, 2, (1, *shape)).astype(np.float32)
    labels = []
    for along in (0, axis):
        sink = ArraySink(shape)
        function = FunctionPredictor(spec_of(len(shape), window, **OBJECTS), lambda batch: torch.cat([batch] * 3, 1))
        for _ in run(ArraySource(image), function, sink, options=SegmentOptions(blending="crop"), axis=along):
            pass
        labels.append(sink.labels)
    assert same_partition(*labels)


@given(case=CASES, seed=st.integers(0, 99))
@settings(max_examples=20)
def test_only_known_mirror_images_are_averaged_and_strips_turn_too(case: Any, seed: int) -> None:
    shape, window, axis = case
    image = np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32)
    spec = spec_of(len(shape), window, mirror_axes="X")
    plain, _ = collect(image, spec, 0, tta="flips")
    turned, _ = collect(image, spec, axis, tta="flips")
    assert plain.scores is not None
    np.testing.assert_allclose(turned.scores, plain.scores, rtol=0, atol=1e-5)  # type: ignore[arg-type]
    strips = ArraySink(shape)
    for _ in run(ArraySource(image), FunctionPredictor(spec, lopsided), strips, options=SegmentOptions(tta="flips"), axis=axis):
        pass
    best = np.sort(plain.scores, axis=0)
    clear = best[-1] - best[-2] > 1e-5
    np.testing.assert_array_equal(strips.labels[clear], plain.labels[clear])  # type: ignore[index]


def test_rows_are_counted_along_the_scan() -> None:
    image = np.random.default_rng(0).normal(size=(1, 9, 40)).astype(np.float32)
    spec = spec_of(2, (8, 8))
    whole, _ = collect(image, spec, 1)
    sink, keeper, slabs = ArraySink(image.shape[1:]), Keeper(), []
    events = run(ArraySource(image), FunctionPredictor(spec, lopsided), sink, axis=1, keeper=keeper, cancel=lambda: len(slabs) > 3)
    with pytest.raises(Cancelled):
        slabs.extend(event for event in events if isinstance(event, SlabDone))
    assert 0 < keeper.rows < 40
    again = ArraySink(image.shape[1:])
    for _ in run(ArraySource(image), FunctionPredictor(spec, lopsided), again, axis=1, keeper=Keeper(keeper.rows)):
        pass
    np.testing.assert_array_equal(sink.labels[:, : keeper.rows], whole.labels[:, : keeper.rows])  # type: ignore[index]
    np.testing.assert_array_equal(again.labels[:, keeper.rows :], whole.labels[:, keeper.rows :])  # type: ignore[index]


def test_a_tile_is_named_in_the_images_order() -> None:
    def fails(batch: torch.Tensor) -> torch.Tensor:
        raise ValueError("no")

    with pytest.raises(PredictorError, match=r"the tile \[0:4, 0:8\]: no"):
        for _ in run(
            ArraySource(np.zeros((1, 9, 40), np.float32)), FunctionPredictor(spec_of(2, (4, 8)), fails), ArraySink((9, 40)), axis=1
        ):
            pass


@given(shape=st.tuples(*[st.integers(1, 2000)] * 3), heads=st.sampled_from([2, 20, 104]), limit=st.sampled_from([None, 1 << 28, 1 << 34]))
def test_the_axis_depends_on_sizes_and_is_never_worse(shape: tuple[int, ...], heads: int, limit: int | None) -> None:
    spec = spec_of(3, (96, 96, 96), classes=[str(index) for index in range(heads)])
    options = SegmentOptions(memory_limit=limit)
    turn, plan = plan_scan(shape, spec, options)

    def needs(plan: Any) -> int:
        found = estimate(plan, spec)
        return found.device_bytes + found.host_bytes

    first = Turn(0, 3)
    from napari_tileseg.engine.recipe import resolve

    unturned = resolve(spec, options).plan(shape)
    assert needs(plan) <= needs(unturned)
    if needs(unturned) <= min(scan.BUDGET, limit or scan.BUDGET):
        assert turn == first, "what fits is scanned as it is stored"
    elif turn.axis:
        assert shape[turn.axis] == max(shape)


def test_doubling_the_longest_axis_of_what_is_large_takes_no_more_memory() -> None:
    spec = spec_of(3, (96, 96, 96), classes=[str(index) for index in range(104)])
    for shape, longer in [((192, 256, 256), (192, 512, 256)), ((160, 384, 256), (160, 768, 256)), ((256, 256, 384), (256, 256, 768))]:
        memory = []
        for size in (shape, longer):
            _, plan = plan_scan(size, spec, SegmentOptions())
            found = estimate(plan, spec)
            memory.append(found.device_bytes + found.host_bytes)
        assert memory[1] < 1.05 * memory[0]


@pytest.mark.parametrize("axes", ["ZYX", "TYX", "YXC"])
def test_the_whole_path_may_turn(axes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Bright(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return torch.cat([0.5 - batch, batch - 0.5], dim=1)

    monkeypatch.setattr(scan, "BUDGET", 1)
    ndim = 3 if axes == "ZYX" else 2
    spec = spec_of(ndim, (8,) * ndim, classes=["dark", "bright"], spacing=(1.0,) * ndim, spacing_unit="micrometer")
    shape = {"ZYX": (9, 11, 30), "TYX": (2, 9, 31), "YXC": (9, 33, 1)}[axes]
    image = (np.random.default_rng(0).random(shape) > 0.5).astype(np.float32)
    scale = tuple(2.0 if axis == "X" else 1.0 for axis in axes)
    volume = Volume.from_scale(image, axes, scale, units=("micrometer",) * 3)
    region = tuple((2, size - 1) if axis in "YX" else (0, size) for axis, size in zip(axes, shape, strict=True) if axis != "C")
    for wanted in (None, region):
        slabs: list[Any] = []
        result = segment(
            volume,
            from_module(Bright(), spec, device="cpu"),
            region=wanted,
            on_event=lambda event, to=slabs: to.append(event.region) if isinstance(event, SlabDone) else None,
        )
        along = result.axes.index("X")
        starts = [slab[along][0] for slab in slabs]
        assert starts[0] < starts[1], "it goes along X"
        inside = tuple(slice(*span) for span in wanted or ())
        np.testing.assert_array_equal(result.labels[inside], image.squeeze()[inside] if axes == "YXC" else image[inside])
    assert estimate_run(volume, spec).tiles > 0
