"""Which Python runs the model's process, and with what: found without starting anything."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import napari_tileseg
from napari_tileseg.engine.fallback import FALLBACK
from napari_tileseg.errors import RunError
from napari_tileseg.worker.__main__ import PATH_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["command", "creation_flags", "environment", "find_python", "tool"]

_PYTHON = re.compile(r"(python|pypy)[\d.]*t?w?(\.exe)?", re.IGNORECASE)
_MAIN = Path(__file__).with_name("__main__.py")
_TOOL = "import runpy, sys; runpy.run_path(sys.argv.pop(1))['extend_path'](); from napari_tileseg.cli import main; main()"
_PLACES = ("bin/python3", "bin/python", "python.exe", "Scripts/python.exe")


def find_python(executable: str | None = None, prefixes: tuple[str, ...] | None = None) -> str:
    """Return a Python that can run the model's process.

    An application that embeds Python (a bundled napari) names itself as `sys.executable`; starting it would open
    a second viewer. A Python beside its library is taken then.

    Parameters
    ----------
    executable : str, optional
        What this Python calls itself, ``sys.executable`` by default.
    prefixes : tuple of str, optional
        Where to look besides; this Python's prefixes by default.

    Raises
    ------
    RunError
        If there is none.
    """
    executable = sys.executable if executable is None else executable
    if executable and _PYTHON.fullmatch(Path(executable).name):
        return executable
    version = f"bin/python{sys.version_info.major}.{sys.version_info.minor}"
    for prefix in prefixes or (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix):
        for place in (version, *_PLACES):
            found = Path(prefix) / place
            if found.is_file() and os.access(found, os.X_OK):
                return str(found)
    raise RunError(
        f'The model needs a Python of its own, but this program is "{Path(executable or "?").name}" and has none beside it. '
        "Install napari with pip or conda, or use the command `tileseg segment`."
    )


def command(python: str) -> list[str]:
    """Return the command line: the child by its path, without the current folder on its path, as isolated as this Python is."""
    # By its path it starts even where Python does not find the package; the name beside it is for those who list processes.
    return [python, *_flags(), str(_MAIN), "napari_tileseg.worker"]


def tool(python: str, words: Sequence[str]) -> list[str]:
    """Return the command line of ``tileseg`` with some words, as isolated, and as sure of its modules, as the child is."""
    return [python, *_flags(), "-c", _TOOL, str(_MAIN), *words]


def _flags() -> list[str]:
    if sys.flags.isolated:
        return ["-I"]
    return ["-P", *(["-E"] if sys.flags.ignore_environment else []), *(["-s"] if sys.flags.no_user_site else [])]


def environment() -> dict[str, str]:
    """Return this process's environment, where this Python finds its modules, and how threads wait for each other.

    Threads of OpenMP spin while they wait for one that is not being run. At lower priority, on cores that others use too,
    that costs many times the work itself. What an Apple GPU cannot compute, the processor may. A value that the user has set stays.
    """
    root = str(Path(napari_tileseg.__file__).parent.parent)
    paths = [root, *(str(Path(path).absolute()) for path in sys.path if path)]
    return {"OMP_WAIT_POLICY": "PASSIVE", **FALLBACK, **os.environ, PATH_VARIABLE: json.dumps(paths)}


def creation_flags() -> int:
    """Return Windows' flags: no console window, and lower priority from the first moment."""
    if sys.platform == "win32":
        return subprocess.CREATE_NO_WINDOW | subprocess.BELOW_NORMAL_PRIORITY_CLASS
    return 0
