"""A file format for napari-tileseg."""

from pathlib import Path

import numpy as np

from napari_tileseg import Volume
from napari_tileseg.io import Format

NUMPY = Format("NumPy stack", (".stack.npy",), reader="example_format:read", writer="example_format:write")


def read(path: Path, *, series: int = 0, level: int = 0) -> Volume:
    data = np.load(path, mmap_mode="r")
    return Volume(data, "TZYX"[-data.ndim :], name=path.name.removesuffix(".stack.npy"))


def write(labels: Volume, path: Path, *, classes=(), colors=(), provenance=None) -> None:
    with path.open("wb") as file:
        np.save(file, labels.data)
