"""Codes as points: on the image, and beside it."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap

from napari_tileseg.errors import InputError
from napari_tileseg.training.unsupervised.embedding import Embedding
from napari_tileseg.widgets.embedding import show_embedding


def embedding(ndim: int = 2, dimensions: int = 2, labelled: bool = True) -> Embedding:
    generator = np.random.default_rng(0)
    labels = np.array([0, 1, 2, 2, 1]) if labelled else np.zeros(5, np.int64)
    points = generator.normal(size=(5, dimensions)).astype(np.float32)
    return Embedding(generator.uniform(0, 50, (5, ndim)), points, points, labels, generator.random(5).astype(np.float32))


def test_points_lie_on_the_image_and_codes_beside_it() -> None:
    viewer, found = ViewerModel(), embedding()
    layer = viewer.add_image(np.zeros((50, 60)), scale=(2, 2), translate=(7, 3), units=("um", "um"), axis_labels=("y", "x"), name="cells")
    places, codes = show_embedding(viewer, found, layer=layer)
    assert [made.name for made in viewer.layers] == ["cells", "cells places", "cells codes"]
    for point, position in zip(range(5), found.positions, strict=True):
        np.testing.assert_allclose(places.data_to_world(places.data[point]), layer.data_to_world(position))
    assert places.units == codes.units == layer.units
    low, high = layer.extent.world
    assert codes.data[:, 1].min() > high[1]
    assert low[0] - 1e-6 <= codes.data[:, 0].min() < codes.data[:, 0].max() <= high[0] + 1e-6
    # the first code goes to the right, the second one up, both by the same measure
    factors = [np.ptp(codes.data[:, 1 - axis]) / np.ptp(found.points[:, axis]) for axis in (0, 1)]
    assert factors[0] == pytest.approx(factors[1], rel=1e-5)
    assert np.corrcoef(codes.data[:, 1], found.points[:, 0])[0, 1] == pytest.approx(1)
    assert np.corrcoef(codes.data[:, 0], found.points[:, 1])[0, 1] == pytest.approx(-1)


@pytest.mark.parametrize("own", [False, True])
def test_colours_are_those_of_the_labels(own: bool) -> None:
    viewer, found = ViewerModel(), embedding()
    layer = viewer.add_labels(np.zeros((50, 60), np.uint8))
    if own:
        layer.colormap = DirectLabelColormap(color_dict={None: "black", 0: "transparent", 1: "red", 2: "blue"})
    layers = show_embedding(viewer, found, layer=layer if own else None)
    assert len(layers) == 2
    for made in layers:
        np.testing.assert_allclose(made.face_color[1:], [layer.get_color(label) for label in found.labels[1:]], atol=1e-6)
        np.testing.assert_allclose(made.face_color[0], (0.75, 0.75, 0.75, 1))
        assert made.features["label"].tolist() == [0, 1, 2, 2, 1]
        assert made.features["score"].tolist() == found.scores.tolist()


def test_without_labels_the_score_is_the_colour() -> None:
    places, codes = show_embedding(ViewerModel(), embedding(labelled=False))
    order = np.argsort(places.features["score"])
    assert (np.diff(places.face_color[order, 1]) > 0).all(), "viridis grows greener"
    np.testing.assert_array_equal(places.face_color, codes.face_color)


def test_stacks_and_three_codes() -> None:
    viewer, found = ViewerModel(), embedding(ndim=3, dimensions=3)
    layer = viewer.add_layer(Labels(np.zeros((4, 50, 60), np.uint8), name="labels"))
    places, codes = show_embedding(viewer, found, layer=layer)
    assert places.data.shape == codes.data.shape == (5, 3)
    with pytest.raises(InputError, match="Choose the labels"):
        show_embedding(viewer, embedding(), layer=layer)
