"""How sure a model is of each pixel: the entropy of its scores, or how far several passes disagree."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_tileseg.models.spec import ModelSpec

__all__ = ["disagreement", "entropy"]

_LOG2 = math.log(2)
_LARGE = 1e4
"""Scores beyond this are as sure as infinite ones, of which a softmax makes NaN."""


def entropy(scores: torch.Tensor, spec: ModelSpec) -> torch.Tensor:
    """Return the entropy of what the scores say, as a share of the most there can be.

    Softmax: of the class probabilities, over ``log(K)``. Sigmoid: of the most doubtful class, in bits. Instances: of the
    foreground (its head, or the first one), in bits, with the decoder's bias, so that it is 1 where a threshold of one half cuts.

    Parameters
    ----------
    scores : torch.Tensor of float32, shape (K, *spatial)
        Averaged raw scores; left as they are.
    spec : ModelSpec
        What the scores stand for.

    Returns
    -------
    torch.Tensor of float32, shape (*spatial)
        From 0 (sure) to 1.

    Source: C. E. Shannon, A mathematical theory of communication, Bell System Technical Journal 27, 1948.
    """
    match spec.output:
        case "softmax":
            share = _of_classes(scores)
        case "instances":
            heads = spec.score_names
            place = heads.index("foreground") if "foreground" in heads else 0
            share = _of_two(scores[place] + spec.decoder_parameters.get("foreground_bias", 0.0))
        case _:
            share = _of_two(scores[0])
            for one in scores[1:]:
                torch.maximum(share, _of_two(one), out=share)
    return share.nan_to_num_(0.0).clamp_(0.0, 1.0)  # infinite scores are sure


def disagreement(passes: Sequence[torch.Tensor], spec: ModelSpec) -> torch.Tensor:
    """Return what the passes know and their mean does not: the entropy of the mean probability less the mean entropy.

    This is the mutual information between the answer and the pass (N. Houlsby et al., Bayesian active learning for
    classification and preference learning, arXiv:1112.5745, 2011): 0 where all passes say the same, however doubtful they are.

    Parameters
    ----------
    passes : sequence of torch.Tensor of float32, shape (K, *spatial)
        Raw scores of the same pixels.
    spec : ModelSpec
        What they stand for.

    Returns
    -------
    torch.Tensor of float32, shape (*spatial)
        From 0 to 1, in the units of `entropy`.
    """
    own = torch.stack([entropy(scores, spec) for scores in passes]).mean(0)
    if spec.output == "softmax":
        mean = torch.stack([scores.clamp(-_LARGE, _LARGE).softmax(0) for scores in passes]).mean(0)
        together = entropy(mean.log(), spec)
    else:
        bias = spec.decoder_parameters.get("foreground_bias", 0.0) if spec.output == "instances" else 0.0
        mean = torch.stack([(scores + bias).sigmoid() for scores in passes]).mean(0)
        together = entropy(mean.logit() - bias, spec)
    return (together - own).clamp_(min=0.0)


def _of_classes(scores: torch.Tensor) -> torch.Tensor:
    """Add up over the classes one by one: a softmax would need the memory of all scores again."""
    if len(scores) == 1:
        return torch.zeros_like(scores[0])
    top = scores[0].clone()
    for one in scores[1:]:
        torch.maximum(top, one, out=top)
    total, moment = torch.zeros_like(top), torch.zeros_like(top)
    for one in scores:
        share = (one - top).exp_()
        total.add_(share)
        moment.add_(torch.special.xlogy(share, share))
    # H = log(sum e) - sum(e log e) / sum(e) with e = exp(s - top)
    return moment.div_(total).neg_().add_(total.log_()).div_(math.log(len(scores)))


def _of_two(logit: torch.Tensor) -> torch.Tensor:
    share = logit.sigmoid()
    other = (-logit).sigmoid()  # 1 - share would lose the small ones
    bits: torch.Tensor = torch.special.xlogy(share, share).add_(torch.special.xlogy(other, other)).div_(-_LOG2)
    return bits
