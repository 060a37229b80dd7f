"""Pairs on disk: found, read in our axis order, and normalised as the engine does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_tileseg.engine.normalize import measure, normalize
from napari_tileseg.errors import InputError
from napari_tileseg.training.data import list_pairs, prepare_image, read_array, read_examples
from napari_tileseg.training.recipes import RECIPES
from napari_tileseg.training.targets import object_maps

if TYPE_CHECKING:
    from pathlib import Path

    from napari_tileseg.models.spec import ModelSpec

NUCLEI: ModelSpec = RECIPES["nuclei-2d"].spec


def fill(folder: Path, name: str, image: np.ndarray, label: np.ndarray) -> None:
    for kind, array in (("images", image), ("labels", label)):
        (folder / "train" / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(folder / "train" / kind / name)


def test_pairs_are_sorted_and_grouped_by_name(tmp_path: Path) -> None:
    for name in ("tissue_002.png", "cells_of_mice_001.png", "tissue_001.png"):
        fill(tmp_path, name, np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8))
    (tmp_path / "train" / "images" / "notes.txt").touch()
    pairs = list_pairs(tmp_path, "train")
    assert [pair.name for pair in pairs] == ["cells_of_mice_001", "tissue_001", "tissue_002"]
    assert [pair.group for pair in pairs] == ["cells_of_mice", "tissue", "tissue"]


def test_missing_images_and_labels_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no images"):
        list_pairs(tmp_path, "train")
    fill(tmp_path, "a_1.png", np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8))
    (tmp_path / "train" / "labels" / "a_1.png").unlink()
    with pytest.raises(InputError, match=r"a_1\.png has no label"):
        list_pairs(tmp_path, "train")


def test_every_format_is_read_slowest_axis_first(tmp_path: Path) -> None:
    volume = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    nibabel.save(nibabel.Nifti1Image(volume.T, np.eye(4)), tmp_path / "a.nii.gz")
    tifffile.imwrite(tmp_path / "a.tif", volume.astype(np.uint16))
    Image.fromarray(volume[0].astype(np.uint8)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_array(tmp_path / "a.nii.gz"), volume)
    np.testing.assert_array_equal(read_array(tmp_path / "a.tif"), volume)
    np.testing.assert_array_equal(read_array(tmp_path / "a.png"), volume[0])


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_normalised_as_by_the_engine(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, channels), dtype=np.uint8)
    array = pixels[..., 0] if channels == 1 else pixels
    block = np.moveaxis(pixels, -1, 0)
    expected = normalize(block, measure([block], NUCLEI.normalization, channels, block.dtype), NUCLEI.normalization)
    np.testing.assert_array_equal(prepare_image(array, NUCLEI), expected)


def test_dark_nuclei_on_bright_ground_are_turned_around() -> None:
    image = np.full((32, 32), 40, np.uint8)
    image[8:16, 8:16] = 200
    np.testing.assert_allclose(prepare_image(image, NUCLEI), prepare_image(255 - image, NUCLEI), atol=1e-6)


def test_examples_hold_image_labels_and_maps(tmp_path: Path) -> None:
    label = np.zeros((20, 24), np.uint16)
    label[2:9, 3:9] = 5
    fill(tmp_path, "a_1.png", np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8), label)
    (example,) = read_examples(list_pairs(tmp_path, "train"), NUCLEI, make_maps=object_maps)
    assert example.image.shape == (3, 20, 24)
    assert example.labels.dtype == np.int32
    assert example.maps.shape == (2, 20, 24)
    np.testing.assert_array_equal(example.labels, label)
    assert not read_examples(list_pairs(tmp_path, "train"), NUCLEI)[0].maps.size


def test_a_label_of_another_size_is_named(tmp_path: Path) -> None:
    fill(tmp_path, "a_1.png", np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8))
    with pytest.raises(InputError, match="They must be equal"):
        read_examples(list_pairs(tmp_path, "train"), NUCLEI)
