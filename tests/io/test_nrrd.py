"""NRRD: a voxel stays at the same place of the body, and the segments of 3D Slicer keep names and colours."""

from __future__ import annotations

import gzip
import os
from typing import TYPE_CHECKING, Any

import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tileseg.errors import InputError, OutputError
from napari_tileseg.io import nrrd as module
from napari_tileseg.io import read_volume, write_labels
from napari_tileseg.io.lazy import LazyArray
from napari_tileseg.io.napari_hooks import layer_data, layer_volume
from napari_tileseg.io.order import ordered
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path

INTEGERS = ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]
AXES = ["YX", "ZYX", "TYX", "CYX", "TZYX", "CZYX", "CTYX", "TCZYX", "CTZYX", "YXT", "XY"]
SIZES = {"T": 2, "C": 3, "Z": 4, "Y": 5, "X": 6}
PROVENANCE = {"model": {"name": "nuclei-2d"}, "input": {"name": 'Zellen <µ> "%5C" \\ \n'}, "options": {"overlap": 0.5}}
NAMES, COLORS = ("background", "Leber µ", "b: = c"), ("#ff0000", "#0080ff")


def oblique(angles: tuple[float, ...] = (0.2, -0.1, 0.3), flips: tuple[int, ...] = (1, 1, 1), order: tuple[int, ...] = (0, 1, 2)) -> Any:
    """Return an affine over (z, y, x) with turned, swapped and mirrored axes."""
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        first, second = [other for other in range(3) if other != axis]
        step = np.eye(3)
        step[first, first] = step[second, second] = np.cos(angle)
        step[first, second], step[second, first] = -np.sin(angle), np.sin(angle)
        turn = turn @ step
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(flips) @ np.eye(3)[:, list(order)] @ np.diag((2.5, 1.0, 0.8))
    affine[:3, 3] = (7.125, 12.25, -31.5)
    return affine


def phantom(dtype: Any = np.uint8, shape: tuple[int, ...] = (4, 5, 6), most: int = 250) -> Any:
    return (np.arange(np.prod(shape)) % (2 if np.dtype(dtype) == bool else most)).reshape(shape).astype(dtype)


grids = {
    "angles": st.tuples(*[st.floats(-0.6, 0.6)] * 3),
    "flips": st.tuples(*[st.sampled_from([-1, 1])] * 3),
    "order": st.permutations(range(3)).map(tuple),
}


