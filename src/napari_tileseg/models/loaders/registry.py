"""``Loader``: how one kind of model is recognised, described and loaded; the kinds there are, and references to their files."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_tileseg.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = [
    "BUILTIN",
    "ENTRY_POINTS",
    "OWN",
    "Loader",
    "Place",
    "detect",
    "find_loader",
    "install_line",
    "loaders",
    "parse",
    "schemes",
    "walk",
]

ENTRY_POINTS = "napari_tileseg.models"
"""Group of entry points in which other packages name a `Loader`, or several."""

MOST_FILES = 10_000
"""A folder with more files than that is taken for no model."""


@dataclass(frozen=True)
class Loader:
    """One kind of model.

    The functions are given as ``"module:function"`` and imported when they are needed.

    Parameters
    ----------
    scheme : str
        What references start with, without the colon: ``"onnx"`` for ``onnx:PATH``. Two letters or more.
    title : str
        For people: ``"ONNX"``.
    suffixes : tuple of str
        Ends of the names of its files, with the dot; empty where only folders are models.
    detect : str
        ``detect(path) -> bool``: whether the file or folder is such a model. Cheap, reads no weights, never raises.
    read_spec : str
        ``read_spec(path, **options) -> ModelSpec``: its card, without torch where that can be. What the source does not say is
        named in ``ModelSpec.unknown``. Raises ModelError with a sentence. ``weights_sha256`` may stay empty: the checksum of
        `files` is filled in.
    load : str
        ``load(path, spec, device, **options) -> Predictor``; the device is one that torch knows.
    extra : str
        The extra of this package that brings what the loader imports (``"onnx"``), or the name of a package to install.
    files : str
        ``files(path) -> iterable of Path``: what the model consists of, for checksums and changes. Empty: the file itself, or
        every file in the folder.
    card : str
        ``card(path) -> str``: Markdown for people; empty, or an empty answer: made of the card's facts.
    cases : str
        ``cases(path) -> list of Case``: tests that the model brings along; its predictor's module then has a method
        ``answer(batch)``, which returns what they expect. Empty: none.
    options : tuple of str
        What a reference may say after a question mark: ``nnunet:DIR?folds=0,1&checkpoint=best``. Passed to `read_spec` and
        `load` as keyword arguments, as they were typed.
    runs_code : bool
        Whether such a file can run code when it is opened, so that `load` asks for trust.
    pack : str
        ``pack(path, **options) -> (folder or file, its files, options)``: what a copy of the model must hold that a path and options
        mean, and which options mean it there. Empty: `files`, with the same options.
    code : str
        ``code(path) -> iterable of Path``: the files of this very model that `load` asks trust for. Empty: all of them.
    """

    scheme: str
    title: str
    suffixes: tuple[str, ...]
    detect: str
    read_spec: str
    load: str
    extra: str = ""
    files: str = ""
    card: str = ""
    cases: str = ""
    options: tuple[str, ...] = ()
    runs_code: bool = False
    code: str = ""
    pack: str = ""

    def call(self, which: str, *args: Any, **options: Any) -> Any:
        """Call one of the functions.

        Raises
        ------
        ModelError
            If it needs a package that is not installed; the sentence says how to install it.
        """
        try:
            module, _, name = getattr(self, which).partition(":")
            return getattr(import_module(module), name)(*args, **options)
        except ModuleNotFoundError as error:
            if not self.extra or (error.name or "").startswith("napari_tileseg"):
                raise
            raise ModelError(
                f"{self.title} models need the package {error.name}, which is not installed. Install it: {install_line(self.extra)}"
            ) from error

    def members(self, path: Path) -> list[Path]:
        """Return the files that the model at `path` consists of, in the order of their names."""
        if self.files:
            return sorted(self.call("files", path))
        return sorted(walk(path)) if path.is_dir() else [path]


def install_line(extra: str) -> str:
    """Return what to type for an extra of this package, or for another package."""
    package = f'"napari-tileseg[{extra}]"' if extra in EXTRAS else extra
    return f"pip install {package}"


EXTRAS = ("nnunet", "onnx", "cellpose", "stardist")
"""Extras of this package that bring what a loader needs."""

_HERE = "napari_tileseg.models.loaders"

OWN = Loader(
    "tileseg",
    "TileSeg",
    (".tileseg.zip",),
    "napari_tileseg.models.package:is_package",
    "napari_tileseg.models.package:read_spec",
    "napari_tileseg.models.packaged:load",
    files="napari_tileseg.models.packaged:files",
    card="napari_tileseg.models.packaged:card",
)
"""Our own package, which may also hold a model of another kind."""


def _single(scheme: str, title: str, suffixes: tuple[str, ...], **more: Any) -> Loader:
    """Return a loader whose module has the name of its scheme, and functions of the usual names."""
    module = f"{_HERE}.{scheme}"
    return Loader(scheme, title, suffixes, f"{module}:detect", f"{module}:read_spec", f"{module}:load", **more)


def _room(scheme: str, title: str, suffixes: tuple[str, ...], *, room: str = "", **more: Any) -> Loader:
    """Return a loader that has a folder of its own, writes cards, and knows which of its files run."""
    module = f"{_HERE}.{room or scheme}.loader"
    return Loader(
        scheme,
        title,
        suffixes,
        f"{module}:detect",
        f"{module}:read_spec",
        f"{module}:load",
        card=f"{module}:card",
        code=f"{module}:code",
        **more,
    )


NNUNET = Loader(
    "nnunet",
    "nnU-Net",
    (".zip",),
    f"{_HERE}.nnunet.results:detect",
    f"{_HERE}.nnunet.card:read_spec",
    f"{_HERE}.nnunet.network:load",
    extra="nnunet",
    files=f"{_HERE}.nnunet.results:files",
    pack=f"{_HERE}.nnunet.card:pack",
    options=("configuration", "folds", "checkpoint", "trainer", "plans"),
)
"""Results folders and exports of nnU-Net v2."""

BUILTIN: tuple[Loader, ...] = (
    OWN,
    _room(
        "bioimageio",
        "BioImage.IO",
        (".zip", "rdf.yaml", "bioimageio.yaml"),
        extra="onnx",
        cases=f"{_HERE}.bioimageio.loader:cases",
        runs_code=True,
    ),
    NNUNET,
    _room("monai", "MONAI bundle", (".zip",), room="monai_bundle", options=("without",), runs_code=True),
    _single("onnx", "ONNX", (".onnx",), extra="onnx", files=f"{_HERE}.onnx:files", options=("output", "provider")),
    _single("cellpose", "Cellpose", (), options=("diameter", "flow_threshold", "niter")),
    _single("stardist", "StarDist", (), extra="stardist", files=f"{_HERE}.stardist:files", options=("scale", "prob_thresh", "nms_thresh")),
    _single("torchscript", "TorchScript", (".pt", ".ts", ".torchscript"), runs_code=True),
    _single("pt2", "torch.export", (".pt2",), runs_code=True),
    _single("checkpoint", "checkpoint", (".pth", ".pt", ".ckpt", ".safetensors", ".bin", ".tar"), options=("architecture", "arguments")),
)
"""The kinds that this package reads itself; the first that recognises a file without a scheme takes it."""


@functools.cache
def loaders() -> tuple[Loader, ...]:
    """Return all loaders, those of other packages last; a broken extension is reported as a warning and left out."""
    found = {loader.scheme: loader for loader in BUILTIN}
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            loaded = entry.load()
            for loader in _checked([loaded] if isinstance(loaded, Loader) else list(loaded)):
                if loader.scheme in found:
                    raise ValueError(f'the scheme "{loader.scheme}:" is taken')
                found[loader.scheme] = loader
        except Exception as error:
            package = entry.dist.name if entry.dist else entry.value
            warnings.warn(f'The models of "{package}" were left out: {type(error).__name__}: {error}', stacklevel=2)
    return tuple(found.values())


def schemes() -> dict[str, Loader]:
    """Return the loaders by their schemes."""
    return {loader.scheme: loader for loader in loaders()}


def find_loader(scheme: str) -> Loader:
    """Return the loader of a scheme.

    Raises
    ------
    ModelError
        If there is none; the sentence names those there are.
    """
    known = schemes()
    if scheme not in known:
        raise ModelError(f'No loader is called "{scheme}". Known are {", ".join(known)}; a package that brings it may be missing.')
    return known[scheme]


def detect(path: Path) -> Loader | None:
    """Return the first loader that takes a file or folder for its own."""
    for loader in loaders():
        try:
            if loader.call("detect", path):
                return loader
        except Exception:  # a loader that raises here must not hide those after it
            continue
    return None


@dataclass(frozen=True)
class Place:
    """Where a model is, and who loads it."""

    loader: Loader
    path: Path
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def ref(self) -> str:
        """A reference that means the same in any folder."""
        text = str(self.path.absolute())
        if self.loader is OWN:
            return text
        return f"{self.loader.scheme}:{text}" + _written(self.options)


def parse(ref: str) -> tuple[Loader | None, str, dict[str, str]]:
    """Take a reference apart: ``"nnunet:DIR?folds=0,1"`` becomes the loader, ``"DIR"`` and ``{"folds": "0,1"}``.

    Returns
    -------
    loader : Loader or None
        None where the reference has no scheme that is known.
    path : str
    options : dict of str to str

    Raises
    ------
    ModelError
        If an option is none that the loader takes.
    """
    scheme, colon, rest = ref.partition(":")
    loader = schemes().get(scheme.lower()) if colon else None
    if loader is None:
        return None, ref, {}
    path, mark, query = rest.rpartition("?")
    if not mark or not all("=" in pair for pair in query.split("&")) or Path(rest).expanduser().exists():
        return loader, rest, {}
    options = dict(pair.split("=", 1) for pair in query.split("&"))
    wrong = next((name for name in options if name not in loader.options), None)
    if wrong is not None:
        accepted = f"takes {', '.join(loader.options)}" if loader.options else "takes no options"
        raise ModelError(f'"{ref}" has the option "{wrong}", but {scheme}: {accepted}. Leave it out.')
    return loader, path, options


def _written(options: Mapping[str, str]) -> str:
    return "?" + "&".join(f"{name}={value}" for name, value in options.items()) if options else ""


def walk(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder.

    Raises
    ------
    ModelError
        If there are more than a model can have.
    """
    count = 0
    for path in folder.rglob("*"):
        if path.is_file():
            count += 1
            if count > MOST_FILES:
                raise ModelError(f'"{folder.name}" holds more than {MOST_FILES} files, so it is no model. Give the folder of one model.')
            yield path


def _checked(extension: Iterable[Any]) -> list[Loader]:
    items = list(extension)
    for item in items:
        if not isinstance(item, Loader):
            raise TypeError(f"{item!r} is no Loader")
        if len(item.scheme) < 2 or not item.scheme.isalnum() or not item.scheme.islower():
            raise ValueError(f'the scheme "{item.scheme}" must be two lower-case letters or digits, or more')
    return items
