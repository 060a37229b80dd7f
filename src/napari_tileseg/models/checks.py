"""``Case`` and ``Check``: what a model brings along to be tested with, and how a test came out; remembered by its files' checksum."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from napari_tileseg.folders import cache_folder
from napari_tileseg.moving import move

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["Case", "Check", "remember", "remembered", "sentence"]


@dataclass(frozen=True, eq=False)
class Case:
    """A test that came with a model.

    Parameters
    ----------
    name : str
        Of the file with the expected answer.
    image : ndarray, shape (C, *spatial)
        As the model's author stored it, before any normalisation.
    expected : ndarray, shape (K, *out)
        What the network and the steps after it gave at the author's.
    """

    name: str
    image: NDArray[Any]
    expected: NDArray[Any]


@dataclass(frozen=True)
class Check:
    """How a test came out.

    Parameters
    ----------
    name : str
        Of the test.
    difference : float
        Largest absolute difference between what came out and what should have.
    share : float
        Share of values that differ by more than the tolerance.
    passed : bool
        Whether that is at most one in ten thousand.
    """

    name: str
    difference: float
    share: float
    passed: bool


def sentence(check: Check) -> str:
    """Say how a test came out."""
    verdict = "passed" if check.passed else f"failed: {check.share:.2%} of the values differ"
    return f"{check.name}: {verdict}; largest difference {check.difference:.2g}"


def remember(sha256: str, checks: list[Check]) -> None:
    """Keep how the tests of a model came out; where that cannot be written, nothing happens."""
    place = _place(sha256)
    temporary = place.with_name(f".{secrets.token_hex(6)}.json")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps([asdict(check) for check in checks]), encoding="utf-8")
        move(temporary, place)
    except OSError:
        temporary.unlink(missing_ok=True)


def remembered(sha256: str) -> list[Check]:
    """Return how the tests of a model came out; nothing where they were never run."""
    try:
        return [Check(**values) for values in json.loads(_place(sha256).read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return []


def _place(sha256: str) -> Path:
    return cache_folder() / "checks" / f"{sha256[:32]}.json"
