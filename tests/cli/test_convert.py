"""Labels from one format into another, and which series of a folder of DICOM is meant."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pydicom.data
import pytest
from pydicom.uid import generate_uid

from napari_tileseg import cli
from napari_tileseg.io import read_volume, write_labels
from napari_tileseg.io.dicom_listing import listing
from napari_tileseg.io.registry import write_image
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., tuple[int, str, str]]

FACTS: dict[str, Any] = {
    "classes": ("background", "liver", "Milz µ"),
    "colors": ("#ff0000", "#00ff80"),
    "provenance": {"model": {"name": "m"}, "options": {"overlap": 0.5}},
}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command in this process and returns status, stdout and stderr."""

    def call(*args: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            cli.main([str(arg) for arg in args])
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    values = np.zeros((6, 8, 10), np.uint8)
    values[1:3, 1:5, 1:5], values[3:5, 4:7, 5:9] = 1, 2
    volume = Volume.from_scale(values, "ZYX", (2.5, 0.5, 0.25), translate=(1, 2, 3), units=("millimeter",) * 3)
    return write_labels(volume, tmp_path / "organs.nii.gz", **FACTS)


@pytest.mark.parametrize("name", ["a.mhd", "a.nhdr", "a.seg.nrrd", "a.mha", "a.ome.tif", "a.ome.zarr", "a.geojson"])
def test_names_colours_and_history_go_along(tmp_path: Path, labels: Path, run: Run, name: str) -> None:
    status, out, _ = run("convert", labels, "-o", tmp_path / name)
    assert (status, out) == (0, f"Saved in {tmp_path / name}\n")
    first, found = read_volume(labels), read_volume(tmp_path / name)
    np.testing.assert_array_equal(np.asarray(found.data), np.asarray(first.data))
    np.testing.assert_allclose(found.affine, first.affine)
    assert found.metadata["provenance"] == FACTS["provenance"]
    assert (tuple(found.metadata["classes"]), tuple(found.metadata["colors"])) == (FACTS["classes"], FACTS["colors"])


def test_a_part_as_a_smooth_mesh(tmp_path: Path, labels: Path, run: Run) -> None:
    for more in ((), ("--only", "Milz µ"), ("--only", "2", "--smooth", "10")):
        assert run("convert", labels, "-o", tmp_path / "a.obj", "--overwrite", *more)[0] == 0
        lines = (tmp_path / "a.obj").read_text("utf-8").splitlines()
        names = [line for line in lines if line.startswith("o ")]
        assert names == (["o Milz_µ"] if more else ["o liver", "o Milz_µ"])
    told = json.loads((tmp_path / "a.obj.json").read_text("utf-8"))
    assert told["provenance"] == FACTS["provenance"]
    status, _, err = run("convert", labels, "-o", tmp_path / "b.stl", "--only", "kidney")
    assert (status, err) == (1, 'There is no "kidney" in these labels. They hold liver, Milz µ.\n')
    assert not (tmp_path / "b.stl").exists()


def test_a_table_tells_intensities_of_the_image(tmp_path: Path, labels: Path, run: Run) -> None:
    found = read_volume(labels)
    image = write_image(
        Volume(np.asarray(found.data).astype(np.float32) * 10, "ZYX", found.affine, found.units), tmp_path / "image.ome.tif"
    )
    assert run("convert", labels, "-o", tmp_path / "a.csv", "--image", image)[0] == 0
    lines = [line.split(",") for line in (tmp_path / "a.csv").read_text("utf-8").splitlines()]
    rows = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    assert [(row["class"], row["mean"], row["max"]) for row in rows] == [("liver", "10", "10"), ("Milz µ", "20", "20")]


def test_nothing_is_replaced_unasked_and_never_the_source(tmp_path: Path, labels: Path, run: Run) -> None:
    before = labels.read_bytes()
    for more, words in (((), "is there already"), (("--overwrite",), "is what is converted")):
        status, _, err = run("convert", labels, "-o", labels, *more)
        assert status in (1, 2)
        assert words in err
    assert labels.read_bytes() == before
    status, out, _ = run("convert", labels, "-o", tmp_path / "a.mha", "--json")
    assert (status, json.loads(out)) == (0, {"event": "saved", "path": str(tmp_path / "a.mha")})


# Several series in a folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with two series as scanners write them."""
    place = tmp_path / "scan"
    place.mkdir()
    template = pydicom.dcmread(pydicom.data.get_testdata_file("CT_small.dcm"))
    for number, (words, count) in enumerate((("early", 3), ("late", 4))):
        template.SeriesInstanceUID, template.SeriesNumber, template.SeriesDescription = generate_uid(), 2 + 3 * number, words
        for index in range(count):
            template.SOPInstanceUID = template.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            template.ImagePositionPatient = [0, 0, 2.5 * index]
            template.save_as(place / f"{number}{index}.dcm")
    return place


def test_series_are_listed_where_one_has_to_be_chosen(folder: Path, run: Run) -> None:
    told = ["2: early, CT, 3 slices of 128 x 128, 0.6615 x 0.6615 x 2.5 mm", "5: late, CT, 4 slices of 128 x 128, 0.6615 x 0.6615 x 2.5 mm"]
    assert listing(folder) == told
    status, out, err = run("estimate", folder, "--model", "hippocampus-3d", "--no-probe")
    assert (status, out) == (2, "")
    assert err.splitlines() == [
        f"  0  {told[0]}",
        f"  1  {told[1]}",
        '"scan" holds 2 series, as listed. Choose one with --series 0, say.',
    ]
    events = [json.loads(line) for line in run("estimate", folder, "--model", "hippocampus-3d", "--no-probe", "--json")[1].splitlines()]
    assert [event["event"] for event in events] == ["series", "series", "error"]
    assert events[1] == {"event": "series", "number": 1, "title": told[1]}


def test_a_series_that_is_named_is_taken(folder: Path, run: Run) -> None:
    assert run("estimate", folder, "--model", "hippocampus-3d", "--no-probe", "--series", "1")[0] == 0
    assert run("estimate", folder / "10.dcm", "--model", "hippocampus-3d", "--no-probe")[0] == 0, "a file tells its series"
    status, _, err = run("estimate", folder, "--model", "hippocampus-3d", "--no-probe", "--series", "7")
    assert status == 1
    assert "Choose series 0 to 1, not 7" in err
