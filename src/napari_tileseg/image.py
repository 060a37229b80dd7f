"""From whatever a user has to a ``Volume``: a path, an array, or a volume with other axes."""

from __future__ import annotations

from itertools import islice, permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_tileseg.engine.axes import guess_axes
from napari_tileseg.errors import AxesError, InputError
from napari_tileseg.volume import Volume, check_ndim

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_tileseg.models.spec import ModelSpec

__all__ = ["as_volume", "check_dtype", "refuse_guesses"]


def as_volume(
    image: Volume | NDArray[Any] | str | Path, *, axes: str | None = None, spec: ModelSpec | None = None, partial: bool = False
) -> Volume:
    """Return the image as a volume.

    Parameters
    ----------
    image : Volume, ndarray or path
        A path is read by its suffix.
    axes : str, optional
        Overrides what the image says of itself.
    spec : ModelSpec, optional
        The model that is going to be used; helps to name an array's axes.
    partial : bool
        Open a damaged file too.

    Raises
    ------
    AxesError
        If an array's axes are not given and could mean several things.
    """
    if isinstance(image, str | Path):
        from napari_tileseg.io import read_volume

        image = read_volume(image, partial=partial)
    if isinstance(image, Volume):
        return image if axes is None else image.with_axes(axes)
    if axes is None:
        check_ndim(len(image.shape))
        axes = guess_axes(image.shape, spec=spec)
        if "?" in axes:
            shape = " x ".join(str(size) for size in image.shape)
            raise AxesError(f'The axes of an array of {shape} can mean several things. Name them, say axes="TYX".', axis=axes.index("?"))
    return Volume(image, axes)


def check_dtype(volume: Volume) -> None:
    """Refuse arrays that hold no intensities.

    Raises
    ------
    InputError
        For complex numbers, text, dates and records.
    """
    if volume.dtype.kind not in "buif":
        raise InputError(
            f"The image has the type {volume.dtype}; whole and floating point numbers and bool are accepted. Convert it first."
        )


def refuse_guesses(volume: Volume, name: str, spec: ModelSpec, *, how: str) -> None:
    """Refuse an image whose axes are guesswork: neither its file nor the model says what they are.

    Parameters
    ----------
    volume : Volume
        As it was read; ``metadata["guessed_axes"]`` names the letters that the reader has guessed.
    name : str
        Of the file, for the message.
    spec : ModelSpec
        The model; one of volumes takes a guessed Z for Z.
    how : str
        What the user can do: ``"Give --axes"``.

    Raises
    ------
    AxesError
        With examples of axes that fit.
    """
    guessed = str(volume.metadata.get("guessed_axes", ""))
    if not guessed or (guessed == "Z" and spec.spatial_ndim == 3):
        return
    place = volume.axes.index(guessed[0])
    free = [letter for letter in "ZTC" if letter in guessed or letter not in volume.axes]
    others = ("".join(letters) for letters in permutations(free, len(guessed)))
    examples = dict.fromkeys([guessed, *islice(others, 3)])
    raise AxesError(
        f'"{name}" does not say what axis {place + 1} ({volume.shape[place]} entries) means. '
        f"{how}, for example {' or '.join(volume.axes.replace(guessed, letters) for letters in examples)}.",
        axis=place,
    )
