"""``TomlConfig``: settings of a training that may stand in a TOML file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, ClassVar, Self

from napari_tileseg.errors import OptionsError
from napari_tileseg.job import Parsed

__all__ = ["TomlConfig", "read_toml"]


def read_toml(path: Path) -> dict[str, Any]:
    """Return what a TOML file holds.

    Raises
    ------
    OptionsError
        If it cannot be read.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionsError(f'"{path}" cannot be read: {error.strerror or error}. Give a TOML file.') from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OptionsError(f'"{path.name}" is no TOML file: {error}.') from None


class TomlConfig(Parsed):
    """What can be read from a file; `PATHS` are the fields that are paths, relative to its folder."""

    PATHS: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def read(cls, path: Path, **changes: Any) -> Self:
        """Read a TOML file; paths in it are relative to its folder.

        Parameters
        ----------
        path : Path
        **changes
            Fields that count instead of the file's.

        Raises
        ------
        OptionsError
            If the file cannot be read, or is no configuration.
        """
        values = read_toml(path)
        for field in cls.PATHS:
            if isinstance(values.get(field), str) and values[field]:
                values[field] = str(path.parent / Path(values[field]).expanduser())
        return cls.parse(**values | changes)
