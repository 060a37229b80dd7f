"""``TissuePreview``: a light layer over an image that shows, before a run, what of it would not be skipped as background."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import QObject

from napari_tileseg.widgets.bridge import Bridge
from napari_tileseg.widgets.late import Late, soon
from napari_tileseg.widgets.layers import place_over
from napari_tileseg.widgets.plan import TissueMap

if TYPE_CHECKING:
    import napari

    from napari_tileseg.widgets.plan import Plan
    from napari_tileseg.widgets.session import Session

__all__ = ["NAME", "TissuePreview"]

NAME = "tissue (preview)"
_COLOR = "#56b4e9"
_OPACITY = 0.35
_PAUSE = 100
"""Milliseconds that a plane has to be shown before it is looked at: a slider passes many."""


class TissuePreview(QObject):
    """Asks for one look at an image, shows what it finds, and takes it away again.

    Whoever has removed the layer, or has started the run, is not shown it once more before something changes. Of many planes each is
    looked at when it is shown.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    session : Session
        Nothing is looked at while it runs.
    parent : QObject
    """

    def __init__(self, viewer: napari.viewer.Viewer, session: Session, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._session = session
        self._bridge = Bridge(self)
        self._asked: tuple[Any, ...] | None = None
        self._plan: Plan | None = None
        self._looked: set[tuple[int, ...]] = set()
        self._pause = soon(self, _PAUSE, self._look_at_another)
        self.layer: Labels | None = None
        viewer.dims.events.current_step.connect(self._on_step)

    def look(self, plan: Plan | None) -> None:
        """Look for tissue in another thread, if somebody wants to see it."""
        if not self._session.active and self.wanted(plan) and plan is not None:
            self._plan, self._looked = plan, set()
            self._ask(plan)

    def _ask(self, plan: Plan) -> None:
        shown = dict(zip(plan.axis_map.grid_axes[::-1], self._viewer.dims.current_step[::-1], strict=False))
        place = tuple(plan.position(shown).values())
        if place not in self._looked:
            self._looked.add(place)
            self._bridge.background(partial(plan.tissue, shown), Late(self, "_on_tissue", plan))

    def _on_step(self) -> None:
        if self._plan is not None and self.layer is not None and self._plan.by_view:
            self._pause.start()

    def _look_at_another(self) -> None:
        plan = self._plan
        if plan is not None and _key(plan) == self._asked and self.layer in self._viewer.layers:
            self._ask(plan)

    def _on_tissue(self, plan: Plan, answer: Any) -> None:
        """Show what a run would not skip; where that cannot be found out, the run will say why."""
        if isinstance(answer, TissueMap) and plan is self._plan and not self._session.active:
            self.show_map(plan, answer)

    def wanted(self, plan: Plan | None) -> bool:
        """Tell whether somebody should look for tissue now; what is shown and does not belong to the plan goes."""
        if plan is None or not plan.job.options.skip_background:
            self._asked = None
            self.put_away()
            return False
        key = _key(plan)
        if key == self._asked:
            return False
        self.put_away()
        self._asked = key
        return True

    def show_map(self, plan: Plan, found: TissueMap) -> None:
        """Lay what was found over the image, unless the plan is another one by now."""
        if _key(plan) != self._asked or plan.layer not in self._viewer.layers:
            return
        placement = place_over(plan.layer, plan.volume)
        data = placement.lay(found.mask.astype(np.uint8))
        if self.layer is not None and self.layer in self._viewer.layers:  # one more plane
            np.bitwise_or(self.layer.data, data, out=self.layer.data)
            self.layer.refresh()
            return
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

    def put_away(self) -> None:
        """Take the layer away."""
        layer, self.layer = self.layer, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)


def _key(plan: Plan) -> tuple[Any, ...]:
    """Return what the tissue depends on."""
    return (weakref.ref(plan.layer), id(plan.layer.data), plan.volume.axes, plan.axis_map.channels, plan.axis_map.spatial)
