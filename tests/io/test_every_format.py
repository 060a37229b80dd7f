"""What holds for every format in the registry: labels come back as they were, other readers agree, nothing is replaced unasked."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import nibabel
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_tileseg.errors import InputError, OutputError
from napari_tileseg.io import check_writable, formats, read_volume, write_labels
from napari_tileseg.io.space import xyz_affine
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path

WRITTEN = sorted({suffix for item in formats() if item.writer for suffix in item.suffixes} - {".dcm", ".dicom", ".ima"})
"""All suffixes but those of DICOM, whose labels need their series: ``test_dicom_seg.py``."""

READ_AGAIN = [suffix for suffix in WRITTEN if suffix not in (".csv", ".stl", ".obj", ".ply")]

HIGHEST = {".png": 65535, ".imagej.tif": 2**24, ".imagej.tiff": 2**24}
"""Largest labels, where a format does not take those of 32 bits."""

every = pytest.mark.parametrize("suffix", WRITTEN)


def plain(suffix: str) -> Volume:
    values = np.random.default_rng(4).integers(0, 6, (4, 40, 50)).astype(np.int32)
    return Volume(values[0], "YX", name="cells") if suffix == ".png" else Volume(values, "ZYX", name="cells")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(item.relative_to(folder)): item.read_bytes() for item in sorted(folder.rglob("*")) if item.is_file()}


def one_sentence(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text
    assert text.endswith((".", ").")), text
    assert 1 <= text.count(". ") + 1 <= 3, text
    return text


# Round trips


@st.composite
def phantoms(draw: st.DrawFn, suffix: str) -> tuple[Volume, tuple[str, ...], tuple[str, ...]]:
    """Draw asymmetric labels on a grid of any spacing, place and direction, with names and colours."""
    shape = (draw(st.integers(2, 4)), draw(st.integers(2, 6)), draw(st.integers(2, 7)))
    highest = draw(st.sampled_from([3, 255, 256, 65535, 65536, 2**24, 2**32 - 1]))
    highest = min(highest, HIGHEST.get(suffix, highest))
    values = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 4, shape).astype(np.int64)
    values[0, 0, 1] = values[-1, -1, -1] = highest
    steps = np.array([draw(st.floats(0.01, 50)) for _ in range(3)])
    turn = np.eye(3)
    if draw(st.booleans()):
        for axis, angle in enumerate(draw(st.tuples(*[st.floats(-0.6, 0.6)] * 3))):
            first, second = [other for other in range(3) if other != axis]
            part = np.eye(3)
            part[[first, first, second, second], [first, second, first, second]] = (
                math.cos(angle),
                -math.sin(angle),
                math.sin(angle),
                math.cos(angle),
            )
            turn = turn @ part
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(steps)
    affine[:3, 3] = [draw(st.floats(-500, 500)) for _ in range(3)]
    unit = draw(st.sampled_from(["millimeter", "micrometer", "pixel"]))
    names = ("background", *draw(st.lists(st.sampled_from(["Leber µ", "肝", "a, b; c=d: e", "x"]), min_size=3, max_size=3, unique=True)))
    volume = Volume(values, "ZYX", affine, (unit,) * 3, "phantom")
    if suffix == ".png":
        volume = Volume(values[0], "YX", affine[np.ix_([1, 2, 3], [1, 2, 3])], (unit,) * 2, "phantom")
    return volume, names, ("#ff0000", "#0080ff", "#12ab9f")


@pytest.mark.parametrize("suffix", READ_AGAIN)
@settings(max_examples=12)
@given(data=st.data())
def test_labels_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, suffix: str, data: st.DataObject) -> None:
    volume, names, colors = data.draw(phantoms(suffix))
    told = {"model": {"name": "m"}, "options": {"overlap": 0.5}}
    path = tmp_path_factory.mktemp("trip") / f"a{suffix}"
    found = read_volume(write_labels(volume, path, classes=names, colors=colors, provenance=told))
    np.testing.assert_array_equal(np.asarray(found.data), volume.data)
    assert found.axes == volume.axes
    np.testing.assert_allclose(found.affine, volume.affine, rtol=1e-6, atol=1e-6)
    assert found.units == volume.units
    assert found.metadata["labels"] is True
    assert (tuple(found.metadata["classes"]), tuple(found.metadata["colors"])) == (names, colors)
    assert found.metadata["provenance"] == told
    judge = JUDGES.get(suffix)
    if judge is not None:
        judge(path, volume)


def by_itk(path: Path, labels: Volume) -> None:
    image = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).astype(np.int64), labels.data)
    matrix = xyz_affine(labels)
    if path.suffix in (".mha", ".mhd", ".nii", ".gz") and labels.units[0] == "micrometer":  # ITK has millimetres there
        matrix[:3] *= 1e-3
    for place in ((0, 0, 0), (1, 0, 1), (0, 1, 1)):
        np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(place), (matrix @ (*place, 1))[:3], rtol=1e-4, atol=1e-3)


def by_nibabel(path: Path, labels: Volume) -> None:
    image: Any = nibabel.load(path)
    np.testing.assert_array_equal(np.asarray(image.dataobj).T.astype(np.int64), labels.data)
    ras = np.diag([-1.0, -1, 1, 1]) @ xyz_affine(labels)
    np.testing.assert_allclose(image.affine, ras, rtol=1e-5, atol=1e-3)
    assert image.header.get_xyzt_units()[0] == {"millimeter": "mm", "micrometer": "micron"}.get(labels.units[0], "unknown")
    by_itk(path, labels)


def by_pynrrd(path: Path, labels: Volume) -> None:
    values, header = nrrd.read(str(path))
    np.testing.assert_array_equal(values.T.astype(np.int64), labels.data)
    np.testing.assert_allclose(np.asarray(header["space directions"]).T, xyz_affine(labels)[:3, :3])
    np.testing.assert_allclose(header["space origin"], xyz_affine(labels)[:3, 3])
    by_itk(path, labels)


def by_tifffile(path: Path, labels: Volume) -> None:
    with tifffile.TiffFile(path) as tif:
        assert tif.series[0].axes == "ZYX"
        np.testing.assert_array_equal(tif.asarray().astype(np.int64), labels.data)


def by_zarr(path: Path, labels: Volume) -> None:
    group: Any = zarr.open_group(path, mode="r")
    attributes = dict(group.attrs)
    scales = attributes.get("ome", attributes)["multiscales"][0]
    assert [axis["name"] for axis in scales["axes"]] == ["z", "y", "x"]
    np.testing.assert_array_equal(group[scales["datasets"][0]["path"]][...], labels.data)


def by_pillow(path: Path, labels: Volume) -> None:
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image), labels.data)


JUDGES = {
    **dict.fromkeys((".mha", ".mhd"), by_itk),
    **dict.fromkeys((".nii", ".nii.gz"), by_nibabel),
    **dict.fromkeys((".nrrd", ".nhdr", ".seg.nrrd"), by_pynrrd),
    **dict.fromkeys((suffix for suffix in WRITTEN if ".ome." in suffix and "zarr" not in suffix), by_tifffile),
    **dict.fromkeys((suffix for suffix in WRITTEN if suffix.endswith(".zarr")), by_zarr),
    ".png": by_pillow,
}


# What may not happen


@every
def test_a_file_that_is_there_is_kept(tmp_path: Path, suffix: str) -> None:
    path = write_labels(plain(suffix), tmp_path / f"a{suffix}", provenance={"model": "m"})
    before = contents(tmp_path)
    for refused in (lambda: write_labels(plain(suffix), path), lambda: check_writable(path, overwrite=False)):
        with pytest.raises(OutputError, match="is there already") as caught:
            refused()
        one_sentence(caught.value)
    assert contents(tmp_path) == before


@every
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64])
def test_labels_that_are_no_whole_numbers(tmp_path: Path, suffix: str, dtype: Any) -> None:
    given = plain(suffix)
    with pytest.raises(OutputError, match="whole numbers") as caught:
        write_labels(Volume(np.asarray(given.data).astype(dtype), given.axes), tmp_path / f"a{suffix}")
    one_sentence(caught.value)
    assert not list(tmp_path.iterdir())


@every
def test_a_folder_that_may_not_be_written(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    access = os.access
    monkeypatch.setattr(os, "access", lambda place, mode: False if mode == os.W_OK else access(place, mode))
    with pytest.raises(OutputError, match="Nothing may be written") as caught:
        write_labels(plain(suffix), tmp_path / f"a{suffix}")
    one_sentence(caught.value)
    assert not list(tmp_path.iterdir())


@every
@pytest.mark.parametrize("letter", ["a", "細", "ü"])
def test_names_of_three_hundred_letters(tmp_path: Path, suffix: str, letter: str) -> None:
    with pytest.raises(OutputError, match="could not be written") as caught:
        write_labels(plain(suffix), tmp_path / f"{300 * letter}{suffix}")
    one_sentence(caught.value)
    assert not list(tmp_path.iterdir())


@every
def test_paths_of_three_hundred_letters(tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / ("ü é " * 15 + "1") / ("細胞 " * 20 + "2") / ("n" * 100)
    folder.mkdir(parents=True)
    path = write_labels(plain(suffix), folder / f"Zellen µ{suffix}", provenance={"model": "m"})
    assert path.exists()
    if suffix in READ_AGAIN:
        np.testing.assert_array_equal(np.asarray(read_volume(path).data), plain(suffix).data)


@every
def test_a_disk_that_refuses_leaves_nothing_new(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_labels(plain(suffix), tmp_path / f"a{suffix}", provenance={"model": "m"})
    before = contents(tmp_path)

    def refuse(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OutputError, match="disk is full") as caught:
        write_labels(Volume(np.zeros_like(plain(suffix).data), plain(suffix).axes), path, overwrite=True)
    one_sentence(caught.value)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("suffix", [suffix for suffix in READ_AGAIN if not suffix.endswith(".zarr")])
@pytest.mark.parametrize("part", [0.0, 0.02, 0.3, 0.7, 0.97])
def test_a_file_that_is_cut_off(tmp_path: Path, suffix: str, part: float) -> None:
    given = plain(suffix)
    path = write_labels(given, tmp_path / f"a{suffix}")
    longest = max(tmp_path.iterdir(), key=lambda item: item.stat().st_size)
    whole = longest.read_bytes()
    longest.write_bytes(whole[: int(part * len(whole))])
    try:
        found = np.asarray(read_volume(path).data)
    except InputError as error:
        assert '"a' in one_sentence(error)
    else:
        np.testing.assert_array_equal(found, given.data)
        assert part > 0.9, "only what follows the pixels may be missing"


@pytest.mark.parametrize("suffix", sorted({suffix for item in formats() if item.reader for suffix in item.suffixes}))
@pytest.mark.parametrize("content", ["bitmap", "text", "zeros", "json"])
def test_other_content_under_the_name(tmp_path: Path, suffix: str, content: str) -> None:
    path = tmp_path / f"a{suffix}"
    if content == "bitmap":
        Image.new("L", (8, 8), 7).save(path, format="BMP")
    else:
        path.write_bytes({"text": b"no image at all\n" * 50, "zeros": bytes(5000), "json": b'{"a": [1, 2, {"b": null}]}'}[content])
    try:
        found = read_volume(path)
    except InputError as error:
        assert f'"a{suffix}"' in one_sentence(error)
    else:
        assert content == "bitmap"
        assert suffix in (".bmp", ".png", ".jpg", ".jpeg")
        assert found.shape == (8, 8)
    assert len(list(tmp_path.iterdir())) == 1
