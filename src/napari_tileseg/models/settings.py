"""``Settings``: what a user sets once for all runs: where downloads go, and how the network is reached."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import warnings
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from napari_tileseg.errors import OptionsError, OutputError
from napari_tileseg.folders import settings_file
from napari_tileseg.moving import move

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Settings", "publishable", "read_settings", "write_settings"]

_LARGEST = 2**20


class Settings(BaseModel):
    """What a user sets once. Titles and descriptions become the labels and tooltips of every interface."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cache: Path | None = Field(
        None, title="Cache folder", description="For downloads and what can be computed again; the system's folder if empty."
    )
    mirror: str = Field(
        "",
        title="Mirror",
        description="Instead of a server: https://github.com=https://mirror.example/github; several with spaces between.",
    )
    proxy: str = Field(
        "", title="Proxy", description="http://host:port, with user:password@ before the host if need be; the system's if empty."
    )
    offline: bool = Field(False, title="Offline", description="Never use the network.")
    retries: int = Field(5, ge=0, le=100, title="Retries", description="How often to try again when a server fails.")
    identify: bool = Field(False, title="Say who and when", description="Put user, computer and time into the files of results.")
    timeout: float = Field(30, gt=0, le=3600, title="Timeout", description="Seconds to wait for a server that says nothing.")

    @field_validator("cache", mode="before")
    @classmethod
    def _whole_path(cls, cache: Any) -> Any:
        if cache is None or not str(cache).strip():
            return None
        path = Path(str(cache)).expanduser()
        if not path.is_absolute():
            raise ValueError("must be a whole path, from the root of the disk")
        if path.exists() and not path.is_dir():
            raise ValueError("must be a folder, but is a file")
        return path

    @field_validator("mirror")
    @classmethod
    def _pairs(cls, mirror: str) -> str:
        pairs = mirror.split()
        for pair in pairs:
            sides = pair.split("=", 1)
            if len(sides) != 2 or not all(_is_web(side) for side in sides):
                raise ValueError("must be pairs such as https://github.com=https://mirror.example/github")
        return " ".join(pairs)

    @field_validator("proxy")
    @classmethod
    def _reachable(cls, proxy: str) -> str:
        proxy = proxy.strip()
        if proxy and not (proxy.startswith("http://") and _is_web(proxy)):
            raise ValueError("must be an address such as http://proxy.example:3128")
        return proxy

    @property
    def mirrors(self) -> tuple[tuple[str, str], ...]:
        """Beginnings of addresses, and what to put in their place; the longest first."""
        pairs = [pair.partition("=") for pair in self.mirror.split()]
        return tuple(sorted(((given, other) for given, _, other in pairs), key=lambda pair: -len(pair[0])))

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Settings:
        """Build settings from names and values.

        Raises
        ------
        OptionsError
            One sentence: which setting there is none of, or why a value is not accepted.
        """
        if strange := sorted(set(values) - set(cls.model_fields)):
            raise OptionsError(f'There is no setting "{strange[0]}". Known are {", ".join(cls.model_fields)}.')
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = str(first["loc"][0]) if first["loc"] else "setting"
            shown = "" if name == "proxy" else f' "{first.get("input")}"'  # it may hold a password
            raise OptionsError(f"{name}{shown} is not accepted: {first['msg'].removeprefix('Value error, ')}.") from None


def read_settings() -> Settings:
    """Return the user's settings; the defaults, with one warning, where the file is damaged."""
    file = settings_file()
    try:
        state = file.stat()
    except OSError:
        return Settings()
    return _read(file, state.st_size, state.st_mtime_ns)


def publishable(provenance: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what of a provenance may go into a file: without user, computer and time, unless the user has switched them on.

    Equal runs then give equal files, and a file tells nobody who made it.
    """
    kept = dict(provenance or {})
    if not read_settings().identify:
        kept.pop("run", None)
    return kept


def write_settings(settings: Settings) -> Path:
    """Write the user's settings, at once or not at all; only the user may read them, because a proxy may ask for a password.

    A damaged file that stood there is kept beside it; what a newer version has set stays.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    file = settings_file()
    temporary = file.with_name(f".{secrets.token_hex(6)}.json")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        known = _document(file)
        if known is None and file.exists():
            move(file, file.with_name(f"{file.name}.damaged"))
        told = settings.model_dump(mode="json", exclude_defaults=True)
        kept = {name: value for name, value in (known or {}).items() if name not in Settings.model_fields}
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump({**kept, **told}, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        move(temporary, file)
    except OSError as error:
        raise OutputError(f"The settings cannot be written to {file}: {error.strerror or error}. Check the folder's permissions.") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return file


@lru_cache(maxsize=8)
def _read(file: Path, size: int, modified: int) -> Settings:
    # Size and time are part of the key, so that settings that were written anew are read again, and each damage is told once.
    document = _document(file)
    reason = "it is no JSON object"
    if document is not None:
        try:
            return Settings.parse({name: value for name, value in document.items() if name in Settings.model_fields})
        except OptionsError as error:
            reason = str(error).rstrip(".")
    warnings.warn(
        f'The settings in "{file}" are damaged, so the defaults are used: {reason}. Set them again with tileseg settings set.', stacklevel=3
    )
    return Settings()


def _document(file: Path) -> dict[str, Any] | None:
    """Return what a settings file says; None where it is none."""
    try:
        with file.open("rb") as stream:
            document = json.loads(stream.read(_LARGEST + 1))
    except (OSError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _is_web(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