@settings(max_examples=25)
@given(suffix=st.sampled_from([".nrrd", ".nhdr", ".seg.nrrd", ".mha", ".mhd"]), unit=st.sampled_from(["millimeter", "micrometer"]), **grids)
def test_itk_reads_what_was_written_at_the_same_place(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, unit: str, angles: Any, flips: Any, order: Any
) -> None:
    labels = Volume(phantom(most=7), "ZYX", oblique(angles, flips, order), (unit,) * 3)
    path = write_labels(labels, tmp_path_factory.mktemp("grid") / f"a{suffix}")
    image = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), labels.data)
    factor = 1e-3 if suffix in (".mha", ".mhd") and unit == "micrometer" else 1.0  # MetaImage is in millimetres
    for x, y, z in [(0, 0, 0), (5, 4, 3), (1, 3, 2)]:
        expected = (labels.affine @ (z, y, x, 1))[2::-1] * factor
        np.testing.assert_allclose(image.TransformIndexToPhysicalPoint((x, y, z)), expected, rtol=1e-4, atol=1e-5)
    found = read_volume(path)
    np.testing.assert_allclose(found.affine, labels.affine, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(found.data, labels.data)
    assert found.units == labels.units


@settings(max_examples=25)
@given(**grids)
def test_what_itk_wrote_is_read_at_the_same_place(tmp_path_factory: pytest.TempPathFactory, angles: Any, flips: Any, order: Any) -> None:
    image = sitk.GetImageFromArray(phantom(np.int16))
    matrix = oblique(angles, flips, order)[2::-1, [2, 1, 0]]
    spacing = np.linalg.norm(matrix, axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((matrix / spacing).ravel().tolist())
    image.SetOrigin((1.0, -2.0, 3.5))
    folder = tmp_path_factory.mktemp("itk")
    for suffix in (".nrrd", ".mha", ".mhd"):
        sitk.WriteImage(image, str(folder / f"a{suffix}"), useCompression=suffix == ".mha")
        volume = read_volume(folder / f"a{suffix}")
        assert (volume.axes, volume.units) == ("ZYX", ("millimeter",) * 3)
        np.testing.assert_array_equal(volume.data, phantom(np.int16))
        for x, y, z in [(0, 0, 0), (5, 4, 3), (1, 3, 2)]:
            place = image.TransformIndexToPhysicalPoint((x, y, z))
            np.testing.assert_allclose((volume.affine @ (z, y, x, 1))[2::-1], place, atol=1e-5)


@pytest.mark.parametrize(("dtype", "axes"), [*((dtype, "ZYX") for dtype in INTEGERS), *(("int32", axes) for axes in AXES)])
@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".seg.nrrd", ".mha", ".mhd"])
def test_round_trip(tmp_path: Path, axes: str, dtype: str, suffix: str) -> None:
    if suffix == ".seg.nrrd" and "T" in axes:
        pytest.skip("a segmentation of 3D Slicer holds one moment")
    scale = tuple({"T": 2.0, "C": 1.0, "Z": 2.5, "Y": 0.5, "X": 0.25}[axis] for axis in axes)
    units = tuple({"T": "second", "C": "pixel"}.get(axis, "micrometer") for axis in axes)
    values = phantom(dtype, tuple(SIZES[axis] for axis in axes), most=2 if "C" in axes else 120)
    labels = ordered(Volume.from_scale(values, axes, scale, units=units, name="a"), "CTZYX")
    found = read_volume(write_labels(labels, tmp_path / f"a{suffix}", classes=NAMES, colors=COLORS, provenance=PROVENANCE))
    assert (found.axes, found.units) == (labels.axes, units if axes == labels.axes else labels.units)
    np.testing.assert_array_equal(found.data, labels.data)
    np.testing.assert_allclose(found.affine, labels.affine)
    assert found.metadata["provenance"] == PROVENANCE
    assert (tuple(found.metadata["classes"]), tuple(found.metadata["colors"])) == (NAMES, COLORS)
    assert found.metadata["labels"] is True


@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".seg.nrrd", ".mha", ".mhd"])
def test_labels_without_a_unit_stay_so(tmp_path: Path, suffix: str) -> None:
    labels = Volume.from_scale(phantom(most=3), "ZYX", (2.0, 1.0, 0.5))
    found = read_volume(write_labels(labels, tmp_path / f"a{suffix}"))
    assert found.units == ("pixel",) * 3
    np.testing.assert_allclose(found.affine, labels.affine)


@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".mha", ".mhd"])
def test_the_smallest_type_is_written(tmp_path: Path, suffix: str) -> None:
    assert read_volume(write_labels(Volume(phantom(np.int64), "ZYX"), tmp_path / f"a{suffix}")).dtype == np.uint8
    large = Volume(np.array([[0, 2**40]]), "YX")
    assert read_volume(write_labels(large, tmp_path / f"b{suffix}")).dtype == np.uint64


def test_equal_labels_give_equal_files(tmp_path: Path) -> None:
    labels = Volume(phantom(), "ZYX")
    for suffix in (".nrrd", ".seg.nrrd", ".mha"):
        first, second = (write_labels(labels, tmp_path / f"{name}{suffix}", provenance=PROVENANCE) for name in "ab")
        assert first.read_bytes() == second.read_bytes()


