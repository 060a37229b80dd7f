"""What people said of objects: accepted, to fix, rejected. It stands in the layer's table (``features``), in the column ``check``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.io.checks import CHECK

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari.layers import Labels
    from numpy.typing import NDArray

__all__ = ["ACCEPTED", "CHECK", "FIX", "MARKS", "REJECTED", "check_of", "checks", "column", "mark", "say", "words_of"]

ACCEPTED, FIX, REJECTED = MARKS = ("accepted", "fix", "rejected")


def checks(layer: Labels) -> dict[int, str]:
    """Return what was said of each object of which something was said."""
    table = layer.features
    if CHECK not in table:
        return {}
    said = table[CHECK].fillna("").astype(str).to_numpy()
    there = np.flatnonzero(said != "")
    labels = _labels(table)
    return {int(labels[row]): str(said[row]) for row in there}


def check_of(layer: Labels, label: int) -> str:
    """Return what was said of an object; empty for nothing."""
    return checks(layer).get(label, "")


def column(layer: Labels, name: str, labels: NDArray[Any]) -> NDArray[Any] | None:
    """Return a column of the layer's table for some labels, in their order; empty where it says nothing, None if there is none."""
    table = layer.features
    if name not in table:
        return None
    known = _labels(table)
    values = table[name].fillna("").astype(str).to_numpy(dtype=object)
    order = np.argsort(known, kind="stable")
    at = np.searchsorted(known[order], labels)
    inside = at < len(known)
    found = np.full(len(labels), "", dtype=object)
    rows = order[at[inside]]
    found[inside] = np.where(known[rows] == labels[inside], values[rows], "")
    return found


def mark(layer: Labels, marks: Mapping[int, str]) -> None:
    """Say something of objects; an empty word takes back what was said.

    How many objects were marked in which way is told in the layer's ``metadata["tileseg"]`` too, which files carry.
    """
    say(layer, CHECK, marks)


def words_of(layer: Labels) -> dict[str, dict[int, str]]:
    """Return what the columns of words of the layer's table say (check, class, and whatever people have added), by label."""
    table = layer.features
    labels = _labels(table)
    found = {}
    for name in table:
        if name == "index" or table[name].dtype.kind in "iufb":
            continue
        said = table[name].astype(object).to_numpy()
        there = [row for row, word in enumerate(said) if word == word and word not in ("", None)]  # NaN is not itself
        found[str(name)] = {int(labels[row]): str(said[row]) for row in there}
    return found


def say(layer: Labels, name: str, marks: Mapping[int, str]) -> None:
    """Write words into a column of the layer's table; an empty word takes back what was said.

    Parameters
    ----------
    layer : napari.layers.Labels
    name : str
        Of the column, which is added if there is none.
    marks : mapping of int to str
        By label.
    """
    table = layer.features
    labels = _labels(table)
    if name in table and len(marks) == 1:  # in place: tables of many objects take long to be set
        ((label, said),) = marks.items()
        rows = np.flatnonzero(labels == label)
        if len(rows):
            if table[name].dtype.kind != "O":  # of numbers, or of the few words of a category
                table[name] = table[name].astype(object)
            table.iloc[rows[0], table.columns.get_loc(name)] = said
            layer.events.features()
            _tell(layer)
            return
    columns = {str(other): table[other].to_numpy() for other in table}
    columns.setdefault("index", np.arange(len(table)))
    columns.setdefault(name, np.full(len(table), "", dtype=object))
    missing = sorted({0, *marks} - set(labels.tolist()))
    if missing:
        columns = {other: _longer(other, values, missing) for other, values in columns.items()}
    said_of = np.array(["" if value != value else str(value) for value in columns[name]], dtype=object)  # NaN is not itself
    place = {int(label): row for row, label in enumerate(columns["index"])}
    for label, word in marks.items():
        said_of[place[label]] = word
    layer.features = {"index": columns["index"], **columns, name: said_of}
    _tell(layer)


def _longer(name: str, values: NDArray[Any], labels: list[int]) -> NDArray[Any]:
    """Add rows for labels to a column; what is not known of them is empty."""
    if name == "index":
        return np.concatenate([values, np.array(labels, dtype=values.dtype)])
    if values.dtype.kind in "iufb":
        return np.concatenate([values.astype(np.float64), np.full(len(labels), np.nan)])
    return np.concatenate([values.astype(object), np.full(len(labels), "", dtype=object)])


def _tell(layer: Labels) -> None:
    counts: dict[str, int] = {}
    for said in checks(layer).values():
        counts[said] = counts.get(said, 0) + 1
    told = {name: value for name, value in (layer.metadata.get("tileseg") or {}).items() if name != "checked"}
    layer.metadata = {**layer.metadata, "tileseg": {**told, **({"checked": counts} if counts else {})}}


def _labels(table: Any) -> NDArray[Any]:
    """Return the label that each row of a layer's table stands for."""
    if "index" in table:
        return np.asarray(table["index"].to_numpy())
    return np.arange(len(table))
