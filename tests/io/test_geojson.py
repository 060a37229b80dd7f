"""GeoJSON: the same labels again, classes and colours as QuPath spells them, and sentences for files that are none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_tileseg.errors import InputError, OutputError
from napari_tileseg.io import planes, read_volume, write_labels
from napari_tileseg.io.lazy import LazyArray
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path

SIZES = {"T": 2, "C": 2, "Z": 3, "Y": 6, "X": 7}
CLASSES = ("background", "gland", "tumour")
COLORS = ("#ff8000", "#0040c0")


def stack(axes: str, highest: int = 5) -> Volume:
    values = np.random.default_rng(5).integers(0, highest + 1, [SIZES[axis] for axis in axes])
    units = tuple({"T": "second", "C": "pixel"}.get(axis, "micrometer") for axis in axes)
    scale = tuple({"T": 2.0, "C": 1.0, "Z": 2.5, "Y": 0.5, "X": 0.25}[axis] for axis in axes)
    return Volume.from_scale(values, axes, scale, units=units, name="slide")


def square(left: int, top: int, side: int = 4, **properties: Any) -> dict[str, Any]:
    ring = [[left, top], [left + side, top], [left + side, top + side], [left, top + side], [left, top]]
    return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": properties}


def saved(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".geojson", ".coco.json"])
@pytest.mark.parametrize("axes", ["YX", "XY", "ZYX", "TYX", "TZYX"])
def test_labels_place_names_and_provenance_come_back(tmp_path: Path, axes: str, suffix: str) -> None:
    given_labels = stack(axes)
    path = write_labels(given_labels, tmp_path / f"Zellen µ{suffix}", classes=CLASSES, colors=COLORS, provenance={"model": "ü"})
    found = read_volume(path)
    expected = given_labels.data.T if axes == "XY" else given_labels.data
    assert found.axes == axes.replace("XY", "YX")
    np.testing.assert_array_equal(found.data, expected)
    assert found.spacing == given_labels.spacing
    assert found.unit == given_labels.unit
    assert found.metadata["provenance"] == {"model": "ü"}
    assert (found.metadata["classes"], found.metadata["colors"]) == (list(CLASSES), list(COLORS))
    assert found.metadata["labels"] is True


@pytest.mark.parametrize("suffix", [".geojson", ".coco.json"])
def test_masks_that_overlap_come_back(tmp_path: Path, suffix: str) -> None:
    masks = stack("CYX", 1)
    found = read_volume(write_labels(masks, tmp_path / f"a{suffix}", classes=("gland", "tumour"), colors=COLORS))
    assert found.axes == "CYX"
    np.testing.assert_array_equal(found.data, masks.data)


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.uint16, st.tuples(st.integers(1, 8), st.integers(1, 8)), elements=st.sampled_from([0, 0, 1, 2, 3, 40000])))
def test_every_picture_of_labels_comes_back(tmp_path_factory: pytest.TempPathFactory, values: Any) -> None:
    folder = tmp_path_factory.mktemp("pictures")
    for suffix in (".geojson", ".coco.json"):
        found = read_volume(write_labels(Volume(values, "YX"), folder / f"a{suffix}"))
        np.testing.assert_array_equal(found.data, values)


def test_objects_are_detections_of_their_class(tmp_path: Path) -> None:
    path = write_labels(stack("YX", 40), tmp_path / "a.geojson", classes=("background", "nucleus"), colors=("#ff8000",))
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["type"] == "FeatureCollection"
    for feature in content["features"]:
        properties = feature["properties"]
        assert feature["type"] == "Feature"
        assert UUID(feature["id"])
        assert feature["geometry"]["type"] in ("Polygon", "MultiPolygon")
        assert "plane" not in feature["geometry"]
        assert properties["objectType"] == "detection"
        assert properties["classification"] == {"name": "nucleus", "color": [255, 128, 0]}
        assert properties["name"] == f"nucleus {properties['metadata']['label']}"
    assert len({feature["id"] for feature in content["features"]}) == len(content["features"])


def test_classes_are_annotations_with_their_colours(tmp_path: Path) -> None:
    path = write_labels(stack("ZYX", 2), tmp_path / "a.geojson", classes=CLASSES, colors=COLORS)
    features = json.loads(path.read_text(encoding="utf-8"))["features"]
    assert {feature["properties"]["objectType"] for feature in features} == {"annotation"}
    told = {(feature["properties"]["name"], *feature["properties"]["classification"]["color"]) for feature in features}
    assert told == {("gland", 255, 128, 0), ("tumour", 0, 64, 192)}
    assert [feature["geometry"]["plane"] for feature in features] == [{"c": -1, "z": z, "t": 0} for z in (0, 0, 1, 1, 2, 2)]


def test_equal_labels_give_equal_files(tmp_path: Path) -> None:
    files = [write_labels(stack("YX"), tmp_path / name / "a.geojson") for name in ("b", "c") if not (tmp_path / name).mkdir()]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_large_planes_are_read_in_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.zeros((400, 50), np.int32)
    for label, top in enumerate(range(5, 390, 20), 1):
        values[top : top + 10, 5:15] = label
    rows: list[int] = []

    def read(box: tuple[slice, ...]) -> Any:
        rows.append(box[0].stop - box[0].start)
        return values[box]

    monkeypatch.setattr(planes, "_BAND_PIXELS", 50 * 60)
    monkeypatch.setattr("napari_tileseg.io.output._BLOCK_BYTES", 8 * 50 * 60)
    path = write_labels(Volume(LazyArray(values.shape, values.dtype, read), "YX"), tmp_path / "a.geojson")
    assert max(rows) <= 80
    np.testing.assert_array_equal(read_volume(path).data, values)


def test_annotations_of_qupath_are_classes(tmp_path: Path) -> None:
    tumour = {"objectType": "annotation", "classification": {"name": "Tumor", "color": [200, 0, 0]}}
    stroma = {"objectType": "annotation", "classification": {"name": "Stroma", "colorRGB": -16711936}}
    found = read_volume(saved(tmp_path / "a.geojson", [square(1, 1, **tumour), square(8, 0, **stroma), square(1, 8, **tumour)]))
    assert found.shape == (12, 12)
    assert found.metadata["classes"] == ["background", "Tumor", "Stroma"]
    assert found.metadata["colors"] == ["#c80000", "#00ff00"]
    assert [int((np.asarray(found.data) == label).sum()) for label in (1, 2)] == [32, 16]


def test_detections_of_qupath_are_objects(tmp_path: Path) -> None:
    cell = {"objectType": "cell", "classification": {"name": "Tumor"}}
    content = {"type": "FeatureCollection", "features": [square(1, 1, **cell), square(3, 3, **cell), {"geometry": None}]}
    found = read_volume(saved(tmp_path / "a.geojson", content))
    assert [int((np.asarray(found.data) == label).sum()) for label in (1, 2)] == [12, 16]
    assert "classes" not in found.metadata


def test_holes_stay_open_and_planes_are_told_apart(tmp_path: Path) -> None:
    feature = square(0, 0, 6)
    feature["geometry"]["coordinates"].append([[1, 1], [1, 3], [3, 3], [3, 1], [1, 1]])
    feature["geometry"]["plane"] = {"c": -1, "z": 2, "t": 0}
    found = read_volume(saved(tmp_path / "a.geojson", feature))
    assert found.axes == "ZYX"
    assert np.asarray(found.data).sum(axis=(1, 2)).tolist() == [0, 0, 32]


def test_a_file_that_was_changed_is_read_as_that_of_another_program(tmp_path: Path) -> None:
    path = write_labels(stack("YX", 3), tmp_path / "a.geojson")
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["features"][0]["properties"]["metadata"]
    assert read_volume(saved(path, content)).metadata["labels"] is True


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[1]", "null", "3", '{"type": "Topology"}', '{"type": "FeatureCollection"}'),
        *("\x89PNG", '[{"geometry": 3}]', "[" * 100000),
    ],
    ids=range(10),
)
@pytest.mark.parametrize("suffix", [".geojson", ".coco.json"])
def test_what_is_no_such_file_is_one_sentence(tmp_path: Path, text: str, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(InputError) as caught:
        read_volume(path)
    assert str(caught.value).count(f'"a{suffix}"') == 1


@pytest.mark.parametrize("corner", [[float("nan"), 1], [1e300, 1], [10**12, 5], ["x", 1], [1]])
def test_corners_that_are_nowhere_are_refused(tmp_path: Path, corner: list[Any]) -> None:
    feature = square(0, 0)
    feature["geometry"]["coordinates"][0][2] = corner
    with pytest.raises(InputError, match=r"a\.geojson"):
        read_volume(saved(tmp_path / "a.geojson", feature))


def test_no_polygon_and_a_wrong_series(tmp_path: Path) -> None:
    point = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}, "properties": {}}
    with pytest.raises(InputError, match="holds no polygon"):
        read_volume(saved(tmp_path / "a.geojson", [point]))
    with pytest.raises(InputError, match="series 0"):
        read_volume(saved(tmp_path / "b.geojson", [square(0, 0)]), series=1)


@pytest.mark.parametrize("suffix", [".geojson", ".coco.json"])
@pytest.mark.parametrize("values", [np.array([[-1, 0]]), np.array([[0.5, 1.0]])])
def test_labels_that_do_not_fit_leave_nothing_behind(tmp_path: Path, values: Any, suffix: str) -> None:
    with pytest.raises(OutputError):
        write_labels(Volume(values, "YX"), tmp_path / f"a{suffix}")
    assert not list(tmp_path.iterdir())


def test_labels_without_an_object(tmp_path: Path) -> None:
    nothing = Volume(np.zeros((5, 6), np.uint8), "YX")
    for suffix in (".geojson", ".coco.json"):
        np.testing.assert_array_equal(read_volume(write_labels(nothing, tmp_path / f"a{suffix}")).data, nothing.data)
