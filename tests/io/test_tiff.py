"""TIFF reading: every value, axis name, spacing and unit that a file holds arrives; files that are broken say so."""

from __future__ import annotations

import gc
import re
import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tileseg.errors import InputError
from napari_tileseg.io import read_volume
from napari_tileseg.io import tiff as tiff_module
from napari_tileseg.io import tiff_unpack as unpack_module
from napari_tileseg.io.lazy import LazyArray

if TYPE_CHECKING:
    from pathlib import Path

DTYPES = ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64"]


def pattern(shape: tuple[int, ...], dtype: str = "uint16") -> np.ndarray[Any, Any]:
    values = np.random.default_rng(7).integers(0, 200, shape)
    return (values > 100) if dtype == "bool" else (values / 2 if dtype.startswith("float") else values % 120).astype(dtype)


@pytest.fixture
def lazily(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff_module, "_WHOLE_BYTES", 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("storage", [{}, {"compression": "zlib"}, {"compression": "zlib", "tile": (16, 32)}], ids=["raw", "zlib", "tiled"])
def test_values_of_every_type(tmp_path: Path, dtype: str, order: Any, storage: dict[str, Any]) -> None:
    if dtype == "bool":
        storage = {key: value for key, value in storage.items() if key != "tile"}  # tifffile writes no tiled bilevel images
    image = pattern((3, 40, 50), dtype)
    tifffile.imwrite(tmp_path / "a.tif", image, byteorder=order, photometric="minisblack", metadata={"axes": "ZYX"}, **storage)
    volume = read_volume(tmp_path / "a.tif")
    assert volume.axes == "ZYX"
    assert volume.dtype == image.dtype
    assert volume.dtype.isnative
    np.testing.assert_array_equal(volume.data, image)


@pytest.mark.usefixtures("lazily")
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "storage", [{}, {"compression": "zlib"}, {"compression": "zlib", "tile": (16, 32), "predictor": True}], ids=["raw", "zlib", "tiled"]
)
def test_large_files_are_read_where_they_are_indexed(tmp_path: Path, order: Any, storage: dict[str, Any]) -> None:
    image = pattern((3, 40, 50))
    tifffile.imwrite(tmp_path / "a.tif", image, byteorder=order, photometric="minisblack", metadata={"axes": "ZYX"}, **storage)
    volume = read_volume(tmp_path / "a.tif")
    assert isinstance(volume.data, LazyArray)
    np.testing.assert_array_equal(volume.data[1, 5:30, 7:41:3], image[1, 5:30, 7:41:3])
    np.testing.assert_array_equal(np.asarray(volume.data), image)
    del volume
    gc.collect()  # an open file would warn here, and warnings are errors


@pytest.mark.usefixtures("lazily")
def test_a_tile_of_a_large_file_needs_little_memory(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4096, 4096), np.uint16), compression="zlib", tile=(256, 256))
    volume = read_volume(tmp_path / "a.tif")
    np.asarray(volume.data[:8, :8])  # what is loaded once and for all does not count
    tracemalloc.start()
    volume.data[300:500, 300:500]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**22 < 4096 * 4096 * 2


