"""Times are remembered by everything that they depend on, and a damaged memory is no error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from napari_tileseg.engine.timings import expected_seconds, recall, remember, timing_key
from napari_tileseg.folders import cache_folder
from napari_tileseg.models.spec import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path

SPEC = ModelSpec(name="m", axes="CYX", channels=1, classes=["a", "b"], window=(32, 32), weights_sha256="1" * 64)


@pytest.fixture(autouse=True)
def _own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TILESEG_CACHE", str(tmp_path / "cache"))


def test_what_is_remembered_is_recalled_and_added_to() -> None:
    key = timing_key(SPEC, (32, 32), "cpu", threads=2)
    assert recall(key) == {}
    remember(key, {"exact": 2.0})
    remember(key, {"bfloat16": 1.0})
    assert recall(key) == {"exact": 2.0, "bfloat16": 1.0}


def test_another_window_device_or_number_of_threads_is_another_time() -> None:
    keys = {
        timing_key(spec, window, device, threads=threads, tta=tta)
        for spec in (SPEC, SPEC.model_copy(update={"weights_sha256": "2" * 64}))
        for window in ((32, 32), (64, 32))
        for device in ("cpu", "cuda:0")
        for threads in (1, 2)
        for tta in (False, True)
    }
    assert len(keys) == 2**5


def test_a_model_without_a_checksum_is_not_remembered() -> None:
    key = timing_key(SPEC.model_copy(update={"weights_sha256": ""}), (32, 32), "cpu", threads=2)
    remember(key, {"exact": 2.0})
    assert recall(key) == {}
    assert not cache_folder().exists()


@pytest.mark.parametrize("content", ["", "[1, 2]", '{"a": 3}', "{"])
def test_a_damaged_file_is_taken_for_an_empty_one(content: str) -> None:
    cache_folder().mkdir()
    (cache_folder() / "timings.json").write_text(content)
    assert recall("a") == {}
    remember("a", {"exact": 1.0})
    assert recall("a") == {"exact": 1.0}


def test_the_file_does_not_grow_for_ever() -> None:
    for index in range(300):
        remember(str(index), {"exact": 1.0})
    assert recall("0") == {}
    assert recall("299") == {"exact": 1.0}


def test_a_folder_that_cannot_be_made_stops_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TILESEG_CACHE", str(tmp_path / "file" / "below"))
    remember("a", {"exact": 1.0})
    assert recall("a") == {}


def test_the_last_time_is_expected_again() -> None:
    assert expected_seconds(SPEC, (32, 32), "auto") is None
    remember(timing_key(SPEC, (32, 32), "cpu", threads=2), {"run exact": 2.0, "run bfloat16": 1.0, "exact": 0.1})
    assert expected_seconds(SPEC, (32, 32), "auto") == 2.0
    assert expected_seconds(SPEC, (32, 32), "cpu", fast=True) == 1.0
    remember(timing_key(SPEC, (32, 32), "cuda:0", threads=2), {"run exact": 0.5})
    assert expected_seconds(SPEC, (32, 32), "auto") == 0.5
    assert expected_seconds(SPEC, (32, 32), "cpu") == 2.0
    assert expected_seconds(SPEC, (64, 64), "auto") is None
    assert expected_seconds(SPEC, (32, 32), "auto", tta=True) is None
