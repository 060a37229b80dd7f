"""``WorkFolder``: where a training keeps what it needs to go on, beside the model that it is going to write."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from napari_tileseg.errors import OptionsError, OutputError
from napari_tileseg.folders import model_folder
from napari_tileseg.io.output import refused
from napari_tileseg.locks import lock
from napari_tileseg.models.package import refuse_other_files
from napari_tileseg.moving import move

if TYPE_CHECKING:
    from napari_tileseg.training.config import TrainConfig

__all__ = ["WorkFolder", "place_of", "work_folder"]


def place_of(config: TrainConfig) -> tuple[Path, str]:
    """Return the folder of the model that a config makes, and the model's name.

    Raises
    ------
    OptionsError
        If neither was given.
    """
    if not config.output and not config.name:
        raise OptionsError("Say where the model shall be saved, or give it a name (output, name).")
    output = Path(config.output).expanduser() if config.output else model_folder() / config.name
    name = config.name or output.name.removesuffix(".zip").removesuffix(".tileseg")
    cleaned = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-" for letter in name).strip("._-")
    if not cleaned or (config.name and cleaned != config.name):
        raise OptionsError(f'"{name}" is no name for a model. Letters, digits, ".", "_" and "-" are accepted.')
    return output, cleaned


def work_folder(output: Path) -> Path:
    """Return the folder for what an unfinished training needs to go on."""
    return output.with_name(f".{output.name}.training")


class WorkFolder:
    """Belongs to one training at a time, and is gone when the model is finished.

    Parameters
    ----------
    output : Path
        Where the model will be.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.path = work_folder(output)
        self._lock: IO[bytes] | None = None

    @property
    def checkpoint(self) -> Path:
        """What the training goes on from."""
        return self.path / "checkpoint.pt"

    @property
    def best(self) -> Path:
        """The model of the best epoch so far."""
        return self.path / "best"

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """Find out whether the model may be written.

        Raises
        ------
        OutputError
            If something is there that must not be replaced, or the folder is closed.
        """
        output = self.output
        unfinished = resume and self.checkpoint.is_file()
        refuse_other_files(output)
        if output.exists() and not overwrite and not unfinished:
            raise OutputError(f'"{output}" is there already. Choose another name, or replace it (--overwrite on the command line).')
        folder = next((above for above in output.absolute().parents if above.exists()), output.absolute().parent)
        if not folder.is_dir():
            raise OutputError(f'"{folder}" is a file, so no model can be written below it. Choose another folder.')
        if not os.access(folder, os.W_OK):
            raise OutputError(f'Nothing may be written in "{folder}". Choose another folder.')

    def begin(self, told: dict[str, Any], *, resume: bool) -> None:
        """Take the folder for this training, or find what an earlier call has left there.

        Parameters
        ----------
        told : dict
            ``config`` and ``images``: what must be the same when a training goes on.

        Raises
        ------
        OptionsError
            If it was begun with other settings or images.
        OutputError
            If another training has it, or it cannot be written.
        """
        self._take()
        path = self.path / "training.json"
        if not resume or not self.checkpoint.is_file():
            self._clear()
        if path.is_file():
            known = json.loads(path.read_text(encoding="utf-8"))
            differing = sorted(
                name for name in told["config"] if known.get("config", {}).get(name) != json.loads(json.dumps(told["config"][name]))
            )
            if differing or known.get("images") != told["images"]:
                what = f"other settings ({', '.join(differing)})" if differing else "other images"
                raise OptionsError(
                    f'"{self.output.name}" was begun with {what}. Use the same, begin anew (--no-resume), or choose another name.'
                )
            return
        self.write(path.name, json.dumps(told).encode())

    def write(self, name: str, content: bytes) -> None:
        """Put a file into the folder.

        Raises
        ------
        OutputError
        """
        path = self.path / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.new")
            temporary.write_bytes(content)
            move(temporary, path)
        except OSError as error:
            raise refused(path, error) from error

    def release(self) -> None:
        """Let another training have the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def remove(self) -> None:
        """Remove the folder."""
        self.release()  # Windows removes no open files
        shutil.rmtree(self.path, ignore_errors=True)

    def _take(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / "lock").open("a+b")
        except OSError as error:
            raise refused(self.path, error) from error
        try:
            lock(file)
        except (BlockingIOError, PermissionError):
            file.close()
            raise OutputError(f'Another training writes "{self.output}" right now. Wait for it, or choose another name.') from None
        except OSError:
            pass  # a file system without locks: nobody can tell
        self._lock = file

    def _clear(self) -> None:
        for path in self.path.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != "lock":
                path.unlink(missing_ok=True)
