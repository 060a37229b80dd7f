"""From what was typed to options, references and numbers, each with a sentence where it does not fit."""

from __future__ import annotations

from typing import Any

from napari_tileseg.errors import OptionsError
from napari_tileseg.job import SegmentOptions

__all__ = ["chosen", "numbers", "one_reference"]


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
