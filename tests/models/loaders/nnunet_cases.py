"""What the recordings of nnU-Net and the tests against them have in common."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg import Volume, read_volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

HERE = Path(__file__).parent / "nnunet"
SAMPLE = Path(__file__).parents[3] / "sample_data" / "hippocampus_mri.nii.gz"
EQUAL = 0.9999
"""Share of voxels whose labels must be equal."""


def edited(content: dict[str, Any], edits: dict[str, Any]) -> dict[str, Any]:
    """Return a copy with some values exchanged; their places are written with slashes."""
    copy: dict[str, Any] = json.loads(json.dumps(content))
    for place, value in edits.items():
        *parents, last = place.split("/")
        inner = copy
        for parent in parents:
            inner = inner[parent]
        inner[last] = value
    return copy


def image_of(case: dict[str, Any], sample: NDArray[np.uint16]) -> Volume:
    """Make the image of a case as the recording did."""
    if "file" in case:
        return read_volume(HERE / case["file"])
    image = sample[tuple(slice(*part) for part in case.get("part", []))]
    image = np.tile(image, case.get("tile", [1, 1, 1]))
    if "scale" in case:
        image = np.round(image * case["scale"]).astype(image.dtype)
    image = np.pad(image, case.get("pad", 0))
    for hole in case.get("holes", []):
        image[tuple(slice(*part) for part in hole)] = 0
    if len(image) == 1:  # a picture
        return Volume(image[0], "YX", name=case["name"])
    return Volume.from_scale(image, "ZYX", tuple(case["spacing"]), units=("millimeter",) * 3, name=case["name"])
