"""Which files may run code: none, unless the user trusted exactly that file; and weights that load without running any."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_tileseg.errors import ModelError, OutputError, TrustError, WeightsError
from napari_tileseg.folders import model_folder
from napari_tileseg.models.archive import printable
from napari_tileseg.models.checksum import file_sha256
from napari_tileseg.models.loaders.registry import walk
from napari_tileseg.models.pickles import Finding, check_pickle
from napari_tileseg.moving import move

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "HARMLESS",
    "Finding",
    "Trusted",
    "check_pickle",
    "is_harmless",
    "is_trusted",
    "load_torch",
    "require_trust",
    "revoke",
    "trust",
    "trust_file",
    "trusted",
]


class _Record(dict[Any, Any]):
    """Stands for the small classes that hold settings in checkpoints: a dictionary, and no code of theirs."""

    def __init__(self, *args: Any, **values: Any) -> None:
        super().__init__()
        for value in args:
            if isinstance(value, dict):
                self.update(value)
        self.update(values)

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.update(state)


class _Word(str):
    """Stands for paths and members of enumerations: their text."""

    __slots__ = ()

    def __new__(cls, *parts: Any) -> _Word:
        text = "/".join(str(part) for part in parts if isinstance(part, str | int | float))  # of nested lists it could be endless
        return super().__new__(cls, text[1:] if text.startswith("//") else text)

    def __setstate__(self, state: Any) -> None:
        pass


def _plain_dict(*_: Any) -> dict[Any, Any]:
    """Stand for `collections.defaultdict`, whose entries torch sets in plain dictionaries only."""
    return {}


def _plain_list(*_: Any) -> list[Any]:
    """Stand for `collections.deque`."""
    return []


_MADE = {"collections.defaultdict": _plain_dict, "collections.deque": _plain_list}

_RECORDS = (
    "argparse.Namespace",
    "types.SimpleNamespace",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.nodes.AnyNode",
)
"""Classes that hold settings; they are read as dictionaries, so what they are made of is not needed here."""

_WORDS = (
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib.PurePosixPath",
    "pathlib.PureWindowsPath",
    "pathlib._local.Path",
    "pathlib._local.PosixPath",
    "pathlib._local.WindowsPath",
    "monai.utils.enums.MetaKeys",
    "monai.utils.enums.SpaceKeys",
    "monai.utils.enums.TraceKeys",
    "monai.utils.enums.CommonKeys",
    "monai.utils.enums.PostFix",
    "torch.torch_version.TorchVersion",
)
"""Classes whose text is all that matters."""

_NUMPY = (
    "numpy.core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy.dtype",
    "numpy.ndarray",
)
"""What numbers and arrays of NumPy are made with."""

_PLAIN = {
    "builtins.list": "builtins:list",
    "builtins.dict": "builtins:dict",
    "builtins.tuple": "builtins:tuple",
    "builtins.frozenset": "builtins:frozenset",
    "builtins.int": "builtins:int",
    "builtins.float": "builtins:float",
    "builtins.bool": "builtins:bool",
    "datetime.datetime": "datetime:datetime",
    "datetime.timedelta": "datetime:timedelta",
    "datetime.date": "datetime:date",
    "uuid.UUID": "uuid:UUID",
    "torch.nn.parameter.UninitializedParameter": "torch.nn.parameter:UninitializedParameter",
}
"""Types of Python that only hold values."""

HARMLESS: frozenset[str] = frozenset({*_RECORDS, *_WORDS, *_NUMPY, *_PLAIN, *_MADE})
"""Globals that checkpoints of nnU-Net, MONAI and Lightning name, and that can do nothing; torch has a list of its own besides."""


@dataclass(frozen=True)
class Trusted:
    """A file that the user trusts."""

    sha256: str
    name: str
    since: str


def is_harmless(name: str) -> bool:
    """Tell whether a global is on torch's own list of those that weights may name, or on ours."""
    if name in HARMLESS:
        return True
    if name.startswith("numpy.dtypes.") and name.count(".") == 2:
        return True
    return name in _torch_names()


def load_torch(path: Path, *, allowed: Mapping[str, Any] | None = None, shapes_only: bool = False) -> Any:
    """Return what a file of ``torch.save`` holds, with tensors on the CPU; nothing in it can run code.

    Parameters
    ----------
    path : Path
        The file. If the user trusted exactly this file, whatever it holds is loaded.
    allowed : mapping of str to object, optional
        Further globals, as ``"package.module.Name"``, and what stands for each: a class that only holds values.
    shapes_only : bool
        Make tensors that have a shape and a type, but no numbers.

    Raises
    ------
    TrustError
        If it names a global that is not on the list; the sentence says which, where, and how to trust the file.
    WeightsError
        If it is damaged, or declares tensors larger than itself.
    """
    import torch

    extra = dict(allowed or {})
    found = check_pickle(path, allowed=extra)
    safe = not found
    if found:
        require_trust(path, f"it names {found[0]}", findings=tuple(found))
    try:
        with torch.serialization.safe_globals(_stand_ins(extra)) if safe else contextlib.nullcontext():
            return torch.load(path, map_location="meta" if shapes_only else "cpu", weights_only=safe)
    except TrustError:
        raise
    except MemoryError:
        raise WeightsError(f"{path.name} declares more than the memory of this computer holds. It was not loaded.") from None
    except Exception as error:
        lines = str(error).strip().split("\n")
        told = next((line.partition("WeightsUnpickler error:")[2] for line in lines if "WeightsUnpickler error:" in line), lines[0])
        reason = printable(told.strip().rstrip(".")) or type(error).__name__
        raise WeightsError(f"The weights in {path.name} cannot be read: {reason}. Get the model again.") from None


