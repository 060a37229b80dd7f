"""YAML of unknown origin: plain values only, and none that grow when they are read."""

from __future__ import annotations

from typing import Any

import yaml

from napari_tileseg.errors import ModelError

__all__ = ["LARGEST", "parse_yaml"]

LARGEST = 4 * 2**20
"""Most bytes of a text; descriptions of models have some thousands."""

_MOST_VALUES = 200_000
"""Most values that a text may stand for; an alias counts as all that it stands for."""

_DEEPEST = 64


def parse_yaml(content: bytes | str, what: str) -> Any:
    """Return what a YAML text says: dictionaries, lists, texts, numbers, dates, true, false and None.

    Parameters
    ----------
    content : bytes or str
        UTF-8.
    what : str
        How to call it in a sentence: ``"rdf.yaml in nuclei.zip"``.

    Raises
    ------
    ModelError
        If it is no YAML, asks for objects of Python, is nested too deeply, or is larger than a model's description can be.
    """
    if len(content) > LARGEST:
        raise ModelError(f"{what} has {len(content)} bytes; {LARGEST} are accepted. Get the model again.")
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _amount(node, what, {}, 0)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError:
        raise ModelError(f"{what} is nested too deeply to be read. Get the model again.") from None
    except (yaml.YAMLError, ValueError, TypeError) as error:  # ValueError: no UTF-8, or a date that does not exist
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{what} is damaged: {reason}. Get the model again.") from None


def _amount(node: yaml.Node, what: str, known: dict[int, int], depth: int) -> int:
    """Count the values below a node, those behind aliases each time anew."""
    if id(node) in known:
        if known[id(node)] == 0:
            raise ModelError(f"{what} holds a value that contains itself. Get the model again.")
        return known[id(node)]
    if depth > _DEEPEST:
        raise ModelError(f"{what} is nested too deeply to be read. Get the model again.")
    known[id(node)] = 0
    total = 1
    if isinstance(node, yaml.CollectionNode):
        for part in node.value:
            for child in part if isinstance(part, tuple) else (part,):
                total += _amount(child, what, known, depth + 1)
    known[id(node)] = total
    if total > _MOST_VALUES:
        raise ModelError(f"{what} stands for more than {_MOST_VALUES} values, which no model needs. It was not read.")
    return total
