"""One COCO file for a folder of images: each image gets the objects that the file lists for it, by its name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scenes import SMALL, folders, scene

from napari_tileseg import train
from napari_tileseg.errors import InputError, OptionsError
from napari_tileseg.io.coco import list_coco, run_lengths
from napari_tileseg.training.config import TrainConfig
from napari_tileseg.training.items import find_items, open_image, open_labels
from napari_tileseg.training.listed import Listed
from napari_tileseg.training.masks import MaskRule, open_masks
from napari_tileseg.training.report import inspect

if TYPE_CHECKING:
    from pathlib import Path

COUNT = 5


def annotated(root: Path, *, order: list[int] | None = None, name: str = "{}.png", **more: Any) -> dict[str, str]:
    """Write scenes, and a COCO file of all of them with two categories: odd and even objects."""
    images = folders(root, COUNT, objects=True)["images"]
    listed, annotations = [], []
    for place, number in enumerate(order or range(COUNT)):
        _, labels = scene(number, objects=True)
        height, width = labels.shape
        listed.append({"id": 100 + number, "file_name": name.format(f"scene_{number}"), "height": height, "width": width})
        for label in np.unique(labels[labels > 0]):
            counts = run_lengths(labels == label, labels.shape, top=0, left=0)
            mask = {"size": [height, width], "counts": counts}
            annotations.append(
                {"id": 10 * place + int(label), "image_id": 100 + number, "category_id": 7 + int(label) % 2, "segmentation": mask}
            )
    content = {"images": listed, "annotations": annotations, "categories": [{"id": 7, "name": "even"}, {"id": 8, "name": "odd"}]}
    path = root / "annotations.json"
    path.write_text(json.dumps(content | more))
    return {"images": images, "labels": str(path)}


@pytest.mark.parametrize("name", ["{}.png", "{}.tif", "train/{}.jpg", r"C:\data\{}.png", "/data/{}.png"])
def test_each_image_gets_the_objects_that_are_listed_for_it(tmp_path: Path, name: str) -> None:
    config = TrainConfig(**annotated(tmp_path, order=[3, 0, 4, 1, 2], name=name))
    found = find_items(config)
    assert [item.name for item in found.items] == [f"scene_{number}" for number in range(COUNT)]
    assert not found.unmatched
    for number, item in enumerate(found.items):
        _, labels = scene(number, objects=True)
        drawn = np.asarray(open_labels(item, "YX").data)
        np.testing.assert_array_equal(drawn > 0, labels > 0)
        pairs = {(int(one), int(other)) for one, other in zip(drawn.ravel(), labels.ravel(), strict=True)}
        assert len(pairs) == len(np.unique(labels)), "the same objects, whatever their numbers"


def test_its_categories_are_classes_that_may_overlap(tmp_path: Path) -> None:
    config = TrainConfig(**annotated(tmp_path), task="overlapping")
    report = inspect(config)
    assert (report.task, report.classes) == ("overlapping", ("even", "odd"))
    item = find_items(config).items[2]
    _, labels = scene(2, objects=True)
    masks = np.asarray(open_masks(item, open_image(item), MaskRule()).data)
    np.testing.assert_array_equal(masks, [(labels > 0) & (labels % 2 == 0), labels % 2 == 1])


def test_what_has_no_partner_is_said_and_the_rest_is_learnt(tmp_path: Path) -> None:
    places = annotated(tmp_path, order=[0, 1, 2, 3], name="{}.png")
    (tmp_path / "images" / "scene_3.png").unlink()
    report = inspect(TrainConfig(**places))
    assert len(report.facts) == 3
    assert report.task == "instances", "few objects too"
    assert any("scene_4.png is not listed" in warning for warning in report.warnings)
    listed = find_items(TrainConfig(**places)).unmatched
    assert "scene_3.png is listed, but not there" in listed


def test_a_model_is_trained_from_one_file(tmp_path: Path) -> None:
    spec = train(TrainConfig(output=str(tmp_path / "m"), **annotated(tmp_path), **{**SMALL, "epochs": 1, "epoch_steps": 2}))
    assert spec.output == "instances"
    assert len(spec.training["images"]) == 4


def test_a_file_that_has_changed_is_read_again(tmp_path: Path) -> None:
    places = annotated(tmp_path)
    before = find_items(TrainConfig(**places)).items[0]
    assert np.asarray(open_labels(before, "YX").data).any()
    path = tmp_path / "annotations.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"annotations": []}))
    assert not np.asarray(open_labels(before, "YX").data).any()


def test_what_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    places = annotated(tmp_path)
    with pytest.raises(OptionsError, match="lists objects, or classes that may overlap"):
        inspect(TrainConfig(**places, task="classes"))
    others = annotated(tmp_path / "others", name="other_{}.png")
    with pytest.raises(InputError, match=r'"annotations.json" lists none of the images of "images"'):
        find_items(TrainConfig(images=places["images"], labels=others["labels"]))
    for content in ("{", "[]", '{"images": []}', '{"images": 3, "annotations": []}'):
        (tmp_path / "annotations.json").write_text(content)
        with pytest.raises(InputError, match="is no COCO file, or it is damaged"):
            find_items(TrainConfig(**places))
    (tmp_path / "annotations.json").write_text('{"images": [{"id": 1}], "annotations": []}')
    with pytest.raises(InputError, match="does not say which files its images are"):
        list_coco(tmp_path / "annotations.json")
    with pytest.raises(InputError, match="lists 1 images"):
        Listed(tmp_path / "annotations.json", 4).open()
