"""``Format`` and ``BUILTIN``: the formats, as data: suffixes, and where the functions stand that read and write them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BUILTIN", "Format"]


@dataclass(frozen=True)
class Format:
    """One file format.

    Parameters
    ----------
    title : str
        Name for people.
    suffixes : tuple of str
        Ends of file names, lower case, with the dot; the longest that fits a name decides.
    reader : str
        ``"module:function"``; called as ``function(path, series=0, level=0)``, returns a `Volume`. Empty if it cannot be read.
    writer : str
        ``"module:function"``; called as ``function(labels, path, classes=(), colors=(), provenance=None)`` with a path that
        does not exist yet. Empty if it cannot be written.
    counter : str
        ``"module:function"``; called as ``function(path)``, returns how many images the file holds. Empty if that is always one.
    checker : str
        ``"module:function"``; called as ``function(image)`` before a run, raises OutputError if labels of that image cannot be
        written. Empty if all can.
    labels_only : bool
        Whether such a file holds labels and never an image; batches leave it out.
    accepts : tuple of str
        Axes of the labels that it can hold, in any order; empty if any.
    sidecar : bool
        Whether it has no room for names, colours and provenance, which go into a ``.json`` beside it.
    companion : str
        Suffix of the file with the voxels that the writer puts beside the header, under the same name; empty if it writes one file.
    """

    title: str
    suffixes: tuple[str, ...]
    reader: str = ""
    writer: str = ""
    counter: str = ""
    checker: str = ""
    labels_only: bool = False
    accepts: tuple[str, ...] = ()
    sidecar: bool = False
    companion: str = ""


BUILTIN = (
    Format(
        "OME-TIFF",
        (".ome.tif", ".ome.tiff", ".ome.btf", ".ome.tf8", ".ome.tf2"),
        "napari_tileseg.io.tiff:read_tiff",
        "napari_tileseg.io.tiff_labels:write_tiff",
        "napari_tileseg.io.tiff:count_tiff",
    ),
    Format(
        "TIFF",
        (".tif", ".tiff", ".btf"),
        "napari_tileseg.io.tiff:read_tiff",
        "napari_tileseg.io.tiff_labels:write_tiff",
        "napari_tileseg.io.tiff:count_tiff",
    ),
    Format("ImageJ TIFF", (".imagej.tif", ".imagej.tiff"), "napari_tileseg.io.tiff:read_tiff", "napari_tileseg.io.imagej:write_imagej"),
    Format("NIfTI", (".nii", ".nii.gz"), "napari_tileseg.io.medical:read_nifti", "napari_tileseg.io.medical:write_nifti"),
    Format(
        "OME-Zarr",
        (".ome.zarr", ".zarr"),
        "napari_tileseg.io.ome_zarr:read_zarr",
        "napari_tileseg.io.ome_zarr_labels:write_zarr",
        "napari_tileseg.io.ome_zarr:count_zarr",
    ),
    Format("OME-Zarr 0.4", (".0.4.ome.zarr",), writer="napari_tileseg.io.ome_zarr_labels:write_zarr_04"),
    Format(
        "zipped OME-Zarr",
        (".ome.zarr.zip", ".zarr.zip", ".ozx"),
        "napari_tileseg.io.ome_zarr:read_zarr",
        counter="napari_tileseg.io.ome_zarr:count_zarr",
    ),
    Format("whole slide", (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".svslide"), "napari_tileseg.io.slides:read_slide"),
    Format("PNG", (".png",), "napari_tileseg.io.raster:read_raster", "napari_tileseg.io.raster:write_png", accepts=("YX",)),
    Format("JPEG", (".jpg", ".jpeg"), "napari_tileseg.io.raster:read_raster"),
    Format("BMP", (".bmp",), "napari_tileseg.io.raster:read_raster"),
    Format("NRRD", (".nrrd",), "napari_tileseg.io.nrrd:read_nrrd", "napari_tileseg.io.nrrd_labels:write_nrrd"),
    Format(
        "NRRD with its voxels apart",
        (".nhdr",),
        "napari_tileseg.io.nrrd:read_nrrd",
        "napari_tileseg.io.nrrd_labels:write_nhdr",
        companion=".raw.gz",
    ),
    Format(
        "3D Slicer segmentation",
        (".seg.nrrd",),
        "napari_tileseg.io.nrrd:read_nrrd",
        "napari_tileseg.io.nrrd_labels:write_seg_nrrd",
        checker="napari_tileseg.io.nrrd_labels:check_seg_nrrd",
    ),
    Format(
        "MetaImage",
        (".mha",),
        "napari_tileseg.io.meta_image:read_meta_image",
        "napari_tileseg.io.meta_image_labels:write_meta_image",
        checker="napari_tileseg.io.meta_image_labels:check_meta_image",
    ),
    Format(
        "MetaImage with its voxels apart",
        (".mhd",),
        "napari_tileseg.io.meta_image:read_meta_image",
        "napari_tileseg.io.meta_image_labels:write_meta_image_pair",
        checker="napari_tileseg.io.meta_image_labels:check_meta_image",
        companion=".raw",
    ),
    Format(
        "DICOM",
        (".dcm", ".dicom", ".ima"),
        "napari_tileseg.io.dicom:read_dicom",
        "napari_tileseg.io.dicom_seg:write_segmentation",
        "napari_tileseg.io.dicom:count_dicom",
        "napari_tileseg.io.dicom_seg:check_segmentation",
        sidecar=True,
    ),
    Format("NumPy", (".npy",), "napari_tileseg.io.npy:read_npy"),
    Format("GeoJSON", (".geojson",), "napari_tileseg.io.geojson:read_geojson", "napari_tileseg.io.geojson:write_geojson", labels_only=True),
    Format(
        "COCO",
        (".coco.json",),
        "napari_tileseg.io.coco:read_coco",
        "napari_tileseg.io.coco:write_coco",
        "napari_tileseg.io.coco:count_coco",
        labels_only=True,
    ),
    # Measuring stands beside this room, not below it: what joins the two stands above both.
    Format("table of objects", (".csv",), writer="napari_tileseg.objects:write_objects", sidecar=True),
    Format("STL mesh", (".stl",), writer="napari_tileseg.io.mesh:write_stl", accepts=("ZYX", "CZYX"), sidecar=True),
    Format("OBJ mesh", (".obj",), writer="napari_tileseg.io.mesh:write_obj", accepts=("ZYX", "CZYX"), sidecar=True),
    Format("PLY mesh", (".ply",), writer="napari_tileseg.io.mesh:write_ply", accepts=("ZYX", "CZYX"), sidecar=True),
)
"""The formats that come with the package. Their modules are imported when the first such file is opened."""
