"""What maps of scores and of uncertainty are called: as the labels, with a word behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_tileseg.io.files import zarr_root
from napari_tileseg.io.own_labels import is_label_place
from napari_tileseg.io.registry import suffix_of

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["beside", "scores_path", "uncertainty_path"]


def scores_path(labels: Path) -> Path:
    """Return where the scores go that belong to labels."""
    return beside(labels, "_scores", ".ome.tif")


def uncertainty_path(labels: Path) -> Path:
    """Return where the uncertainty goes that belongs to labels: NIfTI for NIfTI."""
    return beside(labels, "_uncertainty", ".nii.gz" if labels.name.lower().endswith((".nii", ".nii.gz")) else ".ome.tif")


def beside(path: Path, addition: str, suffix: str) -> Path:
    """Return a name beside that of labels; beside the store, where they go into the one of their image."""
    if is_label_place(path) and (root := zarr_root(path)) is not None:
        inner = "_".join(part for part in path.relative_to(root).parts if part != "labels")
        return root.with_name(f"{root.name[: len(root.name) - len(suffix_of(root))]}_{inner}{addition}{suffix}")
    ending = suffix_of(path, purpose="write")
    return path.with_name(path.name[: len(path.name) - len(ending)] + addition + suffix)
