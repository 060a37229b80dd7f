"""What people said of objects (accepted, fix, rejected), between the column of a layer's table and the provenance of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["CHECK", "CHECKS", "check_column", "checks_in", "properties_with", "with_checks"]

CHECK = "check"
"""Name of the column of the layer's table."""

CHECKS = "checks"
"""Key of the provenance: for each word the labels of which it was said, in order."""


def with_checks(provenance: Mapping[str, Any] | None, features: Any) -> dict[str, Any]:
    """Return a provenance that tells what was said of which object, as the table of the layer has it.

    Parameters
    ----------
    provenance : mapping, optional
    features : DataFrame or mapping of str to sequence, optional
        The layer's table, with the columns ``check`` and, where rows are not the labels 0, 1, 2, ..., ``index``.
    """
    told = {name: value for name, value in (provenance or {}).items() if name != CHECKS}
    if features is None or CHECK not in features:
        return told
    said = [word if isinstance(word, str) else "" for word in features[CHECK]]
    labels = list(features["index"]) if "index" in features else range(len(said))
    found: dict[str, list[int]] = {}
    for label, word in zip(labels, said, strict=True):
        if word:
            found.setdefault(word, []).append(int(label))
    return {**told, CHECKS: {word: sorted(found[word]) for word in sorted(found)}} if found else told


def checks_in(provenance: Any) -> dict[int, str]:
    """Return what was said of each object, as a provenance tells it; what makes no sense is left out."""
    told = provenance.get(CHECKS) if isinstance(provenance, dict) else None
    if not isinstance(told, dict):
        return {}
    lists = ((str(word), labels) for word, labels in told.items() if isinstance(labels, list))
    return {label: word for word, labels in lists for label in labels if isinstance(label, int) and not isinstance(label, bool)}


def check_column(labels: NDArray[Any], checks: Mapping[int, str]) -> NDArray[Any]:
    """Return what was said of each of some labels, empty where nothing was, as a column of words of shape (N,)."""
    return np.array([checks.get(int(label), "") for label in labels], dtype=object)


def properties_with(looks: Mapping[str, Any], checks: Mapping[int, str]) -> dict[str, Any]:
    """Return what NGFF says of labels (``image-label``) with words of objects in its properties.

    Where there are colours, of those labels only: both lists must agree.
    """
    colored = {entry.get("label-value") for entry in looks.get("colors") or () if isinstance(entry, dict)}
    listed = [dict(entry) for entry in looks.get("properties") or () if isinstance(entry, dict)]
    known = {entry["label-value"]: entry for entry in listed if "label-value" in entry}
    for entry in known.values():
        entry.pop(CHECK, None)
    for label, word in sorted(checks.items()):
        if label in known or not colored or label in colored:
            known.setdefault(label, {"label-value": label})[CHECK] = word
    kept = [entry for entry in known.values() if len(entry) > 1]
    rest = {name: value for name, value in looks.items() if name != "properties"}
    return {**rest, "properties": kept} if kept else rest
