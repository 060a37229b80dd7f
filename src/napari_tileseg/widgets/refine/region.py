"""``Regions``: a part of labels that are too large to be changed at once, open as a layer of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.layers import Labels

from napari_tileseg.errors import OptionsError, TileSegError
from napari_tileseg.widgets.refine.window import PyramidWindow
from napari_tileseg.widgets.states import Message

if TYPE_CHECKING:
    from napari.layers import Layer

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

    def owns(self, layer: Layer) -> bool:
        """Whether a layer is such a region."""
        return layer is self._session.segment.region or (self._window is not None and layer is self._window.layer)

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
            session.choose(opened)

    def put_back(self) -> None:
        """Write the open region into the labels that it is of, make their coarser levels anew there, and close it.

        Raises
        ------
        OutputError
            If the disk refuses; the region stays open.
        """
        session = self._session
        viewer, window = session.viewer, self._window
        if window is None:
            session.segment.put_back()
        elif viewer is not None:
            window.put_back()
            self._window = None
            if window.layer in viewer.layers:
                viewer.layers.remove(window.layer)
            session.choose(window.labels if window.labels in viewer.layers else None)
        session.tell(Message("done", "The region was put back."))

    def on_removed(self, layer: Layer) -> None:
        """Put a region back that the user has closed."""
        window, viewer = self._window, self._session.viewer
        if window is None or layer is not window.layer:
            return
        try:
            window.put_back()
        except TileSegError as error:
            self._session.tell(Message("error", str(error)))
            if viewer is not None:
                viewer.add_layer(layer)
            return
        self._window = None
