"""Files of two folders that belong together by their names: images and labels, predictions and truths."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_tileseg.errors import InputError
from napari_tileseg.io.registry import find_format, suffix_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

__all__ = ["Matched", "list_files", "match", "stem"]

_ENDINGS = re.compile(r"[ _.-]+(labels?|masks?|seg|segmentation|anno|annotation|gt|groundtruth|ground_truth|truth|prediction|pred)$", re.I)
"""What people append to the names of labels."""


@dataclass(frozen=True)
class Matched:
    """Which files belong together.

    Parameters
    ----------
    pairs : list of (Path, Path)
        In the natural order of the first folder.
    first_only, second_only : list of Path
        Files without a partner.
    """

    pairs: list[tuple[Path, Path]]
    first_only: list[Path]
    second_only: list[Path]


def list_files(folder: Path) -> list[Path]:
    """List the images below a folder, by name; an OME-Zarr is one image, hidden files and folders are left out.

    Raises
    ------
    InputError
        If the folder is not there, or holds none.
    """
    if not folder.is_dir():
        raise InputError(f'There is no folder "{folder}". Check the name.')
    found = list(_walk(folder))
    if not found:
        raise InputError(f'"{folder}" holds no image of a known format.')
    return sorted(found, key=lambda path: _natural(path.relative_to(folder).as_posix()))


def _walk(folder: Path) -> Iterable[Path]:
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if find_format(path) is not None:
            yield path
        elif path.is_dir() and not (path.name == "report_files" and path.with_name("report.html").exists()):
            yield from _walk(path)  # but not into the pictures of a batch's report


def match(first: Sequence[Path], second: Sequence[Path], *, root: Path | None = None, other: Path | None = None) -> Matched:
    """Put files together that have the same name, whatever their format.

    The rules, in this order, each for what the ones before have left over: the same place below the two folders; the same name; the same
    name without a word such as ``_labels``, ``_mask``, ``_gt``; one name is the beginning of exactly one other, as in ``cell_3.png`` and
    ``cell_3_nuclei-2d.ome.tif``.

    Parameters
    ----------
    first, second : sequence of Path
    root, other : Path, optional
        The folders that they lie below.
    """
    left, right = list(first), list(second)
    pairs: dict[Path, Path] = {}

    def take(keys: tuple[dict[str, list[Path]], dict[str, list[Path]]]) -> None:
        mine, theirs = keys
        for key, paths in mine.items():
            if len(paths) == 1 and len(theirs.get(key, ())) == 1:
                pairs[paths[0]] = theirs[key][0]
        left[:] = [path for path in left if path not in pairs]
        taken = set(pairs.values())
        right[:] = [path for path in right if path not in taken]

    if root is not None and other is not None:
        take((_keys(left, lambda path: _place(path, root)), _keys(right, lambda path: _place(path, other))))
    take((_keys(left, stem), _keys(right, stem)))
    take((_keys(left, _bare), _keys(right, _bare)))
    for path in list(left):
        starts = [end for end in right if _begins(_bare(path), _bare(end))]
        if len(starts) == 1 and sum(_begins(_bare(mine), _bare(starts[0])) for mine in left) == 1:
            pairs[path] = starts[0]
            left.remove(path)
            right.remove(starts[0])
    return Matched([(path, pairs[path]) for path in first if path in pairs], left, right)


def stem(path: Path) -> str:
    """Return a file's name without the suffix of its format."""
    return path.name[: len(path.name) - len(suffix_of(path))] or path.name


def _bare(path: Path) -> str:
    return _ENDINGS.sub("", stem(path)).casefold()


def _place(path: Path, root: Path) -> str:
    return str(path.relative_to(root).with_name(stem(path)))


def _keys(paths: Iterable[Path], key: Callable[[Path], str]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in paths:
        found.setdefault(key(path), []).append(path)
    return found


def _begins(one: str, another: str) -> bool:
    """Say whether one name is the beginning of the other, up to a word's end."""
    short, long = sorted((one, another), key=len)
    return bool(short) and long.startswith(short) and not long[len(short) : len(short) + 1].isalnum()


def _natural(text: str) -> list[tuple[int, int, str]]:
    """Sort a2 before a10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part.casefold()) for part in re.split(r"(\d+)", text) if part]
