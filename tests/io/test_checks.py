"""What was said of objects goes into files and comes back."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_tileseg.io.checks import checks_in, with_checks
from napari_tileseg.io.napari_hooks import get_reader, write_labels_layer
from napari_tileseg.io.written import listen

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SAID = {3: "accepted", 5: "fix", 6: "rejected"}


def labels() -> NDArray[Any]:
    data = np.zeros((3, 20, 30), np.uint16)
    for label in range(1, 8):
        data[:, 2:6, label * 4 - 3 : label * 4 - 1] = label
    return data


def meta(ndim: int, **more: Any) -> dict[str, Any]:
    return {
        "name": "cells",
        "features": {"index": [0, *SAID], "check": ["", *SAID.values()]} | more,
        "axis_labels": ("z", "y", "x")[-ndim:],
        "scale": (0.5,) * ndim,
        "units": ("um",) * ndim,
        "metadata": {"tileseg": {"edits": {"paint": 2}}},
    }


SUFFIXES = (
    ".ome.tif",
    ".imagej.tif",
    ".ome.zarr",
    ".0.4.ome.zarr",
    ".nii.gz",
    ".nrrd",
    ".seg.nrrd",
    ".mha",
    ".png",
    ".geojson",
    ".coco.json",
)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_marks_come_back_from_every_format_that_is_read(tmp_path: Path, suffix: str) -> None:
    data = labels()[0] if suffix in (".png",) else labels()
    path = tmp_path / f"cells{suffix}"
    write_labels_layer(str(path), data, meta(data.ndim))
    reader = get_reader(str(path))
    assert reader is not None
    ((found, told, kind),) = reader(str(path))
    assert kind == "labels"
    np.testing.assert_array_equal(found, data)
    table = told["features"]
    assert {label: word for label, word in zip(table["index"], table["check"], strict=True) if word} == SAID
    assert told["metadata"]["tileseg"] == {"edits": {"paint": 2}}, "the table has them; they do not stand there twice"


def test_classes_and_marks_come_back_together(tmp_path: Path) -> None:
    path = tmp_path / "cells.ome.tif"
    write_labels_layer(str(path), labels(), meta(3, **{"class": ["background", "cell", "cell", "cell"]}))
    reader = get_reader(str(path))
    assert reader is not None
    table = reader(str(path))[0][1]["features"]
    assert dict(zip(table["index"], table["class"], strict=True))[6] == "cell"
    assert dict(zip(table["index"], table["class"], strict=True))[0] == "background"
    assert dict(zip(table["index"], table["check"], strict=True))[6] == "rejected"


def test_other_programs_find_marks_in_the_properties_of_a_zarr_store(tmp_path: Path) -> None:
    write_labels_layer(str(tmp_path / "cells.ome.zarr"), labels(), meta(3))
    told = json.loads((tmp_path / "cells.ome.zarr" / "zarr.json").read_text())["attributes"]["ome"]["image-label"]
    assert told["properties"] == [{"label-value": label, "check": word} for label, word in SAID.items()]


def test_a_table_has_a_column_for_what_was_checked(tmp_path: Path) -> None:
    write_labels_layer(str(tmp_path / "cells.csv"), labels(), meta(3))
    with (tmp_path / "cells.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {int(row["label"]): row["checked"] for row in rows} == {label: SAID.get(label, "") for label in range(1, 8)}


@given(st.dictionaries(st.integers(1, 10**6), st.sampled_from(["accepted", "fix", "rejected", "mañana"])))
def test_a_provenance_says_what_the_table_says(said: dict[int, str]) -> None:
    table = {"index": [*said, 0], "check": [*said.values(), float("nan")]}
    told = with_checks({"model": "m", "checks": {"old": [1]}}, table)
    assert checks_in(json.loads(json.dumps(told))) == said
    assert told["model"] == "m"
    assert ("checks" in told) == bool(said)


@pytest.mark.parametrize("told", [None, {}, {"checks": 3}, {"checks": {"accepted": 3}}, {"checks": {"accepted": ["x", True, None]}}])
def test_what_makes_no_sense_is_left_out(told: Any) -> None:
    assert checks_in(told) == {}


def test_who_listens_is_told_what_napari_saved(tmp_path: Path) -> None:
    class Listener:
        def __init__(self) -> None:
            self.heard: list[Any] = []

        def on_written(self, data: Any, path: Path) -> None:
            self.heard.append((data, path))

    listener, data = Listener(), labels()
    listen(listener)
    write_labels_layer(str(tmp_path / "cells.tif"), data, meta(3))
    ((heard, path),) = listener.heard
    assert heard is data
    assert path == tmp_path / "cells.tif"
