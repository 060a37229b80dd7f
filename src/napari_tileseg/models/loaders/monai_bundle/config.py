"""``Config``: the configuration of a MONAI bundle, looked up part by part; nothing of it is built or run here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from napari_tileseg.errors import ModelError
from napari_tileseg.models.archive import parse_json, printable
from napari_tileseg.models.loaders.monai_bundle.expression import Component, NotPlain, evaluate
from napari_tileseg.models.yaml_text import parse_yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Config", "read_document"]

_DEEPEST = 64


def read_document(content: bytes, name: str, what: str) -> dict[str, Any]:
    """Return what a JSON or YAML file says.

    Raises
    ------
    ModelError
        If it is damaged, or no table of names and values.
    """
    values = parse_json(content, what) if name.endswith(".json") else parse_yaml(content, what)
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ModelError(f"{what} holds no names and values. Get the model again.")
    return values


class Config:
    """Looks up parts of a configuration, with references, macros and expressions replaced by what they stand for.

    Parameters
    ----------
    values : mapping
        What the file says.
    text : str
        The file itself, to find lines.
    name : str
        Of the file.
    more : callable, optional
        Gets the identifier of a part, its expression, its line and why it is not interpreted; returns its value or raises.
    """

    def __init__(self, values: Mapping[str, Any], text: str, name: str, more: Callable[[str, str, int, str], Any] | None = None) -> None:
        self.values, self.text, self.name = values, text, name
        self._more = more
        self._known: dict[str, Any] = {}
        self._open: list[str] = []

    def __contains__(self, place: str) -> bool:
        try:
            self._raw(place)
        except ModelError:
            return False
        return True

    def get(self, place: str) -> Any:
        """Return the value of a part: plain values, and `Component` where something is to be built.

        Parameters
        ----------
        place : str
            ``"network_def"``, or ``"postprocessing::transforms::1"``.

        Raises
        ------
        ModelError
            If there is none, or it refers to itself.
        TrustError
            If it holds an expression that is not interpreted.
        """
        place = place.replace("#", "::")
        if place not in self._known:
            if place in self._open or len(self._open) > _DEEPEST:
                raise ModelError(f"{printable(place)} in {self.name} refers to itself. Get the model again.")
            self._open.append(place)
            try:
                self._known[place] = self._resolved(self._raw(place), place, 0)
            finally:
                self._open.pop()
        return self._known[place]

    def line(self, text: str) -> int:
        """Return the line of the file on which a text stands first; 1 where it is written in another way."""
        written = json.dumps(text)[1:-1]
        places = [place for form in (text, written) if (place := self.text.find(form)) >= 0]
        return self.text.count("\n", 0, min(places)) + 1 if places else 1

    def _raw(self, place: str) -> Any:
        value: Any = self.values
        for part in place.split("::"):
            if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
                value = value[int(part)]
            elif isinstance(value, dict) and part in value:
                value = value[part]
            else:
                raise ModelError(f"{self.name} has no {printable(place)}, which is needed. Get the model again.")
        return value

    def _resolved(self, value: Any, place: str, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ModelError(f"{self.name} is nested too deeply to be read. Get the model again.")
        if isinstance(value, str):
            return self._text(value, place, depth)
        if isinstance(value, list):
            return [self._resolved(part, f"{place}::{index}", depth + 1) for index, part in enumerate(value)]
        if not isinstance(value, dict):
            return value
        if self._disabled(value, place, depth):
            return None
        inside = {
            key: self._resolved(part, f"{place}::{key}", depth + 1) for key, part in value.items() if not (key[:1] == key[-1:] == "_")
        }
        if "_target_" not in value:
            return inside
        target = value["_target_"]
        if not isinstance(target, str):
            raise ModelError(f"{printable(place)} in {self.name} names no class or function. Get the model again.")
        return Component(target, inside, place)

    def _disabled(self, value: dict[str, Any], place: str, depth: int) -> bool:
        given = value.get("_disabled_", False)
        found = self._resolved(given, f"{place}::_disabled_", depth + 1) if isinstance(given, str) else given
        return found.strip().lower() == "true" if isinstance(found, str) else bool(found)

    def _text(self, text: str, place: str, depth: int) -> Any:
        if text.startswith("%") and len(text) > 1:
            inside = text[1:].replace("#", "::")
            if "/" in inside or ".json" in inside or ".yaml" in inside or ".yml" in inside:
                raise ModelError(
                    f"{self.name}, line {self.line(text)}, takes a part of another file ({printable(text)}), which is not read."
                )
            return self._resolved(self._raw(inside), inside, depth + 1)
        if text.startswith("@") and text[1:2] not in ("", ":", "#", "@"):
            return self.get(text[1:])
        if not text.startswith("$"):
            return text
        try:
            return evaluate(text[1:], self.get)
        except NotPlain as error:
            if self._more is None:
                raise ModelError(f"{self.name}, line {self.line(text)}: {printable(text)} is not interpreted, because {error}.") from None
            return self._more(place, text, self.line(text), str(error))
