"""``Embedding``: tiles or objects of an image in the space of a model's codes, and the table in which they travel."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import InputError
from napari_tileseg.io.output import put_in_place

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["Embedding", "join", "project", "read_embedding", "write_embedding"]


@dataclass(frozen=True, eq=False)
class Embedding:
    """Where tiles or objects lie in an image, and where in the space of codes.

    Parameters
    ----------
    positions : ndarray of float64, shape (N, D)
        Indices along the image's axes without C.
    codes : ndarray of float32, shape (N, K)
        What the network says.
    points : ndarray of float32, shape (N, 2 or 3)
        Their main directions (the codes themselves, where they are as few), with zero mean.
    labels : ndarray of int64, shape (N,)
        Number of the object, or the most frequent label of the tile; 0 without labels.
    scores : ndarray of float32, shape (N,)
        How strange each one is: the mean of its anomaly map; 0 for models that have none.
    axes : str
        A letter for each column of `positions`, where they are known.
    images : tuple of str
        Name of the image of each row, where there are several.
    """

    positions: NDArray[np.float64]
    codes: NDArray[np.float32]
    points: NDArray[np.float32]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    axes: str = ""
    images: tuple[str, ...] = ()


def project(codes: NDArray[np.float32], dimensions: int) -> NDArray[np.float32]:
    """Return codes (N, K) along the directions in which they differ most, shape (N, dimensions), with zero mean.

    Signs are chosen so that the largest weight of each direction is positive; missing directions are 0.
    """
    centred = codes.astype(np.float64) - codes.mean(0, dtype=np.float64)
    result = np.zeros((len(codes), dimensions), np.float32)
    if codes.shape[1] <= dimensions:
        result[:, : codes.shape[1]] = centred
        return result
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    directions = directions[:dimensions]
    heaviest = np.abs(directions).argmax(1)
    directions = directions * np.sign(directions[np.arange(len(directions)), heaviest])[:, None]
    result[:, : len(directions)] = centred @ directions.T
    return result


def join(embeddings: Sequence[Embedding], names: Sequence[str]) -> Embedding:
    """Bring the codes of several images, found by one model, into one space.

    Parameters
    ----------
    embeddings : sequence of Embedding
        With equal axes.
    names : sequence of str
        Of their images.

    Raises
    ------
    InputError
        If their axes differ.
    """
    first = embeddings[0]
    for embedding, name in zip(embeddings, names, strict=True):
        if embedding.axes != first.axes:
            raise InputError(f'"{name}" has the axes {embedding.axes}, "{names[0]}" {first.axes}. Give images with equal axes.')
    codes = np.concatenate([embedding.codes for embedding in embeddings])
    return Embedding(
        np.concatenate([embedding.positions for embedding in embeddings]),
        codes,
        project(codes, first.points.shape[1]),
        np.concatenate([embedding.labels for embedding in embeddings]),
        np.concatenate([embedding.scores for embedding in embeddings]),
        first.axes,
        tuple(name for embedding, name in zip(embeddings, names, strict=True) for _ in embedding.labels),
    )


def write_embedding(embedding: Embedding, path: Path, *, overwrite: bool = False) -> None:
    """Write a table (CSV), a row a tile or object: its image (of several), its place along each axis, label, score, points, codes.

    Raises
    ------
    OutputError
        If there is a file already, or it cannot be written.
    """
    axes = embedding.axes or "".join(str(number) for number in range(embedding.positions.shape[1]))
    parts = (embedding.positions, embedding.labels[:, None], embedding.scores[:, None], embedding.points, embedding.codes)
    heads = ["image"] * bool(embedding.images) + [f"position {axis}" for axis in axes] + ["label", "score"]
    heads += [f"point {number + 1}" for number in range(embedding.points.shape[1])]
    heads += [f"code {number + 1}" for number in range(embedding.codes.shape[1])]
    with put_in_place(path, overwrite=overwrite) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(heads)
        for number, row in enumerate(zip(*parts, strict=True)):
            # The shortest digits that give the same number again.
            writer.writerow([*embedding.images[number : number + 1], *(str(value) for part in row for value in part)])


def read_embedding(path: Path) -> Embedding:
    """Read what `write_embedding` wrote.

    Raises
    ------
    InputError
        If it is no such table.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            heads, *rows = csv.reader(file)
        columns = {
            name: [[float(row[place]) for row in rows] for place, head in enumerate(heads) if head.split(" ")[0] == name]
            for name in ("position", "label", "score", "point", "code")
        }
        found = {name: np.array(values).T for name, values in columns.items()}
        axes = "".join(head.split(" ")[1] for head in heads if head.startswith("position "))
        return Embedding(
            found["position"].reshape(len(rows), -1),
            _single(found["code"]),
            _single(found["point"]),
            found["label"][:, 0].astype(np.int64),
            _single(found["score"])[:, 0],
            axes if axes.isalpha() else "",
            tuple(row[0] for row in rows) if heads[0] == "image" else (),
        )
    except (OSError, ValueError, IndexError) as error:
        raise InputError(f'"{path.name}" is no table of codes ({type(error).__name__}). Give one that tileseg embed has written.') from None


def _single(values: NDArray[Any]) -> NDArray[np.float32]:
    return values.astype(np.float32)
