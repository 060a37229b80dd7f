"""``write_extras``: everything that is wanted beside the labels of an image; ``gather_extras``: what is made of all of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_tileseg.batch.picture import write_picture, write_thumbnail
from napari_tileseg.batch.place import make_way
from napari_tileseg.batch.sheets import write_sheets
from napari_tileseg.io.tables import combine_tables, write_table
from napari_tileseg.measure.table import measure

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_tileseg.batch.task import Task
    from napari_tileseg.measure.table import Table
    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.segmentation import Segmentation

__all__ = ["OBJECTS", "gather_extras", "table_of", "write_extras"]

OBJECTS = "report_objects.csv"
"""Name of the table of all objects of a batch, in the output folder."""


def write_extras(task: Task, result: Segmentation, spec: ModelSpec | None = None) -> tuple[Path, ...]:
    """Write scores, uncertainty, objects table, overlay and thumbnail, as far as the task wants them.

    Parameters
    ----------
    task : Task
        Says where.
    result : Segmentation
    spec : ModelSpec, optional
        Of the model; looked up if it is not given.

    Returns
    -------
    tuple of Path
        What was written.

    Raises
    ------
    OutputError, OSError
        If something cannot be written.
    """
    from napari_tileseg.io import write_scores, write_uncertainty
    from napari_tileseg.models.registry import find_spec

    spec = spec or find_spec(task.model)
    places = [Path(path) for path in (task.scores, task.uncertainty, task.objects, task.overlay, task.thumbnail) if path]
    for place in places:
        make_way(task, place)
    written = []
    image, told = result.volume, result.provenance
    if task.scores and result.scores is not None:
        written.append(write_scores(result.scores, image, spec.score_names, task.scores, provenance=told, overwrite=True))
    if task.uncertainty and result.uncertainty is not None:
        written.append(write_uncertainty(result.uncertainty, image, task.uncertainty, provenance=told, overwrite=True))
    if task.objects:
        written.append(write_table(table_of(result, spec), Path(task.objects), image=task.name))
    if task.overlay:
        written.append(write_picture(result, Path(task.overlay), title=task.name))
    if task.thumbnail:
        written.append(write_thumbnail(result, Path(task.thumbnail)))
    return tuple(written)


def table_of(result: Segmentation, spec: ModelSpec) -> Table:
    """Measure what was found: a row for each object, or for each class; planes that a model saw one by one are measured so."""
    objects = spec.finds_objects
    spatial = "ZYX"[-spec.spatial_ndim :] if objects else ""
    names = (spec.classes[-1],) if objects else tuple(spec.classes)
    return measure(result.labels_volume(), result.volume, spatial=spatial, names=names, shape=None if objects else False)


def gather_extras(output: Path, tasks: Iterable[Task]) -> tuple[Path, ...]:
    """Write what is made of all results: the table of all objects, and the contact sheets.

    Parameters
    ----------
    output : Path
        The output folder.
    tasks : iterable of Task
        Those that are done, whichever run has done them.

    Raises
    ------
    OutputError
        If something cannot be written.
    """
    done = list(tasks)
    written: list[Path] = []
    tables = [Path(task.objects) for task in done if task.objects]
    if tables and (path := combine_tables(tables, output / OBJECTS)) is not None:
        written.append(path)
    pictures = [(task.name, Path(task.thumbnail)) for task in done if task.overlay and task.thumbnail]
    if pictures:
        folder = output / "report_files"
        folder.mkdir(exist_ok=True)
        written += write_sheets(pictures, folder)
    return tuple(written)
