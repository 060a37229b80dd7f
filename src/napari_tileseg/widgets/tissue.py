"""``TissuePreview``: a light layer over an image that shows, before a run, what of it would not be skipped as background."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap

from napari_tileseg.widgets.layers import place_over

if TYPE_CHECKING:
    import napari

    from napari_tileseg.widgets.plan import Plan, TissueMap

__all__ = ["NAME", "TissuePreview"]

NAME = "tissue (preview)"
_COLOR = "#56b4e9"
_OPACITY = 0.35


class TissuePreview:
    """Asks for one look at an image, shows what it finds, and takes it away again.

    Whoever has removed the layer, or has started the run, is not shown it once more before something changes.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        self._viewer = viewer
        self._asked: tuple[Any, ...] | None = None
        self.layer: Labels | None = None

    def wanted(self, plan: Plan | None) -> bool:
        """Tell whether somebody should look for tissue now; what is shown and does not belong to the plan goes."""
        if plan is None or not plan.job.options.skip_background:
            self._asked = None
            self.close()
            return False
        key = _key(plan)
        if key == self._asked:
            return False
        self.close()
        self._asked = key
        return True

    def show(self, plan: Plan, found: TissueMap) -> None:
        """Lay what was found over the image, unless the plan is another one by now."""
        if _key(plan) != self._asked or plan.layer not in self._viewer.layers:
            return
        self.close()
        placement = place_over(plan.layer, plan.volume)
        data = placement.lay(found.mask.astype(np.uint8))
        steps = np.array(found.steps) if placement.kept is None else np.insert(np.array(found.steps), placement.kept, 1.0)
        arguments = dict(placement.arguments)
        # A place of the mask covers several pixels: its middle is theirs.
        shift = arguments["scale"] * (steps - 1) / 2
        arguments["translate"] = arguments["translate"] + arguments["rotate"] @ arguments["shear"] @ shift
        arguments["scale"] = arguments["scale"] * steps
        colors = DirectLabelColormap(color_dict={None: "transparent", 0: "transparent", 1: _COLOR})
        layer = Labels(data, name=NAME, opacity=_OPACITY, colormap=colors, metadata={"tileseg_preview": True}, **arguments)
        layer.editable = False
        active = self._viewer.layers.selection.active
        self._viewer.layers.insert(self._viewer.layers.index(plan.layer) + 1, layer)
        if active is not None and active in self._viewer.layers:
            self._viewer.layers.selection.active = active
        self.layer = layer

    def close(self) -> None:
        """Take the layer away."""
        layer, self.layer = self.layer, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)


def _key(plan: Plan) -> tuple[Any, ...]:
    """Return what the tissue depends on."""
    return (weakref.ref(plan.layer), id(plan.layer.data), plan.volume.axes, plan.axis_map.channels, plan.axis_map.spatial)
