"""Networks that are defined in a Python file of their own: the file runs, so it must be trusted."""

from __future__ import annotations

import ast
import importlib.util
import secrets
import sys
from typing import TYPE_CHECKING, Any

from napari_tileseg.errors import ModelError
from napari_tileseg.models.archive import printable
from napari_tileseg.models.trust import require_trust

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn

__all__ = ["load_source"]


def load_source(path: Path, name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Run a Python file that the user trusts, and build the network that it defines.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        Class or function in it.
    arguments : mapping of str to object
        Its keyword arguments.

    Raises
    ------
    TrustError
        If the user does not trust exactly this file; the sentence says what would run, and its line.
    ModelError
        If it cannot be run, or defines no such network.
    """
    require_trust(path, f"it is Python source{_place(path, name)}")
    module_name = f"_tileseg_source_{secrets.token_hex(6)}"
    specification = importlib.util.spec_from_file_location(module_name, path)
    if specification is None or specification.loader is None:
        raise ModelError(f"{printable(path.name)} is no Python file, so the network cannot be built. Get the model again.")
    module = importlib.util.module_from_spec(specification)
    sys.modules[module_name] = module  # classes look for their module there
    keep = sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # nothing is written beside the user's file
    try:
        specification.loader.exec_module(module)
        network: nn.Module = getattr(module, name)(**arguments)
    except Exception as error:  # whatever the author's code raises
        raise ModelError(f"{printable(path.name)} cannot build {printable(name)}: {type(error).__name__}: {error}.") from error
    finally:
        sys.dont_write_bytecode = keep
    return network


def _place(path: Path, name: str) -> str:
    """Say where the network is defined, without running anything."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    kinds = (ast.ClassDef, ast.FunctionDef)
    line = next((node.lineno for node in tree.body if isinstance(node, kinds) and node.name == name), None)
    return f" whose line {line} builds {printable(name)}" if line is not None else ""
