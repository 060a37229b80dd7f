"""From what was typed to options, references and numbers, each with a sentence where it does not fit."""

from __future__ import annotations

from typing import Any

from napari_tileseg.errors import OptionsError
from napari_tileseg.job import Region, Regions, SegmentOptions

__all__ = ["chosen", "numbers", "one_reference", "regions_from", "series_of", "suffix_of"]


def chosen(**given: Any) -> SegmentOptions:
    """Build options from what was given; everything else keeps its default."""
    return SegmentOptions.parse(**{key: value for key, value in given.items() if value is not None})


def numbers(text: str | None, option: str) -> tuple[int, ...] | None:
    """Read ``"96,96"`` (or ``96x96``) as numbers."""
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.lower().replace("x", ",").split(","))
    except ValueError:
        raise OptionsError(f'{option} "{text}" is not accepted. Give whole numbers with commas between them: 96,96.') from None


def one_reference(models: list[str]) -> str:
    """Make one reference of one model or several."""
    from napari_tileseg.models.ensemble import join

    return join(models) if len(models) > 1 else models[0]


def series_of(text: str) -> int | str:
    """Read ``"2"`` as a number, and leave ``"all"`` as it is."""
    if text.isdecimal() or text == "all":
        return text if text == "all" else int(text)
    raise OptionsError(f'--series "{text}" is not accepted. Give a number from 0, or all.')


def suffix_of(text: str | None) -> str | None:
    """Read ``"ome.tif"`` as ``".ome.tif"``."""
    return text if text is None or text == "auto" or text.startswith(".") else f".{text}"


def regions_from(texts: list[str] | None) -> Regions | None:
    """Read ``"0:512,100:612"`` as start and stop along each axis, every time it was given."""
    return tuple(_region(text) for text in texts) if texts else None


def _region(text: str) -> Region:
    spans = [part.split(":") for part in text.split(",")]
    try:
        return tuple((int(start), int(stop)) for start, stop in spans)
    except ValueError:
        raise OptionsError(
            f'--region "{text}" is not accepted. Give start:stop for each axis of the labels, with commas between them: 0:512,0:512.'
        ) from None
