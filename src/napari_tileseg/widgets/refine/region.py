"""``Regions``: a part of labels that are too large to be changed at once, open as a layer of its own."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QTimer

from napari_tileseg.errors import InputError, OptionsError, TileSegError
from napari_tileseg.widgets.refine.copies import copy_of
from napari_tileseg.widgets.refine.subject import only_read
from napari_tileseg.widgets.refine.window import PyramidWindow
from napari_tileseg.widgets.states import Message

if TYPE_CHECKING:
    from pathlib import Path

    from napari.layers import Layer

    from napari_tileseg.refine.autosave import Recovered
    from napari_tileseg.widgets.refine.session import RefineSession

__all__ = ["Regions"]


class Regions:
    """Opens regions of labels of several scales, and puts them back.

    Parameters
    ----------
    session : RefineSession
    """

    def __init__(self, session: RefineSession) -> None:
        self._session = session
        self._window: PyramidWindow | None = None
        self._hidden: Labels | None = None

    def owns(self, layer: Layer) -> bool:
        """Whether a layer is such a region."""
        return layer is self._session.segment.region or (self._window is not None and layer is self._window.layer)

    def whole(self, layer: Layer) -> Labels | None:
        """Return the labels that a region is of, where they are not the result of a run; None for other layers."""
        return self._window.labels if self._window is not None and layer is self._window.layer else None

    def box(self, layer: Layer) -> tuple[slice, ...] | None:
        """Return where in those labels a region lies."""
        return self._window.box if self._window is not None and layer is self._window.layer else None

    def none_of(self, labels: Labels) -> bool:
        """Whether labels can only be read, and are no result of a run, which is written to in a way of its own."""
        result = self._session.segment.result
        return only_read(labels) and not (result is not None and result.store is not None and result.owns(labels))

    def open(self) -> None:
        """Open what is in view of the chosen labels.

        Raises
        ------
        OptionsError
            If nothing of them is in view, or too much, or they cannot be written to.
        """
        session = self._session
        viewer, labels, segment = session.viewer, session.labels, session.segment
        if viewer is None or labels is None or not labels.multiscale:
            return
        if segment.region is not None or self._window is not None:
            raise OptionsError("A region is open already. Put it back first.")
        result = segment.result
        if result is not None and result.store is not None and result.owns(labels):
            viewer.layers.selection.active = labels
            segment.edit_region()
            opened = segment.region
        else:
            self._window = PyramidWindow(viewer, labels)
            opened = self._window.layer
            viewer.add_layer(opened)
        if isinstance(opened, Labels):
            self._hide(labels)
            session.choose(opened)

    def copy(self) -> None:
        """Copy the chosen labels, which can only be read, into memory, and go on with the copy.

        Raises
        ------
        OptionsError
            If they are too large.
        """
        session = self._session
        if session.viewer is None or session.labels is None:
            return
        labels = session.labels
        copy = copy_of(labels)
        labels.visible = False  # or what is removed from the copy would shine through
        session.viewer.add_layer(copy)
        session.choose(copy)

    def put_back(self) -> None:
        """Write the open region into the labels that it is of, make their coarser levels anew there, and close it.

        Raises
        ------
        OutputError
            If the disk refuses; the region stays open.
        """
        session = self._session
        viewer, window, region = session.viewer, self._window, session.segment.region
        if window is None:
            session.segment.put_back()
            if region is not None:
                session.keeper.forget(region)
            self._show()
        elif viewer is not None:
            window.put_back()
            self._window = None
            if window.layer in viewer.layers:
                viewer.layers.remove(window.layer)
            session.keeper.forget(window.layer)
            self._show()
            session.choose(window.labels if window.labels in viewer.layers else None)
        session.tell(Message("done", "The region was put back."))

    def reopen(self, place: Path, recovered: Recovered) -> Labels:
        """Open a region again that a program has left behind, as it was when it was opened.

        Parameters
        ----------
        place : Path
            Of the store that it is of.
        recovered : Recovered
            The steps in it.

        Raises
        ------
        InputError
            If the store holds other labels there by now.
        OptionsError
            If another region is open.
        """
        session, base = self._session, recovered.base
        viewer = session.viewer
        assert viewer is not None  # the session is open
        if session.segment.region is not None or self._window is not None:
            raise OptionsError("A region is open already. Put it back first, then choose Keep again.")
        labels = self._labels_at(place)
        box = tuple(slice(int(start), int(stop)) for start, stop in recovered.facts["region"])
        inside = labels is not None and len(box) == labels.ndim and all(
            part.stop <= size for part, size in zip(box, labels.data[0].shape, strict=True)
        )  # fmt: skip
        if labels is None or base is None or not inside:
            raise InputError(f'"{place.name}" holds other labels than those that were edited. Open a copy; until then it is kept.')
        window = PyramidWindow(viewer, labels, box)
        now = np.asarray(window.layer.data)
        done = base.copy()
        for edit in recovered.edits:
            edit.apply(done)
        if not ((now == base) | (now == done)).all():  # a part may have been put back already
            raise InputError(
                f'The region of "{place.name}" was changed by something else after these edits were made. Open a copy to see them on the '
                "labels as they were; until then they are kept."
            )
        window.layer.data[...] = base
        self._window = window
        viewer.add_layer(window.layer)
        self._hide(labels)
        return window.layer

    def _labels_at(self, place: Path) -> Labels | None:
        """Return the labels of several scales of a store, opened if they are not."""
        viewer, place_of = self._session.viewer, self._session.keeper.place_of
        assert viewer is not None  # asked before

        def there() -> Labels | None:
            layers = (layer for layer in viewer.layers if isinstance(layer, Labels) and layer.multiscale)
            return next((layer for layer in layers if place_of(layer) == place), None)

        if there() is None:
            viewer.open(str(place), plugin="napari-tileseg")
        return there()

    def on_removed(self, layer: Layer) -> bool:
        """Put a region back that the user has closed; returns whether its steps need not be kept any more."""
        window, session = self._window, self._session
        if layer is session.segment.region:
            QTimer.singleShot(0, partial(self._on_closed, layer))  # its session puts it back, or opens it again
            return False
        if window is None or layer is not window.layer:
            return False
        try:
            window.put_back()
        except TileSegError as error:
            session.tell(Message("error", str(error)))
            if session.viewer is not None:
                session.viewer.add_layer(layer)
            return False
        self._window = None
        self._show()
        return True

    def _on_closed(self, layer: Layer) -> None:
        viewer = self._session.viewer
        if viewer is not None and layer not in viewer.layers:
            self._session.keeper.forget(layer)
            self._show()

    def _hide(self, labels: Labels) -> None:
        """Hide the labels that a region is of: what is removed from the region would shine through."""
        if labels.visible:
            labels.visible, self._hidden = False, labels

    def _show(self) -> None:
        hidden, self._hidden = self._hidden, None
        if hidden is not None:
            hidden.visible = True
