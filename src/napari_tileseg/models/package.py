"""Our own model format: a folder or ``.tileseg.zip`` with ``model.json`` and ``weights.safetensors``."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pydantic import ValidationError

from napari_tileseg.errors import ModelError, ModelNotFoundError, OutputError, WeightsError
from napari_tileseg.models.archive import parse_json, printable
from napari_tileseg.models.nets import build_network
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.moving import move

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

__all__ = [
    "CARD_FILE",
    "SPEC_FILE",
    "WEIGHTS_FILE",
    "build_for",
    "build_module",
    "is_package",
    "load_weights",
    "parse_spec",
    "read_spec",
    "refuse_other_files",
    "write_package",
    "write_spec",
]

SPEC_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"
CARD_FILE = "CARD.md"

_LARGEST_SPEC = 4 * 2**20
_LARGEST_ARGUMENTS = 20_000
_SMALLEST_BOMB = 2**22
_MOST_GROWTH = 100


def is_package(path: Path | str) -> bool:
    """Tell whether a folder or zip archive holds a model of our own format; its content is not checked."""
    path = Path(path)
    if path.is_dir():
        return (path / SPEC_FILE).is_file()
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return _member(archive, SPEC_FILE) is not None


def read_spec(path: Path | str) -> ModelSpec:
    """Read the card of a model; torch is not needed.

    Parameters
    ----------
    path : Path or str
        Folder or ``.tileseg.zip``.

    Raises
    ------
    ModelNotFoundError
        If nothing is there.
    ModelError
        If it is no model of our format, or its ``model.json`` is damaged.
    """
    path = Path(path)
    content = _read(path, SPEC_FILE, largest=_LARGEST_SPEC)
    if content is None:
        raise ModelError(f"{path} is no TileSeg model: it holds no {SPEC_FILE}. Give a model folder or a .tileseg.zip file.")
    return parse_spec(parse_json(content, f"{SPEC_FILE} in {path}"), f"{SPEC_FILE} in {path}")


def parse_spec(values: Any, what: str) -> ModelSpec:
    """Make a card of plain values.

    Parameters
    ----------
    values : dict
        Fields of the card.
    what : str
        How to call them in a sentence.

    Raises
    ------
    ModelError
        If they are no card; the sentence names the first field that is wrong.
    """
    try:
        return ModelSpec.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = printable(".".join(str(part) for part in first["loc"])) or "its content"
        reason = str(first["msg"]).removeprefix("Value error, ")
        raise ModelError(f"{what} cannot be used: {where}: {reason}.") from None
    except RecursionError:
        raise ModelError(f"{what} is nested too deeply to be read. Get the model again.") from None


def load_weights(path: Path | str, spec: ModelSpec) -> dict[str, Tensor]:
    """Read the weights of a model and check them against its card.

    Parameters
    ----------
    path : Path or str
        Folder or ``.tileseg.zip``.
    spec : ModelSpec
        As `read_spec` returned it; where it has no checksum, none is compared.

    Returns
    -------
    dict of str to Tensor
        On the CPU; floating-point tensors are float32 whatever they were stored as.

    Raises
    ------
    WeightsError
        If the file is missing, is not the one the card speaks of, or is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = Path(path)
    content = _read(path, WEIGHTS_FILE)
    if content is None:
        raise WeightsError(f"The weights of {spec.label} are missing: {path} holds no {WEIGHTS_FILE}. Get the model again.")
    found = hashlib.sha256(content).hexdigest()
    if spec.weights_sha256 and found != spec.weights_sha256:
        raise WeightsError(
            f"{WEIGHTS_FILE} of {spec.label} is damaged or was exchanged: its SHA-256 is {found[:12]}..., "
            f"the card says {spec.weights_sha256[:12]}.... Get the model again."
        )
    try:
        state = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise WeightsError(f"{WEIGHTS_FILE} of {spec.label} is damaged: {error}. Get the model again.") from None
    return {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in state.items()}