def require_trust(path: Path, what: str, *, findings: tuple[Finding, ...] = ()) -> None:
    """Raise unless the user trusts exactly this file.

    Parameters
    ----------
    path : Path
        The file that would run; of a zip, the zip.
    what : str
        What would run, after "because": ``"it names os.system (byte 12)"``, ``"line 7 says $__import__('os')"``.
    findings : tuple of Finding
        For a table of all that would run.

    Raises
    ------
    TrustError
        Names the file and what would run, and says how to trust it.
    """
    if is_trusted(path):
        return
    raise TrustError(
        f"{printable(path.name)} can run any program when it is opened, because {what}. "
        f'Trust it only if you know its author: tileseg models trust "{path}".',
        path=path,
        what=what,
        findings=findings,
    )


def is_trusted(path: Path) -> bool:
    """Tell whether the user trusts exactly this file; its bytes are read for that."""
    return path.is_file() and bool(known := _load()) and file_sha256(path) in known


def trust(path: Path) -> list[Trusted]:
    """Remember that a file, or each file of a folder as it is now, may run code.

    Raises
    ------
    ModelError
        If nothing is there.
    OutputError
        If it cannot be written down.
    """
    files = [path] if path.is_file() else sorted(walk(path)) if path.is_dir() else []
    if not files:
        raise ModelError(f'There is no file "{printable(str(path))}" to trust. Give the file that was named.')
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    added = [Trusted(file_sha256(file), printable(file.name), now) for file in files]
    _store({**_load(), **{entry.sha256: {"name": entry.name, "since": entry.since} for entry in added}})
    return added


def revoke(which: Path | str) -> list[Trusted]:
    """Forget that a file, or the files of a folder, were trusted; return those that were.

    Parameters
    ----------
    which : Path or str
        A file, a folder, the SHA-256 of a file (its first 8 digits suffice), or its name as `trusted` tells it.
    """
    known = _load()
    path = Path(which)
    if str(which) and path.exists():
        sums = {file_sha256(file) for file in ([path] if path.is_file() else walk(path))}
    else:
        text = str(which)
        sums = {key for key, entry in known.items() if entry["name"] == text or (len(text) >= 8 and key.startswith(text.lower()))}
    gone = [Trusted(key, known[key]["name"], known[key]["since"]) for key in known if key in sums]
    if gone:
        _store({key: entry for key, entry in known.items() if key not in sums})
    return gone


def trusted() -> list[Trusted]:
    """Return the files that the user trusts."""
    return [Trusted(key, entry["name"], entry["since"]) for key, entry in _load().items()]


def trust_file() -> Path:
    """Return where it is remembered: beside the folder of the user's models, whose content may come from others."""
    folder = model_folder()
    return folder.with_name(f"{folder.name}-trust.json")


def _load() -> dict[str, dict[str, str]]:
    try:
        known = json.loads(trust_file().read_text(encoding="utf-8"))["trusted"]
        return {str(key): {"name": str(entry["name"]), "since": str(entry["since"])} for key, entry in known.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}  # who trusts nothing that can be read trusts nothing


def _store(known: Mapping[str, Mapping[str, str]]) -> None:
    path = trust_file()
    temporary = path.with_name(f".{secrets.token_hex(6)}.json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("x", encoding="utf-8") as stream:
            json.dump({"trusted": known}, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        move(temporary, path)
    except OSError as error:
        raise OutputError(f"It cannot be remembered in {path}: {error.strerror or error}. Check the folder's permissions.") from None
    finally:
        temporary.unlink(missing_ok=True)


def _torch_names() -> frozenset[str]:
    import torch._weights_only_unpickler as unpickler

    return frozenset(unpickler._get_allowed_globals())


def _stand_ins(allowed: Mapping[str, Any]) -> list[Any]:
    """Return what torch takes for the globals of our list: each with the name it has in files."""
    import importlib

    import numpy as np

    pairs: list[Any] = [(_Record, name) for name in _RECORDS] + [(_Word, name) for name in _WORDS]
    pairs += [(function, name) for name, function in _MADE.items()]
    multiarray: Any = sys.modules.get("numpy._core.multiarray") or importlib.import_module("numpy._core.multiarray")
    for name in _NUMPY:
        tail = name.rpartition(".")[2]
        pairs.append((getattr(multiarray, tail) if "multiarray" in name else getattr(np, tail), name))
    pairs += [(kind, f"numpy.dtypes.{kind.__name__}") for kind in vars(np.dtypes).values() if isinstance(kind, type)]
    for name, place in _PLAIN.items():
        module, _, attribute = place.partition(":")
        pairs.append((getattr(importlib.import_module(module), attribute), name))
    return [*pairs, *((stand_in, name) for name, stand_in in allowed.items())]
