"""The one style sheet of a dock, made of napari's theme."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.settings import get_settings
from napari.utils.theme import get_theme

if TYPE_CHECKING:
    from napari.utils.theme import Theme

__all__ = ["font_points", "icon_color", "sheet", "sheet_of"]

# Text itself is never coloured: on some themes it could not be read. The left edge tells what kind a message is.
_SHEET = """
#tileseg, #tileseg QScrollArea, #tileseg QWidget#page, #tileseg QWidget#plain {{ background: none; border: none; padding: 0; }}
#tileseg QLabel, #tileseg QLineEdit, #tileseg QComboBox, #tileseg QAbstractSpinBox, #tileseg QCheckBox, #tileseg QPushButton,
#tileseg QComboBox QAbstractItemView {{ font-size: {size}pt; }}
#tileseg QLabel#small, #tileseg QProgressBar {{ font-size: {small}pt; }}
#tileseg QLabel#title {{ font-weight: bold; }}
#tileseg QLabel {{ background: none; padding: 0; }}
#tileseg QLineEdit {{ border: 1px solid transparent; padding: 1px 4px; min-height: {row}px; max-height: {row}px; }}
#tileseg QComboBox {{ border: 1px solid transparent; padding: 1px 6px; min-height: {row}px; max-height: {row}px; }}
#tileseg QComboBox::drop-down {{ width: 20px; }}
#tileseg QAbstractSpinBox {{ border: 1px solid transparent; padding: 0 20px; min-height: {row}px; max-height: {row}px; min-width: 40px; }}
#tileseg QPushButton {{ border: 1px solid transparent; padding: 1px 7px; min-height: {row}px; }}
#tileseg QCheckBox {{ border: 1px solid transparent; padding: 1px; }}
#tileseg QLineEdit:focus, #tileseg QComboBox:focus, #tileseg QAbstractSpinBox:focus, #tileseg QPushButton:focus,
#tileseg QCheckBox:focus {{ border: 1px solid {icon}; }}
#tileseg QPushButton:disabled {{ border: 1px solid {primary}; }}
#tileseg QPushButton#fold, #tileseg QPushButton#fold:checked {{ background: {primary}; text-align: left; padding: 1px 4px; }}
#tileseg QPushButton#fold:hover {{ background: {highlight}; }}
#tileseg QPushButton#fold:focus {{ border: 1px solid {icon}; }}
#tileseg QPushButton#tool {{ padding: 1px 0; font-size: {small}pt; }}
#tileseg QPushButton#tool:checked {{ background: {current}; }}
#tileseg QPushButton#main {{ background: {current}; font-weight: bold; min-height: {main}px; padding: 3px; }}
#tileseg QPushButton#main:hover {{ background: {highlight}; }}
#tileseg QPushButton#main:disabled {{ background: {foreground}; font-weight: normal; border: 1px solid {primary}; }}
#tileseg QPushButton#main[plain="true"] {{ background: {primary}; font-weight: normal; }}
#tileseg QPushButton#main[plain="true"]:hover {{ background: {highlight}; }}
#tileseg QPushButton#main:focus {{ border: 1px solid {icon}; }}
#tileseg QPushButton#link {{ background: none; text-decoration: underline; padding: 0 1px; min-height: {link}px; max-height: {link}px; }}
#tileseg QPushButton#link:hover {{ color: {text}; background: {primary}; }}
#tileseg QPushButton#browse {{ padding: 1px 7px; min-width: 14px; }}
#tileseg QPushButton#browse::menu-indicator {{ width: 0; image: none; }}
#tileseg QTableView#files {{ background: {foreground}; border: 1px solid transparent; padding: 0; gridline-color: transparent;
    selection-background-color: {highlight}; selection-color: {text}; font-size: {points}pt; }}
#tileseg QTableView#files:focus {{ border: 1px solid {icon}; }}
#tileseg QTableView#files::item {{ border: none; padding: 0 2px; }}
#tileseg QTableView#files::item:selected {{ background: {highlight}; color: {text}; }}
#tileseg QTableView#files QHeaderView::section {{ background: {primary}; border: none; padding: 2px 4px; font-size: {points}pt; }}
#tileseg QFrame#box, #tileseg QFrame#message {{ background: {foreground}; border: none; border-radius: 0; padding: 0; }}
#tileseg QFrame#message[kind="info"], #tileseg QFrame#message[kind="done"] {{ border-left: 3px solid {current}; }}
#tileseg QFrame#message[kind="warning"] {{ border-left: 3px solid {warning}; }}
#tileseg QFrame#message[kind="error"] {{ border-left: 3px solid {error}; }}
#tileseg QProgressBar {{ min-height: {bar}px; max-height: {bar}px; }}
"""


def sheet_of(theme: Theme, points: int) -> str:
    """Write the style sheet.

    Parameters
    ----------
    theme : Theme
        Where the colours come from.
    points : int
        napari's font size; napari's own labels are one point larger.
    """
    names = ("foreground", "primary", "highlight", "current", "icon", "text", "warning", "error")
    colors = {name: theme_color(theme, name) for name in names}
    row = max(22, round(points * 2.2) + 2)  # 22 + 2 of border: rows of 24 at the default of 9 points
    return _SHEET.format(**colors, size=points + 1, small=points, points=points, row=row - 2, main=row + 2, link=row - 6, bar=row - 5)


def theme_color(theme: Theme, name: str) -> str:
    """Return a colour of the theme as Qt style sheets spell it."""
    return str(getattr(theme, name).as_rgb())


def icon_color(theme: str) -> str:
    """Return the theme's colour of icons as ``#rrggbb``; `QColor` takes no ``rgb()``."""
    red, green, blue = get_theme(theme).icon.as_rgb_tuple()[:3]
    return f"#{red:02x}{green:02x}{blue:02x}"


def font_points() -> int:
    """Return napari's font size in points, as set in its preferences."""
    return int(get_settings().appearance.font_size)


def sheet(theme: str) -> str:
    """Return the style sheet for the theme of that name and the current font size."""
    return sheet_of(get_theme(theme), font_points())
