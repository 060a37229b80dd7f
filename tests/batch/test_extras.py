"""What stands beside the labels: tables, pictures, maps; and what is made of all of them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from napari_tileseg.batch import picture as picture_module
from napari_tileseg.batch.extras import OBJECTS, gather_extras, write_extras
from napari_tileseg.batch.picture import picture, write_thumbnail
from napari_tileseg.batch.sheets import write_sheets
from napari_tileseg.batch.task import Task
from napari_tileseg.io import read_volume
from napari_tileseg.io.lazy import LazyArray
from napari_tileseg.io.tables import combine_tables
from napari_tileseg.io.zarr_store import ZarrLabels
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.segmentation import Segmentation
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    import pytest

UM = ("micrometer", "micrometer")


def spec(**changes: Any) -> ModelSpec:
    return ModelSpec(**{"name": "m", "axes": "CYX", "channels": 1, "classes": ["background", "cell"], "window": (16, 16), **changes})


def objects() -> Segmentation:
    labels = np.zeros((30, 40), np.int32)
    labels[2:8, 3:9] = 1
    labels[15:25, 20:35] = 2
    image = Volume.from_scale(np.arange(1200, dtype=np.uint16).reshape(30, 40), "YX", (0.5, 0.5), units=UM, name="a")
    more = {"scores": np.zeros((1, 30, 40), np.float32), "uncertainty": np.ones((30, 40), np.float32)}
    return Segmentation(labels, "YX", image, ("background", "cell"), ("#ff0000",), {"cell": 2}, **more)


def task(folder: Path, name: str = "a.tif", **more: Any) -> Task:
    stem = folder / "sub" / name
    paths: dict[str, Any] = {
        "objects": f"{stem}_objects.csv",
        "overlay": f"{stem}_overlay.png",
        "thumbnail": str(folder / "t" / f"{name}.jpg"),
    }
    return Task(0, name, str(folder / name), "m", f"{stem}.ome.tif", str(folder / "j"), **{**paths, **more})


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_everything_that_is_wanted_is_written(tmp_path: Path) -> None:
    model = spec(output="instances", decoder="watershed", heads=["foreground"])
    wanted = task(tmp_path, scores=str(tmp_path / "s.ome.tif"), uncertainty=str(tmp_path / "u.nii.gz"))
    written = write_extras(wanted, objects(), model)
    assert {str(path) for path in written} == {wanted.objects, wanted.overlay, wanted.thumbnail, wanted.scores, wanted.uncertainty}
    table = rows(Path(wanted.objects))
    assert [(row["image"], row["label"], row["class"], row["area [µm²]"]) for row in table] == [
        ("a.tif", "1", "cell", "9"),
        ("a.tif", "2", "cell", "37.5"),
    ]
    assert float(table[0]["mean"]) == np.arange(1200).reshape(30, 40)[2:8, 3:9].mean()
    assert table[1]["solidity"] == "1"
    assert read_volume(wanted.scores).shape == (30, 40)
    assert np.asarray(read_volume(wanted.uncertainty).data).max() == 1
    with Image.open(wanted.thumbnail) as small:
        assert small.size == (40, 30)
    with Image.open(wanted.overlay) as large:
        assert large.width > 500
    assert write_extras(task(tmp_path, objects="", overlay="", thumbnail=""), objects(), model) == ()


def test_classes_are_counted_and_measured(tmp_path: Path) -> None:
    labels = np.zeros((4, 6, 8), np.uint8)
    labels[1:3, 2:4, 2:6] = 1
    labels[3] = 2
    image = Volume.from_scale(np.ones((4, 6, 8), np.float32), "ZYX", (2.0, 1.0, 1.0), units=("millimeter",) * 3, name="a")
    result = Segmentation(labels, "ZYX", image, ("background", "left", "right"), ("#ff0000", "#00ff00"))
    write_extras(task(tmp_path), result, spec(classes=["background", "left", "right"]))
    table = rows(Path(task(tmp_path).objects))
    assert [(row["class"], row["voxels"], row["volume [mm³]"]) for row in table] == [("left", "16", "32"), ("right", "48", "96")]


def test_plane_with_the_most_labels_is_shown(tmp_path: Path) -> None:
    labels = np.zeros((3, 9, 20, 30), np.uint8)
    labels[1, 6, 5:9, 5:9] = 1
    values = np.zeros(labels.shape, np.float32)
    values[1, 6] = np.nan
    made = picture(Segmentation(labels, "TZYX", Volume(values, "TZYX"), ("background", "a")))
    assert made.where == "T 2 of 3, Z 7 of 9"
    np.testing.assert_array_equal(made.labels, labels[1, 6])
    assert picture(Segmentation(np.zeros_like(labels), "TZYX", Volume(values, "TZYX"), ("background", "a"))).where.endswith("Z 5 of 9")


def test_colours_masks_and_turned_grids(tmp_path: Path) -> None:
    masks = np.zeros((2, 20, 30), np.uint8)
    masks[0, 2:10, 2:10] = 1
    masks[1, 5:15, 5:15] = 1
    color = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    affine = np.diag([-1.0, 2.0, 1.0, 1.0])
    result = Segmentation(masks, "CYX", Volume(color, "YXC", affine), ("a", "b"), ("#ff0000", "#00ff00"))
    made = picture(result)
    assert made.labels.shape == (20, 60), "pixels are square"
    assert made.image.shape == (*made.labels.shape, 3)
    np.testing.assert_array_equal(np.unique(made.labels), [0, 1, 2])
    assert made.labels[-3, 6] == 1, "the first row is the lowest one"
    with Image.open(write_thumbnail(result, tmp_path / "t.jpg")) as small:
        assert small.mode == "RGB"
    several = Volume(np.zeros((4, 20, 30), np.uint16), "CYX")
    assert picture(Segmentation(masks[0], "YX", several, ("background", "a"), provenance={"channels": [9]})).image.shape == (20, 30, 3)


def test_huge_images_are_read_in_strips_or_at_coarse_levels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_module, "_BLOCK_BYTES", 4000 * 64)
    largest = 0

    def read(box: tuple[slice, ...]) -> Any:
        nonlocal largest
        size = tuple(span.stop - span.start for span in box)
        largest = max(largest, int(np.prod(size)))
        return np.add.outer(np.arange(box[0].start, box[0].stop), np.arange(box[1].start, box[1].stop)).astype(np.uint8)

    store = ZarrLabels.create(tmp_path / "a.zarr", (5000, 4000), np.uint8, "YX")
    store[1000:2000, 1000:2000] = 1
    store.finish()
    image = Volume(LazyArray((5000, 4000), np.uint8, read), "YX")
    made = picture(Segmentation(store, "YX", image, ("background", "a")), side=500)
    assert made.labels.shape == (500, 400)
    assert largest <= 4000 * 64
    assert made.labels[100:200, 100:200].mean() > 0.95
    assert made.labels.sum() < 1.05 * 100 * 100
    coarse = image.with_levels([np.full((1250, 1000), 7, np.uint8), np.full((100, 80), 9, np.uint8)])
    largest = 0
    assert picture(Segmentation(store, "YX", coarse, ("background", "a")), side=500).image.shape == (500, 400, 3)
    assert largest == 0


def test_tables_and_sheets_of_the_whole_batch(tmp_path: Path) -> None:
    model = spec(output="instances", decoder="watershed", heads=["foreground"])
    tasks = [task(tmp_path, f"{'long_' * 9}{number}.tif") for number in range(32)]
    for one in tasks[:31]:
        write_extras(one, objects(), model)
    (Path(tasks[0].objects)).write_text("image,label,new\r\nfirst,1,x\r\n", encoding="utf-8")
    (tmp_path / "report_files").mkdir()
    (tmp_path / "report_files" / "contact_sheet_9.png").touch()
    written = gather_extras(tmp_path, tasks)
    assert [path.name for path in written] == [OBJECTS, "contact_sheet_1.png", "contact_sheet_2.png"]
    assert not (tmp_path / "report_files" / "contact_sheet_9.png").exists()
    table = rows(tmp_path / OBJECTS)
    assert len(table) == 61
    assert (table[0]["new"], table[0]["solidity"], table[1]["new"], table[1]["solidity"]) == ("x", "", "", "1")
    assert gather_extras(tmp_path, [task(tmp_path, "b.tif", objects="", overlay="", thumbnail="")]) == ()
    assert combine_tables([tmp_path / "none.csv"], tmp_path / "all.csv") is None
    assert write_sheets([], tmp_path) == []