def build_module(path: Path | str, spec: ModelSpec | None = None) -> tuple[ModelSpec, nn.Module]:
    """Build the network of a model with its weights, ready to predict.

    Parameters
    ----------
    path : Path or str
        Folder or ``.tileseg.zip``.
    spec : ModelSpec, optional
        Its card, where somebody has said more of it than its ``model.json`` does.

    Returns
    -------
    spec : ModelSpec
    module : torch module
        In eval mode, on the CPU, float32, gradients off.

    Raises
    ------
    ModelError
        If the card is missing or damaged, or names an unknown network.
    WeightsError
        If the weights are missing, damaged, or do not fit the network.
    """
    written = read_spec(path)  # whose checksum, if any, is that of the weights alone
    spec = spec or written
    if not spec.architecture:
        raise ModelError(f"{spec.label} names no architecture, so its network cannot be built. Only the program that made it can.")
    state = load_weights(path, written)
    module = build_for(spec, {key: tuple(value.shape) for key, value in state.items()})
    module.load_state_dict(state, strict=False)  # only counters of batches may be missing
    return spec, module.eval().requires_grad_(False)


def build_for(spec: ModelSpec, found: Mapping[str, tuple[int, ...]]) -> nn.Module:
    """Build the network that a card names, once it is known to have just the weights that are there.

    Parameters
    ----------
    spec : ModelSpec
        Names the network and its arguments, which may come from anybody.
    found : mapping of str to tuple of int
        Names and shapes of the weights.

    Raises
    ------
    ModelError
        If there is no such network, or its arguments would fetch something from the network.
    WeightsError
        If the weights do not fit; nothing of their size has been made by then.
    """
    from napari_tileseg.models.nets.shapes import expected_shapes
    from napari_tileseg.models.weights import compare

    fetching = next((key for key, value in spec.arguments.items() if "pretrained" in key and value), None)
    if fetching is not None:
        raise ModelError(f"The card of {spec.label} asks for {fetching}, which would be fetched from elsewhere. Set it to false.")
    if len(repr(spec.arguments)) > _LARGEST_ARGUMENTS:
        raise ModelError(f"The card of {spec.label} has arguments of more than {_LARGEST_ARGUMENTS} characters, which no network needs.")
    fit = compare(expected_shapes(spec.architecture, spec.arguments), found)
    if not fit.exact:
        raise WeightsError(f"The weights of {spec.label} do not fit its network {spec.architecture}: {fit}.")
    return build_network(spec.architecture, **spec.arguments)


def refuse_other_files(path: Path) -> None:
    """Do nothing where a model may be put, which replaces what stands there.

    Raises
    ------
    OutputError
        If that is a folder of other files.
    """
    try:
        foreign = path.is_dir() and any(path.iterdir()) and not (path / SPEC_FILE).is_file()
    except OSError as error:
        raise OutputError(f"{path} cannot be looked into: {error.strerror or error}. Choose another folder.") from error
    if foreign:
        raise OutputError(f'"{path}" holds other files than a model. Choose another name.')


def write_package(
    path: Path | str,
    spec: ModelSpec,
    state: Mapping[str, Tensor],
    *,
    half: bool = False,
    card: str = "",
    extras: Mapping[str, bytes] | None = None,
) -> ModelSpec:
    """Write a model; what stood there before is replaced only when everything is written.

    Parameters
    ----------
    path : Path or str
        Folder, or a file that ends with ``.zip``.
    spec : ModelSpec
        Its checksum is replaced by that of the weights.
    state : mapping of str to Tensor
        Of the network that ``spec.architecture`` builds.
    half : bool
        Store filters as float16: half the size. Biases and normalisation, which may leave its range, stay as they are.
    card : str
        Text of ``CARD.md``.
    extras : mapping of str to bytes, optional
        Further files by name, such as curves.

    Returns
    -------
    ModelSpec
        As written.

    Raises
    ------
    OutputError
        If it cannot be written there, or a folder stands there that is no model.
    """
    import torch
    from safetensors.torch import save

    path = Path(path)
    refuse_other_files(path)
    tensors = {
        key: (value.detach().cpu().to(torch.float16) if half and value.is_floating_point() and value.ndim > 1 else value.detach().cpu())
        .contiguous()
        .clone()
        for key, value in state.items()
    }
    weights = save(tensors)
    spec = spec.model_copy(update={"weights_sha256": hashlib.sha256(weights).hexdigest()})
    files = {SPEC_FILE: (spec.model_dump_json(indent=2) + "\n").encode(), WEIGHTS_FILE: weights}
    if card:
        files[CARD_FILE] = card.encode()
    files |= dict(extras or {})
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.name.endswith(".zip"):
            _write_zip(temporary, files)
            move(temporary, path)
        else:
            _write_folder(temporary, files)
            _replace_folder(temporary, path)
    except OSError as error:
        raise OutputError(f"The model cannot be written to {path}: {error.strerror or error}. Choose another folder.") from error
    return spec


