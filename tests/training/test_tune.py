"""The search for a decoder's parameters."""

from __future__ import annotations

import numpy as np

from napari_tileseg.engine import watershed
from napari_tileseg.training.tune import tune_decoder


def test_the_best_of_the_choices_is_found_and_nothing_gets_worse() -> None:
    y, x = np.indices((40, 80))
    discs = [np.hypot(y - 20, x - column) for column in (20, 40)]
    distance = np.max([1 - discs[0] / 12, 1 - discs[1] / 12, np.zeros((40, 80))], axis=0)
    dust = (y > 34) & (x > 75)
    scores = np.stack([np.where((distance > 0) | dust, 5, -5), np.full((40, 80), -5), distance]).astype(np.float32)
    labels = np.where(distance > 0, 1 + (discs[1] < discs[0]), 0)
    start = {"depth": 2.0, "min_size": 0}
    choices = {"depth": [1.5, 0.1], "min_size": [5, 40, 1000]}
    parameters, score = tune_decoder(watershed, [(scores, labels)], start, choices)
    assert parameters == {"depth": 0.1, "min_size": 40}
    assert score == 1.0
    assert tune_decoder(watershed, [(scores, labels)], parameters, choices) == (parameters, 1.0)
    assert tune_decoder(watershed, [(scores, labels)], start, {}) == (start, 1 / 3)
