"""What the engine needs of an image, a model and a place for the result; it knows nothing else about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_tileseg.models.spec import ModelSpec

__all__ = ["Predictor", "Sink", "Source"]


@runtime_checkable
class Source(Protocol):
    """An image on the model's grid, ready for the network, read piece by piece."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(C, *spatial)``."""
        ...

    def read(self, region: tuple[slice, ...]) -> NDArray[np.float32]:
        """Return the normalised intensities of a box.

        Called from a thread of the engine's own, one call at a time.

        Parameters
        ----------
        region : tuple of slice
            Start and stop on each spatial axis, inside the image.

        Returns
        -------
        ndarray of float32, shape (C, *region)
            Finite numbers.
        """
        ...


@runtime_checkable
class Predictor(Protocol):
    """A loaded model."""

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def device(self) -> str:
        """Where the model is: ``"cpu"``, ``"cuda:0"``, ``"mps"``."""
        ...

    def __call__(self, batch: Any, /) -> Any:
        """Return raw scores.

        Parameters
        ----------
        batch : torch.Tensor of float32, shape (N, C, *window)
            On `device`. It is used again for the next batch: do not keep it.

        Returns
        -------
        torch.Tensor of a floating type, shape (N, K, *output)
            One channel for each of ``spec.score_names``; `output` is the window less ``spec.output_offset`` at each side. A model
            whose ``spec.output`` is ``"labels"`` returns objects instead, shape (N, 1, *output), of any type that holds their
            numbers: from 1, background 0, in each tile anew.
        """
        ...


@runtime_checkable
class Sink(Protocol):
    """Where the result goes. Regions arrive in order along the first axis, each once, side by side."""

    def write(self, region: tuple[slice, ...], labels: NDArray[Any]) -> None:
        """Take finished labels.

        Parameters
        ----------
        region : tuple of slice
            Start and stop on each spatial axis.
        labels : ndarray, shape region or (K, *region)
            Class indices (uint8, or uint16 above 256 classes); object ids (int32); or, multi-label, one bool mask per class
            with the class first.
        """
        ...

    def write_scores(self, region: tuple[slice, ...], scores: NDArray[np.float32]) -> None:
        """Take finished raw scores, shape ``(K, *region)``; called only when scores were asked for."""
        ...

    def write_uncertainty(self, region: tuple[slice, ...], uncertainty: NDArray[np.float32]) -> None:
        """Take finished uncertainty from 0 to 1, of shape `region`; called only when it was asked for."""
        ...
