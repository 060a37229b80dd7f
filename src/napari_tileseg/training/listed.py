"""``Listed``: the labels of one of the images that a COCO file lists; ``match_listed`` finds these in a folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_tileseg.errors import InputError
from napari_tileseg.io.coco import list_coco, read_coco
from napari_tileseg.training.matching import list_files, match

if TYPE_CHECKING:
    from pathlib import Path

    from napari_tileseg.volume import Volume

__all__ = ["Listed", "is_list", "match_listed"]


@dataclass(frozen=True)
class Listed:
    """What a COCO file says of one image.

    Parameters
    ----------
    path : Path
    series : int
        Place of the image in the file's list.
    """

    path: Path
    series: int

    def open(self, *, overlapping: bool = False) -> Volume:
        """Draw its objects, each with a number of its own, or along C a mask for each category; arguments and errors of `read_coco`."""
        return read_coco(self.path, series=self.series, overlapping=overlapping)


def is_list(labels: Path) -> bool:
    """Say whether labels are a file that may list many images."""
    return labels.suffix.lower() == ".json" and labels.is_file()


def match_listed(images: Path, labels: Path) -> tuple[list[tuple[Path, Listed]], tuple[str, ...]]:
    """Find the images that a COCO file lists, by their names, whatever folders and formats it names them with.

    Parameters
    ----------
    images : Path
        A folder.
    labels : Path
        The file.

    Returns
    -------
    pairs : list of (Path, Listed)
    unmatched : tuple of str
        What has no partner, a part of a sentence each.

    Raises
    ------
    InputError
        If the file is no COCO, or lists none of the images.
    """
    listed: dict[Path, Listed] = {}
    for series, name in enumerate(list_coco(labels)):
        parts = [part for part in re.split(r"[\\/]", name) if part not in ("", ".", "..")]
        listed.setdefault(images.joinpath(*parts), Listed(labels, series))
    matched = match(list_files(images), list(listed), root=images, other=images)
    if not matched.pairs:
        raise InputError(f'"{labels.name}" lists none of the images of "{images.name}". Give the folder that it was made for.')
    unmatched = [f"{path.name} is not listed" for path in matched.first_only]
    unmatched += [f"{path.name} is listed, but not there" for path in matched.second_only]
    return [(path, listed[name]) for path, name in matched.pairs], tuple(unmatched)
