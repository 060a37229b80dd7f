"""``in_words``: what a training says is wrong, in the words of the dock's fields instead of a command's options."""

from __future__ import annotations

import re

from napari_tileseg.training.config import Strengths, TrainConfig
from napari_tileseg.training.unsupervised.config import UnsupervisedConfig
from napari_tileseg.widgets.train.choices import FOLDS
from napari_tileseg.widgets.train.unlabelled import FOLDS as PLAIN_FOLDS

__all__ = ["PHRASES", "in_words"]

PHRASES: dict[str, str] = {
    "Set the task to instances or overlapping": "Choose Objects or Overlapping at Task, under Labels",
    "set the task to instances": "choose Objects at Task, under Labels",
    "say that classes overlap (--multilabel)": "choose Overlapping at Task, under Labels",
    "leave the task open": "leave Task at Auto",
    'Use split = "region", or set val_share to 0': "Choose Region at Split, or write 0 at Validation, under Labels",
    "or set val_share to 0": "or write 0 at Validation, under Labels",
    "Name it in values": "Name it at Values, under Labels",
    "Name the depth axis Z, or choose 2": "Name the depth axis Z at Axes, under Labels, or choose Planes at Dimensions, under Network",
    "a folder of images and a folder of labels (images, labels)": "a folder of images and a folder of labels",
    "or give it a name (output, name)": "or give it a name",
    ", or replace it (--overwrite on the command line)": "",
    "Use the same, begin anew (--no-resume), or choose another name": "Use the same, or choose another name",
}
"""What is said of options, and what the fields that stand for them are called."""

_REFUSED = re.compile(r"^([a-z_]+(?:\.[a-z_]+)?)(?:\.\d+)? = (.+) is not accepted: ", re.S)


def in_words(sentence: str) -> str:
    """Return a sentence as somebody reads it who sees fields, and knows of no options."""
    found = _REFUSED.match(sentence)
    if found:
        sentence = f"{_titled(found[1])}: {found[2]} is not accepted: {sentence[found.end() :]}"
    for phrase, words in PHRASES.items():
        sentence = sentence.replace(phrase, words)
    return sentence


def _titled(name: str) -> str:
    """Return what a field is called, and under which fold it stands."""
    for config, folds in ((TrainConfig, FOLDS), (UnsupervisedConfig, PLAIN_FOLDS)):
        fold = next((fold for fold, names in folds.items() if name in names), "")
        outer, _, inner = name.partition(".")
        field = Strengths.model_fields.get(inner) if inner else config.model_fields.get(outer)
        if fold and field is not None:
            return str(field.title) if field.title == fold else f"{field.title}, under {fold}"
    field = TrainConfig.model_fields.get(name)
    return str(field.title) if field is not None else name
