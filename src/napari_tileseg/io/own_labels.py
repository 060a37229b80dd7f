"""Labels in the image's own OME-Zarr: ``image.ome.zarr/labels/NAME``, in the version of Zarr that the image has.

::

    image.ome.zarr/            zarr.json (v3) or .zgroup, .zattrs (v2)
        0/ 1/ ...              the image, never touched
        labels/                lists the names; replaced at once, under a lock, so that writers side by side lose none
            NAME/              written as .NAME.unfinished, then put in place, then listed
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
import warnings
from typing import TYPE_CHECKING, Any

from napari_tileseg.errors import OutputError
from napari_tileseg.io.mapped import lock
from napari_tileseg.io.output import refused
from napari_tileseg.moving import move

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from napari_tileseg.volume import Volume

__all__ = ["check_label_place", "enlist", "is_label_place", "stage_own_labels", "write_own_labels"]

_LOCK = ".tileseg-lock"
_PATIENCE = 60.0
"""Seconds to wait for another writer, who needs the lock for a moment only."""


def is_label_place(path: Path) -> bool:
    """Say whether a path is a place for labels in the store of an image."""
    return path.parent.name == "labels" and _version(path.parent.parent) is not None


def check_label_place(path: Path, *, overwrite: bool) -> None:
    """Raise if no labels could be put there.

    Raises
    ------
    OutputError
        One sentence.
    """
    if not path.name or path.name.startswith((".", "__")):
        raise OutputError(f'Labels in a store cannot be called "{path.name}". Choose a name that begins with a letter.')
    if path.exists() and _version(path) is None:
        raise OutputError(f'"{path}" is there already and is no group of labels. Choose another name.')
    if path.exists() and not overwrite:
        raise OutputError(f'"{path}" is there already. Choose another name, or replace it (--overwrite on the command line).')
    folder = path.parent if path.parent.is_dir() else path.parent.parent
    if not os.access(folder, os.W_OK):
        raise OutputError(f'Nothing may be written in "{folder}". Choose another folder.')


def write_own_labels(
    labels: Volume,
    path: Path,
    *,
    classes: tuple[str, ...] = (),
    colors: tuple[str, ...] = (),
    provenance: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write labels into the store of their image, and list them there.

    Parameters
    ----------
    labels : Volume
        Whole numbers.
    path : Path
        ``image.ome.zarr/labels/NAME``; the folder ``labels`` is made if it is missing.

    Raises
    ------
    OutputError
        If something stands there (without `overwrite`), or the system refuses.
    """
    check_label_place(path, overwrite=overwrite)
    try:
        path.parent.mkdir(exist_ok=True)
        with _alone(path.parent):
            _list(path.parent)
    except OSError as error:
        raise refused(path, error) from error
    stage_own_labels(labels, path, path, classes=classes, colors=colors, provenance=provenance)
    enlist(path)


def stage_own_labels(
    labels: Volume,
    staged: Path,
    path: Path,
    *,
    classes: tuple[str, ...] = (),
    colors: tuple[str, ...] = (),
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Write labels somewhere else, as they have to be in the store of their image: to be moved to `path`, and then `enlist`-ed.

    Raises
    ------
    OutputError
        If the system refuses.
    """
    from napari_tileseg.io.ome_zarr_labels import write_zarr

    try:
        write_zarr(labels, staged, classes=classes, colors=colors, provenance=provenance, version=_own(path.parent), source="../../")
    except OSError as error:
        raise refused(staged, error) from error
    return staged


def enlist(path: Path) -> None:
    """Note labels that stand in the store of their image in its list.

    Raises
    ------
    OutputError
        If the system refuses, or another writer never ends.
    """
    try:
        with _alone(path.parent):
            _list(path.parent, path.name)
            for place in (path.parent, path.parent.parent):
                _consolidate(place)
    except OSError as error:
        raise refused(path, error) from error


def _own(group: Path) -> int:
    """Return the version that the group of labels has, or must have."""
    return _version(group) or _version(group.parent) or 3


def _version(folder: Path) -> int | None:
    """Return the version of Zarr of a group; None where there is none."""
    if (folder / ".zgroup").is_file():
        return 2
    facts = _json(folder / "zarr.json")
    return 3 if facts.get("node_type") == "group" else None


def _list(group: Path, name: str = "") -> None:
    """Make the group of labels what it has to be, with a name in its list; all else that it says is kept."""
    if _own(group) == 2:
        if not (group / ".zgroup").is_file():
            _replace(group / ".zgroup", {"zarr_format": 2})
        facts = _json(group / ".zattrs")
        changed = _with_name(facts, name)
        if changed != facts:
            _replace(group / ".zattrs", changed)
        return
    facts = _json(group / "zarr.json") or {"zarr_format": 3, "node_type": "group"}
    attributes = facts.get("attributes") or {}
    if "labels" in attributes and "ome" not in attributes:
        changed = _with_name(attributes, name)
    else:
        changed = {**attributes, "ome": _with_name(attributes.get("ome") or {"version": "0.5"}, name)}
    if facts.get("attributes") != changed:
        _replace(group / "zarr.json", {**facts, "attributes": changed})


def _with_name(facts: Mapping[str, Any], name: str) -> dict[str, Any]:
    given = facts.get("labels")
    names = list(given) if isinstance(given, list) else []
    return {**facts, "labels": [*names, name] if name and name not in names else names}


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise OutputError(f'"{path}" is damaged. Write the image again with the program that made it.') from error
    return found if isinstance(found, dict) else {}


def _replace(path: Path, facts: Mapping[str, Any]) -> None:
    temporary = path.with_name(f".{secrets.token_hex(6)}{path.name}")
    try:
        temporary.write_text(json.dumps(facts, indent=2), encoding="utf-8")
        move(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _consolidate(group: Path) -> None:
    """Renew the list of all that a group holds, if it has one: who reads it would not see the labels."""
    if not (group / ".zmetadata").is_file() and not _json(group / "zarr.json").get("consolidated_metadata"):
        return
    import zarr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that version 3 has no word for it yet, and that the lock is no part of a store
        zarr.consolidate_metadata(str(group))


@contextlib.contextmanager
def _alone(group: Path) -> Iterator[None]:
    """Keep other writers of the group out; the file of the lock goes away with it, for it is no part of the store."""
    path = group / _LOCK
    until = time.monotonic() + _PATIENCE
    while True:
        file = path.open("a+b")
        try:
            lock(file)
        except (BlockingIOError, PermissionError):
            file.close()
            if time.monotonic() > until:
                raise OutputError(f'Another program keeps "{group}" locked. Wait for it, or end it.') from None
            time.sleep(0.02)
            continue
        except OSError:
            pass  # a file system without locks: nobody can tell
        if _is(path, file.fileno()) or time.monotonic() > until:  # some file systems never say that it is the same
            break
        file.close()  # another one has deleted it in between, and a third may hold a new one
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        file.close()
        with contextlib.suppress(OSError):
            path.unlink() if os.name == "nt" else None  # there an open file cannot be deleted


def _is(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
