"""The ways of a GPU, on a stand-in that puts off what it is told: same labels, no buffer touched too early, rows handed on beside."""

from __future__ import annotations

import itertools
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tileseg.engine import run as run_module
from napari_tileseg.engine.arrays import ArraySink, ArraySource, FunctionPredictor
from napari_tileseg.engine.counted import CountedSlab
from napari_tileseg.engine.events import Event, Finished, Progress, SlabDone, Warned
from napari_tileseg.engine.faults import Relief
from napari_tileseg.engine.run import run
from napari_tileseg.engine.streams import Cuda, Direct, Streams, streams_of
from napari_tileseg.engine.task import Task
from napari_tileseg.errors import Cancelled, DeviceMemoryError, PredictorError
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Late:
    """Copies that are done only when somebody waits for them; complains of what a GPU would silently get wrong."""

    depth = 2
    beside = True

    def __init__(self) -> None:
        self.put_off: dict[int, Callable[[], None]] = {}
        self.slots: dict[int, int] = {}
        self.told = 0

    def buffer(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.full(shape, torch.nan, dtype=dtype)

    def upload(self, slot: int, batch: torch.Tensor) -> torch.Tensor:
        assert self.slots.get(slot) not in self.put_off, "the batch before in this slot may still be computed"
        before = batch.clone()

        def read() -> None:
            assert torch.equal(batch, before), "pixels were changed before they were copied"

        self.slots[slot] = self._tell(read)
        return before.clone()

    def download(self, values: torch.Tensor, into: torch.Tensor) -> None:
        into.fill_(torch.nan)
        then = values.clone()
        self._tell(lambda: into.copy_(then))

    def _tell(self, act: Callable[[], Any]) -> int:
        self.told += 1
        self.put_off[self.told] = act
        return self.told

    def mark(self) -> Any:
        told = self.told

        class Then:
            def synchronize(then) -> None:
                for number in [number for number in self.put_off if number <= told]:
                    self.put_off.pop(number)()

        return Then()

    @contextmanager
    def taking(self, mark: Any, values: torch.Tensor) -> Iterator[None]:
        time.sleep(0.002)  # the loop goes on meanwhile
        yield


def spec_of(**changes: Any) -> ModelSpec:
    values = {"name": "m", "axes": "CYX", "channels": 1, "classes": ["background", "a", "b"], "window": (8, 8), **changes}
    return ModelSpec.model_validate(values)


KINDS: dict[str, dict[str, Any]] = {
    "classes": {},
    "masks": {"output": "sigmoid", "classes": ["a", "b", "c"]},
    "objects": {
        "output": "instances",
        "decoder": "watershed",
        "heads": ["foreground", "border", "distance"],
        "classes": ["background", "cell"],
    },
}


def image_of(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32)


def three_scores(batch: torch.Tensor) -> torch.Tensor:
    smooth = torch.nn.functional.avg_pool2d(batch, 3, stride=1, padding=1)
    ramp = torch.linspace(-0.3, 0.3, batch[0, 0].numel()).reshape(batch.shape[2:])
    return torch.cat([smooth, -smooth + ramp, batch * 0.5], dim=1)


def collect(
    image: np.ndarray, function: Callable[[torch.Tensor], Any], spec: ModelSpec, streams: Streams, **arguments: Any
) -> tuple[ArraySink, list[Event]]:
    own = {name: arguments.pop(name) for name in ("cancel", "relief", "sink") if name in arguments}
    sink = own.pop("sink", None) or ArraySink(image.shape[1:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "streams_of", lambda device: streams)
        predictor = FunctionPredictor(spec, function)
        events = list(run(ArraySource(image), predictor, sink, options=SegmentOptions.parse(**arguments), **own))
    return sink, events


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**31),
    shape=st.tuples(st.integers(1, 60), st.integers(1, 30)),
    kind=st.sampled_from(sorted(KINDS)),
    batch=st.integers(1, 4),
    home=st.booleans(),
    options=st.sampled_from([{}, {"scores": True}, {"adaptive": True}, {"uncertainty": "entropy"}, {"blending": "crop"}, {"tta": True}]),
)
def test_work_that_is_put_off_gives_the_same(
    seed: int, shape: tuple[int, int], kind: str, batch: int, home: bool, options: dict[str, Any]
) -> None:
    image, spec = image_of(seed, shape), spec_of(**KINDS[kind])
    expected, told = collect(image, three_scores, spec, Direct(), batch=batch, **options)
    with pytest.MonkeyPatch.context() as patch:
        if home:
            patch.setattr(Task, "_home", True)
        found, events = collect(image, three_scores, spec, Late(), batch=batch, **options)
    for name in ("labels", "scores", "uncertainty"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert [event for event in events if isinstance(event, SlabDone)] == [event for event in told if isinstance(event, SlabDone)]
    numbers = [[(event.done, event.total) for event in these if isinstance(event, Progress)] for these in (events, told)]
    assert numbers[0] == numbers[1]
    last, before = events[-1], told[-1]
    assert isinstance(last, Finished)
    assert isinstance(before, Finished)
    assert (last.objects, last.voxels, last.windows) == (before.objects, before.voxels, before.windows)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_network_goes_on_while_a_row_is_written(kind: str) -> None:
    """The sink takes the first row only when the network has begun the one after the next: who waits for it would wait for ever."""
    calls = itertools.count(1)
    later = threading.Event()

    class Slow(ArraySink):
        def write(self, region: tuple[slice, ...], labels: np.ndarray) -> None:
            assert later.wait(20), "the network waits for the disk"
            super().write(region, labels)

    def counted(batch: torch.Tensor) -> torch.Tensor:
        if next(calls) > 8:  # four a row
            later.set()
        return three_scores(batch)

    image = image_of(1, (60, 20))
    sink, _ = collect(image, counted, spec_of(**KINDS[kind]), Late(), sink=Slow(image.shape[1:]))
    expected, _ = collect(image, three_scores, spec_of(**KINDS[kind]), Direct())
    np.testing.assert_array_equal(sink.labels, expected.labels)


@settings(max_examples=20)
@given(at=st.integers(1, 20), batch=st.integers(2, 6), room=st.integers(1, 3), home=st.booleans())
def test_out_of_memory_loses_nothing_that_is_under_way(at: int, batch: int, room: int, home: bool) -> None:
    image = image_of(5, (50, 30))
    calls = itertools.count(1)

    def scarce(tiles: torch.Tensor) -> torch.Tensor:
        if next(calls) >= at and len(tiles) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return three_scores(tiles)

    expected, _ = collect(image, three_scores, spec_of(), Direct(), scores=True)
    relief = Relief()
    with pytest.MonkeyPatch.context() as patch:
        if home:
            patch.setattr(Task, "_home", True)
        found, events = collect(image, scarce, spec_of(), Late(), scores=True, batch=batch, relief=relief)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=1e-6)
    assert [event.message for event in events if isinstance(event, Warned)] == relief.notes
    last = [event for event in events if isinstance(event, Progress)][-1]
    assert last.done == last.total


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA error: out of memory")])
def test_a_copy_that_finds_no_memory_counts_as_the_network_does(error: Exception) -> None:
    class Full(Late):
        def upload(self, slot: int, batch: torch.Tensor) -> torch.Tensor:
            if len(batch) > 1:
                raise error
            return super().upload(slot, batch)

    image = image_of(5, (50, 30))
    expected, _ = collect(image, three_scores, spec_of(), Direct())
    found, events = collect(image, three_scores, spec_of(), Full(), batch=4)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert [event.message for event in events if isinstance(event, Warned)] == [
        "cpu is short of memory: the batch is now 2.",
        "cpu is short of memory: the batch is now 1.",
    ]


