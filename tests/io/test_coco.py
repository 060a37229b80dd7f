"""COCO: its own tools find the same pixels, areas and boxes, and what they write is read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from napari_tileseg.errors import InputError
from napari_tileseg.io import read_volume, write_labels
from napari_tileseg.io.coco import draw, run_lengths
from napari_tileseg.io.registry import count_series
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path

MASKS = hnp.arrays(bool, st.tuples(st.integers(1, 8), st.integers(1, 8)))


@given(MASKS, st.integers(0, 3), st.integers(0, 3), st.integers(0, 2))
def test_run_lengths_are_those_of_coco(mask: Any, top: int, left: int, more: int) -> None:
    shape = (top + mask.shape[0] + more, left + mask.shape[1] + more)
    whole = np.zeros(shape, np.uint8)
    whole[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    counts = run_lengths(mask, shape, top=top, left=left)
    assert sum(counts) == whole.size
    packed = coco_mask.encode(np.asfortranarray(whole))
    assert coco_mask.frPyObjects({"size": list(shape), "counts": counts}, *shape)["counts"] == packed["counts"]
    for given_counts in (counts, packed["counts"].decode()):
        picture = np.zeros(shape[::-1], np.uint8)
        draw(picture, given_counts, 1)
        np.testing.assert_array_equal(picture.T, whole)


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")  # of pycocotools
def test_the_tools_of_coco_find_the_same_objects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = np.random.default_rng(1).integers(0, 7, (3, 20, 30)).astype(np.int32)
    cells = Volume(values, "ZYX", name="cells")
    path = write_labels(cells, tmp_path / "a.coco.json", classes=("background", "cell"), colors=("#0000ff",), provenance={"a": 1})
    tools = COCO(str(path))
    assert [(item["file_name"], item["width"], item["height"]) for item in tools.loadImgs(tools.getImgIds())] == [
        (f"cells_z00{z}", 30, 20) for z in range(3)
    ]
    assert tools.loadCats(tools.getCatIds()) == [{"id": 1, "name": "cell", "supercategory": "", "color": [0, 0, 255]}]
    for entry in tools.loadAnns(tools.getAnnIds()):
        expected = values[entry["image_id"] - 1] == entry["label"]
        np.testing.assert_array_equal(tools.annToMask(entry).astype(bool), expected)
        assert entry["area"] == expected.sum()
        assert entry["bbox"] == coco_mask.toBbox(tools.annToRLE(entry)).tolist()
    assert capsys.readouterr()


def test_classes_that_were_not_found_are_listed(tmp_path: Path) -> None:
    path = write_labels(Volume(np.array([[0, 2]]), "YX"), tmp_path / "a.coco.json", classes=("background", "a", "b", "c"))
    content = json.loads(path.read_text(encoding="utf-8"))
    assert [(item["id"], item["name"]) for item in content["categories"]] == [(1, "a"), (2, "b"), (3, "c")]
    assert [entry["category_id"] for entry in content["annotations"]] == [2]


def foreign(path: Path, segmentation: Any, count: int = 2) -> Path:
    images = [{"id": 10 + number, "file_name": f"{number}.png", "width": 8, "height": 6} for number in range(count)]
    content = {"images": images, "annotations": [{"id": 1, "image_id": 11, "category_id": 1, "segmentation": segmentation}]}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_polygons_and_images_of_other_programs(tmp_path: Path) -> None:
    path = foreign(tmp_path / "a.coco.json", [[1, 1, 4, 1, 4, 3, 1, 3], [5, 4, 7, 4, 7, 6, 5, 6]])
    assert count_series(path) == 2
    assert not np.asarray(read_volume(path).data).any()
    found = read_volume(path, series=1)
    expected = np.zeros((6, 8), np.uint8)
    expected[1:3, 1:4] = expected[4:6, 5:7] = 1
    assert found.name == "1.png"
    np.testing.assert_array_equal(found.data, expected)
    with pytest.raises(InputError, match="series 0 to 1"):
        read_volume(path, series=2)


@pytest.mark.parametrize("segmentation", [{"counts": [1, 1000]}, {"counts": [3, -1]}, {"counts": "\n"}, {}, [[1]], "x", [["a", 2]]])
def test_annotations_that_cannot_be_drawn(tmp_path: Path, segmentation: Any) -> None:
    path = foreign(tmp_path / "a.coco.json", segmentation)
    if segmentation:
        with pytest.raises(InputError, match="cannot be drawn"):
            read_volume(path, series=1)
    else:
        assert not np.asarray(read_volume(path, series=1).data).any()
