"""Estimates do not depend on the computer, and say what the buffers really take."""

from __future__ import annotations

import pytest
import torch

from napari_tileseg.engine import memory
from napari_tileseg.engine.decode import Classes
from napari_tileseg.engine.memory import default_batch, devices, estimate, free_memory
from napari_tileseg.engine.stitch import Slab
from napari_tileseg.engine.strips import Strips
from napari_tileseg.engine.tiles import plan_tiles
from napari_tileseg.engine.weights import importance
from napari_tileseg.models.spec import ModelSpec

SPEC = ModelSpec(name="m", axes="CYX", channels=2, classes=["a", "b", "c"], window=(16, 16))


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
@pytest.mark.parametrize("blending", ["gaussian", "crop"])
def test_the_estimate_is_what_the_buffers_take(output: str, blending: str) -> None:
    plan = plan_tiles((100, 70), (16, 16), overlap=0.5, blending=blending)
    weights, spec = importance(plan.output, blending), SPEC.model_copy(update={"output": output})
    batch = 2 * (2 * 16 * 16 + 3 * 16 * 16) * 4
    strips = Strips(plan, weights, 3, Classes(spec.classes), normalized=output == "sigmoid")
    assert estimate(plan, spec, batch=2).device_bytes == strips.nbytes + batch
    slab = Slab(plan, weights, 3)
    assert estimate(plan, spec, batch=2, scores=True).device_bytes == slab.nbytes + batch


def test_only_the_result_grows_with_the_first_axis() -> None:
    # Both end with a window that is moved inside by the same four pixels.
    short, tall = (estimate(plan_tiles((length, 70), (16, 16), overlap=0.5), SPEC) for length in (100, 10_004))
    assert (short.device_bytes, short.host_bytes) == (tall.device_bytes, tall.host_bytes)
    assert (short.disk_bytes, tall.disk_bytes) == (100 * 70, 10_004 * 70)
    assert tall.tiles > 50 * short.tiles


def test_kept_scores_need_room() -> None:
    plan = plan_tiles((100, 70), (16, 16), overlap=0.5)
    assert estimate(plan, SPEC, scores=True).disk_bytes == 100 * 70 * (1 + 3 * 4)


def test_the_cpu_is_there_and_last() -> None:
    found = devices()
    assert found[-1].name == "cpu"
    assert 0 < found[-1].free <= found[-1].total
    assert len(found) == 1 + torch.cuda.device_count() + torch.backends.mps.is_available()
    assert free_memory("cpu") > 0


def test_what_torch_keeps_of_an_earlier_run_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []

    def of_gpu(place: torch.device) -> tuple[int, int]:
        asked.append(place)
        return 700, 6000

    monkeypatch.setattr(torch.cuda, "mem_get_info", of_gpu)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda place: 5000)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda place: 200)
    assert free_memory("cuda:1") == 700 + 4800
    assert asked == [torch.device("cuda:1")]


def test_one_tile_at_once_without_a_gpu() -> None:
    assert default_batch(plan_tiles((100, 70), (16, 16), overlap=0.5), "cpu") == 1


@pytest.mark.parametrize(
    ("shape", "window", "device", "batch"),
    [
        ((900, 3000), (512, 512), "cpu", 1),
        ((900, 3000), (320, 320), "cpu", 2),
        ((900, 3000), (256, 256), "cpu", 4),
        ((900, 3000), (64, 64), "cpu", 8),
        ((900, 300), (64, 64), "cpu", 5),
        ((200, 200, 200), (48, 64, 48), "cpu", 1),
        ((900, 3000), (64, 64), "mps", 1),
    ],
)
def test_small_tiles_go_together_where_arithmetic_is_fast(shape: tuple[int, ...], window: tuple[int, ...], device: str, batch: int) -> None:
    assert default_batch(plan_tiles(shape, window, overlap=0.0), device, fast=True) == batch


@pytest.mark.parametrize(
    ("shape", "window", "free", "batch"),
    [
        pytest.param((9000, 30000), (256, 256), 1 << 40, 64, id="small tiles, many at once"),
        pytest.param((9000, 30000), (512, 512), 1 << 40, 16, id="larger ones"),
        pytest.param((600, 600, 600), (128, 128, 128), 1 << 40, 8, id="volumes"),
        pytest.param((9000, 1000), (256, 256), 1 << 40, 7, id="no more than a row has"),
        pytest.param((9000, 30000), (256, 256), 1 << 30, 8, id="what half of the free memory takes"),
        pytest.param((600, 600, 600), (128, 128, 128), 1 << 30, 1, id="one, whatever is free"),
    ],
)
def test_a_gpu_gets_as_many_tiles_as_keep_it_busy(
    shape: tuple[int, ...], window: tuple[int, ...], free: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: free)
    assert default_batch(plan_tiles(shape, window, overlap=0.5), "cuda:0") == batch