@pytest.mark.parametrize("lazy", [False, True])
def test_colours_are_the_last_axis_and_transparency_is_left_out(tmp_path: Path, lazy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if lazy:
        monkeypatch.setattr(tiff_module, "_WHOLE_BYTES", 0)
    image = pattern((20, 30, 4), "uint8")
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", extrasamples=["unassalpha"])
    volume = read_volume(tmp_path / "a.tif")
    assert (volume.axes, volume.shape) == ("YXC", (20, 30, 3))
    np.testing.assert_array_equal(np.asarray(volume.data), image[..., :3])


def test_planar_colours_are_the_first_axis(tmp_path: Path) -> None:
    image = pattern((3, 20, 30), "uint8")
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", planarconfig="separate")
    volume = read_volume(tmp_path / "a.tif")
    assert volume.axes == "CYX"
    np.testing.assert_array_equal(volume.data, image)


def test_grey_with_transparency_is_grey(tmp_path: Path) -> None:
    image = pattern((20, 30, 2), "uint8")
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"])
    volume = read_volume(tmp_path / "a.tif")
    assert volume.axes == "YX"
    np.testing.assert_array_equal(volume.data, image[..., 0])


@settings(max_examples=30)
@given(
    axes=st.sampled_from(["YX", "ZYX", "TYX", "CYX", "TZYX", "ZCYX", "CZYX", "TCYX", "TZCYX", "TCZYX"]),
    steps=st.tuples(*[st.floats(1e-3, 1e3)] * 3),
    unit=st.sampled_from([("µm", "micrometer"), ("nm", "nanometer"), ("mm", "millimeter"), ("Å", "angstrom"), ("pixel", "pixel")]),
)
def test_ome_axes_spacing_and_units(
    tmp_path_factory: pytest.TempPathFactory, axes: str, steps: tuple[float, ...], unit: tuple[str, str]
) -> None:
    path = tmp_path_factory.mktemp("ome") / "a.ome.tif"
    shape = tuple({"T": 2, "C": 3, "Z": 4, "Y": 5, "X": 6}[axis] for axis in axes)
    image = pattern(shape)
    metadata: dict[str, Any] = {"axes": axes, "TimeIncrement": 2.5, "TimeIncrementUnit": "min"}
    for axis, step in zip("ZYX", steps, strict=True):
        metadata |= {f"PhysicalSize{axis}": step, f"PhysicalSize{axis}Unit": unit[0]}
    if "C" in axes:
        metadata["Channel"] = {"Name": ["DAPI", "actin", "tubulin"]}
    tifffile.imwrite(path, image, photometric="minisblack", metadata=metadata)
    volume = read_volume(path)
    assert volume.axes == axes
    np.testing.assert_array_equal(volume.data, image)
    expected = dict(zip("ZYX", steps, strict=True)) | {"T": 2.5, "C": 1.0}
    names = dict.fromkeys("ZYX", unit[1]) | {"T": "minute", "C": "pixel"}
    assert volume.spacing == pytest.approx({axis: expected[axis] for axis in axes})
    assert volume.unit == {axis: names[axis] for axis in axes}
    assert volume.channel_names == (("DAPI", "actin", "tubulin") if "C" in axes else ())


def test_ome_sizes_without_a_unit_are_micrometres(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.ome.tif", pattern((5, 6)), metadata={"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25})
    volume = read_volume(tmp_path / "a.ome.tif")
    assert volume.spacing == {"Y": 0.25, "X": 0.5}
    assert volume.units == ("micrometer", "micrometer")


