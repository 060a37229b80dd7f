"""The folds of the Refine dock, in their order from top to bottom.

A fold is a `Fold` that is made with the session. It listens to the session's signals ``chosen`` (other labels), ``edited`` (a step),
``looked`` (the objects are known) and ``changed`` (any of the state); it changes labels with ``session.do`` (an edit at hand),
``session.attempt`` (something quick) or ``session.run`` (in another thread); it binds keys with ``session.bind``. It may have
``widgets_in_order()`` (how Tab goes through it), ``align(width)``, and ``shortcuts`` (keys in the dock, as Qt spells
them), and ``tool`` (words and tooltip of a button among the tools that opens it).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_tileseg.widgets.refine.again import Again
from napari_tileseg.widgets.refine.cleanup import CleanUp
from napari_tileseg.widgets.refine.objects import Objects
from napari_tileseg.widgets.refine.review import Review
from napari_tileseg.widgets.refine.scores import Scores

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_tileseg.widgets.parts import Fold
    from napari_tileseg.widgets.refine.session import RefineSession

__all__ = ["FOLDS"]

FOLDS: tuple[Callable[[RefineSession], Fold], ...] = (Again, Scores, CleanUp, Review, Objects)