def write_spec(path: Path, spec: ModelSpec) -> None:
    """Write the card of a package that is a folder anew; until it is whole, the old one stays.

    Raises
    ------
    OutputError
        If it cannot be written there.
    """
    temporary = path / f".{SPEC_FILE}.{uuid4().hex[:8]}"
    try:
        temporary.write_text(spec.model_dump_json(indent=2) + "\n", encoding="utf-8")
        move(temporary, path / SPEC_FILE)
    except OSError as error:
        raise OutputError(f"{SPEC_FILE} cannot be written to {path}: {error.strerror or error}. Check the folder's permissions.") from error
    finally:
        temporary.unlink(missing_ok=True)


def _member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo | None:
    # Only this exact name counts, at the top or in one folder; nothing is ever unpacked to disk.
    for info in archive.infolist():
        parts = info.filename.split("/")
        if parts[-1] == name and len(parts) <= 2 and not info.is_dir():
            return info
    return None


def _read(path: Path, name: str, *, largest: int | None = None) -> bytes | None:
    """Return the content of one file of the package, or None where the package lacks it."""
    try:
        if path.is_dir():
            file = path / name
            if not file.is_file():
                return None
            _check_size(path, name, file.stat().st_size, largest)
            return file.read_bytes()
        if not path.exists():
            raise ModelNotFoundError(f"There is no model at {path}. Give a model folder or a .tileseg.zip file.")
        with zipfile.ZipFile(path) as archive:
            info = _member(archive, name)
            if info is None:
                return None
            _check_size(path, name, info.file_size, largest)
            if info.file_size > _SMALLEST_BOMB and info.file_size > _MOST_GROWTH * info.compress_size:
                raise WeightsError(f"{name} in {path} would grow from {info.compress_size} to {info.file_size} bytes. It was not unpacked.")
            return archive.read(info)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        kind = WeightsError if name == WEIGHTS_FILE else ModelError
        raise kind(f"{path} is no intact .tileseg.zip file: {error}. Get the model again, or give a model folder.") from None
    except OSError as error:
        kind = WeightsError if name == WEIGHTS_FILE else ModelError
        raise kind(f"{name} in {path} cannot be read: {error.strerror or error}. Check the file and its permissions.") from None


def _check_size(path: Path, name: str, size: int, largest: int | None) -> None:
    if largest is not None and size > largest:
        raise ModelError(f"{name} in {path} has {size} bytes, more than the {largest} that a model card may have.")


def _write_zip(path: Path, files: Mapping[str, bytes]) -> None:
    try:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                # A fixed date makes the archive depend on nothing but the model.
                archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _write_folder(path: Path, files: Mapping[str, Any]) -> None:
    path.mkdir()
    try:
        for name, content in files.items():
            (path / name).write_bytes(content)
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise


def _replace_folder(new: Path, path: Path) -> None:
    if not path.exists():
        move(new, path)
        return
    old = path.with_name(f"{new.name}.old")
    move(path, old)
    try:
        move(new, path)
    except BaseException:
        move(old, path)
        raise
    shutil.rmtree(old)
