"""The table of all objects of labels as a file: ``cells.csv``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import OutputError
from napari_tileseg.io.output import survey
from napari_tileseg.io.tables import write_table
from napari_tileseg.measure.table import measure

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

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
        Labels that are more than the classes are objects, all of the last class, unless ``metadata["features"]``, the table of their
        layer, gives each its own in the column "class"; its column "check" goes into the table too.
    path : Path
        Ends in ``.csv``.
    classes : tuple of str
        Names, the background first.
    colors, provenance
        Not used: a table has no room for them.
    image : Volume, optional
        What the labels were made from; gives mean and maximum of each channel.

    Raises
    ------
    OutputError
        If the labels are no whole numbers, the image is not of their grid, or the file cannot be written there.
    """
    _check_image(labels, image)
    highest = survey(labels).highest
    objects = "C" not in labels.axes and highest >= max(len(classes), 2)
    names = classes[-1:] if objects else classes
    table = measure(labels, image, names=names, shape=None if objects else False)
    features = labels.metadata.get("features")
    said = _said(features, table["label"]) if features is not None and "C" not in labels.axes else {}
    first = {name: values for name, values in table.items() if name in ("label", "class")}
    write_table({**first, **said, **{name: values for name, values in table.items() if name not in first}}, path, image=labels.name)


def _check_image(labels: Volume, image: Volume | None) -> None:
    """Raise unless an image has a pixel for each of the labels."""
    if image is None:
        return
    own, other = ({axis: size for axis, size in volume.sizes.items() if axis != "C"} for volume in (labels, image))
    if own != other:
        sizes = [" x ".join(f"{axis} {size}" for axis, size in found.items()) for found in (own, other)]
        raise OutputError(f"The labels have {sizes[0]} pixels, and the image {sizes[1]}. Give the image that they were made from.")


def _said(features: Any, labels: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return class and check of each label where the table of a layer gives them."""
    found = {}
    for name in ("class", "check"):
        try:
            values = [str(value) if value == value else "" for value in features[name]]  # NaN is not itself
            index = features["index"] if "index" in features else range(len(values))
            words = {int(label): word for label, word in zip(index, values, strict=True)}
        except (KeyError, TypeError, ValueError, IndexError):
            continue
        column = np.array([words.get(label, "") for label in labels.tolist()], dtype=object)
        if (column != "").any():
            found[name] = column
    return found
