"""``match_class_folders``: labels in a folder for each class, whose masks may overlap, put together with the images of their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_tileseg.errors import InputError
from napari_tileseg.io.files import zarr_root
from napari_tileseg.io.registry import find_format
from napari_tileseg.training.matching import list_files, match

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["match_class_folders"]


def match_class_folders(
    images: Path, labels: Path, *, certain: bool = False
) -> tuple[list[tuple[Path, dict[str, Path]]], tuple[str, ...]] | None:
    """Match ``labels/CLASS/NAME`` with ``images/NAME``.

    Parameters
    ----------
    images, labels : Path
        Two folders.
    certain : bool
        Whether the user has said that classes overlap; otherwise that is believed only where an image has masks in several folders.

    Returns
    -------
    pairs : list of (Path, dict of str to Path)
        Each image with its masks by the names of their folders, in the order of these.
    unmatched : tuple of str
        What has no partner, a part of a sentence each.
        None instead of both where the folders do not lie so.
    """
    folders = _class_folders(labels)
    if not folders or (len(folders) == 1 and not certain):
        return None
    known = list_files(images)
    inner = {path.parent.name for path in known if path.parent != images}
    if inner & {folder.name for folder in folders}:
        return None  # the images lie in folders of the same names: they stand for something else
    masks: dict[Path, dict[str, Path]] = {}
    unmatched: list[str] = []
    for folder in folders:
        matched = match(known, _listed(folder), root=images, other=folder)
        for image, mask in matched.pairs:
            masks.setdefault(image, {})[folder.name] = mask
        unmatched += [f"{folder.name}/{path.name} has no image" for path in matched.second_only]
        if not matched.pairs:
            unmatched.append(f'the folder "{folder.name}" has labels of none of the images')
    if not certain and not any(len(found) > 1 for found in masks.values()):
        return None
    unmatched = [f"{path.name} has no labels" for path in known if path not in masks] + unmatched
    return [(path, masks[path]) for path in known if path in masks], tuple(unmatched)


def _class_folders(labels: Path) -> list[Path]:
    """Return the folders below one that holds nothing but folders."""
    if not labels.is_dir() or zarr_root(labels) is not None:
        return []
    entries = sorted(path for path in labels.iterdir() if not path.name.startswith("."))
    if any(find_format(path) is not None for path in entries):
        return []
    return [path for path in entries if path.is_dir()]


def _listed(folder: Path) -> Sequence[Path]:
    try:
        return list_files(folder)
    except InputError:
        return ()  # an empty folder: a class of which nobody has drawn anything
