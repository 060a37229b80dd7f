"""The Train dock speaks of its fields: no option of a command is left in what a training says is wrong."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

import napari_tileseg.training
from napari_tileseg.errors import OptionsError
from napari_tileseg.training.config import Strengths, TrainConfig
from napari_tileseg.widgets.train.choices import FOLDS, Choices, config_of
from napari_tileseg.widgets.train.fields import FieldPage
from napari_tileseg.widgets.train.unlabelled import unlabelled_config
from napari_tileseg.widgets.train.words import PHRASES, in_words

ROOM = Path(napari_tileseg.training.__file__).parent
ELSEWHERE = {"ranks", "evaluate", "tune", "options", "data", "sampling"}
"""Of several processes, commands of their own, and what no field can bring about."""

BESIDE = {"val_images and val_labels belong together"}
"""Of fields that the dock does not have."""

OPTION = re.compile(r"--[a-z]|\b(" + "|".join(name for name in TrainConfig.model_fields if "_" in name) + r")\b|task to instances")


def said() -> list[tuple[str, str]]:
    """Return the words of everything that is raised or warned of in a training, with the module's name."""
    found = []
    for path in sorted(ROOM.glob("*.py")):
        if path.stem in ELSEWHERE:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            warned = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "append"
            if isinstance(node, ast.Raise) or warned:
                parts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)]
                found += [(path.stem, part) for part in parts if " " in part]
    return found


def test_no_option_is_left() -> None:
    sentences = said()
    assert len(sentences) > 40
    assert [(module, in_words(text)) for module, text in sentences if OPTION.search(in_words(text)) and text not in BESIDE] == []


def test_what_is_put_into_other_words_is_still_said() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in ROOM.glob("*.py"))
    assert [phrase for phrase in PHRASES if phrase not in source] == []


def test_the_words_are_those_of_the_fields(qtbot: Any) -> None:
    page = FieldPage(FOLDS["Labels"])
    qtbot.addWidget(page)
    task, split = page.widgets["task"], page.widgets["split"]
    shown = {combo.itemText(place) for combo in (task, split) for place in range(combo.count())}
    assert {"Objects", "Overlapping", "Auto", "Region"} <= shown
    titles = {str(field.title) for field in (*TrainConfig.model_fields.values(), *Strengths.model_fields.values())}
    assert {"Task", "Split", "Validation", "Values", "Axes", "Dimensions"} <= titles


@pytest.mark.parametrize(
    ("values", "begins"),
    [
        ({"epochs": "many"}, "Epochs, under Steps: 'many' is not accepted"),
        ({"augmentation.noise": "9"}, "Noise, under Augment: '9' is not accepted"),
        ({"window": ("a", "b")}, "Window, under Network: 'a' is not accepted"),
        ({"learning_rate": "-1"}, "Learning rate, under Steps: '-1' is not accepted"),
        ({"regions": {"a": [1]}, "task": "classes"}, "Regions are classes that may overlap: leave Task at Auto."),
    ],
)
def test_a_value_is_refused_under_the_name_of_its_field(values: dict[str, Any], begins: str) -> None:
    with pytest.raises(OptionsError) as caught:
        config_of(Choices(name="m", values=values))
    assert in_words(str(caught.value)).startswith(begins)


def test_so_are_those_of_images_alone() -> None:
    with pytest.raises(OptionsError) as caught:
        unlabelled_config(Choices(source="images", name="m", values={"percentile": "far"}))
    assert in_words(str(caught.value)).startswith("Percentile, under Threshold: 'far' is not accepted")
    assert in_words("name = 3 is not accepted: no.").startswith("Name: 3 is not accepted")
    assert in_words("elsewhere = 3 is not accepted: no.").startswith("elsewhere: 3 is not accepted")
