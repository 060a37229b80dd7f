"""napari's own Open and Save by way of the plugin, and what a mesh is asked for."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QMainWindow, QWidget

from napari_tileseg.widgets import files, series
from napari_tileseg.widgets import save as saving
from napari_tileseg.widgets.refine.measured import image_under

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def viewer(qapp: Any) -> Iterator[Any]:
    import napari

    viewer = napari.Viewer(show=False)
    yield viewer
    viewer.close()


def objects() -> Any:
    values = np.zeros((12, 14), np.int32)
    values[1:4, 2:6], values[6:9, 6:8] = 4, 7
    return values


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


FACTS: dict[str, Any] = {"scale": (0.5, 0.5), "units": ("micrometer",) * 2, "axis_labels": ("y", "x")}


def test_a_table_saved_by_napari_tells_intensities_classes_and_checks(viewer: Any, tmp_path: Path) -> None:
    values = objects()
    channels = np.stack([np.where(values == 4, 100, 1), np.where(values == 7, 50, 2)])
    viewer.add_image(np.ones((3, 3)), name="another")
    viewer.add_image(channels, name="cells", metadata={"tileseg_volume": {"channel_names": ["dapi", "gfp"]}})
    features = {"index": [0, 4, 7], "class": ["", "epithelium", "stroma"], "check": ["", "accepted", ""]}
    layer = viewer.add_labels(values, name="cells labels", features=features, **FACTS)
    assert files.write_labels_layer(str(tmp_path / "a.csv"), *layer.as_layer_data_tuple()[:2]) == [str(tmp_path / "a.csv")]
    rows = rows_of(tmp_path / "a.csv")
    told = [(row["label"], row["class"], row["checked"], row["area [µm²]"], row["mean dapi"], row["max gfp"]) for row in rows]
    assert told == [("4", "epithelium", "accepted", "3", "100", "2"), ("7", "stroma", "", "1.5", "1", "50")]
    assert list(rows[0])[:4] == ["image", "label", "class", "checked"]


def test_without_an_image_of_their_grid_labels_are_measured_alone(viewer: Any, tmp_path: Path) -> None:
    viewer.add_image(np.ones((3, 3)), name="another")
    layer = viewer.add_labels(objects(), name="cells", **FACTS)
    files.write_labels_layer(str(tmp_path / "a.csv"), *layer.as_layer_data_tuple()[:2])
    assert [name for name in rows_of(tmp_path / "a.csv")[0] if name.startswith(("mean", "max"))] == []
    assert rows_of(tmp_path / "a.csv")[1]["area [µm²]"] == "1.5"


def test_the_image_under_labels_is_one_or_has_channels(viewer: Any) -> None:
    from napari_tileseg.io.napari_hooks import layer_volume

    layer = viewer.add_labels(objects(), name="cells", **FACTS)
    volume = layer_volume(*layer.as_layer_data_tuple()[:2])
    assert image_under(layer, list(viewer.layers), volume) is None
    viewer.add_image(objects() * 2, name="cells image")
    found = image_under(layer, list(viewer.layers), volume)
    assert found is not None
    assert (found.axes, found.spacing) == ("YX", {"Y": 0.5, "X": 0.5})


def test_series_that_are_opened_together_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pydicom
    import pydicom.data
    from pydicom.uid import generate_uid

    template = pydicom.dcmread(pydicom.data.get_testdata_file("CT_small.dcm"))
    said: list[str] = []
    monkeypatch.setattr(files, "show_info", said.append)
    for number, words in enumerate(("early", "late")):
        template.SeriesInstanceUID, template.SeriesNumber, template.SeriesDescription = generate_uid(), 2 + number, words
        template.SOPInstanceUID = template.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        template.save_as(tmp_path / f"{words}.dcm")
        reader = files.get_reader(str(tmp_path))
        assert reader is not None
        assert len(reader(str(tmp_path))) == number + 1
        assert len(said) == number
    name = tmp_path.name
    assert said[0].startswith(f'"{name}" holds 2 series, each a layer of its own: {name} 1 (2: early, CT, 1 slice of 128 x 128, ')


@pytest.fixture
def many_series(tmp_path: Path) -> Path:
    import pydicom
    import pydicom.data
    from pydicom.uid import generate_uid

    template = pydicom.dcmread(pydicom.data.get_testdata_file("CT_small.dcm"))
    for number in range(5):
        template.SeriesInstanceUID, template.SeriesNumber, template.SeriesDescription = generate_uid(), number, f"part {number}"
        template.SOPInstanceUID = template.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        template.save_as(tmp_path / f"{number}.dcm")
    return tmp_path


def opened(folder: Path) -> list[str]:
    reader = files.get_reader(str(folder))
    assert reader is not None
    return [layer[1]["name"] for layer in reader(str(folder)) if layer[0] is not None]


def test_of_many_series_some_are_chosen(qapp: Any, many_series: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(files, "show_info", said.append)
    name = many_series.name
    assert opened(many_series) == [f"{name} {number}" for number in range(1, 6)]  # nobody can be asked
    assert said[-1].startswith(f'"{name}" holds 5 series, each a layer of its own: {name} 1 (0: part 0, CT, ')
    window = QMainWindow()
    monkeypatch.setattr(series, "_window", lambda: window)
    wanted, seen = [1, 3], []

    def answer(dialog: series.SeriesDialog) -> int:
        assert not dialog.go.isEnabled()
        seen.extend(dialog.list.item(row).text() for row in range(dialog.list.count()))
        for row in wanted:
            dialog.list.item(row).setCheckState(Qt.CheckState.Checked)
        assert dialog.go.isEnabled() == bool(wanted)
        return int(bool(wanted))

    monkeypatch.setattr(series.SeriesDialog, "exec", answer)
    assert opened(many_series) == [f"{name} 2", f"{name} 4"]
    assert seen[1].startswith("2   1: part 1, CT, 1 slice of 128 x 128, ")
    assert seen[1].endswith(" mm")
    assert "2 of them opened, each a layer of its own" in said[-1]
    assert len(said) == 2
    wanted.clear()
    assert opened(many_series) == []
    assert len(said) == 2
    for number in (3, 4):
        (many_series / f"{number}.dcm").unlink()
    assert len(opened(many_series)) == 3  # few are opened unasked
    window.deleteLater()


def test_all_series_with_a_click(qapp: Any) -> None:
    dialog = series.SeriesDialog("study", ["one", "two", "three", "four"])
    dialog.all.click()
    assert dialog.chosen() == [0, 1, 2, 3]
    dialog.deleteLater()


@pytest.mark.parametrize(("part", "wishes"), [(0, ()), (1, (17,)), (2, ("liver",))])
def test_a_mesh_is_asked_for(qapp: Any, part: int, wishes: tuple[Any, ...]) -> None:
    dialog = saving.MeshDialog(["background", "liver", "spleen"], 17)
    assert [dialog.part.itemText(row) for row in range(dialog.part.count())] == [
        "all labels",
        "the selected label (17)",
        "liver",
        "spleen",
    ]
    dialog.part.setCurrentIndex(part)
    assert dialog.wishes() == {"only": wishes, "smooth": 0}
    dialog.smooth.setChecked(True)
    assert dialog.wishes()["smooth"] == 10
    dialog.deleteLater()


def test_only_meshes_are_asked_for(qapp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = QWidget()
    answers: list[int] = [0, 1]
    monkeypatch.setattr(saving.MeshDialog, "exec", lambda self: answers.pop(0))
    ask: Callable[..., Any] = saving.ask_mesh
    assert ask(parent, tmp_path / "a.nrrd", ["background"], 3) == {}
    assert ask(parent, tmp_path / "a.STL", ["background"], 3) is None
    assert ask(parent, tmp_path / "a.obj", ["background"], 3) == {"only": (), "smooth": 0}
    parent.deleteLater()
