"""``which_series``: the image of a file that is meant; of a folder with several series of DICOM somebody has to say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_tileseg.cli.console import complain, emit
from napari_tileseg.errors import OptionsError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["which_series"]


def which_series(path: Path, given: int | None, *, json_lines: bool = False) -> int:
    """Return the number of the series; the first where nothing was said and a file holds several images that are no DICOM.

    Raises
    ------
    OptionsError
        If a folder holds several series and none was named; they are listed before.
    """
    from napari_tileseg.io.dicom_listing import choices, listing
    from napari_tileseg.io.registry import find_format

    chosen = find_format(path)
    if given is not None or chosen is None or chosen.title != "DICOM":
        return given or 0
    images = choices(path)
    if len(images) <= 1:  # segmentations that lie beside it are made from it
        return images[0] if images else 0
    for number, told in enumerate(listing(path)):
        emit({"event": "series", "number": number, "title": told}) if json_lines else complain(f"  {number}  {told}")
    raise OptionsError(f'"{path.name}" holds {len(images)} series, as listed. Choose one with --series {images[0]}, say.')
