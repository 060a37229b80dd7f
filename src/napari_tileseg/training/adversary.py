"""``Adversary``: a discriminator that learns to tell results from references, and a term for the network that is to deceive it.

Sources: P. Luc et al., Semantic segmentation using adversarial networks (arXiv:1611.08408); P. Isola et al., Image-to-image translation
with conditional adversarial networks (arXiv:1611.07004), whose discriminator looks at patches.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from monai.networks.nets.patchgan_discriminator import PatchDiscriminator
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from napari_tileseg.errors import OptionsError
from napari_tileseg.training.losses.adversarial import AdversarialLoss
from napari_tileseg.training.objective import crop_to
from napari_tileseg.training.prepare import IGNORED
from napari_tileseg.training.ranks import ALONE
from napari_tileseg.training.targets import touching

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.training.config import TrainConfig
    from napari_tileseg.training.ranks import Ranks

__all__ = ["Adversary", "make_adversary"]

_FILTERS = 32
_LAYERS = 3
_RATE = 2e-4
_BETAS = (0.5, 0.999)
_SMOOTH = 0.1
"""What a reference leaves to other classes, so that its sharpness alone does not betray it."""


class Adversary:
    """Judges class probabilities, or what objects are decoded from, together with the image that they belong to.

    Parameters
    ----------
    weight : float
        Of the term in the network's loss.
    kind : {"bce", "least_squares"}
    channels, classes : int
        Of images, and of scores.
    size : sequence of int
        A crop of scores.
    objects : bool
        Whether scores are the foreground, where objects touch, and the distance inside each, instead of classes.
    seed : int
        Of its first weights; what others draw at random stays as it is.
    device : str
    ranks : Ranks

    Raises
    ------
    OptionsError
        If crops are too small to be judged.
    """

    def __init__(
        self,
        weight: float,
        kind: Literal["bce", "least_squares"],
        *,
        channels: int,
        classes: int,
        size: Sequence[int],
        objects: bool = False,
        seed: int = 0,
        device: str = "cpu",
        ranks: Ranks = ALONE,
    ) -> None:
        layers = min(_LAYERS, int(math.log2(max(1.0, min(size) / 3))))
        if layers < 1:
            shown = " x ".join(map(str, size))
            raise OptionsError(
                f"The adversarial term needs 6 pixels or more along each axis of a crop, not {shown}. Choose a larger window."
            )
        self.weight = weight
        self._objects = objects
        self._loss = AdversarialLoss(kind)
        self._ranks = ranks
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            # Instance normalisation judges each crop by itself, whatever else is in the batch.
            network = PatchDiscriminator(len(size), _FILTERS, channels + classes, num_layers_d=layers, norm="INSTANCE")
        self.network: nn.Module = network.to(device)
        self._shared: nn.Module | None = None
        self._optimizer = torch.optim.Adam(self.network.parameters(), lr=_RATE, betas=_BETAS)

    def term(self, image: Tensor, scores: Tensor, labels: Tensor, maps: Tensor | None = None) -> Tensor:
        """Return what the network loses where its result is recognised; the discriminator gets no gradients.

        Parameters
        ----------
        image : Tensor, shape (B, C, *spatial)
            As large as the scores, or larger at all borders.
        scores : Tensor, shape (B, K, *spatial)
            Raw.
        labels : Tensor, shape (B, *spatial) or (B, K, *spatial)
            As large as the image; `IGNORED` where nothing is known.
        maps : Tensor, shape (B, M, *spatial), optional
            Of objects, the first one their distance to the outside, as of `object_maps`.
        """
        made, _ = self._pairs(image, scores, labels, maps)
        self.network.requires_grad_(False)
        try:
            return self._loss.generator(_judged(self.network, made))
        finally:
            self.network.requires_grad_(True)

    def learn(
        self, image: Tensor, scores: Tensor, labels: Tensor, share: float, *, maps: Tensor | None = None, more: bool = False
    ) -> float:
        """Add the discriminator's gradients of a part of a batch, times `share`; arguments as of `term`. Returns its loss."""
        made, real = self._pairs(image, scores.detach(), labels, maps)
        network = self._wrapped
        with network.no_sync() if more and isinstance(network, DistributedDataParallel) else contextlib.nullcontext():
            said = _judged(network, torch.cat([real, made]))
            loss = self._loss.discriminator(said[: len(real)], said[len(real) :]) * share
            loss.backward()
        return float(loss.detach())

    def _pairs(self, image: Tensor, scores: Tensor, labels: Tensor, maps: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return images with what was made of them, and images with references, each (B, C + K, *spatial); 0 where nobody knows."""
        scores = scores if scores.dtype == torch.float64 else scores.float()
        image, labels = crop_to(image, scores).to(scores), crop_to(labels, scores)
        known = labels != IGNORED if labels.ndim == scores.ndim else (labels != IGNORED)[:, None]
        if self._objects:
            assert maps is not None  # objects have them
            share, truth = _objects(scores, labels.clamp(min=0), crop_to(maps, scores))
        else:
            share, truth = _classes(scores, labels.clamp(min=0))
        return torch.cat([image, share * known], 1), torch.cat([image, truth * known], 1)

    def forget(self) -> None:
        """Drop gradients."""
        self._optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Change the discriminator by its gradients."""
        self._optimizer.step()

    def begin_again(self) -> None:
        """Be ready for another attempt, after one that was abandoned."""
        self._shared = None

    @property
    def _wrapped(self) -> nn.Module:
        if self._shared is None:
            self._shared = self._ranks.wrapped(self.network)
        return self._shared

    def state(self) -> dict[str, Any]:
        """Return what is needed to go on."""
        return {"network": self.network.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Undo `state`."""
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])


def make_adversary(config: TrainConfig, spec: ModelSpec, device: str, ranks: Ranks) -> Adversary | None:
    """Return what a config asks for; None where it asks for none.

    Raises
    ------
    OptionsError
        If crops are too small to be judged.
    """
    if not config.adversarial:
        return None
    lost = spec.output_offset or (0,) * len(spec.window)
    return Adversary(
        config.adversarial,
        config.adversarial_kind,
        channels=len(spec.channels),
        classes=len(spec.score_names),
        size=[side - 2 * less for side, less in zip(spec.window, lost, strict=True)],
        objects=spec.output == "instances",
        seed=config.seed,
        device=device,
        ranks=ranks,
    )


def _judged(network: nn.Module, pairs: Tensor) -> Tensor:
    with torch.autocast(pairs.device.type, enabled=False):
        said: Tensor = network(pairs)[-1]
    return said


def _classes(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return probabilities of classes, and the references, (B, K, *spatial)."""
    if labels.ndim == scores.ndim:
        return scores.sigmoid(), labels.to(scores) * (1 - 2 * _SMOOTH) + _SMOOTH
    classes = scores.shape[1]
    truth = F.one_hot(labels.long(), classes).movedim(-1, 1).to(scores)
    return scores.softmax(1), truth * (1 - _SMOOTH) + (1 - truth) * _SMOOTH / max(1, classes - 1)


def _objects(scores: Tensor, labels: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `InstanceLoss` compares: foreground and border between 0 and 1, and the distance, (B, 3, *spatial)."""
    inside = labels > 0
    masks = torch.stack([inside, touching(labels)], 1).to(scores) * (1 - 2 * _SMOOTH) + _SMOOTH
    # The distance has no logit; below 0 it means the same as 0, which is what the reference has outside of objects.
    share = torch.cat([scores[:, :2].sigmoid(), scores[:, 2:].clamp(0, 1)], 1)
    return share, torch.cat([masks, (maps[:, 0] * inside).to(scores)[:, None]], 1)
