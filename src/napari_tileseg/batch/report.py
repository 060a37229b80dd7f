"""``write_report``: report.html and report.csv of a batch, in its output folder."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_tileseg.batch.extras import OBJECTS, gather_extras
from napari_tileseg.batch.naming import model_names
from napari_tileseg.batch.page import SCORES, duration, page
from napari_tileseg.errors import OutputError
from napari_tileseg.io.output import put_in_place
from napari_tileseg.io.tables import write_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from napari_tileseg.batch.job import BatchJob
    from napari_tileseg.batch.ledger import Row
    from napari_tileseg.batch.task import State, Task

__all__ = ["ReportRow", "finish_batch", "report_rows", "write_report"]

_PACKAGES = ("napari-tileseg", "torch", "numpy", "scikit-image", "zarr", "tifffile")


@dataclass(frozen=True)
class ReportRow:
    """One line of the report.

    Parameters
    ----------
    name, model : str
        What people read.
    state, message, counts, instances, seconds, anomaly
        As in `Outcome`.
    size : int
        Bytes of the image.
    attempts : int
        How often work on it was begun.
    output, picture, overlay, table : str
        Paths below the report's folder, with ``/``: labels, thumbnail, overlay, objects table; empty where there is none.
    """

    name: str
    model: str
    state: State
    message: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    instances: bool = False
    seconds: float = 0.0
    size: int = 0
    attempts: int = 0
    output: str = ""
    picture: str = ""
    overlay: str = ""
    table: str = ""
    anomaly: dict[str, float] = field(default_factory=dict)


def report_rows(rows: Iterable[Row], tasks: Iterable[Task], folder: Path, models: Mapping[str, str]) -> list[ReportRow]:
    """Put together what the ledger knows and where things stand.

    Parameters
    ----------
    rows, tasks
        In one order.
    folder : Path
        The output folder.
    models : mapping of str to str
        What to call each model.
    """
    made = []
    for row, task in zip(rows, tasks, strict=True):
        done = row.state == "done"
        output, picture, overlay, table = (
            _below(path, folder) if done else "" for path in (task.output, task.thumbnail, task.overlay, task.objects)
        )
        facts = (row.state, row.message, row.counts, row.instances, row.seconds, row.size, row.attempts)
        made.append(ReportRow(task.name, models.get(task.model, task.model), *facts, output, picture, overlay, table, row.anomaly))
    return made


def finish_batch(
    job: BatchJob,
    folder: Path,
    tasks: Sequence[Task],
    rows: Sequence[Row],
    *,
    left_out: Sequence[tuple[str, str]] = (),
    seconds: float = 0.0,
) -> Path | None:
    """Write what a batch ends with: the table of all objects, contact sheets, and the report, as far as the job wants them.

    A table that another program keeps open is no reason to fail: the report says so.

    Parameters
    ----------
    job : BatchJob
    folder : Path
        Its output folder.
    tasks, rows
        In one order.
    left_out : sequence of (name, reason)
    seconds : float
        Wall time of this run.

    Returns
    -------
    Path or None
        Of ``report.html``; None if no report is wanted.

    Raises
    ------
    OutputError
        If ``report.html`` cannot be written.
    """
    notes: list[str] = []
    beside: tuple[Path, ...] = ()
    try:
        beside = gather_extras(folder, [task for task, row in zip(tasks, rows, strict=True) if row.state == "done"])
    except OutputError as error:
        notes.append(str(error))
    if not job.report:
        return None
    made = report_rows(rows, tasks, folder, model_names(job.models))
    titles = [("All objects" if path.name == OBJECTS else path.stem.replace("_", " ").capitalize(), path) for path in beside]
    links = [(title, _below(str(path), folder)) for title, path in titles]
    return write_report(folder, made, left_out=left_out, settings=_settings(job), links=links, notes=notes, seconds=seconds)


def write_report(
    folder: Path,
    rows: Sequence[ReportRow],
    *,
    left_out: Sequence[tuple[str, str]] = (),
    settings: Mapping[str, str] | None = None,
    links: Sequence[tuple[str, str]] = (),
    notes: Sequence[str] = (),
    seconds: float = 0.0,
) -> Path:
    """Write report.csv and report.html; each takes its place at once.

    Parameters
    ----------
    folder : Path
        Where.
    rows : sequence of ReportRow
    left_out : sequence of (name, reason)
    settings : mapping of str to str
        To be shown.
    links : sequence of (text, path)
        To what else stands in the folder.
    notes : sequence of str
        Sentences to be shown.
    seconds : float
        Wall time of the run.

    Returns
    -------
    Path
        Of ``report.html``.

    Raises
    ------
    OutputError
        If report.html cannot be written.
    """
    lines = list(notes)
    try:
        _write_csv(rows, folder / "report.csv")
        links = [("report.csv", "report.csv"), *links]
    except OutputError as error:  # a spreadsheet program keeps what it shows locked
        lines.append(str(error))
    when = time.strftime("%Y-%m-%d %H:%M")
    lines.insert(0, f"Written {when}, after a run of {duration(seconds)}." if seconds else f"Written {when}.")
    many = f"{len(rows):,} image{'s' * (len(rows) != 1)}" if len({row.model for row in rows}) < 2 else f"{len(rows):,} results"
    text = page(rows, title=f"TileSeg batch: {many}", lines=lines, links=links, left_out=left_out, settings=settings, versions=_versions())
    path = folder / "report.html"
    with put_in_place(path, overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _write_csv(rows: Sequence[ReportRow], path: Path) -> None:
    """Write a line for each image, with a column for each class that was counted, and how strange it is if any model says so."""
    kinds = dict.fromkeys((name, row.instances) for row in rows for name in row.counts)
    counted = [f"{name} {'objects' if instances else 'pixels'}" for name, instances in kinds]
    scored = [name for name in SCORES if any(name in row.anomaly for row in rows)]
    header = ["image", "model", "state", *counted, *(SCORES[name] for name in scored), "seconds", "bytes", "attempts", "result", "message"]

    def line(row: ReportRow) -> list[Any]:
        counts = [row.counts.get(name, "") if row.instances == instances else "" for name, instances in kinds]
        output = row.output.encode("utf-8", "backslashreplace").decode("utf-8")
        scores = [f"{row.anomaly[name]:.6g}" if name in row.anomaly else "" for name in scored]
        return [row.name, row.model, row.state, *counts, *scores, round(row.seconds, 3), row.size, row.attempts, output, row.message]

    write_rows(header, (line(row) for row in rows), path)


def _below(path: str, folder: Path) -> str:
    """Return a path below a folder, with ``/``; empty where it is elsewhere, which nobody needs to know, or not there."""
    place = Path(path) if path else None
    if place is None or not place.is_relative_to(folder) or not os.path.exists(place):
        return ""
    return place.relative_to(folder).as_posix()


def _settings(job: BatchJob) -> dict[str, str]:
    """Return what the job says, by the titles that people know; without paths."""
    told = {"Model": ", ".join(model_names(job.models).values())}
    for part, skipped in ((job, {"kind", "models", "options", "inputs", "output"}), (job.options, set[str]())):
        for name, info in type(part).model_fields.items():
            value = getattr(part, name)
            if name not in skipped and value is not None and value != ():
                told[info.title or name] = _said(value)
    return told


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
