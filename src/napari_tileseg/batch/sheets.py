"""Contact sheets: the thumbnails of a batch with their names, as pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from napari_tileseg.io.output import put_in_place

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["write_sheets"]

_COLUMNS, _ROWS = 6, 5
_CELL, _CAPTION, _MARGIN = 192, 22, 10
_GROUND, _INK = (24, 24, 27), (235, 235, 240)


def write_sheets(pictures: Iterable[tuple[str, Path]], folder: Path) -> list[Path]:
    """Write pages of thirty thumbnails each; those of an earlier time go.

    Parameters
    ----------
    pictures : iterable of (name, path)
        Those that cannot be read are left out.
    folder : Path
        Is there already.

    Returns
    -------
    list of Path
        ``contact_sheet_1.png`` and so on.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    for old in folder.glob("contact_sheet_*.png"):
        old.unlink(missing_ok=True)
    pages: list[Path] = []
    waiting: list[tuple[str, Image.Image]] = []
    for name, path in pictures:
        try:
            with Image.open(path) as picture:
                waiting.append((name, picture.convert("RGB")))
        except OSError:
            continue
        if len(waiting) == _COLUMNS * _ROWS:
            pages.append(_page(waiting, folder / f"contact_sheet_{len(pages) + 1}.png"))
            waiting = []
    if waiting:
        pages.append(_page(waiting, folder / f"contact_sheet_{len(pages) + 1}.png"))
    return pages


def _page(pictures: list[tuple[str, Image.Image]], path: Path) -> Path:
    columns = min(_COLUMNS, len(pictures))
    rows = -(-len(pictures) // _COLUMNS)
    wide, high = _CELL + _MARGIN, _CELL + _CAPTION + _MARGIN
    sheet = Image.new("RGB", (_MARGIN + columns * wide, _MARGIN + rows * high), _GROUND)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for place, (name, picture) in enumerate(pictures):
        row, column = divmod(place, _COLUMNS)
        left, top = _MARGIN + column * wide, _MARGIN + row * high
        zoom = min(_CELL / picture.width, _CELL / picture.height)
        size = (max(1, round(picture.width * zoom)), max(1, round(picture.height * zoom)))
        shown = picture.resize(size, Image.Resampling.LANCZOS)
        sheet.paste(shown, (left + (_CELL - shown.width) // 2, top + (_CELL - shown.height) // 2))
        pen.text((left, top + _CELL + 3), _fitting(name, font, pen), fill=_INK, font=font)
    with put_in_place(path, overwrite=True) as temporary:
        sheet.save(temporary, format="PNG")
    return path


def _fitting(name: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, pen: ImageDraw.ImageDraw) -> str:
    """Leave out the middle of a name that is too long: its end tells more than its folder."""
    if pen.textlength(name, font=font) <= _CELL:
        return name
    for kept in range(len(name) - 1, 0, -1):
        short = f"...{name[-kept:]}"
        if pen.textlength(short, font=font) <= _CELL:
            return short
    return "..."