@settings(max_examples=20)
@given(suffix=st.sampled_from([".nrrd", ".mha"]), **grids)
def test_labels_made_in_the_viewer_are_stored_as_their_file(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, angles: Any, flips: Any, order: Any
) -> None:
    folder = tmp_path_factory.mktemp("viewer")
    path = write_labels(Volume(phantom(), "ZYX", oblique(angles, flips, order), ("millimeter",) * 3), folder / f"a{suffix}")
    ((shown, meta, _),) = layer_data(read_volume(path))
    written = read_volume(write_labels(layer_volume(np.asarray(shown), meta), folder / f"b{suffix}"))
    np.testing.assert_array_equal(written.data, phantom())
    np.testing.assert_allclose(written.affine, oblique(angles, flips, order), atol=1e-9)


# What other programs write


def test_right_anterior_superior_is_turned(tmp_path: Path) -> None:
    header = {"space": "RAS", "space directions": np.diag((1.0, 2.0, 3.0)), "space origin": (4.0, 5.0, 6.0)}
    nrrd.write(str(tmp_path / "a.nrrd"), phantom(np.int16).T, header)
    volume = read_volume(tmp_path / "a.nrrd")
    np.testing.assert_allclose(volume.affine, [[3, 0, 0, 6], [0, -2, 0, -5], [0, 0, -1, -4], [0, 0, 0, 1]])


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "ascii"])
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("lazy", [False, True])
def test_encodings(tmp_path: Path, encoding: str, apart: bool, lazy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if lazy:
        monkeypatch.setattr(module, "_WHOLE_BYTES", 0)
    path = tmp_path / ("a.nhdr" if apart else "a.nrrd")
    nrrd.write(str(path), phantom(">i2").T, {"encoding": encoding}, detached_header=apart)
    volume = read_volume(path)
    assert volume.dtype == np.int16
    assert isinstance(volume.data, LazyArray) is (lazy and encoding != "ascii")
    np.testing.assert_array_equal(np.asarray(volume.data), phantom(np.int16))
    np.testing.assert_array_equal(volume.data[1:3, ::2, 4], phantom(np.int16)[1:3, ::2, 4])


def test_sizes_without_a_space(tmp_path: Path) -> None:
    nrrd.write(str(tmp_path / "a.nrrd"), phantom().T, {"spacings": [0.25, 0.5, 2.5], "units": ["um", "um", "um"]})
    volume = read_volume(tmp_path / "a.nrrd")
    assert volume.spacing == pytest.approx({"Z": 2.5, "Y": 0.5, "X": 0.25})
    assert volume.units == ("micrometer",) * 3


@pytest.mark.parametrize(("kind", "axes", "guessed"), [("time", "ZYXT", None), ("RGB-color", "ZYXC", None), ("list", "ZYXC", None)])
def test_kinds_of_axes(tmp_path: Path, kind: str, axes: str, guessed: str | None) -> None:
    header = {
        "space": "LPS",
        "kinds": [kind, "domain", "domain", "domain"],
        "space directions": np.vstack([np.full((1, 3), np.nan), np.eye(3)]),
    }
    nrrd.write(str(tmp_path / "a.nrrd"), phantom(shape=(4, 5, 6, 3)).T, header)
    volume = read_volume(tmp_path / "a.nrrd")
    assert (volume.axes, volume.metadata.get("guessed_axes")) == (axes, guessed)
    assert volume.channel_names == (("red", "green", "blue") if "color" in kind else ())
    np.testing.assert_array_equal(volume.data, phantom(shape=(4, 5, 6, 3)))


# Segments


def test_segments_are_what_slicer_writes(tmp_path: Path) -> None:
    values = np.zeros((4, 5, 6), np.uint8)
    values[1:3, 2, 3:5], values[3, 4, 5] = 1, 2
    labels = Volume(values, "ZYX", oblique(), ("millimeter",) * 3)
    path = write_labels(labels, tmp_path / "a.seg.nrrd", classes=("background", "liver", "vein", "tumour"), colors=("#ff0000", "#0080ff"))
    _, header = nrrd.read(str(path))
    assert [header[f"Segment{number}_Name"] for number in range(3)] == ["liver", "vein", "tumour"]
    assert [header[f"Segment{number}_LabelValue"] for number in range(3)] == ["1", "2", "3"]
    assert [header[f"Segment{number}_Extent"] for number in range(3)] == ["3 4 2 2 1 2", "5 5 4 4 3 3", "0 -1 0 -1 0 -1"]
    assert header["Segment0_Color"] == "1 0 0"
    assert header["Segmentation_MasterRepresentation"] == "Binary labelmap"
    assert len({header[f"Segment{number}_ID"] for number in range(3)}) == 3


def test_masks_that_overlap_are_layers(tmp_path: Path) -> None:
    masks = np.stack([phantom(most=2), phantom(most=3) > 0]).astype(np.uint8)
    path = write_labels(Volume(masks, "CZYX"), tmp_path / "a.seg.nrrd", classes=("liver", "vein"))
    data, header = nrrd.read(str(path))
    assert (data.shape, header["kinds"][0]) == ((2, 6, 5, 4), "list")
    assert [(header[f"Segment{number}_Layer"], header[f"Segment{number}_LabelValue"]) for number in range(2)] == [("0", "1"), ("1", "1")]
    assert sitk.ReadImage(str(path)).GetNumberOfComponentsPerPixel() == 2


def test_objects_are_segments_each(tmp_path: Path) -> None:
    values = np.zeros((4, 5, 6), np.int32)
    values[0, 0, 0], values[1, 1, 1], values[2, 2, 2] = 7, 90_000, 4
    path = write_labels(Volume(values, "ZYX"), tmp_path / "a.seg.nrrd", classes=("background", "nucleus"))
    header = nrrd.read_header(str(path))
    assert [header[f"Segment{number}_Name"] for number in range(3)] == ["nucleus 4", "nucleus 7", "nucleus 90000"]
    found = read_volume(path)
    assert found.metadata["classes"] == ["background", "nucleus"]
    np.testing.assert_array_equal(found.data, values)


def test_names_given_in_slicer_count(tmp_path: Path) -> None:
    path = write_labels(Volume(phantom(most=3), "ZYX"), tmp_path / "a.seg.nrrd", classes=NAMES, colors=COLORS, provenance=PROVENANCE)
    head, _, rest = path.read_bytes().partition(b"\n\n")
    head = head.replace(b"Segment1_Name:=b: = c", b"Segment1_Name:=spleen").replace(b"Segment0_Color:=1 0 0", b"Segment0_Color:=0 1 0")
    path.write_bytes(head + b"\n\n" + rest)
    metadata = read_volume(path).metadata
    assert metadata["classes"] == ["background", "Leber µ", "spleen"]
    assert metadata["colors"] == ["#00ff00", "#0080ff"]
    assert metadata["provenance"] == PROVENANCE


def test_a_file_of_slicer(tmp_path: Path) -> None:
    header = {"space": "LPS", "space directions": np.eye(3), "Segment0_ID": "a", "Segment0_Name": "kidney", "Segment0_LabelValue": "2"}
    nrrd.write(str(tmp_path / "a.seg.nrrd"), phantom(most=3).T, {**header, "Segment0_Color": "0.5 0.25 1", "Segment0_Layer": "0"})
    volume = read_volume(tmp_path / "a.seg.nrrd")
    assert volume.metadata["labels"] is True
    assert volume.metadata["classes"] == ["background", "label 1", "kidney"]
    assert volume.metadata["colors"][1] == "#8040ff"
    assert layer_data(volume)[0][2] == "labels"


# Files that are not what they should be


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_volume(path)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("encoding", "words"), [("raw", "ends after"), ("gzip", "breaks off"), ("bzip2", "breaks off")])
@pytest.mark.parametrize("lazy", [False, True])
def test_cut_off(tmp_path: Path, encoding: str, words: str, lazy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if lazy:
        monkeypatch.setattr(module, "_WHOLE_BYTES", 0)
    values = np.random.default_rng(0).integers(0, 1000, (30, 30, 30)).astype(np.int16)
    nrrd.write(str(tmp_path / "a.nrrd"), values, {"encoding": encoding})
    whole = (tmp_path / "a.nrrd").read_bytes()
    (tmp_path / "a.nrrd").write_bytes(whole[: len(whole) * 3 // 4])
    assert words in refusal(tmp_path / "a.nrrd")


def header_of(tmp_path: Path, *lines: str, voxels: int = 120) -> Path:
    fields = ["NRRD0004", "type: uchar", "dimension: 3", "sizes: 6 5 4", "encoding: gzip", *lines]
    path = tmp_path / "a.nrrd"
    path.write_bytes(("\n".join(fields) + "\n\n").encode() + gzip.compress(bytes(voxels)))
    return path


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("space: LPS\nspace directions: (0,0,0) (0,1,0) (0,0,1)", "a pixel size of 0 along X"),
        ("space: LPS\nspace directions: (1,0,0) (1,0,0) (0,0,1)", "two axes the same direction"),
        ("space: LPS\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,nan,0)", "a place that is no number"),
        ("spacings: 1 -2 1", "a pixel size of 0 along Y"),
        ("spacings: 1 1e40 1", "a pixel size of 1e+40 along Y"),
        ("kinds: domain", "is no NRRD image"),
        ("dimension: four", "is no NRRD image"),
        ("data file: LIST", "keeps its voxels in several files"),
        ("data file: gone.raw", "There is no file"),
    ],
)
def test_lying_headers(tmp_path: Path, line: str, words: str) -> None:
    path = header_of(tmp_path, line)
    with pytest.raises(InputError, match=words.replace("+", r"\+")):
        read_volume(path)


def test_sizes_that_are_not_there(tmp_path: Path) -> None:
    assert "breaks off" in refusal(header_of(tmp_path, voxels=60))


def test_types_that_are_no_numbers(tmp_path: Path) -> None:
    path = header_of(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"type: uchar", b"type: block"))
    assert 'values of type "block"' in refusal(path)


