"""Several Labels layers of one image: a mask for each class, named after its layer, in the dock's rows, its files and a training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.layers import Image, Labels

from napari_tileseg.errors import InputError, OptionsError
from napari_tileseg.io.registry import read_volume
from napari_tileseg.training.config import TrainConfig
from napari_tileseg.training.items import open_image
from napari_tileseg.training.masks import IGNORED, MaskRule, open_masks
from napari_tileseg.training.report import inspect
from napari_tileseg.widgets.train.choices import Choices, overlapping
from napari_tileseg.widgets.train.pairs import UNKNOWN, LayerFiles, examples_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from train_desk import TrainDesk


def drawn(name: str, *classes: str, seed: int = 0) -> tuple[Image, list[Labels]]:
    """Return an image, and a labels layer for each class with objects of several numbers."""
    generator = np.random.default_rng(seed)
    layers = [Labels(3 * (generator.random((20, 30)) > 0.7).astype(int), name=f"{name}_{each}") for each in classes]
    return Image(generator.random((20, 30)), name=name, scale=(0.5, 0.5), units=("um", "um")), layers


def pairs(*images: tuple[Image, list[Labels]]) -> list[tuple[Image, Labels]]:
    return [(image, layer) for image, layers in images for layer in layers]


def test_layers_of_one_image_become_masks_that_a_training_finds() -> None:
    one, other = drawn("a", "nucleus", "cell"), drawn("b", "cell", seed=1)
    one[1][0].name = "a_nucleus [1]"
    examples = examples_of(pairs(one, other), None)
    assert [(example.name, example.overlapping) for example in examples] == [("a", True), ("b", True)]
    assert examples[0].layers == (one[0], *one[1])
    files = LayerFiles()
    try:
        saved = files.save(examples)
        truth = read_volume(saved[0][1])
        assert (truth.axes, truth.channel_names) == ("CYX", ("nucleus", "cell"))
        np.testing.assert_array_equal(np.asarray(truth.data), [layer.data != 0 for layer in one[1]])
        config = TrainConfig(task="overlapping", val_share=0, unlabelled=UNKNOWN)
        report = inspect(config, saved)
        assert (report.task, report.classes, len(report.facts)) == ("overlapping", ("nucleus", "cell"), 2)
        masks = np.asarray(open_masks(report.facts[1].item, open_image(report.facts[1].item), report.rule or MaskRule()).data)
        assert (masks[0] == IGNORED).all(), "nobody has drawn the nuclei of the second image"
        np.testing.assert_array_equal(masks[1], other[1][0].data != 0)
        one[1][0].name = "a_nuclei"
        renamed = read_volume(files.save(examples_of(pairs(one), None))[0][1])
        assert renamed.channel_names == ("nuclei", "cell")
    finally:
        files.close()


def test_one_layer_of_each_image_is_what_it_was() -> None:
    examples = examples_of(pairs(drawn("a", "labels"), drawn("b", "labels")), None)
    assert not any(example.overlapping for example in examples)
    assert [example.truth.axes for example in examples if example.truth is not None] == ["YX", "YX"]


def test_what_cannot_be_is_one_sentence() -> None:
    image, layers = drawn("a", "cell", "cell")
    with pytest.raises(InputError, match='Two labels of "a" are called "cell"'):
        examples_of(pairs((image, layers)), None)
    for choices, said in ((Choices(source="sparse"), "Sparse labels"), (Choices(values={"task": "instances"}), "Objects")):
        with pytest.raises(OptionsError, match=f"{said} need one Labels layer for each image"):
            overlapping(choices, UNKNOWN)
    assert overlapping(Choices(), 255).values == {"task": "overlapping", "unlabelled": 255}


def test_what_nobody_has_labelled_stays_unknown() -> None:
    image, (cell, nucleus) = drawn("a", "cell", "nucleus")
    cell.data[0] = 9
    [example] = examples_of([(image, cell), (image, nucleus)], None, unlabelled=9)
    assert example.truth is not None
    masks = np.asarray(example.truth.data)
    assert (masks[0, 0] == UNKNOWN).all()
    np.testing.assert_array_equal(masks[0, 1:], cell.data[1:] != 0)
    np.testing.assert_array_equal(masks[1], nucleus.data != 0)


def test_a_second_labels_layer_is_added_in_a_row_of_its_own(train: Callable[..., TrainDesk]) -> None:
    here = train(show=True)
    generator = np.random.default_rng(0)
    inner = np.zeros((64, 64), int)
    inner[20:40, 20:40] = 1
    outer = np.zeros((64, 64), int)
    outer[10:50, 10:50] = 1
    here.viewer.add_image(inner + generator.normal(size=inner.shape), name="field")
    here.viewer.add_labels(outer, name="field_cell")
    here.viewer.add_labels(inner, name="field_nucleus")
    here.until(lambda: here.form.pairs.rows)
    here.click(here.form.pairs.add_button)
    assert [combo.currentText() for combo, _ in here.form.pairs.rows] == ["field + nucleus", "field + cell"]
    order = here.dock.order()
    assert [example.overlapping for example in order.examples] == [True]
    assert (order.config.task, order.title) == ("overlapping", "1 pair → my-model")
    here.form.pages["Labels"].widgets["task"].choose("instances")
    here.until(lambda: "Objects need one Labels layer for each image" in here.problem)


def test_a_coco_file_is_browsed_for(train: Callable[..., TrainDesk], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here = train(show=True)
    chosen = str(tmp_path / "annotations.json")

    def ask(*arguments: Any) -> tuple[str, str]:
        return chosen, arguments[-1]

    monkeypatch.setattr("napari_tileseg.widgets.train.form.QFileDialog.getOpenFileName", ask)
    here.form.source.choose("folder")
    menu = here.form.browse_labels.menu()
    next(action for action in menu.actions() if action.text() == "COCO file...").trigger()
    assert here.form.choices().labels == chosen
