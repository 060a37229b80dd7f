"""``fingerprint``: everything that can change a label, in words and values that can be compared."""

from __future__ import annotations

import contextlib
import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_tileseg import __version__
from napari_tileseg.engine.recipe import resolve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_tileseg.engine.axes import AxisMap
    from napari_tileseg.engine.protocols import Predictor
    from napari_tileseg.job import SegmentOptions
    from napari_tileseg.volume import Volume

__all__ = ["content", "fingerprint", "sampled", "threads"]

_PROBES = 16
_SIDE = 64
_WHOLE_BYTES = 1 << 30
"""Arrays in memory up to this size are looked at pixel by pixel: about a second."""


def fingerprint(
    image: Volume,
    axis_map: AxisMap,
    predictor: Predictor,
    options: SegmentOptions,
    region: list[Any] | None,
) -> dict[str, str]:
    """Return what must be equal for a run to go on where another one stopped.

    Parameters
    ----------
    image, axis_map, predictor, options, region
        Of the run; ``image.metadata["stamp"]`` says which file it came from, if any.

    Returns
    -------
    dict of str to str
        The name of each thing as a person would say it, and its value or a digest of it.
    """
    spec = predictor.spec
    aside = {"title", "description", "licence", "attribution", "citation", "training", "colors", "unknown"}
    card = spec.model_dump(mode="json", exclude=aside)
    chosen = {**options.model_dump(mode="json", exclude={"device"}), "sigma": resolve(spec, options).sigma}
    values: dict[str, Any] = {
        "the image's shape": image.shape,
        "the image's type": image.dtype.newbyteorder("=").str,
        "the image's axes": image.axes,
        "the image's pixel size": [image.spacing, image.units],
        "the image file": str(image.metadata.get("stamp", "")),
        "the image's content": content(image),
        "the channels": axis_map.channels,
        "the region": region,
        "the model": spec.name,
        "the model's weights": spec.weights_sha256 or _weights(getattr(predictor, "module", None)),
        "the model's card": _digest(json.dumps(card, sort_keys=True).encode()),
        **{f"the option {name}": value for name, value in chosen.items()},
        "the device": predictor.device.partition(":")[0],
        "the version of torch": torch.__version__,
        "the version of napari-tileseg": __version__,
    }
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}


def content(image: Volume) -> str:
    """Return a digest of the intensities: all of them where they are in memory, else of boxes spread over the image.

    A place that cannot be read counts as unreadable, which is told when the run comes to it.
    """
    data = image.data
    if isinstance(data, np.ndarray) and not isinstance(data, np.memmap) and data.nbytes <= _WHOLE_BYTES:
        digest = hashlib.blake2b(digest_size=16)
        for part in data if data.ndim > 2 else [data]:
            digest.update(np.ascontiguousarray(part).data)
        return digest.hexdigest()
    return sampled(image)


def sampled(image: Volume) -> str:
    """Return a digest of the intensities in small boxes spread over the image, however it is held: in memory, in a file, remotely."""
    digest = hashlib.blake2b(digest_size=16)
    for box in _boxes(image.shape):
        try:
            part = np.asarray(image.data[box])
            digest.update(np.ascontiguousarray(part, part.dtype.newbyteorder("<")).data)
        except Exception:
            digest.update(b"unreadable")
    return digest.hexdigest()


def _boxes(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Yield small boxes along the two diagonals of an image."""
    for index in range(_PROBES):
        place = (index // 2) / (_PROBES // 2 - 1)
        key = []
        for axis, size in enumerate(shape):
            side = min(-(-size // 3), _SIDE if axis >= len(shape) - 3 else 1)
            along = 1 - place if index % 2 and axis % 2 else place
            start = round(along * (size - side))
            key.append(slice(start, start + side))
        yield tuple(key)


def _weights(module: Any) -> str:
    """Return a digest of the parameters of a network that came without a checksum."""
    if module is None or not hasattr(module, "state_dict"):
        return ""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        if isinstance(tensor, torch.Tensor):
            digest.update(np.ascontiguousarray(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy()).data)
    return digest.hexdigest()


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[int]:
    """Compute with as many threads as an earlier run had: sums are cut among them, and round accordingly.

    Parameters
    ----------
    count : int or None
        None: as many as there are.

    Yields
    ------
    int
        How many there are now.
    """
    before = torch.get_num_threads()
    if count is not None and count != before:
        torch.set_num_threads(count)
    try:
        yield torch.get_num_threads()
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)
