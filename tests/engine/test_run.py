"""The loop: streamed equals whole, it stops when asked, and every fault ends in one clear sentence."""

from __future__ import annotations

import itertools
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tileseg.engine.arrays import ArraySink, ArraySource, FunctionPredictor, sliding_scores
from napari_tileseg.engine.decoders import find_decoder
from napari_tileseg.engine.events import Event, Finished, Planned, Progress, SlabDone, Warned
from napari_tileseg.engine.journal import Keeper
from napari_tileseg.engine.objects import renumber
from napari_tileseg.engine.protocols import Predictor, Sink, Source
from napari_tileseg.engine.run import run
from napari_tileseg.errors import AxesError, Cancelled, DeviceMemoryError, InputError, ModelError, OptionsError, PredictorError
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Keep torch from starting threads for a few pixels: they cost more than they give, most of all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def spec_of(**changes: Any) -> ModelSpec:
    values = {"name": "m", "axes": "CYX", "channels": 1, "classes": ["background", "a", "b"], "window": (8, 8), **changes}
    return ModelSpec.model_validate(values)


def image_of(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32)


def three_scores(batch: torch.Tensor) -> torch.Tensor:
    """Three channels that depend on the pixel, its neighbours and its place in the window."""
    smooth = torch.nn.functional.avg_pool2d(batch, 3, stride=1, padding=1)
    ramp = torch.linspace(-0.3, 0.3, batch[0, 0].numel()).reshape(batch.shape[2:])
    return torch.cat([smooth, -smooth + ramp, batch * 0.5], dim=1)


def collect(image: np.ndarray, function: Callable[[torch.Tensor], Any], spec: ModelSpec, **arguments: Any) -> tuple[ArraySink, list[Event]]:
    """Run to the end; arguments that are options of the user go there."""
    own = {name: arguments.pop(name) for name in ("cancel", "first_id", "axis", "keeper", "relief", "sink") if name in arguments}
    sink = own.pop("sink", None) or ArraySink(image.shape[1:])
    events = list(run(ArraySource(image), FunctionPredictor(spec, function), sink, options=SegmentOptions(**arguments), **own))
    return sink, events


def scores_of(image: np.ndarray, **arguments: Any) -> np.ndarray:
    return sliding_scores(image, three_scores, (8, 8), heads=3, **arguments)


SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 30))
BLENDINGS = st.sampled_from(["gaussian", "constant", "nnunet", "crop"])


@settings(max_examples=40)
@given(seed=st.integers(0, 2**31), shape=SHAPES, blending=BLENDINGS, keep=st.booleans())
def test_streamed_classes_equal_the_argmax_of_the_whole_image(seed: int, shape: tuple[int, int], blending: str, keep: bool) -> None:
    image = image_of(seed, shape)
    scores = scores_of(image, blending=blending)
    sink, events = collect(image, three_scores, spec_of(), blending=blending, scores=keep)
    expected = scores.argmax(0)
    clear = np.sort(scores, axis=0)[-1] - np.sort(scores, axis=0)[-2] > 1e-5  # a rounding may decide a draw either way
    assert sink.labels is not None
    np.testing.assert_array_equal(sink.labels[clear], expected[clear])
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.voxels == {name: int((sink.labels == index).sum()) for index, name in enumerate(["background", "a", "b"])}
    assert finished.objects is None
    assert (sink.scores is not None) == keep
    if sink.scores is not None:
        np.testing.assert_allclose(sink.scores, scores, rtol=0, atol=1e-6)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), shape=SHAPES, blending=BLENDINGS, threshold=st.sampled_from([0.3, 0.5, 0.8]))
