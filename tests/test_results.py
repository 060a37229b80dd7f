"""Results on the disk are those in memory: streamed into an OME-Zarr, waiting in a scratch store, interrupted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_tileseg.engine.events import Event, Planned, Progress
from napari_tileseg.errors import Cancelled, OptionsError, PredictorError
from napari_tileseg.io import read_volume, zarr_layout
from napari_tileseg.io.zarr_store import ZarrLabels
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.predictor import Predictor, from_module
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.pipeline import save_segmentation, segment
from napari_tileseg.results import IN_MEMORY_BYTES, highest
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path


class Threshold(torch.nn.Module):
    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        bright = batch[:, :1] - 0.5
        return torch.cat([-bright, bright], dim=1)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(zarr_layout, "_SIDE", 16)
    monkeypatch.setattr(zarr_layout, "_SIDE_3D", 16)
    monkeypatch.setattr(zarr_layout, "_DEPTH", 4)
    monkeypatch.setattr(zarr_layout, "_COARSEST", 12)
    monkeypatch.setenv("TILESEG_CACHE", str(tmp_path / "cache"))


def model(axes: str = "CYX", **more: Any) -> Predictor:
    values = {"name": "t", "axes": axes, "channels": 1, "classes": ["background", "cell"], "window": (8,) * (len(axes) - 1)}
    return from_module(Threshold(), ModelSpec.model_validate({**values, **more}), device="cpu")


def image(axes: str) -> Volume:
    sizes = {"T": 2, "Z": 5, "Y": 41, "X": 37}
    data = (np.random.default_rng(0).random([sizes[axis] for axis in axes]) > 0.6).astype(np.float32)
    return Volume.from_scale(data, axes, tuple(0.5 for _ in axes), units=tuple("pixel" if axis == "T" else "micrometer" for axis in axes))


@pytest.mark.parametrize("axes", ["YX", "TYX", "YXT", "ZYX", "TZYX"])
@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_an_ome_zarr_takes_the_labels_as_memory_does(tmp_path: Path, axes: str, output: str) -> None:
    predictor = model("CZYX" if "Z" in axes else "CYX", output=output)
    expected = segment(image(axes), predictor)
    result = segment(image(axes), predictor, out=tmp_path / "a.ome.zarr")
    assert isinstance(result.labels, ZarrLabels)
    np.testing.assert_array_equal(np.asarray(result.labels), expected.labels)
    assert result.counts == expected.counts
    assert [path.name for path in tmp_path.iterdir()] == ["a.ome.zarr"]
    read = read_volume(tmp_path / "a.ome.zarr")
    order = [result.axes.index(axis) for axis in read.axes]
    np.testing.assert_array_equal(np.asarray(read.data), expected.labels.transpose(order))
    assert read.spacing["X"] == 0.5
    assert read.metadata["classes"] == ["background", "cell"]
    assert read.metadata["provenance"]["model"]["name"] == "t"
    assert read.levels


def test_objects_are_streamed_too(tmp_path: Path) -> None:
    class Heads(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return torch.cat([20 * batch - 10, torch.full_like(batch, -10), batch], dim=1)

    spec = model(output="instances", decoder="watershed", heads=["foreground", "border", "distance"], decoder_parameters={}).spec
    pixels = np.zeros((90, 40), np.float32)
    pixels[3:20, 3:20] = pixels[10:70, 25:36] = pixels[50:80, 2:12] = 1
    expected = segment(pixels, from_module(Heads(), spec, device="cpu"), axes="YX")
    result = segment(pixels, from_module(Heads(), spec, device="cpu"), axes="YX", out=tmp_path / "a.ome.zarr")
    np.testing.assert_array_equal(np.asarray(result.labels), expected.labels)
    assert result.counts == expected.counts == {"cell": 3}
    assert highest(result.labels) == 3
    assert read_volume(tmp_path / "a.ome.zarr").dtype == np.int32


@pytest.mark.parametrize("suffix", [".ome.tif", ".nii.gz"])
def test_results_too_large_for_the_memory_wait_on_the_disk(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = image("ZYX")
    expected = segment(volume, model("CZYX"))
    assert isinstance(expected.labels, np.ndarray)
    monkeypatch.setattr("napari_tileseg.results.IN_MEMORY_BYTES", 1000)
    result = segment(volume, model("CZYX"))
    assert isinstance(result.labels, ZarrLabels)
    np.testing.assert_array_equal(np.asarray(result.labels), expected.labels)
    save_segmentation(result, tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(np.asarray(read_volume(tmp_path / f"a{suffix}").data), expected.labels)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    del result
    assert not list((tmp_path / "cache").iterdir())


def test_the_memory_limit_decides(tmp_path: Path) -> None:
    assert IN_MEMORY_BYTES == 2 * 10**9
    flat = Volume(np.zeros((1500, 16), np.float32), "YX")
    options = SegmentOptions(memory_limit=20_000, window=(16, 16), batch=1)
    result = segment(flat, model(), options=options)
    assert isinstance(result.labels, ZarrLabels)
    assert save_segmentation(result, tmp_path / "b.ome.zarr") == tmp_path / "b.ome.zarr"
    assert isinstance(segment(flat, model(), options=SegmentOptions()).labels, np.ndarray)
    with pytest.raises(OptionsError):
        segment(flat, model(), options=SegmentOptions(memory_limit=10))


def test_what_an_interrupted_run_has_finished_is_kept(tmp_path: Path) -> None:
    expected = segment(image("YX"), model()).labels
    asked = 0

    def cancel() -> bool:
        nonlocal asked
        asked += 1
        return asked > 60

    with pytest.raises(Cancelled) as caught:
        segment(image("YX"), model(), out=tmp_path / "a.ome.zarr", cancel=cancel)
    assert caught.value.kept == tmp_path / "a_unfinished.ome.zarr"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.ome.zarr.tileseg", "a_unfinished.ome.zarr"]
    kept = read_volume(tmp_path / "a_unfinished.ome.zarr")
    assert kept.metadata["provenance"]["state"] == "unfinished"
    rows = np.flatnonzero(np.asarray(kept.data).any(axis=1)).max()
    assert 8 < rows < 40
    np.testing.assert_array_equal(kept.data[:rows], expected[:rows])
    events: list[Event] = []
    result = segment(image("YX"), model(), out=tmp_path / "a.ome.zarr", on_event=events.append)
    np.testing.assert_array_equal(np.asarray(result.labels), expected)
    total = next(event.tiles for event in events if isinstance(event, Planned))
    assert 0 < sum(isinstance(event, Progress) for event in events) < total, "what was finished is not computed again"
    assert [path.name for path in tmp_path.iterdir()] == ["a.ome.zarr"]


def test_a_run_that_fails_at_once_leaves_nothing(tmp_path: Path) -> None:
    class Broken(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            raise ValueError("no")

    with pytest.raises(PredictorError):
        segment(image("YX"), from_module(Broken(), model().spec, device="cpu"), out=tmp_path / "a.ome.zarr")
    assert not [path for path in tmp_path.iterdir() if path.name != "cache"]


@pytest.mark.parametrize("axes", ["YX", "TYX", "YXT", "ZYX", "TZYX"])
def test_scores_that_are_too_large_for_the_memory_lie_on_the_disk(tmp_path: Path, axes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = model("CZYX" if "Z" in axes else "CYX")
    options = SegmentOptions(scores=True, uncertainty="entropy", overlap=0.25)
    expected = segment(image(axes), predictor, options=options)
    monkeypatch.setattr("napari_tileseg.results.IN_MEMORY_BYTES", 4 * 41 * 37 - 1)
    result = segment(image(axes), predictor, options=options)
    assert isinstance(expected.scores, np.ndarray)
    assert isinstance(result.scores, ZarrLabels)
    np.testing.assert_array_equal(np.asarray(result.scores), expected.scores)
    np.testing.assert_array_equal(result.scores[1, ..., 3:9], expected.scores[1, ..., 3:9])
    np.testing.assert_array_equal(np.asarray(result.uncertainty), expected.uncertainty)
    assert len(result.scores.arrays) == 1, "nobody looks at scores from afar"
    assert list((tmp_path / "cache").glob("scratch-*"))
    del result
    assert not list((tmp_path / "cache").glob("scratch-*"))
