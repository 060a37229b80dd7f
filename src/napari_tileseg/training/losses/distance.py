"""``Distance``: MONAI's losses of how far outlines lie apart.

Sources: H. Kervadec et al., Boundary loss, MIDL 2019 (arXiv:1812.07032); D. Karimi, S. Salcudean, Reducing the Hausdorff distance, IEEE
TMI 39, 2019 (arXiv:1904.10030).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import monai.losses

from napari_tileseg.errors import OptionsError
from napari_tileseg.training.losses.loss import Loss

if TYPE_CHECKING:
    from torch import Tensor

    from napari_tileseg.training.losses.prepared import Prepared

__all__ = ["Distance"]

_CLASSES = {"boundary": "BoundaryLoss", "hausdorff": "HausdorffDTLoss", "log_hausdorff": "LogHausdorffDTLoss"}


class Distance(Loss):
    """Distances from outlines, weighted with what was found; to be added to a loss of overlap.

    Parameters
    ----------
    kind : {"boundary", "hausdorff", "log_hausdorff"}
    include_background : bool
        Whether class 0 counts, where classes exclude each other.
    batch : bool
        Whether the batch is taken as one.
    alpha : float, optional
        Exponent of the distances (Hausdorff; MONAI's is 2).
    **options
        As `Loss`; weights of classes are not taken.

    Raises
    ------
    OptionsError
        If the MONAI that is installed lacks it.
    """

    def __init__(
        self,
        *,
        kind: Literal["boundary", "hausdorff", "log_hausdorff"],
        include_background: bool = False,
        batch: bool = False,
        alpha: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        found = getattr(monai.losses, _CLASSES[kind], None)
        if found is None:
            raise OptionsError(f"The MONAI that is installed has no {_CLASSES[kind]}. Update it: pip install -U monai.")
        self.include_background = include_background
        self.inner = found(include_background=True, batch=batch, **({} if alpha is None else {"alpha": alpha}))

    def compute(self, prepared: Prepared) -> Tensor:
        first = 1 if prepared.exclusive and not self.include_background else 0
        result: Tensor = self.inner(prepared.probability[:, first:], prepared.target[:, first:])
        return result
