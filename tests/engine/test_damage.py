"""Places that cannot be read are found and named; they stop the run, or stay without labels."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tileseg.engine.damage import Damage, place
from napari_tileseg.errors import Cancelled, InputError, UnreadableError
from napari_tileseg.io import read_volume, tiff
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.predictor import Predictor, from_module
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.pipeline import segment
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path


class Bright(torch.nn.Module):
    """Class 1 where the pixel is above zero; 0 counts as dark."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return torch.cat([1e-6 - batch, batch - 1e-6], dim=1)


def bright(**changes: Any) -> Predictor:
    values = {"name": "m", "axes": "CYX", "channels": 1, "classes": ["dark", "bright"], "window": (64, 64), **changes}
    return from_module(Bright(), ModelSpec.model_validate(values), device="cpu")


class Broken:
    """An array in which some boxes cannot be read."""

    def __init__(self, array: np.ndarray, boxes: list[tuple[tuple[int, int], ...]], error: Exception) -> None:
        self.array, self.boxes, self.error = array, boxes, error
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, key: Any) -> np.ndarray:
        spans = [(part, part + 1) if isinstance(part, int) else part.indices(size)[:2] for part, size in zip(key, self.shape, strict=True)]
        for box in self.boxes:
            if all(max(a, c) < min(b, d) for (a, b), (c, d) in zip(box, spans, strict=True)):
                raise self.error
        return self.array[key]


def image_of(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32) + np.float32(0.3)


SKIP = SegmentOptions(unreadable="skip")


@settings(max_examples=10)
@given(data=st.data(), kind=st.sampled_from(["none", "zscore"]), blending=st.sampled_from(["crop", "gaussian"]))
def test_all_that_can_be_read_is_labelled(data: st.DataObject, kind: str, blending: str) -> None:
    shape = (data.draw(st.integers(1, 2)), 256, 320)
    cells = data.draw(st.lists(st.tuples(st.integers(0, shape[0] - 1), st.integers(0, 3), st.integers(0, 4)), max_size=4, unique=True))
    boxes = [((t, t + 1), (64 * y, 64 * y + 64), (64 * x, 64 * x + 64)) for t, y, x in cells]
    image = image_of(shape)
    broken = Volume(Broken(image, boxes, OSError(5, "Input/output error")), "TYX", name="field")
    options = SegmentOptions(unreadable="skip", blending=blending)
    result = segment(broken, bright(normalization={"kind": kind}), options=options)
    lost = np.zeros(shape, bool)
    for box in boxes:
        lost[tuple(slice(*span) for span in box)] = True
    assert not result.labels[lost].any()
    reference = image if kind == "none" else (image - image[~lost].mean()) / max(image[~lost].std(), 1e-9)
    if kind == "none":
        np.testing.assert_array_equal(result.labels[~lost], (reference > 1e-6)[~lost])
    covered = np.zeros(shape, bool)
    for where in result.provenance["unreadable"]:
        parts = {words.split()[0]: words.split()[1:] for words in where.split(", ")}
        spans = {axis: slice(int(low), int(high)) for axis, (low, _, high) in ((axis, parts[axis]) for axis in "YX")}
        covered[int(parts["T"][0]), spans["Y"], spans["X"]] = True
    np.testing.assert_array_equal(covered, lost)
    assert len([text for text in result.warnings if "cannot be read at" in text]) == len(result.provenance["unreadable"])


def test_the_run_stops_there_by_default(tmp_path: Path) -> None:
    image = image_of((500, 200))
    broken = Broken(image, [((300, 360), (70, 80))], OSError(5, "Input/output error"))
    sentence = r'"field" cannot be read at Y 288 to 320, X 64 to 128: \[Errno 5\] Input/output error\. Copy the file again, or'
    with pytest.raises(UnreadableError, match=sentence) as stopped:
        segment(Volume(broken, "YX", name="field"), bright(), out=tmp_path / "a.ome.tif")
    assert stopped.value.kept is not None
    kept = np.asarray(read_volume(stopped.value.kept).data)
    np.testing.assert_array_equal(kept[:160], image[:160] > 1e-6)
    broken.boxes.clear()
    result = segment(Volume(broken, "YX", name="field"), bright(), out=tmp_path / "b.ome.tif")
    np.testing.assert_array_equal(result.labels, image > 1e-6)


def test_nothing_readable_is_an_error() -> None:
    broken = Broken(image_of((90, 90)), [((0, 90), (0, 90))], ValueError("bad"))
    with pytest.raises(UnreadableError, match="Nothing of"):
        segment(Volume(broken, "YX"), bright(normalization={"kind": "zscore"}), options=SKIP)


