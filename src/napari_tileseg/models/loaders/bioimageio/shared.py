"""What descriptions of all versions have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field

from napari_tileseg.models.loaders.bioimageio.tensors import FORMATS, Weights

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Citation", "Licence", "Person", "Source", "citations", "described", "weights_of"]


class Person(BaseModel):
    """An author."""

    name: str = ""


class Citation(BaseModel):
    """An article."""

    text: str = ""
    doi: str | None = None
    url: str | None = None


Source = Annotated[str, Field(min_length=1, max_length=1024)]
"""A file of the package, or an address."""


def _text(value: Any) -> Any:
    return " AND ".join(str(part) for part in value) if isinstance(value, list) else value


Licence = Annotated[str | None, BeforeValidator(_text)]
"""An SPDX identifier, or several."""


def citations(given: list[Citation] | None) -> tuple[str, ...]:
    """Return each article in one line."""
    return tuple(" ".join(part for part in (entry.text, entry.doi or entry.url or "") if part) for entry in given or ())


def described(text: str | None) -> str:
    """Return a description, empty where none is given."""
    return (text or "").strip()


def weights_of(entries: Mapping[str, Weights]) -> tuple[tuple[Weights, ...], tuple[str, ...]]:
    """Sort weights into those that can be read and the names of the others."""
    known = tuple(entries[kind] for kind in ("pytorch_state_dict", "onnx", "torchscript") if kind in entries)
    return known, tuple(FORMATS.get(kind, kind) for kind in entries if kind not in ("pytorch_state_dict", "onnx", "torchscript"))
