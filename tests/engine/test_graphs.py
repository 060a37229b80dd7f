"""A recorded network is the same network: on a stand-in that notes every operation and does it again, and on a GPU."""

from __future__ import annotations

import gc
import warnings
import weakref
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from napari_tileseg.engine import backends as offering
from napari_tileseg.engine.arrays import ArraySink, ArraySource
from napari_tileseg.engine.backends import backends, call, release
from napari_tileseg.engine.graphs import Graphs
from napari_tileseg.engine.precision import Verdict
from napari_tileseg.engine.predict import exact_arithmetic
from napari_tileseg.engine.run import run
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.predictor import from_module
from napari_tileseg.models.spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

SPEC = ModelSpec(name="m", axes="CYX", channels=1, classes=["a", "b", "c"], window=(32, 32))


class Noting(TorchDispatchMode):
    """Notes what is computed, from what, and where the results lie."""

    def __init__(self, notes: list[Any]) -> None:
        super().__init__()
        self.notes = notes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.notes.append((func, args, kwargs or {}, found))
        return found


class Graph:
    """Does on a processor what a CUDA graph does: the same operations on the same memory."""

    made = 0

    def __init__(self) -> None:
        Graph.made += 1
        self.notes: list[Any] = []

    def replay(self) -> None:
        for func, args, kwargs, before in self.notes:
            now = func(*args, **kwargs)
            pairs = zip(before, now, strict=True) if isinstance(before, tuple | list) else [(before, now)]
            for old, new in pairs:
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class Queue:
    """A stream on which nothing waits."""

    def __init__(self, device: Any = None) -> None:
        del device

    def wait_stream(self, other: Any) -> None:
        del other


@contextmanager
def noted(graph: Graph, **options: Any) -> Iterator[None]:
    assert options["capture_error_mode"] == "thread_local"
    with Noting(graph.notes):
        yield


class Debug:
    """What torch does when somebody waits for a GPU, and which one is the current one."""

    mode: Any = 0
    device: Any = None

    @contextmanager
    def on(self, device: Any) -> Iterator[None]:
        self.device = device
        yield
        self.device = None

    def set(self, mode: Any) -> None:
        warnings.warn("Synchronization debug mode is a prototype feature", stacklevel=2) if mode == "error" else None
        self.mode = mode


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Debug:
    Graph.made = 0
    debug = Debug()
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: debug.mode)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", debug.set)
    monkeypatch.setattr(torch.cuda, "device", debug.on)
    monkeypatch.setattr(torch.cuda, "Stream", Queue)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", Queue)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", noted)
    monkeypatch.setattr(offering, "can_record", lambda device: True)
    return debug


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    down = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.InstanceNorm2d(8), nn.PReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1))
    up = nn.Sequential(nn.BatchNorm2d(16), nn.PReLU(), nn.ConvTranspose2d(16, 8, 2, stride=2), nn.PReLU(), nn.Conv2d(8, 3, 3, padding=1))
    return nn.Sequential(down, up).eval()


@pytest.mark.usefixtures("stand_in")
def test_a_recording_gives_what_the_network_gives() -> None:
    module = network()
    graphs, kept = Graphs(module), []
    with torch.inference_mode():
        for count in (4, 3, 4, 3, 4):
            batch = torch.randn(count, 1, 32, 32)
            kept.append((graphs(batch), module(batch)))
    assert Graph.made == 2
    for found, expected in kept:  # none was overwritten by those after it
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("stand_in")
def test_memory_is_held_for_two_sizes_only() -> None:
    module = network()
    graphs = Graphs(module)
    with torch.inference_mode():
        for count in (4, 3, 2, 1):
            batch = torch.randn(count, 1, 32, 32)
            torch.testing.assert_close(graphs(batch), module(batch), rtol=0, atol=1e-6)
    assert Graph.made == 2


@pytest.mark.usefixtures("stand_in")
def test_what_is_no_tensor_is_refused() -> None:
    with pytest.raises(TypeError, match="returns list cannot be recorded"):
        Graphs(lambda batch: [batch])(torch.zeros(1, 1, 8, 8))


