"""``preview``: what a batch would do, how long it would take and what it needs, before anything is done."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from napari_tileseg.batch.ledger import Ledger, key_of
from napari_tileseg.batch.listing import Listing, list_tasks
from napari_tileseg.batch.page import duration
from napari_tileseg.batch.run import output_folder, settings_of
from napari_tileseg.batch.standing import standing
from napari_tileseg.batch.work import check_axes
from napari_tileseg.errors import Cancelled, OutputError, TileSegError
from napari_tileseg.io.files import amount

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_tileseg.batch.job import BatchJob
    from napari_tileseg.batch.ledger import Row
    from napari_tileseg.batch.task import Task
    from napari_tileseg.models.spec import ModelSpec

__all__ = ["Action", "Forecast", "Preview", "preview"]

Action = Literal["do", "again", "continue", "skip", "fail"]
"""What would become of a task; ``fail``: its header says already that it cannot be done."""

_HEADERS = 200
"""So many images are opened; the others are taken to be like them, by their bytes."""

_REPLACES = "replaces what is there"

_REASONS: dict[str, tuple[Action, str]] = {
    "new": ("do", ""),
    "done": ("skip", "done before"),
    "touched": ("skip", "done before; the result is compared first"),
    "skipped": ("skip", ""),
    "failed": ("skip", ""),
    "changed": ("again", "the image has changed"),
    "gone": ("again", "the result is gone"),
}


@dataclass(frozen=True)
class Forecast:
    """What would become of one task.

    Parameters
    ----------
    number : int
        As in `Task`.
    name, output : str
        What people read; where the labels would be, below the output folder where they are there.
    action : str
        ``"do"``, ``"again"``, ``"continue"`` (an interrupted run of it), ``"skip"`` or ``"fail"``.
    reason : str
        Why it is skipped, done again, or will fail.
    size : int
        Bytes of the image.
    tiles, disk : int or None
        Tiles, and bytes of the result before compression; None where the image was not opened.
    seconds : float or None
        None where it was not opened, or the model has never run here.
    """

    number: int
    name: str
    output: str
    action: Action
    reason: str = ""
    size: int = 0
    tiles: int | None = None
    disk: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Preview:
    """What a batch would do.

    Parameters
    ----------
    listing : Listing
    forecasts : tuple of Forecast
        One for each task, in the order of their numbers.
    seconds : float or None
        For all that is to be done; None where the models have never run on this computer.
    disk : int
        Bytes of all results to come, before compression.
    free : int
        Bytes that are free where they go.
    opened : int
        How many images were opened; the rest is guessed from them.
    problem : str
        Why the batch would be refused as a whole; empty if it would not.
    """

    listing: Listing
    forecasts: tuple[Forecast, ...]
    seconds: float | None = None
    disk: int = 0
    free: int = 0
    opened: int = 0
    problem: str = ""

    def count(self, *actions: Action) -> int:
        """Return how many tasks have one of some actions."""
        return sum(forecast.action in actions for forecast in self.forecasts)

    @property
    def lines(self) -> tuple[str, ...]:
        """Sentences for people: ``"96 images, 14.0 GB; 2 files left out."``, then time and disk, then what is wrong."""
        left = len(self.listing.left_out)
        found = f"{_many(self.listing.images, 'image')}, {amount(self.listing.size)}"
        said = [f"{found}; {_many(left, 'file')} left out." if left else f"{found}."]
        before, ahead = self.count("skip"), self.count("do", "again", "continue")
        if before:
            said.append(f"{before:,} of {len(self.forecasts):,} are done before or skipped.")
        if ahead:
            time = "How long it takes is not known yet." if self.seconds is None else f"About {duration(self.seconds)}."
            said.append(f"{time} {amount(self.disk)} of results before compression, {amount(self.free)} free on the disk.")
        if failing := self.count("fail"):
            said.append(f"{failing:,} will fail.")
        if replaced := sum(forecast.reason == _REPLACES for forecast in self.forecasts):
            said.append(f"{_many(replaced, 'file')} that no batch has made will be replaced.")
        if self.disk > self.free:
            said.append(
                f"The results may need {amount(self.disk)}; {amount(self.free)} are free. Choose another folder, or free some space."
            )
        return (*said, self.problem) if self.problem else tuple(said)

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary that JSON can hold."""
        return {
            "forecasts": [asdict(forecast) for forecast in self.forecasts],
            "left_out": [list(entry) for entry in self.listing.left_out],
            "images": self.listing.images,
            "size": self.listing.size,
            **{name: getattr(self, name) for name in ("seconds", "disk", "free", "opened", "problem")},
        }