def test_a_row_that_finds_no_room_on_the_device_goes_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    finish, brought = CountedSlab.finish, []

    class Full(torch.Tensor):
        def clone(self, *given: Any, **more: Any) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

        def cpu(self, *given: Any, **more: Any) -> torch.Tensor:
            brought.append(self.shape)
            return torch.from_numpy(np.array(self.as_subclass(torch.Tensor).numpy()))

    def full(self: CountedSlab, row: Any, *, skip: int = 0) -> Any:
        found = finish(self, row, skip=skip)
        return found and (found[0], found[1].as_subclass(Full))

    image = image_of(5, (50, 30))
    expected, _ = collect(image, three_scores, spec_of(), Direct(), adaptive=True)
    monkeypatch.setattr(CountedSlab, "finish", full)
    found, _ = collect(image, three_scores, spec_of(), Late(), adaptive=True)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert brought


def test_a_device_that_says_later_what_failed_is_named_with_the_tile() -> None:
    class Failing(Late):
        marks = 0

        def mark(self) -> Any:
            self.marks += 1
            if self.marks == 5:

                class Broken:
                    def synchronize(self) -> None:
                        raise RuntimeError("CUDA error: device-side assert triggered\nmore")

                return Broken()
            return super().mark()

    with pytest.raises(PredictorError, match=r"failed on the tile \[\d+:\d+, \d+:\d+\]: CUDA error: device-side assert triggered$"):
        collect(image_of(5, (50, 30)), three_scores, spec_of(), Failing())


