"""Whatever the format: bad names, full disks and damaged files end in one sentence, and nothing half-written is left."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_tileseg.errors import InputError, OutputError
from napari_tileseg.io import formats, read_volume, write_labels
from napari_tileseg.volume import Volume

VOLUMES = (".stl", ".obj", ".ply", ".mha", ".mhd", ".nrrd", ".nhdr", ".seg.nrrd", ".nii.gz")
FLAT = (".ome.tif", ".tif", ".imagej.tif", ".png", ".geojson", ".coco.json", ".csv")
STORES = (".ome.zarr", ".0.4.ome.zarr")


def labels(suffix: str) -> Volume:
    values = np.random.default_rng(4).integers(0, 6, (4, 40, 50)).astype(np.int32)
    return Volume(values, "ZYX", name="cells") if suffix in VOLUMES else Volume(values[0], "YX", name="cells")


def test_every_format_that_is_written_is_tried_here() -> None:
    written = {item.suffixes[0] for item in formats() if item.writer}
    assert written - {".nii", ".dcm"} == {*VOLUMES, *FLAT, *STORES} - {".nii.gz"}


@pytest.mark.parametrize("suffix", [*VOLUMES, *FLAT, *STORES])
def test_names_with_spaces_and_letters_of_the_world(tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / "données µ 日本 'x' #1"
    folder.mkdir()
    path = write_labels(labels(suffix), folder / f"Zellen – 细胞{suffix}", classes=("background", "Zelle „ß“"), provenance={"model": "µ"})
    more = [f"{path.name}.json"] if suffix in (".stl", ".obj", ".ply", ".csv") else []
    more += [path.name.removesuffix(suffix) + end for pair, end in ((".mhd", ".raw"), (".nhdr", ".raw.gz")) if pair == suffix]
    assert sorted(item.name for item in folder.iterdir()) == sorted([path.name, *more])


@pytest.mark.parametrize("suffix", [*VOLUMES, *FLAT, *STORES])
def test_names_of_three_hundred_letters(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(OutputError, match="could not be written"):
        write_labels(labels(suffix), tmp_path / f"{300 * 'a'}{suffix}")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("suffix", [".imagej.tif", ".png", ".geojson", ".coco.json", ".stl", ".obj", ".ply"])
def test_full_disks(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda count: "temporary")
    (tmp_path / f".temporary.a{suffix}").symlink_to("/dev/full")
    with pytest.raises(OutputError, match="disk is full"):
        write_labels(labels(suffix), tmp_path / f"a{suffix}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".imagej.tif", ".png", ".geojson", ".coco.json"])
@pytest.mark.parametrize("part", [0.0, 0.02, 0.3, 0.7, 0.97])
def test_files_that_are_cut_off(tmp_path: Path, suffix: str, part: float) -> None:
    path = write_labels(labels(suffix), tmp_path / f"a{suffix}")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(InputError) as caught:
        read_volume(path)
    assert f'"a{suffix}"' in str(caught.value)


@pytest.mark.parametrize("suffix", [".imagej.tif", ".geojson", ".coco.json"])
def test_files_under_a_wrong_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.new("L", (8, 8)).save(path, format="BMP")
    with pytest.raises(InputError):
        read_volume(path)


@pytest.mark.parametrize("highest", [65535, 65536])
def test_a_png_holds_sixteen_bits(tmp_path: Path, highest: int) -> None:
    volume = Volume(np.array([[0, highest]]), "YX")
    if highest == 65535:
        np.testing.assert_array_equal(read_volume(write_labels(volume, tmp_path / "a.png")).data, volume.data)
        return
    with pytest.raises(OutputError, match=r"up to 65536 do not fit in PNG.*another format"):
        write_labels(volume, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", FLAT[:-1])
@pytest.mark.parametrize("spacing", [0.0, -1.0, 1e-12, 1e12, float("nan")])
def test_absurd_pixel_sizes_do_no_harm(tmp_path: Path, suffix: str, spacing: float) -> None:
    affine = np.diag([spacing, 0.5, 1.0])
    given = Volume(labels(suffix).data, "YX", affine, ("micrometer", "micrometer"))
    path = write_labels(given, tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(np.asarray(read_volume(path).data), given.data)
    if "json" in suffix:
        json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)  # NaN is no JSON
