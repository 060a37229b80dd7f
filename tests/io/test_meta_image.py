"""MetaImage and NumPy files: what is theirs alone; places and round trips are looked at with NRRD's."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import SimpleITK as sitk

from napari_tileseg.errors import InputError, OutputError
from napari_tileseg.io import meta_image, read_volume, write_labels
from napari_tileseg.io.lazy import LazyArray
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path


def phantom(dtype: Any = np.int16, shape: tuple[int, ...] = (4, 5, 6)) -> Any:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def save(path: Path, values: Any, *, vector: bool = False, compressed: bool = False) -> Path:
    image = sitk.GetImageFromArray(values, isVector=vector)
    image.SetSpacing([0.5 + axis for axis in range(image.GetDimension())])
    sitk.WriteImage(image, str(path), useCompression=compressed)
    return path


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
def test_large_images_are_read_where_they_are_indexed(
    tmp_path: Path, suffix: str, compressed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meta_image, "_WHOLE_BYTES", 0)
    volume = read_volume(save(tmp_path / f"a{suffix}", phantom(), compressed=compressed))
    assert isinstance(volume.data, LazyArray)
    np.testing.assert_array_equal(volume.data[1:3, ::2, 4], phantom()[1:3, ::2, 4])


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"])
def test_types(tmp_path: Path, dtype: str) -> None:
    volume = read_volume(save(tmp_path / "a.mha", phantom(dtype)))
    assert volume.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(volume.data, phantom(dtype))


def test_time_and_colours(tmp_path: Path) -> None:
    series = read_volume(save(tmp_path / "a.mha", phantom(shape=(2, 4, 5, 6))))
    assert (series.axes, series.spacing["T"], series.units) == ("TZYX", 3.5, ("pixel", *("millimeter",) * 3))
    colours = read_volume(save(tmp_path / "b.mha", phantom(np.uint8, (5, 6, 3)), vector=True))
    assert (colours.axes, colours.channel_names) == ("YXC", ("red", "green", "blue"))
    np.testing.assert_array_equal(colours.data, phantom(np.uint8, (5, 6, 3)))


def test_an_image_that_says_nothing_has_no_unit(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(phantom()), str(tmp_path / "a.mha"))
    assert read_volume(tmp_path / "a.mha").units == ("pixel",) * 3


def test_long_notes_are_kept(tmp_path: Path) -> None:
    provenance = {"sentences": [f"{number} wörter " for number in range(5000)]}
    path = write_labels(Volume(phantom(), "ZYX"), tmp_path / "a.mha", provenance=provenance)
    assert read_volume(path).metadata["provenance"] == provenance
    assert sitk.ReadImage(str(path)).GetSize() == (6, 5, 4)


def test_a_sheared_grid_is_refused(tmp_path: Path) -> None:
    affine = np.eye(4)
    affine[2, 0] = 0.4
    with pytest.raises(OutputError, match="no sheared grid"):
        write_labels(Volume(phantom(), "ZYX", affine), tmp_path / "a.mha")
    assert list(tmp_path.iterdir()) == []


def test_the_library_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.mha", phantom())
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(InputError, match=r'needs SimpleITK. Install it: pip install "napari-tileseg\[medical\]"'):
        read_volume(path)
    write_labels(Volume(phantom(), "ZYX"), tmp_path / "b.mha")  # which needs none


# Files that are not what they should be


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_volume(path)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("compressed", [False, True])
def test_cut_off(tmp_path: Path, compressed: bool) -> None:
    values = np.random.default_rng(0).integers(0, 1000, (20, 20, 20)).astype(np.int16)
    path = save(tmp_path / "a.mha", values, compressed=compressed)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    assert "ends too early" in refusal(path)


def test_voxels_that_are_missing(tmp_path: Path) -> None:
    path = save(tmp_path / "a.mhd", phantom())
    (tmp_path / "a.raw").unlink()
    assert "is missing" in refusal(path) or "ends too early" in refusal(path)


def test_other_content_under_the_name(tmp_path: Path) -> None:
    (tmp_path / "a.mha").write_text("no image at all\n" * 50)
    assert "holds text, not a MetaImage" in refusal(tmp_path / "a.mha")
    (tmp_path / "b.mha").write_bytes(b"\x00\x01\xff" * 500)
    assert "is no MetaImage" in refusal(tmp_path / "b.mha")


@pytest.mark.parametrize("spacing", [b"0 1 1", b"-1 1 1", b"1e40 1 1", b"nan 1 1"])
def test_absurd_pixel_sizes(tmp_path: Path, spacing: bytes) -> None:
    path = save(tmp_path / "a.mha", phantom())
    path.write_bytes(path.read_bytes().replace(b"ElementSpacing = 0.5 1.5 2.5", b"ElementSpacing = " + spacing))
    assert "pixel size" in refusal(path)


# NumPy


def test_arrays_are_mapped(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", phantom())
    volume = read_volume(tmp_path / "a.npy")
    assert isinstance(volume.data, np.memmap)
    assert (volume.axes, volume.metadata["guessed_axes"], volume.units) == ("ZYX", "Z", ("pixel",) * 3)
    np.testing.assert_array_equal(volume.data, phantom())


def test_objects_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}, None]), allow_pickle=True)
    assert "holds Python objects" in refusal(tmp_path / "a.npy")


def test_arrays_that_are_no_images(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(5))
    assert "has 1 axis." in refusal(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.zeros((5, 6), complex))
    assert "complex128" in refusal(tmp_path / "b.npy")
    np.save(tmp_path / "c.npy", phantom(shape=(40, 50, 60)))
    (tmp_path / "c.npy").write_bytes((tmp_path / "c.npy").read_bytes()[:100_000])
    assert refusal(tmp_path / "c.npy") == '"c.npy" ends after 100.0 of 240.1 kB. Copy it again.'
    (tmp_path / "d.npy").write_text("no array")
    assert "holds text" in refusal(tmp_path / "d.npy")
