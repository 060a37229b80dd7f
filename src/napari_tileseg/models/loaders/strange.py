"""Values of unknown origin, of a kind that nobody expected: a sentence instead of Python's own errors."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari_tileseg.errors import ModelError
from napari_tileseg.models.archive import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["STRANGE", "sensible"]

STRANGE = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What Python raises where a text stands instead of a number, a number instead of a list, and so on."""


@contextmanager
def sensible(what: str) -> Iterator[None]:
    """Turn errors over strange values into a sentence.

    Parameters
    ----------
    what : str
        What is being read: ``"The description of nuclei.zip"``.

    Raises
    ------
    ModelError
    """
    try:
        yield
    except STRANGE as error:
        reason = printable(" ".join(str(error).split())) or type(error).__name__
        raise ModelError(f"{what} holds a value that makes no sense there ({reason}). Get the model again.") from error
