"""When memory runs out at any tile, the run gives something up, says what, and goes on from there."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tileseg.engine import run as run_module
from napari_tileseg.engine.arrays import ArraySink, ArraySource, FunctionPredictor
from napari_tileseg.engine.decode import Classes
from napari_tileseg.engine.events import Event, Planned, Progress, SlabDone, Warned
from napari_tileseg.engine.faults import LEAST_SIDE, Relief, smaller_window
from napari_tileseg.engine.precision import Verdict
from napari_tileseg.engine.run import run
from napari_tileseg.engine.stitch import Slab
from napari_tileseg.engine.tiles import plan_tiles
from napari_tileseg.engine.weights import importance
from napari_tileseg.errors import DeviceMemoryError, PredictorError
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.predictor import from_module
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.pipeline import segment

ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
    RuntimeError("out of memory"),
    MemoryError(),
]


def spec_of(**changes: Any) -> ModelSpec:
    values = {"name": "m", "axes": "CYX", "channels": 1, "classes": ["background", "a"], "window": (64, 64), **changes}
    return ModelSpec.model_validate(values)


OBJECTS = {"output": "instances", "decoder": "watershed", "heads": ["foreground", "border", "distance"], "classes": ["background", "cell"]}


def image_of(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32)


class Scarce:
    """A network that needs memory for each pixel, of which there is less from some call on."""

    def __init__(self, *, channels: int = 2, at: int = 1, room: int = 1 << 30, error: Exception = ERRORS[0]) -> None:
        self.channels, self.at, self.room, self.error = channels, at, room, error
        self.seen: list[tuple[int, ...]] = []

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(batch.shape))
        if len(self.seen) >= self.at and batch.numel() > self.room:
            raise self.error
        return torch.cat([-batch, batch, batch * 0.5], dim=1)[:, : self.channels]


def run_all(image: np.ndarray, network: Scarce, spec: ModelSpec, relief: Relief, **options: Any) -> tuple[np.ndarray, list[Event]]:
    sink = ArraySink(image.shape[1:])
    events = list(run(ArraySource(image), FunctionPredictor(spec, network), sink, options=SegmentOptions(**options), relief=relief))
    assert sink.labels is not None
    return sink.labels, events


@settings(max_examples=30)
@given(
    at=st.integers(1, 25),
    room=st.sampled_from([33 * 33, 40 * 40, 50 * 50, 64 * 64, 2 * 64 * 64]),
    batch=st.integers(1, 5),
    error=st.sampled_from(ERRORS),
    instances=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_tile_may_run_out_of_memory(at: int, room: int, batch: int, error: Exception, instances: bool, seed: int) -> None:
    image = image_of(seed, (150, 130))
    spec = spec_of(**OBJECTS) if instances else spec_of()
    channels = 3 if instances else 2
    expected, _ = run_all(image, Scarce(channels=channels), spec, Relief(), blending="crop")
    relief = Relief()
    network = Scarce(channels=channels, at=at, room=room, error=error)
    labels, events = run_all(image, network, spec, relief, batch=batch, blending="crop")
    np.testing.assert_array_equal(labels, expected)
    assert [event.message for event in events if isinstance(event, Warned)] == relief.notes
    assert bool(relief.notes) == any(index >= at - 1 and np.prod(shape) > room for index, shape in enumerate(network.seen))
    if relief.window:
        assert any("the window is now" in note for note in relief.notes)
        assert np.prod(relief.window) <= room
    regions = [event.region[0] for event in events if isinstance(event, SlabDone)]
    assert [start for start, _ in regions] == [0, *(stop for _, stop in regions[:-1])], "nothing finished is done again"
    assert regions[-1][1] == 150
    assert isinstance(events[0], Planned)
    last = [event for event in events if isinstance(event, Progress)][-1]
    assert last.done == last.total


def test_the_window_shrinks_from_the_failed_row_on_and_later_samples_begin_with_it() -> None:
    network = Scarce(at=20, room=40 * 40)

    class Module(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return network(batch)

    image = np.stack([image_of(index, (200, 130))[0] for index in range(3)])
    heard: list[Event] = []
    result = segment(image, from_module(Module(), spec_of(), device="cpu"), axes="ZYX", on_event=heard.append)
    np.testing.assert_array_equal(result.labels, image > 0)
    notes = result.provenance["adaptations"]
    assert notes == [
        "cpu is short of memory: the window is now 45 x 45 from row 128 on.",
        "cpu is short of memory: the window is now 32 x 32 from row 128 on.",
    ]
    assert list(result.warnings) == notes
    assert result.provenance["settings"]["window"] == [64, 64]
    sizes = [shape[2] for shape in network.seen]
    assert sizes == sorted(sizes, reverse=True), "the next plane begins with the window that fits"
    progress = [event.done for event in heard if isinstance(event, Progress)]
    assert progress == sorted(progress)
    assert progress[-1] == next(event.tiles for event in heard if isinstance(event, Planned))


def test_a_window_that_the_user_has_chosen_stays() -> None:
    with pytest.raises(DeviceMemoryError, match="Choose a smaller window"):
        run_all(image_of(0, (150, 130)), Scarce(at=5, room=99), spec_of(), Relief(), window=(64, 64))


def test_a_window_that_cannot_shrink_stays() -> None:
    network = Scarce(at=5, room=99)
    with pytest.raises(DeviceMemoryError):
        run_all(image_of(0, (150, 130)), network, spec_of(multiple_of=64), Relief())
    assert {shape[2:] for shape in network.seen} == {(64, 64)}


@given(
    window=st.lists(st.integers(1, 20), min_size=2, max_size=3),
    multiple_of=st.sampled_from([1, 8, 16, 20]),
    lost=st.sampled_from([None, 4, 20]),
    remainder=st.sampled_from([0, 4, 12]),
    steps=st.sampled_from(["fixed", "aligned"]),
)
def test_smaller_windows_suit_the_model(window: list[int], multiple_of: int, lost: int | None, remainder: int, steps: str) -> None:
    remainder %= multiple_of
    size = tuple(side * multiple_of + remainder for side in window)
    spec = spec_of(
        axes="CYX" if len(size) == 2 else "CZYX",
        window=size,
        multiple_of=multiple_of,
        remainder=remainder,
        output_offset=(lost,) * len(size) if lost else None,
        steps=steps,
        blending="crop",
    )
    count = 0
    while (shorter := smaller_window(size, spec)) is not None:
        assert all(new <= old for new, old in zip(shorter, size, strict=True))
        assert np.prod(shorter) < np.prod(size)
        assert all(side % multiple_of == remainder for side in shorter)
        if all(new < old for new, old in zip(shorter, size, strict=True)):
            plan_tiles(
                (50,) * len(size),
                shorter,
                overlap=0,
                output_offset=spec.output_offset,
                steps=spec.steps,
                blending="crop",
                strides=(multiple_of,) * len(size),
            )
        assert all(new >= LEAST_SIDE and new > 2 * (lost or 0) for new, old in zip(shorter, size, strict=True) if new < old)
        size, count = shorter, count + 1
        assert count < 40


def test_precision_drops_where_it_may() -> None:
    seen: list[bool] = []

    def network(batch: torch.Tensor) -> torch.Tensor:
        seen.append(torch.is_autocast_enabled("cpu"))
        if len(seen) > 4 and not seen[-1]:
            raise MemoryError
        return torch.cat([-batch, batch], 1)

    image, sink, relief = image_of(1, (150, 130)), ArraySink((150, 130)), Relief()
    exact = Verdict(False, "It stays exact.")
    predictor = FunctionPredictor(spec_of(), network)
    events = list(run(ArraySource(image), predictor, sink, options=SegmentOptions(precision="auto", batch=1), verdict=exact, relief=relief))
    np.testing.assert_array_equal(sink.labels, image[0] > 0)  # type: ignore[arg-type]
    assert relief.notes == ["cpu is short of memory: the rest is computed in bfloat16."]
    assert relief.fast
    assert seen == [False] * 5 + [True] * (len(seen) - 5)
    assert [event.message for event in events if isinstance(event, Warned)] == [exact.reason, *relief.notes]
    seen.clear()
    list(run(ArraySource(image), predictor, ArraySink((150, 130)), options=SegmentOptions(precision="auto"), verdict=exact, relief=relief))
    assert all(seen), "the next sample begins so"
    with pytest.raises(DeviceMemoryError):
        seen.clear()
        list(run(ArraySource(image), predictor, ArraySink((150, 130)), options=SegmentOptions(window=(64, 64), batch=1)))


class _Elsewhere:
    """A slab that says it lies on a GPU until it is moved."""

    def __init__(self, inner: Slab) -> None:
        self._inner, self.device = inner, torch.device("meta")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def move(self, device: str) -> None:
        self._inner.move(device)
        self.device = torch.device(device)


def test_the_slab_moves_to_the_host_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    make = run_module._slab
    monkeypatch.setattr(run_module, "_slab", lambda *given, **more: _Elsewhere(make(*given, **more)))
    relief, image, calls = Relief(host=False), image_of(2, (150, 130)), itertools.count()

    class Once(Scarce):
        def __call__(self, batch: torch.Tensor) -> torch.Tensor:
            if next(calls) == 4:
                raise MemoryError
            return super().__call__(batch)

    labels, _ = run_all(image, Once(), spec_of(), relief, scores=True)  # which takes a slab
    np.testing.assert_array_equal(labels, image[0] > 0)
    assert relief.host
    assert relief.notes == ["cpu is short of memory: open scores are now kept in the computer's own memory."]


def test_a_moved_slab_holds_what_it_held() -> None:
    plan = plan_tiles((20, 20), (8, 8), overlap=0.5)
    slab = Slab(plan, importance((8, 8), "gaussian"), 2)
    for tile in plan.tiles(0):
        slab.add(tile, torch.ones(2, 8, 8), plan.row(0))
    slab.move("cpu")
    finished = slab.finish(plan.row(0))
    assert finished is not None
    torch.testing.assert_close(finished[1], torch.ones(2, 4, 20))


def test_a_slab_that_finds_no_room_lies_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    class Full(Slab):
        def __init__(self, *given: Any, device: str = "cpu", **more: Any) -> None:
            made.append(device)
            if device != "cpu":
                raise torch.OutOfMemoryError("CUDA out of memory")
            super().__init__(*given, **more)

    monkeypatch.setattr(run_module, "Slab", Full)
    plan = plan_tiles((20, 20), (8, 8), overlap=0.5)
    relief = Relief(host=False)
    predictor = FunctionPredictor(spec_of(), lambda batch: batch, device="cuda:0")
    recipe = run_module.resolve(spec_of(window=(8, 8)), SegmentOptions())
    decoder, needs = Classes(spec_of().classes), run_module.estimate(plan, spec_of())
    slab = run_module._slab(plan, recipe, predictor, needs, relief, decoder, scores=True, extra=False, ends=None, first=0)
    assert (made, relief.host, slab.device.type) == (["cuda:0", "cpu"], True, "cpu")


def test_a_network_that_fails_otherwise_is_not_tried_again() -> None:
    calls: list[int] = []

    def fails(batch: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        raise ValueError("no")

    with pytest.raises(PredictorError):
        list(run(ArraySource(image_of(0, (70, 70))), FunctionPredictor(spec_of(), fails), ArraySink((70, 70))))
    assert len(calls) == 1


def test_relief_survives_json() -> None:
    relief = Relief(2, True, True, (32, 32), ["a"])
    assert Relief.from_dict(relief.to_dict()) == relief
    assert Relief.from_dict(Relief().to_dict()) == Relief()
