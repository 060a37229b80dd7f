"""What stands in a checkpoint of nnU-Net beside the weights, read without torch and without running anything; and the weights."""

from __future__ import annotations

import pickle
import zipfile
import zlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from napari_tileseg.errors import ModelError, WeightsError
from napari_tileseg.models.archive import printable
from napari_tileseg.models.trust import load_torch

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["read_header", "read_weights"]

_LARGEST = 64 * 2**20
"""Most bytes of the part that holds everything but the numbers."""


class _Anything:
    """Stands for every class and function that a checkpoint names; nothing happens when it is made, called or filled."""

    def __init__(self, *args: Any, **values: Any) -> None:
        pass

    def __call__(self, *args: Any, **values: Any) -> _Anything:
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """Take nothing."""

    def extend(self, values: Any) -> None:
        """Take nothing."""


class _Header(pickle.Unpickler):
    """Reads the structure of a checkpoint; whatever is no plain value becomes `_Anything`."""

    def find_class(self, module: str, name: str) -> Any:
        return OrderedDict if (module, name) == ("collections", "OrderedDict") else _Anything

    def persistent_load(self, pid: Any) -> Any:
        return None


def read_header(path: Path) -> Mapping[str, Any]:
    """Return a checkpoint without its numbers: names, settings, and which axes were mirrored in training.

    Raises
    ------
    WeightsError
        If it is no checkpoint, or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            info = next((info for info in archive.infolist() if info.filename.endswith("/data.pkl")), None)
            if info is None or info.file_size > _LARGEST:
                raise ValueError("it holds no description of reasonable size")
            with archive.open(info) as stream:
                header = _Header(stream).load()
        if not isinstance(header, dict):
            raise ValueError("it holds no dictionary")
    except OSError as error:
        raise WeightsError(f'"{path.name}" cannot be read: {error.strerror or error}. Check the file and its permissions.') from None
    except (zipfile.BadZipFile, zlib.error) as error:
        raise WeightsError(f"{path.name} is no intact checkpoint: {printable(str(error))}. Get the model again.") from None
    except Exception as error:  # a damaged pickle can raise anything
        reason = printable(str(error)) or type(error).__name__
        raise WeightsError(f"{path.name} is no checkpoint of nnU-Net: {reason}. Get the model again.") from None
    return header


def read_weights(path: Path) -> dict[str, Any]:
    """Return the parameters of a checkpoint by name; nothing in it can run code.

    Raises
    ------
    TrustError
        If it names a global that is not harmless.
    WeightsError
        If it is damaged or holds no weights.
    """
    content = load_torch(path)
    weights = content.get("network_weights") if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not weights:
        raise WeightsError(f"{path.name} holds no network_weights, so it is no checkpoint of nnU-Net. Get the model again.")
    if not all(isinstance(key, str) for key in weights):
        raise ModelError(f"{path.name} has parameters without names. Get the model again.")
    return {key.removeprefix("module."): value for key, value in weights.items()}
