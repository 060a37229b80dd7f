"""``Noted``: what was done to labels that are changed on the disk, and what was said of their objects, written into their store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_tileseg.io.checks import with_checks

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Labels

    from napari_tileseg.io.zarr_edit import ZarrArray

__all__ = ["Noted"]


class Noted:
    """The notes of one layer; its edits are in the store already.

    Parameters
    ----------
    layer : napari.layers.Labels
        Whose array is a `ZarrArray`.
    wake : callable
        Called when there is something to write.
    """

    def __init__(self, layer: Labels, wake: Callable[[], object]) -> None:
        self.layer = layer
        self.new = False
        self._wake = wake
        layer.events.features.connect(self.hear)

    def hear(self, event: Any = None) -> None:
        """Take note that there is something to write."""
        self.new = True
        self._wake()

    def taken(self) -> Callable[[], None]:
        """Return what writes the notes as they are now, in any thread."""
        self.new = False
        told = with_checks(self.layer.metadata.get("tileseg"), self.layer.features)
        data: ZarrArray = self.layer.data
        return lambda: data.note(told)

    def end(self) -> None:
        """Look at the layer no more, and write what is not written.

        Raises
        ------
        OutputError
            If the system refuses.
        """
        self.layer.events.features.disconnect(self.hear)
        if self.new:
            self.taken()()
