"""The bundled images with their reference labels: real fields that no bundled model was trained on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from napari_tileseg.errors import InputError
from napari_tileseg.io.registry import read_volume
from napari_tileseg.volume import Volume

__all__ = ["SAMPLES", "Sample", "find_sample", "sample", "sample_path"]


@dataclass(frozen=True)
class Sample:
    """One bundled image.

    Parameters
    ----------
    key : str
        Short name, as in napari's sample contributions.
    title : str
        Name for people.
    image, labels : str
        File names in the folder ``sample_data``.
    model : str
        The bundled model that fits.
    classes : tuple of str
        Meaning of the reference's values, the background first; empty where they are object numbers.
    colors : tuple of str
        ``#rrggbb`` of each class but the background.
    licence : str
        SPDX identifier.
    """

    key: str
    title: str
    image: str
    labels: str
    model: str
    licence: str
    classes: tuple[str, ...] = ()
    colors: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What to call the image in layers and files: its file name without the suffix."""
        return self.image.split(".", 1)[0]


SAMPLES = (
    Sample(
        "nuclei-fluorescence", "Nuclei, fluorescence", "nuclei_fluorescence.tif", "nuclei_fluorescence_labels.tif", "nuclei-2d", "CC0-1.0"
    ),
    Sample("nuclei-histology", "Nuclei, histology (H&E)", "nuclei_histology.png", "nuclei_histology_labels.png", "nuclei-2d", "CC0-1.0"),
    Sample(
        "hippocampus-mri",
        "Hippocampus, MRI",
        "hippocampus_mri.nii.gz",
        "hippocampus_mri_labels.nii.gz",
        "hippocampus-3d",
        "CC-BY-SA-4.0",
        ("background", "anterior", "posterior"),
        ("#e4572e", "#17bebb"),
    ),
)


def find_sample(key: str) -> Sample:
    """Return a sample by its key.

    Raises
    ------
    InputError
        If there is none; the sentence names those there are.
    """
    for item in SAMPLES:
        if item.key == key:
            return item
    raise InputError(f'There is no sample "{key}". There are {", ".join(item.key for item in SAMPLES)}.')


def sample_path(name: str) -> Path:
    """Return where a file of the folder ``sample_data`` lies in the installed package."""
    return Path(str(files("napari_tileseg"))) / "sample_data" / name


def sample(key: str) -> tuple[Volume, Volume]:
    """Return a bundled image and its reference labels.

    Raises
    ------
    InputError
        If there is no such sample, or its files are missing from the installation.
    """
    item = find_sample(key)
    image = replace(read_volume(sample_path(item.image)), name=item.name)
    labels = read_volume(sample_path(item.labels))
    notes = {**labels.metadata, "labels": True, "classes": list(item.classes), "colors": list(item.colors)}
    labels = Volume(labels.data, labels.axes, image.drop("C")[1], image.drop("C")[2], f"{item.name}_reference", metadata=notes)
    return image, labels
