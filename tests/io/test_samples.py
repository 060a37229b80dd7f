"""Samples: three real images with references on the same grid, where and as their README says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_tileseg.errors import InputError
from napari_tileseg.io.samples import SAMPLES, Sample, sample, sample_path

README = Path(__file__).parents[2] / "sample_data" / "README.md"

every_sample = pytest.mark.parametrize("item", SAMPLES, ids=lambda item: item.key)


@every_sample
def test_image_and_reference_share_one_grid(item: Sample) -> None:
    image, reference = sample(item.key)
    axes, affine, units = image.drop("C")
    assert (reference.axes, reference.units) == (axes, units)
    np.testing.assert_array_equal(reference.affine, affine)
    assert reference.shape == tuple(image.sizes[axis] for axis in axes)


@every_sample
def test_the_reference_lies_on_the_objects(item: Sample) -> None:
    image, reference = sample(item.key)
    values = np.asarray(image.data, dtype=float)
    values = values.mean(axis=-1) if image.axes.endswith("C") else values
    mask = np.asarray(reference.data) > 0
    contrast = values[mask].mean() - values[~mask].mean()
    bright = item.key == "nuclei-fluorescence"
    assert bool(contrast > 0) is bright
    assert abs(contrast) > 0.5 * values[~mask].std()


def test_what_the_readme_says_is_in_the_files() -> None:
    counts = {item.key: len(np.unique(np.asarray(sample(item.key)[1].data))) - 1 for item in SAMPLES}
    assert counts == {"nuclei-fluorescence": 86, "nuclei-histology": 82, "hippocampus-mri": 2}
    assert [sample(item.key)[0].axes for item in SAMPLES] == ["YX", "YXC", "ZYX"]


@every_sample
def test_every_file_is_listed_with_its_licence(item: Sample) -> None:
    text = README.read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if f"`{item.image}`" in line]
    assert len(rows) == 1
    assert f"`{item.labels}`" in rows[0]
    assert f"`{item.licence}`" in rows[0]
    assert sample_path(item.image).is_file()


def test_nothing_else_is_in_the_folder() -> None:
    expected = {"README.md", *(name for item in SAMPLES for name in (item.image, item.labels))}
    assert {path.name for path in README.parent.iterdir()} == expected


def test_an_unknown_sample_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="nuclei-fluorescence, nuclei-histology, hippocampus-mri"):
        sample("moon")
