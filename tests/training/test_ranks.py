"""Several processes learn together, started by torchrun: the curve of one process, one model, one voice."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest
from scenes import SMALL, config, folders

from napari_tileseg import train
from napari_tileseg.errors import OptionsError
from napari_tileseg.models.package import read_spec
from napari_tileseg.training.ranks import ALONE, Ranks, joined
from napari_tileseg.training.work_folder import work_folder

if TYPE_CHECKING:
    from pathlib import Path

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "napari_tileseg.cli", "train"]
torchrun = pytest.mark.skipif(sys.platform == "win32", reason="torchrun asks for libuv, which torch is built without there")
# Steps of Adam are as large for a gradient that is only rounding; those of SGD are not. The network has batch normalisation, the loss
# is no mean over crops, every step has two parts, and a discriminator learns beside it.
SETTINGS = {"batch": 4, "accumulation": 2, "optimizer": "sgd", "warmup": 0, "learning_rate": 0.05, "average": 0.5, "adversarial": 0.05}


def started(root: Path, output: Path, *more: str, **changes: object) -> subprocess.Popen[str]:
    """Start two processes on a folder of scenes."""
    settings = {**SMALL, **SETTINGS, **changes}
    fields = [f"{name}={json.dumps(value)}" for name, value in settings.items() if name != "device"]
    command = [*TORCHRUN, "--images", str(root / "images"), "--labels", str(root / "labels"), "--device", "cpu", "-o", str(output)]
    for field in fields:
        command += ["--set", field]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen([*command, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def curves(path: Path) -> dict[str, list[float]]:
    rows = list(csv.DictReader((path / "curves.csv").read_text().splitlines()))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def alike(one: Path, other: Path) -> None:
    here, there = curves(one), curves(other)
    assert here.keys() == there.keys()
    for name, values in here.items():
        np.testing.assert_allclose(values, there[name], rtol=1e-3, atol=2e-3, err_msg=name)
    np.testing.assert_allclose(here["loss"], there["loss"], rtol=3e-4)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes, and beside them what one process makes of them."""
    root = tmp_path_factory.mktemp("ranks")
    train(config(root / "one", **{**folders(root, 8), **SETTINGS, "epochs": 3}))
    return root


@pytest.mark.slow
@torchrun
def test_two_processes_learn_as_one_and_the_first_one_speaks(plain: Path, tmp_path: Path) -> None:
    process = started(plain, tmp_path / "two", epochs=3)
    told, complaints = process.communicate(timeout=180)
    assert process.returncode == 0, complaints
    assert "Warning" not in complaints
    alike(plain / "one", tmp_path / "two")
    assert told.count("Epoch 1 of 3") == told.count("Model of epoch") == complaints.count("2 processes learn together") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["two"], "one model, and nothing beside it"
    assert read_spec(tmp_path / "two").training["images"] == read_spec(plain / "one").training["images"]


@torchrun
@pytest.mark.slow
def test_what_two_began_one_brings_to_an_end(plain: Path, tmp_path: Path) -> None:
    process = started(plain, tmp_path / "m", epochs=3)
    assert process.stdout is not None
    assert any(line.startswith("Epoch 1 of 3") for line in process.stdout)
    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=180)
    assert process.returncode != 0
    assert complaints.count("Stopped. The same command goes on from here.") == 1
    assert (work_folder(tmp_path / "m") / "checkpoint.pt").is_file()
    train(config(tmp_path / "m", images=str(plain / "images"), labels=str(plain / "labels"), **{**SETTINGS, "epochs": 3}))
    alike(plain / "one", tmp_path / "m")


@torchrun
@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_the_death_of_one_ends_all_and_two_go_on(plain: Path, tmp_path: Path, victim: int) -> None:
    process = started(plain, tmp_path / "m", epochs=3)
    assert process.stdout is not None
    assert any(line.startswith("Epoch 1 of 3") for line in process.stdout)
    workers = [child for child in psutil.Process(process.pid).children() if "napari_tileseg.cli" in child.cmdline()]
    dead = next(worker for worker in workers if worker.environ()["RANK"] == str(victim))
    dead.kill()
    began = time.monotonic()
    _, complaints = process.communicate(timeout=120)
    assert process.returncode != 0
    assert complaints.count("Another process of this training has ended") == 1
    assert time.monotonic() - began < 60
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)
    again = started(plain, tmp_path / "m", epochs=3)
    _, complaints = again.communicate(timeout=180)
    assert again.returncode == 0, complaints
    alike(plain / "one", tmp_path / "m")


@torchrun
@pytest.mark.slow
def test_a_batch_that_cannot_be_divided_is_one_sentence(plain: Path, tmp_path: Path) -> None:
    process = started(plain, tmp_path / "m", batch=3)
    _, complaints = process.communicate(timeout=120)
    assert process.returncode != 0
    assert complaints.count("A batch of 3 crops cannot be divided evenly over 2 processes.") == 1
    assert "napari_tileseg/training" not in complaints, "no traceback of ours"
    assert not (tmp_path / "m").exists()


def test_one_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with joined("cpu") as ranks:
        assert ranks is ALONE
    assert ranks.first
    assert ranks.gather(3) == [3]
    assert ranks.once(lambda: 4) == 4
    assert ranks.crops(3, 2) == list(range(6))


@pytest.mark.parametrize(("size", "batch", "accumulation"), [(2, 4, 1), (2, 4, 3), (3, 6, 2)])
def test_every_crop_is_learnt_once_in_its_own_part(size: int, batch: int, accumulation: int) -> None:
    each = np.array([Ranks(rank, size).crops(batch, accumulation) for rank in range(size)])
    for parts in (accumulation, batch * accumulation // size):  # as asked for, and crop by crop where memory is short
        together = np.concatenate([np.sort(part, axis=None) for part in np.split(each, parts, axis=1)])
        assert together.tolist() == list(range(batch * accumulation)), "parts come in the order of a single process"


def test_more_processes_than_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr("torch.cuda.get_arch_list", lambda: ["sm_90"])
    with pytest.raises(OptionsError, match="2 processes were started here, but there are 1 GPUs"):
        Ranks(1, 2, 1, 2).device("auto")
    with pytest.raises(OptionsError, match='cannot share the device "cuda:0"'):
        Ranks(1, 2, 1, 2).device("cuda:0")
