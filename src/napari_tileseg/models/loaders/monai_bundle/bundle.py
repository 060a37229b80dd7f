"""``Bundle``: a MONAI bundle on the disk, its files, what it says of itself, and its configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_tileseg.errors import ModelError
from napari_tileseg.models.archive import Archive, printable
from napari_tileseg.models.loaders.monai_bundle.config import Config, read_document
from napari_tileseg.models.trust import require_trust

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CONFIGS", "METADATA", "Bundle", "root_of"]

METADATA = "configs/metadata.json"
CONFIGS = ("configs/inference.json", "configs/inference.yaml", "configs/inference.yml")
_LARGEST = 4 * 2**20


def root_of(names: list[str]) -> str | None:
    """Return the folder inside an archive that is the bundle, with a slash at its end; None where there is none."""
    roots = [name.removesuffix(METADATA) for name in names if name.endswith(METADATA)]
    fitting = [root for root in roots if root.count("/") <= 1 and any(root + config in names for config in CONFIGS)]
    return min(fitting, key=len, default=None)


class Bundle:
    """A folder or zip with ``configs/metadata.json`` and ``configs/inference.json`` (or .yaml).

    Parameters
    ----------
    path : Path
        The folder or the zip.

    Raises
    ------
    ModelError
        If it is none, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.archive = Archive(path)
        root = root_of(self.archive.names)
        if root is None:
            raise ModelError(f"{printable(path.name)} is no MONAI bundle: it holds no {METADATA} with {CONFIGS[0]}. Give another model.")
        self._root = root
        self.metadata = self._document(METADATA)
        self.config_name = next(name for name in CONFIGS if root + name in self.archive)
        content = self.archive.read(root + self.config_name, largest=_LARGEST)
        values = read_document(content, self.config_name, self._what(self.config_name))
        self.config = Config(values, content.decode(errors="replace"), self.config_name, self._run)

    def has(self, name: str) -> bool:
        """Tell whether the bundle holds a file."""
        return self._root + name in self.archive

    def file(self, name: str) -> Path:
        """Return a file on the disk."""
        return self.archive.file(self._root + name)

    def text(self, name: str) -> str:
        """Return a text file's content, at most a megabyte of it; empty where there is none."""
        if not self.has(name) or self.archive.size(self._root + name) > 2**20:
            return ""
        return self.archive.read(self._root + name).decode(errors="replace")

    def trusted(self, what: str) -> None:
        """Raise unless the user trusts the configuration, and every Python file that it could use.

        Raises
        ------
        TrustError
        """
        config, *sources = self.code()
        require_trust(config, what)
        for path in sources:
            require_trust(path, "it is Python source that the bundle can use")

    def code(self) -> list[Path]:
        """Return the configuration and every Python file."""
        sources = [name for name in self.archive.names if name.startswith(self._root) and name.endswith(".py")]
        return [self.file(self.config_name), *(self.archive.file(name) for name in sources)]

    def built(self, place: str) -> Any:
        """Let MONAI build or compute a part of the configuration, which the user must trust.

        Raises
        ------
        ModelError
            If MONAI cannot.
        """
        import sys

        from monai.bundle.config_parser import ConfigParser

        folder = str(self.archive.folder() / self._root.rstrip("/"))
        keep, bytecode = list(sys.path), sys.dont_write_bytecode
        sys.path.insert(0, folder)
        sys.dont_write_bytecode = True  # nothing is written beside the user's files
        try:
            parser = ConfigParser(dict(self.config.values))
            parser["bundle_root"] = folder
            if "imports" in self.config.values:
                parser.get_parsed_content("imports")
            return parser.get_parsed_content(place)
        except Exception as error:  # whatever the bundle's code raises
            reason = " ".join(str(error).split())[:300]
            raise ModelError(f"MONAI cannot compute {printable(place)} of {self.config_name}: {type(error).__name__}: {reason}") from error
        finally:
            sys.path[:] = keep
            sys.dont_write_bytecode = bytecode

    def _run(self, place: str, text: str, line: int, why: str) -> Any:
        self.trusted(f"line {line} says {printable(text)}, and {why}")
        return self.built(place)

    def _document(self, name: str) -> dict[str, Any]:
        return read_document(self.archive.read(self._root + name, largest=_LARGEST), name, self._what(name))

    def _what(self, name: str) -> str:
        return f"{name} of {printable(self.path.name)}"