@settings(max_examples=15)
@given(at=st.integers(1, 77))
def test_what_is_no_number_never_reaches_the_result(at: int) -> None:
    image = image_of(5, (50, 30))  # 12 rows of 7 tiles
    calls = itertools.count(1)

    def wrong(batch: torch.Tensor) -> torch.Tensor:
        scores = three_scores(batch)
        if next(calls) == at:
            scores[0, 1, 2, 3] = torch.nan
        return scores

    expected, _ = collect(image, three_scores, spec_of(), Direct(), scores=True)
    sink = ArraySink(image.shape[1:])
    row, column = divmod(at - 1, 7)
    top, left = min(4 * row, 42), min(4 * column, 22)
    with pytest.raises(PredictorError, match=rf"NaN on the tile \[{top}:{top + 8}, {left}:{left + 8}\]"):
        collect(image, wrong, spec_of(), Late(), scores=True, sink=sink)
    if row:  # rows before it are finished, and they are there
        assert sink.scores is not None
        np.testing.assert_array_equal(sink.scores[:, : 4 * row], expected.scores[:, : 4 * row])  # type: ignore[index]
        assert not np.isnan(sink.scores).any()
        assert not sink.scores[:, top:].any()


def test_who_stops_a_run_keeps_what_is_finished_and_no_thread_stays() -> None:
    image = image_of(5, (50, 30))
    expected, _ = collect(image, three_scores, spec_of(), Direct())
    before, calls = threading.active_count(), itertools.count(1)
    sink, asked = ArraySink(image.shape[1:]), []

    def cancel() -> bool:
        asked.append(next(calls))
        return asked[-1] > 60

    with pytest.raises(Cancelled):
        collect(image, three_scores, spec_of(), Late(), sink=sink, cancel=cancel)
    assert sink.labels is not None
    np.testing.assert_array_equal(sink.labels[:8], expected.labels[:8])  # type: ignore[index]
    deadline = time.monotonic() + 20
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_a_fault_of_the_sink_comes_through_and_nothing_is_written_after_it() -> None:
    written: list[int] = []

    class Full(ArraySink):
        def write(self, region: tuple[slice, ...], labels: np.ndarray) -> None:
            if len(written) == 2:
                raise OSError(28, "No space left on device")
            written.append(region[0].start)
            super().write(region, labels)

    image = image_of(5, (50, 30))
    with pytest.raises(OSError, match="No space left"):
        collect(image, three_scores, spec_of(), Late(), sink=Full(image.shape[1:]))
    assert written == [0, 4]


def test_a_single_tile_that_finds_no_memory_says_what_to_do() -> None:
    def never(batch: torch.Tensor) -> torch.Tensor:
        raise MemoryError

    with pytest.raises(DeviceMemoryError, match="Choose a smaller window"):
        collect(image_of(5, (50, 30)), never, spec_of(), Late())


def test_only_cuda_works_on_its_own() -> None:
    assert isinstance(streams_of("cpu"), Direct)
    assert isinstance(streams_of("mps"), Direct)
    assert streams_of("cpu").depth == 1


def test_a_processor_gets_the_batch_itself() -> None:
    streams = Direct()
    batch = streams.buffer((2, 1, 4, 4))
    assert streams.upload(0, batch) is batch


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
class TestCuda:
    """The real thing."""

    @pytest.mark.parametrize("kind", sorted(KINDS))
    @pytest.mark.parametrize("host", [False, True])
    def test_labels_are_those_of_the_processor(self, kind: str, host: bool) -> None:
        image, spec = image_of(7, (300, 200)), spec_of(**KINDS[kind], window=(64, 64))
        network = torch.nn.Conv2d(1, 3, 5, padding=2).requires_grad_(False)
        expected, found = ArraySink((300, 200)), ArraySink((300, 200))
        for _ in run(ArraySource(image), FunctionPredictor(spec, network), expected, options=SegmentOptions(scores=True)):
            pass
        predictor = FunctionPredictor(spec, network.to("cuda:0"), "cuda:0")
        for _ in run(ArraySource(image), predictor, found, options=SegmentOptions(scores=True), relief=Relief(host=host)):
            pass
        np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=1e-5 * np.abs(expected.scores).max())
        assert np.mean(found.labels == expected.labels) > 0.999

    def test_copies_run_beside_the_network(self) -> None:
        network = torch.nn.Sequential(*[torch.nn.Conv2d(16 if index else 1, 16, 3, padding=1) for index in range(30)]).cuda()
        spec = spec_of(window=(512, 512), classes=[str(index) for index in range(16)])
        image = image_of(7, (4096, 4096))

        def seconds(streams: Streams) -> float:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(run_module, "streams_of", lambda device: streams)
                began = time.perf_counter()
                sink = ArraySink(image.shape[1:])
                for _ in run(ArraySource(image), FunctionPredictor(spec, network, "cuda:0"), sink):
                    pass
                torch.cuda.synchronize()
                return time.perf_counter() - began

        seconds(Cuda("cuda:0"))
        assert min(seconds(Cuda("cuda:0")) for _ in range(3)) < min(seconds(Direct("cuda:0")) for _ in range(3))
