"""What results are called: the template, the names of models in it, and a name of its own for every result."""

from __future__ import annotations

import itertools
import os
import re
import string
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from napari_tileseg.errors import OptionsError
from napari_tileseg.io.registry import suffix_of
from napari_tileseg.models.ensemble import split

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Names", "check_template", "inside", "key", "model_names", "stem_of"]

_FIELDS = ("stem", "model", "series")
_FORBIDDEN = frozenset('\\:*?"<>|')
"""No file may be called so on some system; results are carried from one to another."""


def check_template(template: str) -> None:
    """Refuse a template that gives no names.

    Raises
    ------
    OptionsError
        One sentence.
    """
    accepted = f"Give a name with {', '.join(f'{{{name}}}' for name in _FIELDS)} in it, such as {{stem}}_labels."
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise OptionsError(f'The names "{template}" are not accepted: {error}. {accepted}') from None
    for literal, name, form, conversion in parts:
        if name is not None and (name not in _FIELDS or form or conversion):
            raise OptionsError(f'The names "{template}" are not accepted: "{{{name}}}" is not known. {accepted}')
        wrong = next((letter for letter in literal if letter in _FORBIDDEN or ord(letter) < 32), "")
        if wrong:
            raise OptionsError(f'The names "{template}" are not accepted: {wrong!r} cannot stand in the name of a file. {accepted}')
    steps = template.split("/")
    if not template.strip() or any(step in ("", ".", "..") or step.startswith(".") for step in steps):
        raise OptionsError(f'The names "{template}" are not accepted: they lead out of the folder, or to hidden files. {accepted}')


def model_names(models: tuple[str, ...]) -> dict[str, str]:
    """Return what to call each model in names of files: each by a name of its own.

    Raises
    ------
    OptionsError
        If one is given twice.
    """
    names: dict[str, str] = {}
    for model in models:
        if model in names:
            raise OptionsError(f'The model "{model}" is given twice. Give each once.')
        plain = "+".join(_plain(member) for member in split(model) or (model,)) or "model"
        name, count = plain, 1
        while name.casefold() in {other.casefold() for other in names.values()}:
            count += 1
            name = f"{plain}-{count}"
        names[model] = name
    return names


def _plain(model: str) -> str:
    name = re.split(r"[/\\]", model.rstrip("/\\"))[-1].removesuffix(".tileseg.zip").removesuffix(".zip")
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.")


def stem_of(name: str) -> tuple[str, str]:
    """Return a file's name without its suffix, and the suffix in lower case without dots in between: ``("a", "ome_tif")``."""
    suffix = suffix_of(name)
    return name[: len(name) - len(suffix)] or name, suffix.strip(".").replace(".", "_")


_REPORT = {"report.csv", "report_objects.csv"}
"""What a batch writes itself: an image called "report" whose result is a table has another name."""


@dataclass
class Names:
    """Gives names below the output folder, none twice, whatever the system thinks of upper and lower case.

    Parameters
    ----------
    template : str
        As `BatchJob.template`.
    several : bool
        Whether there are several models: each result then has its model's name.
    sides : tuple of str
        Ends of the names of what stands beside a result, and must not be the name of another.
    """

    template: str
    several: bool = False
    sides: tuple[str, ...] = ()
    _taken: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        check_template(self.template)
        self._taken |= _REPORT

    def plain(self, stem: str, model: str, series: int | None) -> str:
        """Return the name that the template gives, without suffix.

        Parameters
        ----------
        series : int or None
            Which image of several; None if there is one only.
        """
        asked = {name for _, name, _, _ in string.Formatter().parse(self.template) if name}
        name = self.template.format(stem=stem, model=model, series="" if series is None else series)
        if series is not None and "series" not in asked:
            name += f"_{series}"
        if self.several and "model" not in asked:
            name += f"_{model}"
        return name

    def choose(self, candidates: Sequence[str], suffix: str) -> str:
        """Return the first of some paths without suffix that is free, or the last one with a number; it is taken then."""
        numbered = (f"{candidates[-1]}_{number}" for number in itertools.count(2))
        chosen = next(name for name in itertools.chain(candidates, numbered) if not self._claims(name, suffix) & self._taken)
        self._taken |= self._claims(chosen, suffix)
        return chosen

    def _claims(self, name: str, suffix: str) -> set[str]:
        return {key(name + ending) for ending in (suffix, *self.sides)}


def key(path: str) -> str:
    """Return what two paths have in common that some system takes for one."""
    return unicodedata.normalize("NFC", path).casefold()


def inside(path: Path, folder: Path) -> bool:
    """Say whether a path lies in a folder, links followed."""
    real, around = (Path(os.path.realpath(place)) for place in (path, folder))
    return real != around and real.is_relative_to(around)
