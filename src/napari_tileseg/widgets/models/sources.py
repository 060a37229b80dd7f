"""``Sources``: where the Models dock gets hubs, settings, measured facts and its commands from; tests put others in their place."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from napari_tileseg.folders import model_folder
from napari_tileseg.widgets.models.chore import command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["Sources"]

_MODELS = "napari_tileseg.models"


def _hubs() -> Mapping[str, str]:
    return _function("hubs.catalog", "HUBS", {})  # type: ignore[no-any-return]


def _catalog(hub: str, **more: Any) -> Iterable[Any]:
    return _function("hubs.catalog", "catalog", lambda *_, **__: [])(hub, **more)  # type: ignore[no-any-return]


def _facts(sha256: str) -> Iterable[Any]:
    return _function("facts", "facts", lambda _: [])(sha256)  # type: ignore[no-any-return]


def _records() -> dict[str, str]:
    """Return the names of the models that were downloaded, by the references they were downloaded by."""
    read = _function("hubs.record", "read_record", lambda _: None)
    folder = model_folder()
    places = [place for place in folder.iterdir() if place.is_dir()] if folder.is_dir() else []
    return {record.ref: place.name for place in places if (record := read(place)) is not None}


def _read_settings() -> Any:
    return _function("settings", "read_settings", lambda: None)()


def _write_settings(settings: Any) -> object:
    return _function("settings", "write_settings", lambda _: None)(settings)


def _function(module: str, name: str, otherwise: Any) -> Any:
    """Return a function of a module that is imported when it is needed."""
    path = f"{_MODELS}.{module}"
    package = path.rpartition(".")[0]
    if find_spec(package) is None or find_spec(path) is None:
        return otherwise
    return getattr(import_module(path), name)


@dataclass(frozen=True)
class Sources:
    """What the dock is fed with.

    Parameters
    ----------
    start : callable
        Makes a command line of the words after ``tileseg``.
    hubs : callable
        Returns the titles of the hubs by their names.
    catalog : callable
        ``catalog(hub, refresh=..., cancel=...)``: what a hub offers, as `Entry`.
    records : callable
        Returns the names of the models that were downloaded, by their references.
    facts : callable
        ``facts(sha256)``: what was measured of a model on this computer.
    read_settings, write_settings : callable
        Of the user's settings; None where there are none.
    """

    start: Callable[[Sequence[str]], list[str]] = field(default=command)
    hubs: Callable[[], Mapping[str, str]] = field(default=_hubs)
    catalog: Callable[..., Iterable[Any]] = field(default=_catalog)
    records: Callable[[], dict[str, str]] = field(default=_records)
    facts: Callable[[str], Iterable[Any]] = field(default=_facts)
    read_settings: Callable[[], Any] = field(default=_read_settings)
    write_settings: Callable[[Any], object] = field(default=_write_settings)
