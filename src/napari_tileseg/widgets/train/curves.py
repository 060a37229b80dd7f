"""``Curves``: loss and score of a training, painted as they come."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qtpy.QtGui import QPaintEvent

__all__ = ["Curves"]

_LEFT, _GAP = 2, 4
_POINTS = 400
"""More points than this are not painted."""


class Curves(QWidget):
    """Two small diagrams side by side: the loss of each step, the score of each epoch (without labels: another loss, if there is one).

    Their titles say what the curve is and its last value; nothing is told by colour alone.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("plain")
        self.setAccessibleName("Curves")
        self.losses: list[tuple[float, float]] = []
        self.scores: list[tuple[float, float]] = []
        self.span = 0.0
        self.measure, self.title, self.best = "Dice", "Loss", True
        self._ink, self._line = QColor("#ffffff"), QColor("#808080")
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)

    def sizeHint(self) -> QSize:
        return QSize(240, 5 * self.fontMetrics().height() + 12)

    def minimumSizeHint(self) -> QSize:
        return QSize(120, self.sizeHint().height())

    def show_curves(
        self,
        losses: Sequence[tuple[float, float]],
        scores: Sequence[tuple[float, float]],
        *,
        epochs: float,
        measure: str,
        title: str = "Loss",
        best: bool = True,
        beside: Mapping[str, float] | None = None,
    ) -> None:
        """Show these points.

        Parameters
        ----------
        losses, scores : sequence of (epoch, value)
            Epochs may be broken: 1.5 is the middle of the second. Without labels they are steps, and the second curve is another loss.
        epochs : float
            Where the axes end.
        measure : str
            What the score is; empty: there is one diagram only.
        title : str
            What the loss is.
        best : bool
            Whether the score has a best epoch.
        beside : mapping of str to float, optional
            Last values of other losses; the tooltip names them.
        """
        self.losses, self.scores, self.span, self.measure = list(losses), list(scores), epochs, measure
        self.title, self.best = title, best
        said = [f"{title} {losses[-1][1]:.3g}"] if losses else []
        said += [f"{name.capitalize()} {value:.3g}" for name, value in (beside or {}).items()]
        if scores and not best:
            said.append(f"{measure} {scores[-1][1]:.3g}")
        elif scores:
            highest = max(scores, key=lambda point: point[1])
            said.append(f"{measure} {scores[-1][1]:.3f}, best {highest[1]:.3f} in epoch {highest[0]:.0f}")
        self.setAccessibleDescription("; ".join(said))
        self.setToolTip("\n".join(said))
        self.update()

    def set_colors(self, ink: str, line: str) -> None:
        """Take the colours of another theme."""
        self._ink, self._line = QColor(ink), QColor(line)
        self.update()

    def paintEvent(self, event: QPaintEvent | None) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        half = (self.width() - _GAP) / 2 if self.measure else float(self.width())
        last = f" {self.losses[-1][1]:.3g}" if self.losses else ""
        self._paint(painter, QRectF(0, 0, half, self.height()), f"{self.title}{last}", _thinned(self.losses), lowest=None)
        if not self.measure:
            return
        last = f" {self.scores[-1][1]:.{2 if self.best else 3}{'f' if self.best else 'g'}}" if self.scores else ""
        place = QRectF(half + _GAP, 0, half, self.height())
        self._paint(painter, place, f"{self.measure}{last}", _thinned(self.scores), lowest=0.0 if self.best else None)

    def _paint(self, painter: QPainter, place: QRectF, title: str, points: Sequence[tuple[float, float]], *, lowest: float | None) -> None:
        metrics = painter.fontMetrics()
        painter.setPen(self._ink)
        title = metrics.elidedText(title, Qt.TextElideMode.ElideRight, int(place.width()) - 2 * _LEFT)
        painter.drawText(QPointF(place.left() + _LEFT, place.top() + metrics.ascent()), title)
        area = place.adjusted(_LEFT, metrics.height() + 4, -_LEFT, -3)
        painter.setPen(QPen(self._line, 1))
        painter.drawLine(area.bottomLeft(), area.bottomRight())
        painter.drawLine(area.bottomLeft(), area.topLeft())
        known = [(epoch, value) for epoch, value in points if math.isfinite(value)]
        if not known:
            return
        values = [value for _, value in known]
        low, high = (min(values) if lowest is None else lowest), max(values)
        if lowest is not None:
            high = max(high, 1e-6)
        spread, span = (high - low) or 1.0, max(self.span, known[-1][0], 1e-6)
        shape = [
            QPointF(area.left() + epoch / span * area.width(), area.bottom() - (value - low) / spread * area.height())
            for epoch, value in known
        ]
        painter.setPen(QPen(self._ink, 1.6))
        painter.drawPolyline(QPolygonF(shape))
        if lowest is not None or len(known) == 1:
            painter.setBrush(self._ink)
            for point in shape if len(known) <= 60 else shape[-1:]:
                painter.drawEllipse(point, 1.8, 1.8)
            painter.setBrush(Qt.BrushStyle.NoBrush)


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return means of neighbours where there are too many points to see."""
    size = -(-len(points) // _POINTS)
    if size <= 1:
        return list(points)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]
