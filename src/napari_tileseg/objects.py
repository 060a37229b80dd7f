"""The table of all objects of labels as a file: ``cells.csv``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_tileseg.io.checks import check_column, checks_in
from napari_tileseg.io.output import survey
from napari_tileseg.io.tables import write_table
from napari_tileseg.measure.table import measure

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_tileseg.volume import Volume

__all__ = ["write_objects"]


def write_objects(
    labels: Volume,
    path: Path,
    *,
    classes: tuple[str, ...] = (),
    colors: tuple[str, ...] = (),
    provenance: Mapping[str, Any] | None = None,
    image: Volume | None = None,
) -> None:
    """Measure labels and write a row for each: size, place, shape, in the unit of the image.

    Parameters
    ----------
    labels : Volume
        Labels that are more than the classes are objects, all of the last class.
    path : Path
        Ends in ``.csv``.
    classes : tuple of str
        Names, the background first.
    colors
        Not used: a table has no room for them.
    provenance : mapping, optional
        What was said of objects (``checks``) becomes the column ``checked``.
    image : Volume, optional
        What the labels were made from; gives mean and maximum of each channel.

    Raises
    ------
    OutputError
        If the labels are no whole numbers, or the file cannot be written there.
    """
    highest = survey(labels).highest
    objects = "C" not in labels.axes and highest >= max(len(classes), 2)
    names = classes[-1:] if objects else classes
    table = measure(labels, image, names=names, shape=None if objects else False)
    checks = checks_in(dict(provenance or {}))
    if checks and "label" in table:
        first = list(table)[: list(table).index("label") + 1]
        table = {**{name: table[name] for name in first}, "checked": check_column(table["label"], checks), **table}
    write_table(table, path, image=labels.name)