def test_a_coarse_level_lies_where_the_fine_one_does(tmp_path: Path) -> None:
    fine = pattern((64, 48))
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as writer:
        metadata = {"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
        writer.write(fine, subifds=2, tile=(16, 16), metadata=metadata)
        writer.write(fine[::2, ::2], subfiletype=1, tile=(16, 16))
        writer.write(fine[::4, ::4], subfiletype=1, tile=(16, 16))
    finest = read_volume(tmp_path / "a.ome.tif")
    volume = read_volume(tmp_path / "a.ome.tif", level=2)
    assert finest.metadata["levels"] == 3
    assert (volume.shape, volume.spacing) == ((16, 12), {"Y": 2.0, "X": 2.0})
    # The outer corners of both grids are the same points: half a pixel outside the first pixel's centre.
    for corner in ([-0.5, -0.5, 1], [15.5, 11.5, 1]):
        point = volume.affine @ corner
        fine_corner = [4 * (corner[0] + 0.5) - 0.5, 4 * (corner[1] + 0.5) - 0.5, 1]
        np.testing.assert_allclose(point, finest.affine @ fine_corner)


def test_the_second_image_of_a_file(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as writer:
        writer.write(pattern((5, 6)), metadata={"axes": "YX", "PhysicalSizeX": 1.0, "PhysicalSizeY": 1.0})
        writer.write(pattern((7, 8)), metadata={"axes": "YX", "PhysicalSizeX": 3.0, "PhysicalSizeY": 3.0})
    volume = read_volume(tmp_path / "a.ome.tif", series=1)
    assert (volume.shape, volume.spacing["X"], volume.metadata["series"]) == ((7, 8), 3.0, 2)
    with pytest.raises(InputError, match="series 0 to 1, not 2"):
        read_volume(tmp_path / "a.ome.tif", series=2)
    with pytest.raises(InputError, match="level 0 to 0, not 1"):
        read_volume(tmp_path / "a.ome.tif", level=1)


@pytest.mark.parametrize(
    "unit",
    [b"um", b"micron", b"microns", b"micrometer", b"Micrometers", b"\\u00B5m", "µm".encode(), "μm".encode(), "µm".encode("latin-1")],
)
def test_imagej_micrometres_in_every_spelling(tmp_path: Path, unit: bytes) -> None:
    image = pattern((4, 5, 6))
    # tifffile writes plain ASCII only; other programs do not.
    metadata = {"axes": "ZYX", "spacing": 1.5, "unit": "#" * len(unit)}
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, image, imagej=True, resolution=(4.0, 2.0), metadata=metadata)
    path.write_bytes(path.read_bytes().replace(b"#" * len(unit), unit, 1))
    volume = read_volume(path)
    assert volume.spacing == pytest.approx({"Z": 1.5, "Y": 0.5, "X": 0.25})
    assert volume.units == ("micrometer",) * 3
    np.testing.assert_array_equal(volume.data, image)


def test_imagej_without_a_unit_is_in_pixels(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pattern((4, 5, 6)), imagej=True, resolution=(72.0, 72.0), metadata={"axes": "TYX"})
    volume = read_volume(tmp_path / "a.tif")
    assert (volume.axes, volume.units, set(volume.spacing.values())) == ("TYX", ("pixel",) * 3, {1.0})


@pytest.mark.usefixtures("lazily")
def test_imagej_hyperstack_is_mapped(tmp_path: Path) -> None:
    image = pattern((2, 3, 4, 20, 30))
    tifffile.imwrite(tmp_path / "a.tif", image, imagej=True, metadata={"axes": "TZCYX"})
    volume = read_volume(tmp_path / "a.tif")
    assert volume.axes == "TZCYX"
    np.testing.assert_array_equal(volume.data[1, :, 2], image[1, :, 2])


@pytest.mark.parametrize(
    ("resolution", "unit", "expected"),
    [
        ((20000, 20000), "CENTIMETER", ("micrometer", 0.5)),
        ((25400, 25400), "INCH", ("micrometer", 1.0)),
        ((300, 300), "INCH", ("pixel", 1.0)),  # a print setting
        ((28.35, 28.35), "CENTIMETER", ("pixel", 1.0)),
        ((20000, 20000), "NONE", ("pixel", 1.0)),
    ],
)
def test_resolution_tags_are_believed_where_they_are_plausible(
    tmp_path: Path, resolution: tuple[float, float], unit: str, expected: tuple[str, float]
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pattern((5, 6)), resolution=resolution, resolutionunit=unit, metadata=None)
    volume = read_volume(tmp_path / "a.tif")
    assert volume.units == (expected[0],) * 2
    assert volume.spacing == pytest.approx({"Y": expected[1], "X": expected[1]})


def test_axes_without_a_name_are_guessed_and_said_so(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pattern((4, 5, 6)), metadata=None, photometric="minisblack")
    volume = read_volume(tmp_path / "a.tif")
    assert (volume.axes, volume.metadata["guessed_axes"]) == ("ZYX", "Z")
    tifffile.imwrite(tmp_path / "b.tif", pattern((4, 5, 6)), metadata={"axes": "TYX"}, photometric="minisblack")
    assert "guessed_axes" not in read_volume(tmp_path / "b.tif").metadata


def test_one_pixel(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.array([[7]], np.uint8))
    volume = read_volume(tmp_path / "a.tif")
    assert (volume.axes, np.asarray(volume.data).tolist()) == ("YX", [[7]])


# Files that are not what they should be


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_volume(path)
    message = str(caught.value)
    assert path.name in message
    assert len(message) < 200
    assert "\n" not in message
    return message


def test_missing(tmp_path: Path) -> None:
    assert "There is no file" in refusal(tmp_path / "a.tif")


def test_folder(tmp_path: Path) -> None:
    (tmp_path / "a.tif").mkdir()
    assert "is a folder" in refusal(tmp_path / "a.tif")


def test_empty(tmp_path: Path) -> None:
    (tmp_path / "a.tif").touch()
    assert "0 bytes" in refusal(tmp_path / "a.tif")


def test_text(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_text("These are not the pixels you are looking for.\n" * 20)
    assert "holds text, not a TIFF image" in refusal(tmp_path / "a.tif")


def test_noise(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(np.random.default_rng(0).bytes(5000))
    assert "is no TIFF image" in refusal(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["plain.tif", "imagej.tif", "ome.ome.tif", "tiled.tif", "big.tif", "libtiff.tif"])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.97])
def test_cut_off(tmp_path: Path, name: str, share: float) -> None:
    image = np.random.default_rng(1).integers(0, 60000, (6, 130, 170)).astype(np.uint16)
    path = tmp_path / name
    match name:
        case "imagej.tif":
            tifffile.imwrite(path, image, imagej=True, metadata={"axes": "ZYX"})
        case "tiled.tif":
            tifffile.imwrite(path, image, tile=(32, 32), compression="zlib", photometric="minisblack")
        case "big.tif":
            tifffile.imwrite(path, image, bigtiff=True, photometric="minisblack", metadata=None)
        case "libtiff.tif":  # the directory after the pixels
            from PIL import Image

            Image.fromarray(image[0]).save(path, compression="tiff_deflate")
        case _:
            tifffile.imwrite(path, image, photometric="minisblack")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    message = refusal(path)
    assert message.endswith("Copy it again.")
    sizes = re.search(r"ends after ([\d.]+) of (at least )?([\d.]+) (kB|bytes)", message)
    assert sizes, message
    unit = {"kB": 1000, "bytes": 1}[sizes[4]]
    assert float(sizes[1]) * unit == pytest.approx(len(whole) * share, abs=0.1 * unit)
    assert float(sizes[1]) < float(sizes[3]) <= len(whole) / unit + 0.1


def test_values_that_are_no_intensities(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((4, 4), np.complex64))
    assert "complex64" in refusal(tmp_path / "a.tif")


def test_axes_with_another_meaning(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pattern((4, 5, 6)), metadata={"axes": "HYX"}, photometric="minisblack")
    assert "lifetime" in refusal(tmp_path / "a.tif")


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("storage", ["subifds", "pages"])
@pytest.mark.parametrize("colour", [False, True])
def test_volumes_know_their_coarser_levels(tmp_path: Path, lazy: bool, storage: str, colour: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff_module, "_WHOLE_BYTES", 0 if lazy else 2**26)
    fine = pattern((128, 96, 3) if colour else (128, 96), "uint8")
    settings: dict[str, Any] = {"tile": (16, 16), "compression": "zlib", "photometric": "rgb" if colour else "minisblack"}
    with tifffile.TiffWriter(tmp_path / "a.tif", ome=storage == "subifds") as writer:
        ome = {"axes": "YXS" if colour else "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5} if storage == "subifds" else None
        writer.write(fine, metadata=ome, resolution=(20000, 20000), resolutionunit="CENTIMETER", **settings, subifds=2 if ome else None)
        for step in (2, 4):
            writer.write(fine[::step, ::step], subfiletype=1, metadata=None, **settings)
    volume = read_volume(tmp_path / "a.tif")
    assert isinstance(volume.data, LazyArray) == lazy
    np.testing.assert_array_equal(np.asarray(volume.data), fine)
    assert [level.shape[:2] for level in volume.levels] == [(64, 48), (32, 24)]
    for level, step in zip(volume.levels, (2, 4), strict=True):
        assert level.axes == volume.axes
        assert level.spacing["X"] == pytest.approx(0.5 * step)
        np.testing.assert_array_equal(np.asarray(level.data), fine[::step, ::step])
        np.testing.assert_array_equal(level.data[3:9, 5:20], fine[::step, ::step][3:9, 5:20])
    assert len(read_volume(tmp_path / "a.tif", level=1).levels) == 1
    del volume, level
    gc.collect()  # an open file would warn here


@pytest.mark.usefixtures("lazily")
@pytest.mark.parametrize(
    ("order", "dtype", "compression", "predictor", "rows", "colour"),
    [
        ("<", "uint8", "zlib", True, 64, True),
        (">", "int16", "zlib", True, 27, False),
        ("<", "uint32", "zlib", True, 27, False),
        (">", "float32", "zlib", True, 64, False),
        (">", "float32", "zlib", False, 27, True),
        (">", "uint32", "zlib", False, 64, True),
        ("<", "uint8", "lzw", True, 27, True),
        (">", "int16", "zstd", False, 64, False),
    ],
)
def test_huge_pieces_are_unpacked_once(
    tmp_path: Path,
    order: Any,
    dtype: str,
    compression: str,
    predictor: bool,
    rows: int,
    colour: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unpack_module, "_HUGE_BYTES", 0)
    monkeypatch.setattr(unpack_module, "_READ_BYTES", 100)
    monkeypatch.setenv("TILESEG_CACHE", str(tmp_path / "cache"))
    image = pattern((2, 64, 50, 3) if colour else (2, 64, 50), dtype)
    tifffile.imwrite(
        tmp_path / "a.tif",
        image,
        byteorder=order,
        rowsperstrip=rows,
        compression=compression,
        predictor=predictor,
        photometric="rgb" if colour else "minisblack",
        metadata={"axes": "ZYXS" if colour else "ZYX"},
    )
    volume = read_volume(tmp_path / "a.tif")
    np.testing.assert_array_equal(np.asarray(volume.data), image)
    np.testing.assert_array_equal(volume.data[1, 5:40:3, 7], image[1, 5:40:3, 7])
    assert list((tmp_path / "cache").iterdir())
    del volume
    gc.collect()
    assert not list((tmp_path / "cache").iterdir())


def test_a_huge_strip_streams_through_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILESEG_CACHE", str(tmp_path / "cache"))
    image = np.random.default_rng(0).integers(0, 8, (9000, 9000), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image, compression="zlib", rowsperstrip=9000, compressionargs={"level": 1})
    np.asarray(np.zeros(3))
    tracemalloc.start()
    volume = read_volume(tmp_path / "a.tif")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4e7 < image.nbytes
    np.testing.assert_array_equal(volume.data[8000:8100, 30:60], image[8000:8100, 30:60])
