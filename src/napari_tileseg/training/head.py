"""``keep_shared``: a new head begins with what an old one knew of the classes that both have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from napari_tileseg.models.nets.shapes import expected_shapes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from napari_tileseg.models.spec import ModelSpec

__all__ = ["RESULTS", "keep_shared", "result_weights"]

RESULTS = ("out_channels", "num_classes")
"""What networks call the number of their results."""


_UNLIKELY = 2.0
"""Logit by which a class that is new is less likely than the background, before anything was learnt of it."""


def keep_shared(network: nn.Module, state: Mapping[str, Tensor], before: ModelSpec, after: ModelSpec) -> tuple[str, ...]:
    """Copy the weights of those results whose classes have the same names.

    Where classes that exclude each other become overlapping ones, the weights of the background are taken off, which leaves the answer
    of two classes as it was; the other way round those of the background are 0. Classes that are new begin as unlikely ones.

    Parameters
    ----------
    network : nn.Module
        The new one, changed in place.
    state : mapping of str to Tensor
        Weights of the old one, under the names of the new one.
    before, after : ModelSpec
        Cards of the old one and the new one, of the same architecture.

    Returns
    -------
    tuple of str
        The classes that were taken over, without the background; none where no name is shared, and nothing is changed then.
    """
    old, new = _rows(before), _rows(after)
    shared = [name for name in new if name in old]
    known = [name for name in shared if name in after.foreground_classes]
    if not known or (old == new and before.output == after.output):
        return ()
    own = network.state_dict()
    fresh = [row for name, row in new.items() if name not in old and not (after.output == "softmax" and row == 0)]
    pairs = [(new[name], old[name]) for name in shared]
    with torch.no_grad():
        for name, axes in result_weights(after).items():
            if name not in state or any(own[name].shape[axis] != len(after.score_names) for axis in axes):
                continue
            source, target = (tensor.movedim(axes, tuple(range(len(axes)))) for tensor in (state[name].to(own[name]), own[name]))
            if source.shape[len(axes) :] != target.shape[len(axes) :]:
                continue
            if len(axes) == 1:
                _copy_rows(target, source, pairs, before, after)
            elif before.output == after.output:
                _copy_square(target, source, pairs)
            if after.output != "instances":
                _begin_low(target, fresh, like_ground=after.output == "softmax")
    return tuple(known)


def _copy_rows(target: Tensor, source: Tensor, pairs: list[tuple[int, int]], before: ModelSpec, after: ModelSpec) -> None:
    ground = source[0] if before.output == "softmax" and after.output == "sigmoid" else torch.zeros_like(source[0])
    for here, there in pairs:
        target[here] = source[there] - ground
    if after.output == "softmax" and before.output != "softmax":
        target[0] = 0


def _copy_square(target: Tensor, source: Tensor, pairs: list[tuple[int, int]]) -> None:
    """Copy weights from each result to each result, as where the last of several layers takes and gives them; new ones give nothing."""
    for here, there in pairs:
        target[here] = 0
        for beside, across in pairs:
            target[here, beside] = source[there, across]


def _begin_low(weights: Tensor, rows: list[int], *, like_ground: bool) -> None:
    """Make classes that are new unlikely at first: weights by chance would drown those that are known already."""
    for row in rows:
        weights[row] = 0.1 * weights[row] + (weights[0] if like_ground and row else 0)
        if weights.ndim == 1:
            weights[row] -= _UNLIKELY


def _rows(spec: ModelSpec) -> dict[str, int]:
    """Return which result stands for which class; of a model of objects, the one that says where they are."""
    if spec.output == "instances":
        return {spec.classes[1]: spec.score_names.index("foreground")} if "foreground" in spec.score_names else {}
    return {name: place for place, name in enumerate(spec.score_names)}


def result_weights(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Return the weights that there is a part of for each result, by name, and along which axes these parts lie.

    Empty where the network does not say how many results it has.
    """
    results = next((name for name in RESULTS if name in spec.arguments), "")
    if not results:
        return {}
    counts = (len(spec.score_names), len(spec.score_names) + 1)
    shapes = [expected_shapes(spec.architecture, spec.arguments | {results: count}) for count in counts]
    found = {}
    for name, shape in shapes[0].items():
        other = shapes[1].get(name, shape)
        axes = tuple(axis for axis, (one, two) in enumerate(zip(shape, other, strict=True)) if one != two)
        if 1 <= len(axes) <= 2:
            found[name] = axes
    return found
