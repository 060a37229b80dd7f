"""The loader of MONAI bundles: recognise, describe, load."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_tileseg.errors import TrustError
from napari_tileseg.models.archive import is_zip, printable
from napari_tileseg.models.loaders.monai_bundle.bundle import CONFIGS, METADATA, Bundle, root_of
from napari_tileseg.models.loaders.monai_bundle.card import text
from napari_tileseg.models.loaders.monai_bundle.spec import preparation_of, spec_of, threshold_of
from napari_tileseg.models.loaders.strange import sensible

if TYPE_CHECKING:
    from pathlib import Path

    from napari_tileseg.models.spec import ModelSpec

__all__ = ["card", "code", "detect", "load", "read_spec"]


def detect(path: Path) -> bool:
    """Tell whether a folder or zip is a MONAI bundle."""
    if path.is_dir():
        return (path / METADATA).is_file() and any((path / name).is_file() for name in CONFIGS)
    if not is_zip(path):
        return False
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            return root_of(archive.namelist()) is not None
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return False


def read_spec(path: Path, *, without: str = "") -> ModelSpec:
    """Return the card; neither torch nor MONAI is needed.

    Parameters
    ----------
    without : str
        Transforms that are left out, with commas between them.

    Raises
    ------
    ModelError
        If the bundle cannot be used as it is meant; the sentence says why.
    TrustError
        If its configuration needs code where plain values are expected.
    """
    with sensible(f"The configuration of {printable(path.name)}"):
        return spec_of(Bundle(path), without=without)


def load(path: Path, spec: ModelSpec, device: str, *, without: str = "") -> Any:
    """Load the network.

    Raises
    ------
    TrustError
        If that could run code, and nobody has trusted it.
    WeightsError
        If the weights are missing, damaged, or do not fit.
    ModelError
        If the network cannot be built.
    """
    from napari_tileseg.models.loaders.monai_bundle.network import BundleNetwork, load_network
    from napari_tileseg.models.nets.axis_order import reorder_axes
    from napari_tileseg.models.predictor import from_module

    bundle = Bundle(path)
    preparation = preparation_of(bundle, without=without)
    network = load_network(bundle)
    if not spec.architecture:
        network = BundleNetwork(network, reversed=preparation.reversed, threshold=threshold_of(bundle, without=without))
    elif order := spec.arguments.get("axis_order"):
        reorder_axes(network, order)
    return from_module(network, spec, device=device)


def code(path: Path) -> list[Path]:
    """Return the files that `load` asks trust for: none where the network is one of MONAI's, and the configuration plain."""
    from napari_tileseg.models.loaders.monai_bundle.architecture import SCRIPT, STATE
    from napari_tileseg.models.loaders.monai_bundle.expression import Component
    from napari_tileseg.models.loaders.monai_bundle.network import strange

    bundle = Bundle(path)
    if not bundle.has(STATE):
        return [bundle.file(SCRIPT)] if bundle.has(SCRIPT) else []
    try:
        network = bundle.config.get("network_def")
    except TrustError:
        return bundle.code()
    return [] if isinstance(network, Component) and strange(network) is None else bundle.code()


def card(path: Path) -> str:
    """Return the card as Markdown."""
    bundle = Bundle(path)
    from napari_tileseg.models.registry import find_spec

    return text(bundle, find_spec(f"monai:{path}"))