def preview(job: BatchJob, *, retry_failed: bool = False, cancel: Callable[[], bool] | None = None, headers: int = _HEADERS) -> Preview:
    """Say what a batch would do; no pixel is read, no model is loaded, nothing is written.

    Parameters
    ----------
    job : BatchJob
    retry_failed : bool
        Whether the run would try again what has failed before.
    cancel : callable, optional
        Asked before every image; true stops.
    headers : int
        How many images are opened at most, evenly spread. Time and disk of the others are guessed by their bytes.

    Raises
    ------
    InputError, OptionsError, ModelError
        What the run itself would raise.
    Cancelled
        If `cancel` said so.
    """
    from napari_tileseg.models.registry import find_spec

    stop = cancel or (lambda: False)
    settings = settings_of(job)
    listing = list_tasks(job, cancel=stop)
    output = output_folder(job)
    problem, rows = "", {}
    try:
        problem = Ledger.objection(output, settings)
        rows = Ledger.look(output)
    except OutputError as error:
        problem = str(error)
    specs = {model: find_spec(model) for model in job.models}
    forecasts = []
    for task in listing.tasks:
        _raise_if(stop)
        forecasts.append(_first_look(task, rows.get(key_of(task, output)), output, retry_failed=retry_failed))
    ahead = [number for number, forecast in enumerate(forecasts) if forecast.action != "skip"]
    chosen = _spread(ahead, headers)
    for number in chosen:
        _raise_if(stop)
        task = listing.tasks[number]
        forecasts[number] = _opened(task, forecasts[number], specs[task.model])
    models = [task.model for task in listing.tasks]
    return Preview(
        listing,
        tuple(forecasts),
        seconds=_guessed(forecasts, models, "seconds"),
        disk=round(_guessed(forecasts, models, "disk") or 0),
        free=_free(listing.tasks, output),
        opened=len(chosen),
        problem=problem,
    )


def _raise_if(stop: Callable[[], bool]) -> None:
    if stop():
        raise Cancelled("Cancelled while the batch was being looked through.")


def _first_look(task: Task, row: Row | None, output: Path, *, retry_failed: bool) -> Forecast:
    """Say what the ledger and the files' times say."""
    found = standing(task, row)
    action, reason = _REASONS[found]
    if found == "failed" and row is not None:
        action, reason = ("again", "it has failed before") if retry_failed else ("skip", f"failed before: {row.message}")
    elif found == "skipped" and row is not None:
        reason = row.message
    elif found == "new" and Path(task.journal).is_dir():
        action, reason = "continue", "goes on where it was interrupted"
    elif found == "new" and Path(task.output).exists():
        reason = _REPLACES
    place = Path(task.output)
    where = place.relative_to(output).as_posix() if place.is_relative_to(output) else str(place)
    return Forecast(task.number, task.name, where, action, reason, task.size)


def _spread(numbers: Sequence[int], most: int) -> list[int]:
    """Return some of the numbers, evenly spread."""
    if len(numbers) <= most:
        return list(numbers)
    return [numbers[place * len(numbers) // most] for place in range(most)]


def _opened(task: Task, forecast: Forecast, spec: ModelSpec) -> Forecast:
    """Look into an image's header."""
    from napari_tileseg.io import read_volume
    from napari_tileseg.pipeline import estimate

    try:
        partial = task.options.unreadable == "skip"
        volume = read_volume(task.input, series=task.series, level=task.level, partial=partial, lazy=True)
        if task.axes is not None:
            volume = volume.with_axes(task.axes)
        check_axes(task, volume, spec)
        needs = estimate(volume, spec, options=task.options, channels=task.channels)
    except TileSegError as error:
        return replace(forecast, action="fail", reason=str(error))
    except Exception as error:  # a file can break a reader in any way; the run says the same of it
        return replace(forecast, action="fail", reason=f'"{Path(task.input).name}" cannot be opened: {error} ({type(error).__name__}).')
    return replace(forecast, tiles=needs.tiles, disk=needs.disk_bytes, seconds=needs.seconds)


def _guessed(forecasts: Sequence[Forecast], models: Sequence[str], what: str) -> float | None:
    """Sum up what is known, and guess the rest by the bytes of the images that the same model is for; None if nothing is known."""
    total = 0.0
    for model in dict.fromkeys(models):
        mine = [
            forecast for forecast, ref in zip(forecasts, models, strict=True) if ref == model and forecast.action not in ("skip", "fail")
        ]
        opened = [forecast for forecast in mine if forecast.tiles is not None]
        known = [float(value) for forecast in opened if (value := getattr(forecast, what)) is not None]
        if not mine:
            continue
        if not known or len(known) < len(opened):
            return None
        size, whole = sum(forecast.size for forecast in opened), sum(forecast.size for forecast in mine)
        total += sum(known) * (whole / size if size else len(mine) / len(opened))
    return total


def _free(tasks: Sequence[Task], output: Path) -> int:
    """Return the bytes that are free where the results go."""
    first = Path(tasks[0].output) if tasks else output
    for folder in (first, *first.parents):
        if folder.is_dir():
            try:
                return shutil.disk_usage(folder).free
            except OSError:
                return 0
    return 0


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"