def test_streamed_masks_equal_those_of_the_whole_image(seed: int, shape: tuple[int, int], blending: str, threshold: float) -> None:
    image = image_of(seed, shape)
    probabilities = 1 / (1 + np.exp(-scores_of(image, blending=blending).astype(np.float64)))
    sink, _ = collect(image, three_scores, spec_of(output="sigmoid"), blending=blending, threshold=threshold)
    assert sink.labels is not None
    assert sink.labels.dtype == bool
    clear = np.abs(probabilities - threshold) > 1e-6
    np.testing.assert_array_equal(sink.labels[clear], (probabilities >= threshold)[clear])


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), shape=SHAPES, blending=BLENDINGS)
def test_streamed_objects_equal_those_of_the_whole_image(seed: int, shape: tuple[int, int], blending: str) -> None:
    image = image_of(seed, shape)
    spec = spec_of(output="instances", decoder="watershed", heads=["foreground", "border", "distance"], classes=["background", "cell"])
    sink, events = collect(image, three_scores, spec, blending=blending, scores=True)
    assert sink.labels is not None
    expected, count = renumber(find_decoder("watershed").decode(sink.scores, {}))  # type: ignore[arg-type]
    np.testing.assert_array_equal(sink.labels, expected)
    assert isinstance(events[-1], Finished)
    assert events[-1].objects == count


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), shape=SHAPES, skip=st.integers(0, 45), blending=BLENDINGS)
def test_a_run_goes_on_where_another_stopped(seed: int, shape: tuple[int, int], skip: int, blending: str) -> None:
    image = image_of(seed, shape)
    whole, events = collect(image, three_scores, spec_of(), blending=blending)
    rest, later = collect(image, three_scores, spec_of(), blending=blending, keeper=Keeper(skip))
    regions = [event.region[0] for event in later if isinstance(event, SlabDone)]
    assert [start for start, _ in regions[:1]] == ([skip] if skip < shape[0] else [])
    if rest.labels is not None:
        np.testing.assert_array_equal(rest.labels[skip:], whole.labels[skip:])  # type: ignore[index]
    planned = next(event.tiles for event in later if isinstance(event, Planned))
    assert planned == sum(1 for event in later if isinstance(event, Progress))
    assert planned <= next(event.tiles for event in events if isinstance(event, Planned))
    if skip >= shape[0]:
        assert planned == 0


def test_events_tell_the_whole_story() -> None:
    image = image_of(0, (30, 20))
    _sink, events = collect(image, three_scores, spec_of(), batch=2)
    assert isinstance(events[0], Planned)
    assert (events[0].window, events[0].shape, events[0].device, events[0].batch) == ((8, 8), (30, 20), "cpu", 2)
    assert events[0].memory_bytes > 0
    progress = [event for event in events if isinstance(event, Progress)]
    assert [event.total for event in progress] == [events[0].tiles] * len(progress)
    assert progress[-1].done == events[0].tiles
    assert all(earlier.done < later.done <= earlier.done + 2 for earlier, later in itertools.pairwise(progress))
    assert progress[-1].seconds_left == 0
    regions = [event.region for event in events if isinstance(event, SlabDone)]
    assert [start for (start, _), _ in regions] == [0, *(stop for (_, stop), _ in regions[:-1])]
    assert regions[-1] == ((regions[-1][0][0], 30), (0, 20))
    assert [event for event in events if isinstance(event, Warned)] == []