def test_other_content_under_the_name(tmp_path: Path) -> None:
    (tmp_path / "a.nrrd").write_text("no image at all\n" * 50)
    assert "holds text, not a NRRD image" in refusal(tmp_path / "a.nrrd")
    (tmp_path / "b.nrrd").write_bytes(os.urandom(2000).replace(b"NRRD", b""))
    assert "is no NRRD image" in refusal(tmp_path / "b.nrrd")


@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".seg.nrrd", ".mha", ".mhd"])
def test_labels_that_are_none_leave_nothing_behind(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(OutputError, match="Labels are whole numbers; these are float64"):
        write_labels(Volume(np.zeros((4, 5, 6)), "ZYX"), tmp_path / f"a{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_slicer_has_no_time_and_no_negative_labels(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="holds one moment"):
        write_labels(Volume(phantom(), "TYX"), tmp_path / "a.seg.nrrd")
    with pytest.raises(OutputError, match="negative"):
        write_labels(Volume(-phantom(np.int16), "ZYX"), tmp_path / "a.seg.nrrd")


@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".seg.nrrd", ".mha", ".mhd"])
@pytest.mark.parametrize("name", ["with spaces", "ünï-漢", "a" * 200])
def test_names_of_files(tmp_path: Path, suffix: str, name: str) -> None:
    path = write_labels(Volume(phantom(most=3), "ZYX"), tmp_path / f"{name}{suffix}")
    np.testing.assert_array_equal(read_volume(path).data, phantom(most=3))
    with pytest.raises(OutputError, match="is there already"):
        write_labels(Volume(phantom(most=3), "ZYX"), path)


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="could not be written"):
        write_labels(Volume(phantom(), "ZYX"), tmp_path / f"{'a' * 300}.nrrd")
    assert list(tmp_path.iterdir()) == []