@pytest.mark.parametrize("error", [Cancelled("stop"), MemoryError()])
def test_what_is_no_damage_is_not_skipped(error: Exception) -> None:
    broken = Broken(image_of((90, 90)), [((0, 90), (0, 90))], error)
    with pytest.raises(type(error)):
        segment(Volume(broken, "YX"), bright(), options=SKIP)


def test_a_sentence_of_a_reader_is_passed_on() -> None:
    broken = Broken(image_of((90, 90)), [((0, 90), (0, 90))], InputError('"a.nii" breaks off.'))
    with pytest.raises(InputError, match=r'"a\.nii" breaks off'):
        segment(Volume(broken, "YX"), bright())


def test_a_broken_tile_of_a_tiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, path = (np.random.default_rng(1).random((512, 384)) * 99 + 1).astype(np.uint16), tmp_path / "slide.tif"
    tifffile.imwrite(path, image, tile=(128, 128), compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages.first.dataoffsets[4]  # the second row of three tiles
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 200)
    monkeypatch.setattr(tiff, "_WHOLE_BYTES", 0)
    volume = read_volume(path)
    with pytest.raises(UnreadableError, match=r'"slide" cannot be read at Y 128 to 160, X 128 to 192: '):
        segment(volume, bright())
    result = segment(volume, bright(), options=SKIP)
    assert result.provenance["unreadable"] == ["Y 128 to 256, X 128 to 256"]
    expected = np.ones(image.shape, np.uint8)
    expected[128:256, 128:256] = 0
    np.testing.assert_array_equal(result.labels, expected)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_tiff_that_is_cut_off(compression: str | None, tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    image = (np.random.default_rng(1).random((512, 384)) * 99 + 1).astype(np.uint16)
    tifffile.imwrite(path, image, tile=(128, 128), compression=compression, photometric="minisblack")
    with tifffile.TiffFile(path) as tif:
        page = tif.pages.first
        end = page.dataoffsets[10] + page.dataoffsets[10] % 2 + page.databytecounts[10] // 2  # in the last row of three tiles
    with path.open("r+b") as file:
        file.truncate(end)
    with pytest.raises(InputError, match="ends after"):
        segment(path, bright())
    result = segment(path, bright(), options=SKIP, out=tmp_path / "labels.ome.tif")
    assert result.provenance["unreadable"] == ["Y 384 to 512, X 128 to 384"]
    expected = np.ones(image.shape, np.uint8)
    expected[384:, 128:] = 0
    np.testing.assert_array_equal(result.labels, expected)


def test_a_broken_chunk_of_a_zarr_array(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path / "image.zarr", shape=(200, 300), chunks=(100, 100), dtype="float32")
    array[:] = 1.0
    (tmp_path / "image.zarr" / "c" / "1" / "2").write_bytes(b"no chunk")
    result = segment(Volume(zarr.open_array(tmp_path / "image.zarr", mode="r"), "YX", name="image"), bright(), options=SKIP)
    lost = result.labels == 0
    assert lost[100:, 200:].all()
    assert not lost[:64].any()
    assert not lost[:, :192].any()


def test_places_join_to_boxes() -> None:
    damage = Damage("a", "skip")

    def fails(region: tuple[slice, ...]) -> np.ndarray:
        raise OSError("no")

    for rows in ((0, 61), (61, 122), (64, 128)):
        assert not list(damage.pieces(fails, (slice(*rows), slice(0, 256)), {"T": 3}, "YX"))
    assert damage.places == ["T 3, Y 0 to 128, X 0 to 256"]
    (sentence,) = damage.news()
    assert sentence == '"a" cannot be read at T 3, Y 0 to 128, X 0 to 256. It is left without labels there.'
    assert damage.news() == []
    again = Damage("a", "skip")
    again.restore(damage.state())
    assert again.places == damage.places
    assert again.news() == []
    assert list(again.lost({"T": 3}, ((100, 200), (5, 6)))) == [((100, 128), (5, 6))]
    assert list(again.lost({"T": 2}, ((100, 200), (5, 6)))) == []
    assert place({}, "YX", ((0, 1), (2, 3))) == "Y 0 to 1, X 2 to 3"


def test_places_that_others_have_found_are_taken_over_once() -> None:
    def torn(region: tuple[slice, ...]) -> Any:
        raise OSError("torn")

    whole, other = Damage("image", "skip"), Damage("image", "skip")
    for damage, box in ((whole, (slice(0, 64), slice(0, 64))), (other, (slice(0, 64), slice(64, 128)))):
        assert not list(damage.pieces(torn, box, {"T": 1}, "YX"))
    for _ in range(2):
        whole.add(json.loads(json.dumps(other.state())))
    assert whole.places == ["T 1, Y 0 to 64, X 0 to 128"]
    fresh = Damage("image", "skip")
    fresh.add(other.state())
    assert fresh.places == other.places