def test_what_waits_for_the_gpu_is_not_even_begun(stand_in: Debug) -> None:
    """Such a recording fails, and torch's allocator would never notice its end."""

    class Waiting(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            if stand_in.mode == "error":
                raise RuntimeError("called a synchronizing CUDA operation")
            return batch * float(batch.max())

    with pytest.raises(RuntimeError, match="synchronizing"):
        Graphs(Waiting())(torch.ones(1, 1, 8, 8))
    assert stand_in.mode == 0
    assert not Graph.made


def test_only_the_first_recording_of_a_network_looks_whether_it_waits(stand_in: Debug) -> None:
    """The others may be made while results are fetched, which has to wait."""
    modes: list[Any] = []

    class Asking(torch.nn.Conv2d):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            modes.append(stand_in.mode)
            return super().forward(batch)

    module = Asking(1, 3, 1)
    with torch.inference_mode():
        for graphs, count in ((Graphs(module), 1), (Graphs(module), 2)):
            graphs(torch.zeros(count, 1, 8, 8))
    assert modes == [0, 0, 0, "error", 0, 0, 0, 0, 0]
    assert stand_in.mode == 0


def test_the_gpu_of_the_batch_is_the_current_one_while_it_is_recorded(stand_in: Debug) -> None:
    """It may be the second: torch waits for the current one before a recording."""
    devices: list[Any] = []

    def forward(batch: torch.Tensor) -> torch.Tensor:
        devices.append(stand_in.device)
        return batch + 1

    with torch.inference_mode():
        graphs = Graphs(forward)
        graphs(torch.zeros(1, 1, 8, 8))
    assert set(devices) == {torch.device("cpu")}
    assert stand_in.device is None


@pytest.mark.usefixtures("stand_in")
def test_a_recording_that_fails_leaves_no_stream_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch 2.11 does it: what ends a recording raises before the stream of before is there again."""
    streams = [Queue()]

    @contextmanager
    def left(graph: Graph, *, stream: Queue, **options: Any) -> Iterator[None]:
        streams.append(stream)
        try:
            yield
        finally:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: streams[-1])
    monkeypatch.setattr(torch.cuda, "set_stream", streams.append)
    monkeypatch.setattr(torch.cuda, "graph", left)
    with pytest.raises(RuntimeError, match="during capture"):
        Graphs(network())(torch.zeros(1, 1, 8, 8))
    assert streams[-1] is streams[0]


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("kind", ["bfloat16, ", "float16, ", ""])
def test_each_type_has_a_recording_of_its_own(kind: str) -> None:
    predictor, batch = from_module(network(), SPEC, device="cpu"), torch.randn(2, 1, 32, 32)
    assert "recorded" in backends(predictor)
    with torch.inference_mode():
        call(predictor, torch.randn(2, 1, 32, 32), "recorded" if kind else "bfloat16, recorded")
        for _ in range(2):
            found, expected = call(predictor, batch, f"{kind}recorded"), call(predictor, batch, f"{kind}channels last")
            assert found.dtype == expected.dtype
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert Graph.made == 2


@pytest.mark.usefixtures("stand_in")
def test_short_weights_are_not_kept_outside_of_a_recording() -> None:
    kept: list[bool] = []

    class Asking(torch.nn.Conv2d):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            kept.append(torch.is_autocast_cache_enabled())
            return super().forward(batch)

    predictor = from_module(Asking(1, 3, 1), SPEC, device="cpu")
    with torch.inference_mode():
        call(predictor, torch.zeros(1, 1, 32, 32), "bfloat16, recorded")
        assert kept and not any(kept)
        call(predictor, torch.zeros(1, 1, 32, 32), "bfloat16, channels last")
        assert kept[-1]


@pytest.mark.usefixtures("stand_in")
def test_what_is_released_is_recorded_anew() -> None:
    predictor, batch = from_module(network(), SPEC, device="cpu"), torch.randn(1, 1, 32, 32)
    with torch.inference_mode():
        first = call(predictor, batch, "recorded")
        release(predictor)
        torch.testing.assert_close(call(predictor, batch, "recorded"), first, rtol=0, atol=0)
    assert Graph.made == 2


@pytest.mark.usefixtures("stand_in")
def test_the_module_is_let_go() -> None:
    module = network()
    predictor = from_module(module, SPEC, device="cpu")
    with torch.inference_mode():
        call(predictor, torch.zeros(1, 1, 32, 32), "recorded")
    gone = weakref.ref(module)
    del module, predictor
    gc.collect()
    assert gone() is None


@pytest.mark.usefixtures("stand_in")
def test_a_run_by_recordings_finds_the_same() -> None:
    image = np.random.default_rng(0).random((1, 110, 180), np.float32)
    predictor = from_module(network(), SPEC, device="cpu")
    expected, found = ArraySink((110, 180)), ArraySink((110, 180))
    for _ in run(ArraySource(image), predictor, expected, options=SegmentOptions(scores=True, batch=4)):
        pass
    assert not Graph.made
    options = SegmentOptions(scores=True, batch=4, precision="auto")
    for _ in run(ArraySource(image), predictor, found, options=options, verdict=Verdict(True, "", "recorded")):
        pass
    assert Graph.made == 2  # whole batches, and what is left at the end of a row
    np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=1e-5)
    assert np.mean(found.labels == expected.labels) > 0.999


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
class TestCuda:
    """The real thing."""

    def test_all_ways_give_the_same_scores(self) -> None:
        predictor = from_module(network(), SPEC, device="cuda:0")
        for way in backends(predictor):
            for count in (4, 3, 4):
                batch = torch.randn(count, 1, 32, 32, device="cuda:0")
                with torch.inference_mode(), exact_arithmetic():  # as in a run: convolutions would be in TF32
                    expected, found = predictor(batch), call(predictor, batch, way)
                far = 2e-2 if "float16" in way else 1e-4
                assert (found.float() - expected).abs().max() <= far * expected.abs().max(), way

    def test_a_network_that_waits_is_refused_and_harms_nothing(self) -> None:
        class Waiting(nn.Module):
            def forward(self, batch: torch.Tensor) -> torch.Tensor:
                return batch * float(batch.max())

        batch, before = torch.ones(1, 1, 8, 8, device="cuda:0"), torch.cuda.current_stream()
        with torch.inference_mode():
            with pytest.raises(RuntimeError, match="synchronizing"):
                Graphs(Waiting())(batch)
            assert torch.cuda.current_stream() == before
            torch.cuda.empty_cache()  # which torch refuses while it believes that somebody is recording
            module = nn.Conv2d(1, 3, 1).cuda()
            torch.testing.assert_close(Graphs(module)(batch), module(batch))

    def test_memory_comes_back(self) -> None:
        def reserved() -> int:
            gc.collect()
            torch.cuda.empty_cache()
            return torch.cuda.memory_reserved()

        predictor = from_module(network(), SPEC, device="cuda:0")
        before = reserved()
        with torch.inference_mode():
            call(predictor, torch.randn(8, 1, 512, 512, device="cuda:0"), "recorded")
        held = reserved()
        release(predictor)
        # Libraries keep some room to work in, for each stream they were used on.
        assert reserved() < before + (96 << 20) < held
