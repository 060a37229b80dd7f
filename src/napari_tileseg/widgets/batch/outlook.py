"""What a batch would do, found out before it starts: its files, its size, what is done already, and the words for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_tileseg.batch.listing import SAVED_LAYERS, list_tasks
from napari_tileseg.batch.preview import preview
from napari_tileseg.errors import InputError, OutputError
from napari_tileseg.io.files import amount
from napari_tileseg.models.registry import find_spec
from napari_tileseg.widgets.batch.choices import job_from, paths_of, setup_title
from napari_tileseg.widgets.batch.layers import settle
from napari_tileseg.widgets.batch.recipe import fitting
from napari_tileseg.widgets.batch.rows import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_tileseg.batch.job import BatchJob
    from napari_tileseg.batch.preview import Forecast
    from napari_tileseg.batch.task import Task
    from napari_tileseg.errors import TileSegError
    from napari_tileseg.widgets.batch.choices import Choices, Recipe
    from napari_tileseg.widgets.batch.layers import LayerImage, Sources

__all__ = ["Order", "Outlook", "look", "place_of", "rows_of"]


@dataclass(frozen=True, eq=False)
class Order:
    """Everything a batch is made of, frozen.

    Parameters
    ----------
    job : BatchJob
    title : str
        ``"raw → labels, Nuclei 2D"``.
    tasks : tuple of Task
        As far as they are known before layers are saved.
    sources : Sources or None
        Layers that are its images.
    workers : int
    cluster : str
    """

    job: BatchJob
    title: str
    tasks: tuple[Task, ...] = ()
    sources: Sources | None = None
    workers: int = 1
    cluster: str = ""


@dataclass(frozen=True, eq=False)
class Outlook:
    """An order that can be started, and what will happen."""

    order: Order
    box: str
    rows: tuple[Row, ...]
    recipe: Recipe


def look(choices: Choices, recipe: Recipe, images: Sequence[LayerImage] | None, cancel: Callable[[], bool]) -> Outlook:
    """Find out what a batch would do; folders are listed and files opened, so not for Qt's thread.

    Parameters
    ----------
    choices : Choices
    recipe : Recipe
    images : sequence of LayerImage or None
        The layers, where these are the images.
    cancel : callable
        True: nobody waits for the answer any more.

    Raises
    ------
    TileSegError
        A sentence; `place_of` says where it belongs.
    """
    sources = settle(images, choices.output) if images is not None else None
    inputs = sources.inputs if sources is not None else paths_of(choices.images)
    if recipe.free:
        recipe = fitting(recipe, list_tasks(job_from(choices, recipe, inputs), cancel=cancel).tasks[0].input)
    job = job_from(choices, recipe, inputs)
    found = preview(job, cancel=cancel)
    if found.problem:
        raise OutputError(found.problem)
    tasks = found.listing.tasks
    saved = {str(path) for path, _ in sources.saved} if sources is not None else set()
    later = tuple(  # what is only now going to be saved could not be opened
        replace(item, action="do", reason="") if item.action == "fail" and task.input in saved else item
        for item, task in zip(found.forecasts, tasks, strict=True)
    )
    title = setup_title(job, choices.images if sources else "")
    order = Order(job, title, tasks, sources, choices.workers, choices.cluster)
    box = "\n".join(part for part in (*replace(found, forecasts=later).lines, _saved_words(sources)) if part)
    rows = [_told(row, item) for row, item in zip(rows_of(tasks), later, strict=True)]
    return Outlook(order, box, tuple(rows), recipe)


def _told(row: Row, forecast: Forecast) -> Row:
    """Write into a row what is known before the batch."""
    if forecast.action == "fail":
        row.message = forecast.reason
    elif forecast.action == "skip":
        failed = forecast.reason.startswith("failed before: ")
        row.state, row.before = "failed" if failed else "done", not failed
        row.message = forecast.reason.removeprefix("failed before: ") if failed else ""
    return row


def _saved_words(sources: Sources | None) -> str:
    """Say which layers are saved first, so that the batch can go on without napari."""
    if sources is None or not sources.saved:
        return ""
    count = len(sources.saved)
    what = "1 layer has no file of its own and is" if count == 1 else f"{count} layers have no files of their own and are"
    return f"{what} saved first: {amount(sources.size)} in {SAVED_LAYERS.as_posix()}."


def rows_of(tasks: Sequence[Task]) -> list[Row]:
    """Return a row for each task."""
    models = {model: find_spec(model).name for model in {task.model for task in tasks}}
    return [Row(task.name, input=task.input, output=task.output, series=task.series, model=models[task.model]) for task in tasks]


def place_of(error: TileSegError) -> str:
    """Say at which field a sentence belongs: images, settings or output."""
    if isinstance(error, OutputError) or "results" in str(error).lower():
        return "output"
    return "images" if isinstance(error, InputError) else "settings"
