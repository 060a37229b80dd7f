"""The report: every image in it, every name harmless, links that lead somewhere, tables that programs can read."""

from __future__ import annotations

import contextlib
import csv
import os
import sqlite3
import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import pytest

from napari_tileseg.batch.events import TaskEnded
from napari_tileseg.batch.job import BatchJob
from napari_tileseg.batch.ledger import Ledger, ledger_path
from napari_tileseg.batch.page import duration, found
from napari_tileseg.batch.report import ReportRow, write_report
from napari_tileseg.batch.run import run_batch
from napari_tileseg.io import output as output_module
from napari_tileseg.pipeline import segment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Reads a page strictly: every tag is closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[list[str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.cells.append([])
        if tag == "td":
            self.cells[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" not in self.open and "style" not in self.open:
            self.text += data
        if "td" in self.open:
            self.cells[-1][-1] += data

    def all(self, tag: str, attribute: str) -> list[str]:
        return [value for name, values in self.tags if name == tag and (value := values.get(attribute))]


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


ROWS = [
    ReportRow("a2.tif", "m", "done", "", {"cell": 1234}, True, 2.94, 8_000_000, 1, "a2.ome.tif"),
    ReportRow("a10.tif", "m", "failed", 'Two\nlines & <b>"more"</b>', seconds=0.1, size=10, attempts=2),
    ReportRow("<script>alert(1)</script>.tif", "m", "waiting"),
    ReportRow('"x" onload=y.tif', "m", "skipped", "unchanged"),
    ReportRow("left.nii", "m", "done", "", {"left": 20, "right": 3}, False, 200.0, 5, 1, "sub/l?f#t %.nii.gz", "p.jpg", "o.png", "t.csv"),
]


def test_page_holds_everything_and_nothing_that_runs_but_ours(tmp_path: Path) -> None:
    left = [("notes.txt", "it is no image"), ("<i>", "&")]
    path = write_report(
        tmp_path, ROWS, left_out=left, settings={"Model": "m<"}, links=[("Sheet", "s.png")], notes=["One note."], seconds=300
    )
    page = read(path)
    assert page.tags.count(("script", {})) == 1
    assert not [values for _, values in page.tags if any(name.startswith("on") for name in values)]
    assert not [value for name in ("src", "href") for value in page.all("a", name) + page.all("img", name) if "://" in value]
    assert "http" not in path.read_text(encoding="utf-8").replace("http-equiv", ""), "it needs no network"
    for text in ("a2.tif", "1,234 objects", "left 20, right 3 pixels", '<b>"more"</b>', "<script>alert(1)</script>.tif", "One note."):
        assert text in page.text
    assert page.all("img", "src") == ["p.jpg"]
    assert {"a2.ome.tif", "sub/l%3Ff%23t%20%25.nii.gz", "o.png", "t.csv", "s.png", "report.csv"} == set(page.all("a", "href"))
    assert [row["class"] for name, row in page.tags if name == "tr" and "class" in row] == ["done", "failed", "waiting", "skipped", "done"]
    assert ["notes.txt", "it is no image"] in page.cells
    assert ["<i>", "&"] in page.cells
    assert ["Model", "m<"] in page.cells
    names = sorted(values["data-key"] or "" for name, values in page.tags if name == "td" and values.get("class") == "name")
    assert names.index(next(key for key in names if "000002" in key)) < names.index(next(key for key in names if "000010" in key))
    assert "prefers-color-scheme: dark" in path.read_text(encoding="utf-8")


def test_models_have_a_column_where_there_are_several(tmp_path: Path) -> None:
    both = [ReportRow("a.tif", "one", "done"), ReportRow("a.tif", "two", "done")]
    assert "Model" in read(write_report(tmp_path, both)).text
    assert "2 results" in read(tmp_path / "report.html").text
    write_report(tmp_path, [])
    assert "0 images" in read(tmp_path / "report.html").text


def test_csv_is_read_by_others(tmp_path: Path) -> None:
    write_report(tmp_path, ROWS)
    raw = (tmp_path / "report.csv").read_bytes()
    assert raw.count(b"\r\n") == len(ROWS) + 1
    with (tmp_path / "report.csv").open(encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [line["image"] for line in lines] == [row.name for row in ROWS]
    assert lines[0]["cell objects"] == "1234"
    assert (lines[4]["left pixels"], lines[4]["cell objects"]) == ("20", "")
    assert lines[1]["message"] == ROWS[1].message
    assert lines[0]["seconds"] == "2.94"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep text only in names")
def test_names_that_are_no_text(tmp_path: Path) -> None:
    strange = os.fsdecode(b"na\xefve.ome.tif")
    page = read(write_report(tmp_path, [ReportRow(r"na\xefve.tif", "m", "done", output=strange)]))
    (address,) = [value for value in page.all("a", "href") if value != "report.csv"]
    assert unquote_to_bytes(address) == b"na\xefve.ome.tif"
    assert rb"na\xefve" in (tmp_path / "report.csv").read_bytes()


def test_table_that_a_program_keeps_open_is_said_not_fatal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take_place = output_module.take_place

    def refuse(temporary: Path, path: Path) -> None:
        if path.name == "report.csv":
            raise PermissionError(13, "locked")
        take_place(temporary, path)

    monkeypatch.setattr(output_module, "take_place", refuse)
    page = read(write_report(tmp_path, ROWS))
    assert '"report.csv" is open in another program' in page.text
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_words() -> None:
    assert [duration(seconds) for seconds in (0.04, 2.94, 300, 12_000)] == ["0.0 s", "2.9 s", "5 min", "3.3 h"]
    assert found(ReportRow("a", "m", "done", counts={"cell": 1}, instances=True)) == "1 object"
    assert found(ReportRow("a", "m", "failed", counts={"cell": 1}, instances=True)) == ""


def test_batch_ends_with_its_report(tmp_path: Path, images: list[Path], classes_model: str) -> None:
    (tmp_path / "raw" / "bad.tif").write_text("no image")
    (tmp_path / "raw" / "notes.txt").write_text("x")
    job = BatchJob(models=(classes_model,), inputs=(str(tmp_path / "raw"),), output=str(tmp_path / "out"), objects=True, overlays=True)
    assert run_batch(job).report == str(tmp_path / "out" / "report.html")
    page = read(tmp_path / "out" / "report.html")
    links = [tmp_path / "out" / value for value in page.all("a", "href") + page.all("img", "src")]
    assert all(link.is_file() for link in links)
    assert len(page.all("img", "src")) == len(images)
    names = {link.name for link in links}
    assert {"report.csv", "report_objects.csv", "contact_sheet_1.png", "image_00.ome.tif", "image_00_overlay.png"} <= names
    assert "bad.tif" in page.text
    assert str(tmp_path) not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert str(tmp_path) not in (tmp_path / "out" / "report.csv").read_text(encoding="utf-8")
    again = run_batch(job)
    assert (again.before, again.failed) == (len(images), 1)
    assert len(read(tmp_path / "out" / "report.html").all("img", "src")) == len(images)


def test_images_can_be_sorted_by_how_strange_they_are(tmp_path: Path, images: list[Path], anomaly_model: str) -> None:
    job = BatchJob(models=(anomaly_model,), inputs=(str(tmp_path / "raw"),), output=str(tmp_path / "out"))
    ends: dict[str, TaskEnded] = {}
    run_batch(job, on_event=lambda event: ends.update({event.name: event}) if isinstance(event, TaskEnded) else None)

    def lines() -> list[dict[str, str]]:
        with (tmp_path / "out" / "report.csv").open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))

    first = lines()
    for line, path in zip(first, images, strict=True):
        alone = segment(path, anomaly_model).anomaly
        assert ends[line["image"]].anomaly == alone
        assert float(line["anomaly mean"]) == pytest.approx(alone["mean"], rel=1e-5)
        assert float(line["anomaly 99th percentile"]) == pytest.approx(alone["percentile_99"], rel=1e-5)
    page = read(tmp_path / "out" / "report.html")
    assert "Anomaly 99th percentile" in page.text
    assert any(f"{ends[images[0].name].anomaly['mean']:.4g}" in row for row in page.cells)
    assert run_batch(job).before == len(images)
    assert lines() == first  # the ledger has kept them


def test_a_ledger_of_before_is_gone_on_with(tmp_path: Path, images: list[Path], anomaly_model: str) -> None:
    job = BatchJob(models=(anomaly_model,), inputs=(str(tmp_path / "raw"),), output=str(tmp_path / "out"))
    run_batch(job)
    with contextlib.closing(sqlite3.connect(ledger_path(tmp_path / "out"))) as connection:
        connection.execute("ALTER TABLE tasks DROP COLUMN anomaly")
        connection.commit()
    assert {row.state for row in Ledger.look(tmp_path / "out").values()} == {"done"}
    images[0].write_bytes(images[1].read_bytes())
    again = run_batch(job)
    assert (again.before, again.failed) == (len(images) - 1, 0)
    assert [bool(row.anomaly) for row in again.rows] == [True] + [False] * (len(images) - 1)


@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_plate_is_done_and_resumed(make_plate: Callable[..., Path], tmp_path: Path, classes_model: str, version: str) -> None:
    import numpy as np
    import zarr

    from napari_tileseg.io import read_volume

    plate = make_plate(version=version)
    zarr.consolidate_metadata(str(plate / "A" / "1" / "0")) if version == "0.4" else None
    more: dict[str, Any] = {"objects": True, "overlays": True}
    job = BatchJob(models=(classes_model,), inputs=(str(plate),), output=str(tmp_path / "out"), **more)
    first = run_batch(job)
    assert (first.done, first.failed) == (4, 0), first.rows
    labels = read_volume(plate / "A" / "1" / "0" / "labels" / "classes")
    assert labels.shape == (32, 40)
    assert np.asarray(labels.data).max() <= 2
    assert (tmp_path / "out" / "plate" / "A" / "1" / "0_classes_objects.csv").is_file()
    again = run_batch(job)
    assert (again.before, again.done) == (4, 4)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep text only in names")
@pytest.mark.parametrize("suffix", [".ome.tif", ".ome.zarr", ".nii.gz", ".png"])
def test_strange_names_are_done_like_others(tmp_path: Path, images: list[Path], classes_model: str, suffix: str) -> None:
    names = [b"na\xefve.tif", b"line\nbreak.tif", "größe µm 図.tif".encode(), b"a&<b>'\".tif", b"\x01\x7f.tif", b" -rf.tif"]
    folder = tmp_path / "strange"
    folder.mkdir()
    for name, image in zip(names, images, strict=True):
        image.rename(folder / os.fsdecode(name))
    more: dict[str, Any] = {"objects": True, "overlays": True, "format": suffix}
    job = BatchJob(models=(classes_model,), inputs=(str(folder),), output=str(tmp_path / "out"), **more)
    first = run_batch(job)
    assert (first.done, [row.message for row in first.rows if row.state == "failed"]) == (6, [])
    made = {os.fsencode(path.name) for path in (tmp_path / "out").iterdir()}
    assert {name.removesuffix(b".tif") + suffix.encode() for name in names} <= made
    page = read(tmp_path / "out" / "report.html")
    wanted = {os.fsencode(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").iterdir() if path.name.endswith(suffix)}
    assert wanted <= {unquote_to_bytes(value) for value in page.all("a", "href")}
    assert run_batch(job).before == 6
