"""What was measured of a model is remembered on this computer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from napari_tileseg.cli import app
from napari_tileseg.folders import cache_folder
from napari_tileseg.models.facts import Facts, facts, remember, sentence
from napari_tileseg.models.predictor import Predictor, load_model
from napari_tileseg.models.registry import find_spec
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.pipeline import segment

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TILESEG_CACHE", str(tmp_path / "cache"))


def test_what_is_known_grows_and_devices_do_not_mix() -> None:
    assert facts("ab" * 32) == []
    remember("ab" * 32, "cpu", load_seconds=0.5)
    remember("ab" * 32, "cuda:0", load_seconds=2, memory=3 * 10**9, tile_seconds=0.01)
    remember("ab" * 32, "cpu", tile_seconds=0.25)
    remember("ab" * 32, "cpu")
    remember("", "cpu", tile_seconds=1)
    assert facts("ab" * 32) == [Facts("cpu", 0.5, None, 0.25), Facts("cuda:0", 2, 3 * 10**9, 0.01)]
    assert facts("cd" * 32) == facts("") == []
    assert [path.suffix for path in (cache_folder() / "facts").iterdir()] == [".json"]
    assert not list((cache_folder() / "facts").glob(".*"))


def test_they_are_said_in_words() -> None:
    assert sentence(Facts("cpu", 0.5, None, 0.25)) == "cpu: loads in 0.5 s, first tile after 0.25 s"
    assert sentence(Facts("cuda:0", None, 3 * 10**9)) == "cuda:0: 3.00 GB on the device"


@pytest.mark.parametrize("text", ["{", "7", "[3, {}, {'device': 2}]", '[{"device": "cpu", "memory": "much"}]'])
def test_a_damaged_file_is_forgotten(text: str) -> None:
    remember("ab" * 32, "cpu", memory=5)
    (place,) = (cache_folder() / "facts").iterdir()
    place.write_text(text)
    assert all(fact == Facts("cpu") for fact in facts("ab" * 32))
    remember("ab" * 32, "cpu", memory=6)
    assert facts("ab" * 32) == [Facts("cpu", memory=6)]


def test_a_disk_that_refuses_is_no_reason_to_stop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TILESEG_CACHE", str(tmp_path / "file"))
    remember("ab" * 32, "cpu", memory=5)
    assert facts("ab" * 32) == []


def test_a_run_measures_and_show_says_so() -> None:
    spec = find_spec("nuclei-2d")
    predictor = load_model("nuclei-2d", device="cpu")
    (loaded,) = facts(spec.weights_sha256)
    assert loaded.device == "cpu"
    assert loaded.load_seconds is not None
    assert loaded.load_seconds > 0
    assert loaded.tile_seconds is None
    segment(np.random.default_rng(0).random((64, 64), np.float32), predictor, axes="YX")
    (computed,) = facts(spec.weights_sha256)
    assert computed.load_seconds == loaded.load_seconds
    assert computed.tile_seconds is not None
    segment(np.random.default_rng(0).random((64, 64), np.float32), predictor, axes="YX")
    assert facts(spec.weights_sha256) == [computed]  # the first tile is the first one
    shown = CliRunner().invoke(app, ["models", "show", "nuclei-2d"]).output
    assert f"Measured on {sentence(computed)}" in shown


@pytest.mark.parametrize(("checksum", "memory"), [("ab" * 32, 500), ("", None)])
def test_the_memory_of_a_gpu_is_that_of_this_model(monkeypatch: pytest.MonkeyPatch, checksum: str, memory: int | None) -> None:
    """Not the most that any model has taken before; and a model that is not remembered disturbs nobody who measures."""
    most = [9000]
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: most.append(500))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: most[-1])

    class There:
        def to(self, device: str) -> torch.Tensor:
            return torch.zeros(1, 1, 8, 8)

    spec = ModelSpec(name="m", axes="CYX", channels=1, classes=["a", "b"], window=(8, 8), weights_sha256=checksum)
    predictor = Predictor(torch.nn.Conv2d(1, 2, 1), spec, "cpu")
    predictor.device = "cuda:0"
    predictor(cast("torch.Tensor", There()))
    assert [fact.memory for fact in facts(checksum)] == ([memory] if checksum else [])
    assert most == ([9000, 500] if checksum else [9000])


def test_the_file_is_plain_json() -> None:
    remember("ab" * 32, "cpu", load_seconds=0.5)
    (place,) = (cache_folder() / "facts").iterdir()
    assert json.loads(place.read_text()) == [{"device": "cpu", "load_seconds": 0.5, "memory": None, "tile_seconds": None}]
