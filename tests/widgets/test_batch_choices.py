"""The formats that the Batch dock offers, and what it shows of results that are no labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import tifffile

from napari_tileseg.io import registry
from napari_tileseg.io.registry import Format, label_suffixes
from napari_tileseg.widgets.batch.choices import format_choices
from napari_tileseg.widgets.batch.deeds import BatchDeeds
from napari_tileseg.widgets.batch.pair import read_pair
from napari_tileseg.widgets.batch.rows import Row

if TYPE_CHECKING:
    from pathlib import Path


def test_every_format_that_can_be_written_is_offered_once() -> None:
    offered = dict(format_choices())
    known = label_suffixes()
    assert {known[suffix] for suffix in offered.values() if suffix != "auto"} == set(known.values())
    assert len(set(offered.values())) == len(offered) == len(set(known.values())) + 1
    assert next(iter(offered.values())) == "auto"


def test_another_suffix_of_a_saved_job_is_offered_too() -> None:
    assert ("NIfTI (.nii)", ".nii") in format_choices(".nii")
    assert ".nii" not in dict(format_choices()).values()


def test_formats_of_other_packages_are_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    more = (*registry.formats(), Format("sketch", (".skt", ".sketch"), writer="somewhere:write"), Format("reader only", (".ro",), "a:b"))
    monkeypatch.setattr(registry, "formats", lambda: more)
    assert format_choices()[-1] == ("Sketch (.skt)", ".skt")


def test_a_table_is_named_and_the_image_is_shown(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 5), np.uint8))
    (tmp_path / "a.csv").write_text("label\n")
    row = Row("a.tif")
    row.input, row.output, row.state = str(tmp_path / "a.tif"), str(tmp_path / "a.csv"), "done"
    shown = read_pair(row)
    assert (len(shown.image), shown.labels) == (1, [])
    assert shown.problem.startswith('"a.csv" is a table or a mesh')


@pytest.mark.parametrize(
    ("platform", "command"), [("win32", 'explorer /select,"{path}"'), ("darwin", ["open", "-R", "{path}"])], ids=["Windows", "macOS"]
)
def test_a_file_is_shown_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str, command: Any) -> None:
    """Explorer shows the user's documents instead where the quotes stand around the whole word."""
    path = tmp_path / "a b.tif"
    path.touch()
    row = Row("a b.tif")
    row.input = str(path)
    started: list[Any] = []
    monkeypatch.setattr("napari_tileseg.widgets.batch.deeds.subprocess.Popen", started.append)
    monkeypatch.setattr("sys.platform", platform)
    BatchDeeds.show_in_folder(cast("BatchDeeds", None), row)
    asked = command.format(path=path) if isinstance(command, str) else [word.format(path=path) for word in command]
    assert started == [asked]
