"""A decoder for napari-tileseg: each connected place of the foreground is an object."""

import numpy as np
from scipy import ndimage


def foreground(scores, parameters, threshold=0.5):
    """Where objects can be: scores (K, *spatial) to a mask (*spatial)."""
    return scores[0] > np.log(threshold / (1 - threshold))


def decode(scores, parameters, *, threshold=0.5, min_size=0):
    """Number the objects from 1; the background is 0."""
    labels, count = ndimage.label(foreground(scores, parameters, threshold), np.ones((3,) * (scores.ndim - 1)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    labels[sizes[labels] < min_size] = 0
    return labels


def margin(parameters):
    """How many pixels around a component may change its objects."""
    return 0
