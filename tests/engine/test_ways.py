"""A network is compiled where that pays, never twice in vain, and stays the same network."""

from __future__ import annotations

import gc
import math
import subprocess
import sys
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from monai.networks.nets import UNet

from napari_tileseg.engine import backends as offering
from napari_tileseg.engine import compiled as compiling
from napari_tileseg.engine import ways as timing
from napari_tileseg.engine.arrays import FunctionPredictor
from napari_tileseg.engine.backends import ONNX, backends, call
from napari_tileseg.engine.compiled import Compiled, can_compile
from napari_tileseg.engine.exported import can_export
from napari_tileseg.engine.predict import Network
from napari_tileseg.engine.tiles import Tile
from napari_tileseg.engine.ways import WORTH, Ways
from napari_tileseg.errors import DeviceMemoryError
from napari_tileseg.models.predictor import from_module
from napari_tileseg.models.spec import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path

SPEC = ModelSpec(name="m", axes="CYX", channels=1, classes=["a", "b", "c"], window=(32, 32))
EAGER = {"exact": 4.0, "bfloat16": 2.0, "bfloat16, channels last": 2.5, "channels last": 3.0}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Return the ways that were measured, in order; compiled ones take half the time of the others, and no time to begin."""
    monkeypatch.setenv("TILESEG_CACHE", str(tmp_path))
    monkeypatch.setattr(offering, "can_compile", lambda device: True)
    monkeypatch.setattr(offering, "can_export", lambda device: False)
    asked: list[str] = []

    def measure(network: Any, tile: Any, names: list[str], *, timer: Any, batch: int) -> dict[str, float]:
        asked.extend(names)
        return {"exact": 4.0} | {name: EAGER.get(name, 1.0 if name.startswith("bfloat16") else 1.5) for name in names}

    monkeypatch.setattr(timing, "measure", measure)
    return asked


def ways(key: str = "key") -> Ways:
    predictor = from_module(torch.nn.Conv2d(1, 3, 1), SPEC, device="cpu")
    tile = Tile((0, 0), (32, 32)), np.zeros((1, 32, 32), np.float32)
    return Ways(Network(predictor, (32, 32)), predictor, tile, key, lambda: 0.0)


def test_a_short_run_compiles_nothing(measured: list[str]) -> None:
    assert list(ways().faster(10)) == ["bfloat16", "bfloat16, channels last", "channels last"]
    assert measured == ["bfloat16", "bfloat16, channels last", "channels last"]


def test_a_long_run_compiles_and_the_other_arithmetic_only_in_need(measured: list[str]) -> None:
    candidates = ways().faster(math.ceil(WORTH))
    assert next(candidates) == "bfloat16, compiled"
    assert measured[3:] == ["bfloat16, compiled"]
    assert list(candidates) == ["bfloat16", "bfloat16, channels last", "compiled", "channels last"]
    assert measured[3:] == ["bfloat16, compiled", "compiled"]


def test_what_is_known_is_used_as_soon_as_it_pays(measured: list[str]) -> None:
    assert next(ways().faster(1000)) == "bfloat16, compiled"
    measured.clear()
    timing.remember("key", {"start bfloat16, compiled": 20.0})
    assert next(ways().faster(19)) == "bfloat16"
    assert next(ways().faster(21)) == "bfloat16, compiled"
    assert not measured


def test_what_cannot_be_compiled_is_not_tried_again(measured: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = timing.measure

    def failing(network: Any, tile: Any, names: list[str], *, timer: Any, batch: int) -> dict[str, float]:
        return {
            name: value for name, value in whole(network, tile, names, timer=timer, batch=batch).items() if not name.endswith("compiled")
        }

    monkeypatch.setattr(timing, "measure", failing)
    for _ in range(2):
        assert list(ways().faster(1000)) == ["bfloat16", "bfloat16, channels last", "channels last"]
    assert measured.count("bfloat16, compiled") == measured.count("compiled") == 1


def test_another_library_has_its_turn_beside_the_compiler(measured: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offering, "can_export", lambda device: True)
    assert list(ways().faster(10)) == ["bfloat16", "bfloat16, channels last", "channels last"]
    candidates = list(ways().faster(1000))
    assert measured[3:] == ["bfloat16, compiled", "compiled", "ONNX Runtime"]
    assert set(candidates[3:5]) == {"compiled", "ONNX Runtime"}


@pytest.mark.skipif(not can_export("cpu"), reason="ONNX Runtime is not installed")
class TestExported:
    """ONNX Runtime itself."""

    def test_it_is_the_same_network_for_any_number_and_size_of_tiles(self) -> None:
        torch.manual_seed(0)
        predictor = from_module(UNet(2, 1, 3, (8, 16), (2,), num_res_units=1), SPEC, device="cpu")
        assert ONNX in backends(predictor)
        for shape in ((1, 1, 32, 32), (3, 1, 32, 32), (2, 1, 48, 64)):
            batch = torch.randn(shape)
            with torch.inference_mode():
                expected, found = predictor(batch), call(predictor, batch, ONNX)
            assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
        tile = Tile((0, 0), (32, 32))
        assert ONNX in timing.measure(Network(predictor, (32, 32)), (tile, torch.randn(1, 32, 32).numpy()), [ONNX], rounds=1)

    def test_what_cannot_be_exported_is_left_out(self) -> None:
        class Odd(torch.nn.Module):
            def forward(self, batch: torch.Tensor) -> torch.Tensor:
                return torch.cat([torch.linalg.eigvals(batch @ batch.mT).real[..., None] + batch] * 3, 1)

        predictor = from_module(Odd(), SPEC, device="cpu")
        found = timing.measure(Network(predictor, (32, 32)), (Tile((0, 0), (32, 32)), np.ones((1, 32, 32), np.float32)), [ONNX], rounds=1)
        assert list(found) == ["exact"]

    def test_the_module_is_let_go(self) -> None:
        module = torch.nn.Conv2d(1, 3, 1)
        predictor = from_module(module, SPEC, device="cpu")
        call(predictor, torch.zeros(1, 1, 32, 32), ONNX)
        gone = weakref.ref(module)
        del module, predictor
        gc.collect()
        assert gone() is None


@pytest.mark.parametrize("room", [8, 5, 1])
def test_several_tiles_are_timed_as_the_run_computes_them_or_fewer(room: int) -> None:
    sizes: list[int] = []

    def forward(batch: torch.Tensor) -> torch.Tensor:
        if len(batch) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(batch))
        return batch.repeat(1, 3, 1, 1)

    network = Network(FunctionPredictor(SPEC, forward), (32, 32))
    ticks = iter(range(100))
    tile = Tile((0, 0), (32, 32)), np.ones((1, 32, 32), np.float32)
    found = timing.measure(network, tile, ["bfloat16"], timer=lambda: float(next(ticks)), batch=8)
    expected = max(size for size in (8, 4, 2, 1) if size <= room)
    assert set(sizes) == {expected}
    assert found == {"exact": 1 / expected, "bfloat16": 1 / expected}


@pytest.mark.parametrize("rounds", [1, 3])
def test_recordings_that_leave_no_memory_for_the_others_are_given_up(rounds: int) -> None:
    class Scarce:
        fast, backend, held, released = False, "bfloat16", False, 0

        def __call__(self, batch: torch.Tensor, tiles: Any) -> torch.Tensor:
            if self.fast and self.backend.endswith("recorded"):
                self.held = True
            elif self.held:
                raise DeviceMemoryError("cuda:0 has no memory left for one tile.")
            return batch

        def release(self) -> None:
            self.held, self.released = False, self.released + 1

    network: Any = Scarce()
    tile = Tile((0, 0), (4, 4)), np.zeros((1, 4, 4), np.float32)
    found = timing.measure(network, tile, ["bfloat16", "bfloat16, recorded"], rounds=rounds)
    assert found.keys() == {"exact", "bfloat16"}
    assert network.released == 1


def test_times_of_several_tiles_are_remembered_apart(measured: list[str]) -> None:
    predictor = from_module(torch.nn.Conv2d(1, 3, 1), SPEC, device="cpu")
    tile = Tile((0, 0), (32, 32)), np.zeros((1, 32, 32), np.float32)
    for batch, times in ((1, 1), (4, 2), (4, 2), (1, 2)):
        Ways(Network(predictor, (32, 32)), predictor, tile, "key", lambda: 0.0, batch=batch)
        assert measured.count("channels last") == times


def test_a_gpu_compiles_whole_batches_and_fills_up_what_is_left_of_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def forward(batch: torch.Tensor) -> torch.Tensor:
        sizes.append(len(batch))
        return batch

    monkeypatch.setattr(torch, "compile", lambda module, **options: module)
    compiled = Compiled(forward)
    for count in (8, 5, 8, 4, 3):  # halved where memory was short
        assert compiled(torch.empty(count, 1, 4, 4, device="meta")).shape == (count, 1, 4, 4)
    assert sizes == [8, 8, 8, 4, 4]


def test_only_processors_export() -> None:
    assert not can_export("cuda:0")


def test_without_a_compiler_nothing_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert not can_compile("cpu")
    monkeypatch.setattr(compiling, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert not can_compile("cuda:0")


@pytest.mark.parametrize("status", [0, 2], ids=["tools", "no tools"])
def test_a_mac_is_not_asked_to_install_a_compiler(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """Its compiler stands there without the tools too, and opens a window that offers them."""
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(compiling.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(compiling.subprocess, "run", lambda words, **options: subprocess.CompletedProcess(words, status))
    assert can_compile("cpu") == (status == 0)


@pytest.mark.skipif(not can_compile("cpu"), reason="there is no C++ compiler here")
@pytest.mark.parametrize(("triton", "version", "possible"), [(True, (9, 0), True), (False, (9, 0), False), (True, (6, 1), False)])
def test_a_gpu_needs_triton_too(triton: bool, version: tuple[int, int], possible: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "find_spec", lambda name: name if triton else None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: version)
    assert can_compile("cuda:0") == possible
    assert not can_compile("mps")


def test_settings_of_the_compiler_hold_during_a_call_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def settings() -> tuple[bool, int]:
        return torch._inductor.config.freezing, torch._dynamo.config.recompile_limit

    def network(batch: torch.Tensor) -> torch.Tensor:
        seen.append(settings())  # the tracer asks too, so they cannot be options of `torch.compile`
        return batch

    seen: list[tuple[bool, int]] = []
    monkeypatch.setattr(torch, "compile", lambda module, **options: module)
    before = settings()
    Compiled(network)(torch.zeros(2, 1, 4, 4))
    assert seen == [(True, 64)] * 2
    assert settings() == before


@pytest.mark.slow
@pytest.mark.skipif(not can_compile("cpu") or not torch.backends.mkldnn.is_available(), reason="there is no C++ compiler or no oneDNN here")
def test_weights_are_laid_out_for_the_processor_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    forward, batch = Compiled(torch.nn.Conv2d(3, 16, 3).eval()), torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        forward(batch)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            forward(batch)
    calls = {event.key for event in profile.key_averages()}
    assert "mkldnn::_convolution_pointwise" in calls
    assert "aten::convolution" not in calls


@pytest.mark.slow
@pytest.mark.skipif(not can_compile("cpu"), reason="there is no C++ compiler here")
@pytest.mark.parametrize("way", ["bfloat16, compiled", "compiled"])
def test_the_compiled_network_is_the_same_network(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.manual_seed(0)
    predictor = from_module(UNet(2, 1, 3, (8, 16), (2,), num_res_units=1), SPEC, device="cpu")
    tile = Tile((0, 0), (32, 32))
    network = Network(predictor, (32, 32))
    for count in (1, 3):  # other numbers of tiles are not compiled anew
        batch = torch.randn(count, 1, 32, 32)
        with torch.inference_mode():
            expected, found = predictor(batch), call(predictor, batch, way)
        assert found.is_contiguous()
        assert (found.float() - expected).abs().max() <= (2e-2 if way.startswith("bfloat16") else 1e-5) * expected.abs().max()
    assert way in timing.measure(network, (tile, batch[0].numpy()), [way], rounds=1)
