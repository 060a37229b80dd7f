"""Saving a result: where to, under which name, and whether a file that is there may be replaced."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QCheckBox, QDialog, QDialogButtonBox, QFileDialog, QFormLayout, QMessageBox, QWidget

from napari_tileseg.io import suffix_of, write_labels
from napari_tileseg.io.checks import with_checks
from napari_tileseg.widgets.parts import Combo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari.layers import Labels

    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.volume import Volume

__all__ = ["FILTERS", "MeshDialog", "ask_mesh", "ask_path", "by_hand", "complete_path", "confirm_overwrite", "default_name", "save"]

FILTERS = {
    "OME-TIFF": ".ome.tif",
    "NIfTI": ".nii.gz",
    "OME-Zarr": ".ome.zarr",
    "3D Slicer segmentation": ".seg.nrrd",
    "NRRD": ".nrrd",
    "MetaImage": ".mha",
    "NRRD, header and voxels": ".nhdr",
    "MetaImage, header and voxels": ".mhd",
    "DICOM segmentation": ".dcm",
    "ImageJ TIFF": ".imagej.tif",
    "OME-Zarr 0.4": ".0.4.ome.zarr",
    "PNG, one plane": ".png",
    "GeoJSON for QuPath": ".geojson",
    "COCO": ".coco.json",
    "Table of objects": ".csv",
    "STL mesh": ".stl",
    "OBJ mesh": ".obj",
    "PLY mesh": ".ply",
}
"""Formats of the dialog and the suffix each adds to a bare name."""


_OWN = {"nii": ".nii.gz", "nifti": ".nii.gz", "nrrd": ".nrrd", "nhdr": ".nrrd", "mha": ".mha", "mhd": ".mha", "metaimage": ".mha"}
_OWN |= {"dicom": ".nii.gz", "dcm": ".nii.gz"}
"""Suffix for what came from a format of medicine; DICOM becomes NIfTI, which every program opens."""


def default_name(volume: Volume, name: str, *, large: bool = False) -> str:
    """Return the file name to start with: the format of a medical image, OME-Zarr for what is large, else OME-TIFF.

    Parameters
    ----------
    volume : Volume
        The image.
    name : str
        Name of the result's layer.
    large : bool
        Whether the labels are a pyramid on the disk.
    """
    told = (str(volume.metadata.get("format", "")) + str(volume.metadata.get("suffix", ""))).lower()
    own = next((suffix for word, suffix in _OWN.items() if word in told), ".ome.tif")
    suffix = ".ome.zarr" if large else own
    safe = "".join(letter if letter.isalnum() or letter in "-_. " else "_" for letter in name).strip() or "labels"
    return safe + suffix


def ask_path(parent: QWidget, start: str) -> Path | None:
    """Let the user choose a file; the question about replacing it is asked later, for the complete name."""
    order = sorted(FILTERS, key=lambda name: not start.endswith(FILTERS[name]))
    filters = [f"{name} (*{FILTERS[name]})" for name in order]
    chosen, picked = QFileDialog.getSaveFileName(
        parent, "Save labels", start, ";;".join([*filters, "All files (*)"]), "", QFileDialog.Option.DontConfirmOverwrite
    )
    return complete_path(chosen, picked) if chosen else None


def complete_path(chosen: str, picked: str) -> Path:
    """Add the suffix of the picked filter to a name that has none the program can write.

    Parameters
    ----------
    chosen : str
        What the user typed.
    picked : str
        The dialog's filter: ``"NIfTI (*.nii.gz)"``.
    """
    if suffix_of(chosen, purpose="write") or Path(chosen).suffix:
        return Path(chosen)
    suffix = next((suffix for name, suffix in FILTERS.items() if picked.startswith(f"{name} (")), ".ome.tif")
    return Path(chosen + suffix)


_MESHES = (".stl", ".obj", ".ply")
_MOST_CLASSES = 200
_ROUNDS = 10
"""How often smooth surfaces are smoothed: the stairs of the voxels are gone then, and thin parts are still there."""


class MeshDialog(QDialog):
    """What a mesh shows: all labels, the selected one, or a class; as it is, or smooth.

    Parameters
    ----------
    classes : sequence of str
        Names, the background first.
    selected : int
        The label that is selected in the layer; 0 for none.
    """

    def __init__(self, classes: Sequence[str], selected: int, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Save mesh")
        self.part = Combo("Surfaces of", "Each label has a closed surface of its own.")
        self.part.addItem("all labels", ())
        if selected > 0:
            self.part.addItem(f"the selected label ({selected})", (selected,))
        for name in list(dict.fromkeys(classes[1:]))[:_MOST_CLASSES]:
            if name:
                self.part.addItem(name, (name,))
        self.smooth = QCheckBox("Smooth")
        self.smooth.setToolTip("Take the stairs of the voxels away. Volumes stay as large.")
        buttons = QDialogButtonBox.StandardButton
        self.buttons = QDialogButtonBox(buttons.Save | buttons.Cancel)
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        layout = QFormLayout(self)
        layout.addRow("Surfaces of", self.part)
        layout.addRow("", self.smooth)
        layout.addRow(self.buttons)
        self.setMinimumWidth(320)

    def wishes(self) -> dict[str, Any]:
        """Return what `write_labels` is to be told."""
        return {"only": tuple(self.part.currentData()), "smooth": _ROUNDS if self.smooth.isChecked() else 0}


def ask_mesh(parent: QWidget, path: Path, classes: Sequence[str], selected: int) -> dict[str, Any] | None:
    """Let the user choose what a mesh shows; empty for other formats, None where nothing is to be written."""
    if not path.name.lower().endswith(_MESHES):
        return {}
    dialog = MeshDialog(classes, selected, parent)
    return dialog.wishes() if dialog.exec() else None


def confirm_overwrite(parent: QWidget, path: Path) -> bool:
    """Ask whether a file that is there may be replaced; no by default."""
    buttons = QMessageBox.StandardButton
    answer = QMessageBox.question(
        parent, "Save labels", f'"{path.name}" is there already. Replace it?', buttons.Yes | buttons.No, buttons.No
    )
    return bool(answer == buttons.Yes)


def by_hand(layers: Sequence[Labels]) -> dict[str, Any]:
    """Return what was done to the layers of a result by hand, for the provenance.

    Returns
    -------
    dict
        ``edits`` by tool and what was computed ``again``, of all layers; what was said of objects, where there is one layer. Only what
        there is.
    """
    told = [layer.metadata.get("tileseg") or {} for layer in layers]
    edits: Counter[str] = Counter()
    for one in told:
        edits.update(one.get("edits") or {})
    again = [part for one in told for part in one.get("again") or ()]
    said = with_checks({name: told[0][name] for name in ("checked",) if name in told[0]}, layers[0].features) if len(layers) == 1 else {}
    return {**({"edits": dict(sorted(edits.items()))} if edits else {}), **({"again": again} if again else {}), **said}


def save(
    volume: Volume,
    path: Path,
    spec: ModelSpec,
    provenance: Mapping[str, object],
    *,
    overwrite: bool,
    image: Volume | None = None,
    wishes: Mapping[str, Any] | None = None,
) -> Path:
    """Write labels with spacing, units, class names, colours and provenance.

    Parameters
    ----------
    image : Volume, optional
        What they were made from, whose intensities tables tell.
    wishes : mapping, optional
        From `ask_mesh`.

    Raises
    ------
    OutputError
        One sentence: why not, and what to do.
    """
    classes = tuple(spec.classes)
    facts: dict[str, Any] = {"classes": classes, "colors": tuple(spec.colors), "provenance": dict(provenance)}
    return write_labels(volume, path, **facts, overwrite=overwrite, image=image, **(wishes or {}))
