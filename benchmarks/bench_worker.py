"""What it costs to hold the model in a process of its own: a 2048 x 2048 image, in this process and in that one.

The network is tiny, so that what is measured is the way to it and back and not its arithmetic:

    in process   the pipeline called directly, model loaded
    warm         the same job through the supervisor, model loaded: what every run but the first pays
    cold         the same, with the start of the process and the loading of torch and the model: what the first run pays
    blocks       only the image: 16 MiB of float32, read over the exchange file
    window       how long a thread that wants to run every 5 ms had to wait at most, while a run computes on all cores
"""

from __future__ import annotations

import statistics
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_tileseg.job import Job
from napari_tileseg.models.nets import build_network
from napari_tileseg.models.package import write_package
from napari_tileseg.models.predictor import load_model
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.pipeline import segment
from napari_tileseg.volume import Volume
from napari_tileseg.worker import Supervisor
from napari_tileseg.worker.exchange import BlockServer
from napari_tileseg.worker.remote import RemoteArray

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SIDE = 2048


@pytest.fixture(scope="module")
def volume() -> Volume:
    return Volume(np.random.default_rng(0).normal(size=(SIDE, SIDE)).astype(np.float32), "YX")


def _model(folder: Path, channels: list[int]) -> str:
    torch.manual_seed(0)
    arguments = {"spatial_dims": 2, "in_channels": 1, "out_channels": 3, "channels": channels, "stem_channels": channels[0]}
    spec = ModelSpec(
        name="bench",
        axes="CYX",
        channels=1,
        classes=["background", "a", "b"],
        window=(256, 256),
        overlap=0.25,
        architecture="residual_unet",
        arguments=arguments,
    )
    write_package(folder / "bench", spec, build_network("residual_unet", **arguments).state_dict())
    return str(folder / "bench")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return _model(tmp_path_factory.mktemp("tiny"), [4])


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return _model(tmp_path_factory.mktemp("busy"), [16, 32, 64])


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    made = Supervisor(scratch=tmp_path)
    yield made
    made.close()


def _run(supervisor: Supervisor, model: str, volume: Volume) -> None:
    run = supervisor.start(Job(model=model), volume, on_message=lambda message: None)
    assert run.wait(600)
    assert run.state == "done"
    run.remove()


def test_in_process(benchmark: Any, tiny: str, volume: Volume) -> None:
    predictor = load_model(tiny)
    benchmark.pedantic(lambda: segment(volume, predictor), rounds=3, warmup_rounds=1)


def test_warm(benchmark: Any, tiny: str, volume: Volume, supervisor: Supervisor) -> None:
    benchmark.pedantic(lambda: _run(supervisor, tiny, volume), rounds=3, warmup_rounds=1)


def test_cold(benchmark: Any, tiny: str, volume: Volume, supervisor: Supervisor) -> None:
    benchmark.pedantic(lambda: _run(supervisor, tiny, volume), setup=supervisor.unload, rounds=3)


def test_blocks(benchmark: Any, volume: Volume, tmp_path: Path) -> None:
    server = BlockServer(volume, tmp_path / "exchange", lambda answer: array.answer(answer))
    array = RemoteArray(volume.shape, volume.dtype, ask=lambda read: server.ask(read))
    benchmark.extra_info["bytes"] = array.nbytes
    benchmark(lambda: array[...])
    server.close()


@pytest.mark.parametrize("where", ["in process", "in the worker"])
def test_window(benchmark: Any, busy: str, volume: Volume, supervisor: Supervisor, where: str) -> None:
    """A benchmark whose number is in `extra_info`: the longest gap in milliseconds, and the median."""
    if where == "in process":
        predictor = load_model(busy)
        work: Callable[[], Any] = lambda: segment(volume, predictor)  # noqa: E731
    else:
        _run(supervisor, busy, volume)  # loading is not what is asked about here
        work = lambda: _run(supervisor, busy, volume)  # noqa: E731
    gaps: list[float] = []
    over = threading.Event()

    def tick() -> None:
        last = time.perf_counter()
        while not over.is_set():
            time.sleep(0.005)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    ticker = threading.Thread(target=tick)
    ticker.start()
    benchmark.pedantic(work, rounds=1)
    over.set()
    ticker.join()
    benchmark.extra_info["longest gap [ms]"] = round(1e3 * max(gaps), 1)
    benchmark.extra_info["median gap [ms]"] = round(1e3 * statistics.median(gaps), 2)
    print(f"\n{where}: longest gap {1e3 * max(gaps):.1f} ms, median {1e3 * statistics.median(gaps):.2f} ms")
