"""``usual_range``: between which numbers normalised intensities lie, so that crops are changed by a share of that."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_tileseg.engine.steps import NOTHING, take_steps

if TYPE_CHECKING:
    from napari_tileseg.models.spec import Normalization, NormalizationStep

__all__ = ["is_raw", "limits", "usual_range"]

_UNIT = ("percentile", "range", "minmax")
_DEVIATIONS = (-2.0, 2.0)


def usual_range(rule: Normalization, low: float, high: float) -> tuple[float, float]:
    """Return about the least and the greatest intensity of normalised images.

    Parameters
    ----------
    rule : Normalization
    low, high : float
        Least and greatest intensity of the images as they are.
    """
    if rule.kind == "channels":  # the narrowest, so that no channel drowns
        return min((usual_range(channel, low, high) for channel in rule.channels), key=lambda ends: ends[1] - ends[0])
    if rule.kind == "steps":
        for step in rule.steps:
            low, high = _after(step, low, high)
        return low, high
    if rule.kind == "none":
        return low, high
    return (0.0, 1.0) if rule.kind in _UNIT else _DEVIATIONS


def limits(rule: Normalization) -> tuple[float, float] | None:
    """Return what no normalised intensity is below or above; None where there is no such number."""
    if rule.kind != "channels":
        return rule.clip
    clips = [channel.clip for channel in rule.channels]
    known = [clip for clip in clips if clip is not None]
    return (min(low for low, _ in known), max(high for _, high in known)) if len(known) == len(clips) else None


def is_raw(rule: Normalization) -> bool:
    """Return whether some intensities stay as the image has them: numbers that may be thousands."""
    if rule.kind == "channels":
        return any(is_raw(channel) for channel in rule.channels)
    return rule.kind == "none" or (rule.kind == "steps" and not rule.steps)


def _after(step: NormalizationStep, low: float, high: float) -> tuple[float, float]:
    """Return where a step takes a range."""
    if step.kind == "mean_std":
        return _DEVIATIONS
    if step.kind == "percentiles":
        return 0.0, 1.0
    if step.measured:  # between percentiles, which are not known yet
        return low, high
    channels = max(len(step.offset), len(step.scale), len(step.threshold))
    ends = take_steps(np.array([[low, high]] * channels, np.float32), [step], [NOTHING])
    return float(ends.min()), float(ends.max())