def test_labels_stream_while_the_run_goes_on() -> None:
    image = image_of(0, (64, 8))
    sink = ArraySink(image.shape[1:])
    given = [0]  # rows, whenever a tile is done
    halfway = []
    for event in run(ArraySource(image), FunctionPredictor(spec_of(), three_scores), sink):
        if isinstance(event, SlabDone):
            given.append(event.region[0][1])
        if isinstance(event, Progress) and event.done <= event.total // 2:
            halfway.append(given[-1])
    assert halfway[-1] >= 20
    assert given[-1] == 64


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), shape=st.tuples(st.integers(1, 11), st.integers(1, 11)))
def test_reflection_shows_the_network_a_mirror_image(seed: int, shape: tuple[int, int]) -> None:
    image = image_of(seed, shape)
    seen: list[np.ndarray] = []

    def look(batch: torch.Tensor) -> torch.Tensor:
        seen.append(batch[0, 0].numpy().copy())
        return three_scores(batch)

    collect(image, look, spec_of(padding="reflect"))
    missing = [max(0, 8 - size) for size in shape]
    mirrored = np.pad(image[0], [(gap // 2, gap - gap // 2) for gap in missing], mode="reflect")
    starts = [[0] if size <= 8 else [0, size - 8] for size in shape]
    expected = [mirrored[y : y + 8, x : x + 8] for y in starts[0] for x in starts[1]]
    np.testing.assert_array_equal(seen, expected)


def test_3d() -> None:
    image = image_of(1, (9, 12, 7))
    spec = spec_of(axes="CZYX", window=(4, 6, 8))
    sink, _ = collect(image, lambda batch: torch.cat([batch, -batch, batch * 0], 1), spec)
    np.testing.assert_array_equal(sink.labels, np.where(image[0] >= 0, 0, 1))


def test_flips_are_averaged() -> None:
    image = image_of(2, (20, 20))

    def lopsided(batch: torch.Tensor) -> torch.Tensor:
        return batch + torch.linspace(-5, 5, 8) + torch.linspace(-3, 3, 8)[:, None]

    spec = spec_of(classes=["a"])
    plain, _ = collect(image, lopsided, spec, scores=True)
    averaged, _ = collect(image, lopsided, spec, scores=True, tta=True)
    assert np.abs(plain.scores - image).max() > 1  # type: ignore[operator]
    np.testing.assert_allclose(averaged.scores, image, rtol=0, atol=1e-5)


def test_only_axes_that_the_network_knows_mirrored_are_flipped() -> None:
    seen: list[np.ndarray] = []

    def look(batch: torch.Tensor) -> torch.Tensor:
        seen.append(batch[0, 0].numpy().copy())
        return batch

    image = image_of(2, (8, 8))
    collect(image, look, spec_of(classes=["a"], mirror_axes="X"), tta="flips")
    np.testing.assert_array_equal(seen, [image[0], image[0][:, ::-1]])


def test_flips_and_quarter_turns_are_averaged() -> None:
    image = image_of(2, (20, 20))
    seen: list[np.ndarray] = []

    def lopsided(batch: torch.Tensor) -> torch.Tensor:
        seen.append(batch[0, 0].numpy().copy())
        ramp = torch.linspace(-5, 5, 8)
        return batch + ramp + ramp[:, None] + torch.outer(ramp, ramp.abs())

    averaged, _ = collect(image, lopsided, spec_of(classes=["a"]), scores=True, tta="rotations", overlap=0.0)
    np.testing.assert_allclose(averaged.scores, image, rtol=0, atol=1e-5)
    tile = image[0, :8, :8]
    expected = [np.rot90(side, turns) for side in (tile, tile[:, ::-1]) for turns in range(4)]
    assert {view.tobytes() for view in seen[:8]} == {np.ascontiguousarray(view).tobytes() for view in expected}


@settings(max_examples=20)
@given(stop_at=st.integers(0, 30), tta=st.booleans())
def test_cancel_stops_before_the_next_tile_and_keeps_what_is_finished(stop_at: int, tta: bool) -> None:
    image = image_of(3, (40, 8))
    calls = 0

    def counted(batch: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return three_scores(batch)

    whole, _ = collect(image, three_scores, spec_of(), tta=tta)
    sink = ArraySink(image.shape[1:])
    done = 0
    forward = 4 if tta else 1
    predictor = FunctionPredictor(spec_of(), counted)
    options = SegmentOptions(tta=tta)
    try:
        for event in run(ArraySource(image), predictor, sink, options=options, cancel=lambda: calls >= stop_at):
            done = event.region[0][1] if isinstance(event, SlabDone) else done
        assert calls <= max(stop_at, 9 * forward)
    except Cancelled as error:
        assert calls == stop_at
        assert f"cancelled after {stop_at // forward} of 9 tiles" in str(error)
    if done:
        np.testing.assert_array_equal(sink.labels[:done], whole.labels[:done])  # type: ignore[index]


def test_leaving_a_run_half_way_leaves_no_thread() -> None:
    image = image_of(3, (40, 8))
    before = threading.active_count()
    events = run(ArraySource(image), FunctionPredictor(spec_of(), three_scores), ArraySink(image.shape[1:]))
    for _ in range(3):
        next(events)
    events.close()
    deadline = time.monotonic() + 20
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)  # it may still be reading
    assert threading.active_count() == before


class Fault:
    """A network that does something else on one of its calls."""

    def __init__(self, at: int, act: Callable[[torch.Tensor], Any]) -> None:
        self.at, self.act, self.calls = at, act, 0

    def __call__(self, batch: torch.Tensor) -> Any:
        self.calls += 1
        return self.act(batch) if self.calls == self.at else three_scores(batch)


def fails(error: Exception) -> Callable[[torch.Tensor], Any]:
    def act(batch: torch.Tensor) -> Any:
        raise error

    return act


def with_nan(batch: torch.Tensor) -> torch.Tensor:
    scores = three_scores(batch)
    scores[-1, 1, 2, 3] = torch.nan
    return scores


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        pytest.param(fails(ValueError("bad\nluck")), r"failed on the tile \[16:24, 0:8\]: bad$", id="raises"),
        pytest.param(fails(KeyError()), r"failed on the tile \[16:24, 0:8\]: KeyError", id="raises without a word"),
        pytest.param(with_nan, r"returned NaN on the tile \[16:24, 0:8\]", id="nan"),
        pytest.param(lambda batch: batch, r"\(1, 1, 8, 8\) instead of \(1, 3, 8, 8\)", id="wrong channels"),
        pytest.param(lambda batch: three_scores(batch)[..., 1:], r"\(1, 3, 8, 7\) instead of \(1, 3, 8, 8\)", id="wrong size"),
        pytest.param(lambda batch: three_scores(batch).long(), "a tensor of int64 instead of", id="integers"),
        pytest.param(lambda batch: (three_scores(batch),), "a tuple instead of", id="tuple"),
        pytest.param(fails(RuntimeError("mat1 and mat2 shapes cannot be multiplied")), "mat1 and mat2", id="runtime error"),
    ],
)
def test_a_network_that_fails_is_named_with_the_tile(act: Callable[[torch.Tensor], Any], sentence: str) -> None:
    image = image_of(4, (40, 8))
    whole, _ = collect(image, three_scores, spec_of())
    sink = ArraySink(image.shape[1:])
    with pytest.raises(PredictorError, match=sentence):
        collect(image, Fault(5, act), spec_of(), sink=sink)
    np.testing.assert_array_equal(sink.labels[:16], whole.labels[:16])  # type: ignore[index]
    assert not sink.labels[16:].any()  # type: ignore[index]


def test_infinite_scores_are_no_fault() -> None:
    image = image_of(4, (16, 16))
    sink, _ = collect(image, lambda batch: torch.cat([batch.sign() * torch.inf, batch * 0], 1), spec_of(classes=["a", "b"]))
    np.testing.assert_array_equal(sink.labels, image[0] < 0)


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
    RuntimeError("Invalid buffer size: 9.75 GB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
    RuntimeError("could not create a primitive"),
    RuntimeError("std::bad_alloc"),
    MemoryError(),
]


@settings(max_examples=20)
@given(at=st.integers(1, 12), batch=st.integers(2, 9), error=st.sampled_from(OUT_OF_MEMORY), room=st.integers(1, 4))
def test_out_of_memory_halves_the_batch_and_changes_nothing(at: int, batch: int, error: Exception, room: int) -> None:
    image = image_of(5, (30, 30))
    expected, _ = collect(image, three_scores, spec_of(), scores=True)
    calls = 0

    def short_of_memory(tiles: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls >= at and len(tiles) > room:
            raise error
        return three_scores(tiles)

    sink, events = collect(image, short_of_memory, spec_of(), batch=batch, scores=True)
    np.testing.assert_allclose(sink.scores, expected.scores, rtol=0, atol=1e-6)
    warnings = [event.message for event in events if isinstance(event, Warned)]
    assert all("short of memory" in message for message in warnings)
    if at == 1 and batch > room:
        assert warnings
    assert len(warnings) <= 3
    progress = [event for event in events if isinstance(event, Progress)]
    assert progress[-1].done == progress[-1].total


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_out_of_memory_for_a_single_tile_says_what_to_do(error: Exception) -> None:
    with pytest.raises(DeviceMemoryError, match=r"cpu has no memory left for one tile of 8 x 8\. Choose a smaller window"):
        collect(image_of(5, (30, 30)), Fault(4, fails(error)), spec_of())


def test_half_precision_scores_are_taken() -> None:
    image = image_of(6, (16, 16))
    sink, _ = collect(image, lambda batch: three_scores(batch).half(), spec_of(), scores=True)
    np.testing.assert_allclose(sink.scores, scores_of(image), rtol=0, atol=1e-2)


@pytest.mark.parametrize(
    ("shape", "changes", "arguments", "error", "sentence"),
    [
        ((1, 9, 9), {"multiple_of": 4}, {"window": (8, 10)}, OptionsError, r"Window 10 is no multiple of 4\. Use 12\."),
        ((1, 9, 9, 9), {}, {}, AxesError, "has 3 spatial axes, the model needs YX"),
        ((2, 9, 9), {}, {}, InputError, "has 2 channels, the model needs 1"),
        ((1, 9, 9), {"output": "instances", "decoder": "nobody"}, {}, ModelError, 'needs the decoder "nobody"'),
        ((1, 9, 9), {"output": "instances", "decoder": "watershed"}, {"keeper": Keeper(3)}, OptionsError, "cannot continue"),
        ((1, 9, 9), {}, {"memory_limit": 100}, OptionsError, "the limit is 0.00 GB"),
        (
            (1, 9, 9),
            {},
            {"window": (8, 12), "tta": "rotations"},
            OptionsError,
            "need a square window; this one is 8 x 12. Set window 12 x 12",
        ),
        ((1, 9, 9), {"output_offset": (1, 2)}, {"tta": "rotations"}, OptionsError, "need a square window"),
        ((1, 9, 9, 9), {"axes": "CZYX", "window": (8, 8, 8)}, {"tta": "rotations"}, OptionsError, "Rotations are for 2D models"),
        ((1, 9, 9), {"mirror_axes": ""}, {"tta": "flips"}, OptionsError, "was not trained on mirror images"),
        ((1, 9, 9), {"mirror_axes": "X"}, {"tta": "rotations"}, OptionsError, "along X only"),
        ((1, 9, 9), {"output_offset": (4, 4)}, {}, OptionsError, "Use a larger window"),
    ],
)
def test_what_cannot_work_is_refused_before_the_network_runs(
    shape: tuple[int, ...], changes: dict[str, Any], arguments: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        collect(np.zeros(shape, dtype=np.float32), fails(AssertionError("the network ran")), spec_of(**changes), **arguments)


def test_minimum_size_is_said_to_be_for_objects() -> None:
    _, events = collect(image_of(0, (9, 9)), three_scores, spec_of(), min_size=5)
    (message,) = [event.message for event in events if isinstance(event, Warned)]
    assert "Min. size" in message


def test_the_callers_settings_of_torch_are_left_alone() -> None:
    seen = []

    def look(batch: torch.Tensor) -> torch.Tensor:
        seen.append((torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))
        return three_scores(batch)

    before = torch.get_float32_matmul_precision()
    collect(image_of(0, (9, 9)), look, spec_of())
    assert set(seen) == {(False, False)}
    assert torch.is_grad_enabled()
    assert torch.get_float32_matmul_precision() == before


def test_arrays_and_functions_meet_the_protocols() -> None:
    assert isinstance(ArraySource(np.zeros((1, 2, 2))), Source)
    assert isinstance(ArraySink((2, 2)), Sink)
    assert isinstance(FunctionPredictor(spec_of(), three_scores), Predictor)
