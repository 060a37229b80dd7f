"""Which part of the result is wanted: what is visible, or what lies in rectangles."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from napari.layers import Shapes

from napari_tileseg.engine.parts import apart
from napari_tileseg.errors import OptionsError
from napari_tileseg.job import Region, Regions
from napari_tileseg.widgets.shown import drawn_at, shown_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    import napari
    from napari.layers import Image, Labels
    from numpy.typing import NDArray

    from napari_tileseg.engine.axes import AxisMap

__all__ = ["Canvas", "Region", "canvas_of", "framed", "meant", "rectangles", "seen", "visible_part", "words", "zoom_of"]

Canvas = tuple[tuple[float, ...], tuple[float, ...]]


def visible_part(
    layer: Image | Labels, axis_map: AxisMap, displayed: Sequence[int], step: Sequence[int], ndim: int, canvas: Canvas | None = None
) -> Region:
    """Return the part of an image that the canvas shows.

    Along axes that are run one by one only the current plane or frame counts; along axes of the model that are not
    on the canvas, everything.

    Parameters
    ----------
    layer : napari.layers.Image
    axis_map : AxisMap
    displayed : sequence of int
        The viewer's displayed axes.
    step : sequence of int
        The viewer's current step along each axis.
    ndim : int
        The viewer's number of axes.
    canvas : Canvas, optional
        What the canvas shows of the world (`canvas_of`); of layers with several levels napari itself knows only what it has loaded.

    Raises
    ------
    OptionsError
        If nothing of the image is visible.
    """
    corners = np.asarray(layer.corner_pixels)
    if layer.multiscale and canvas is not None:
        corners = seen(layer, displayed, canvas)
    letters = _letters(layer, axis_map)
    spans: dict[str, tuple[int, int]] = {}
    for axis, letter in enumerate(letters):
        in_viewer = axis + ndim - layer.ndim
        size = axis_map.sizes[letter]
        if in_viewer in displayed:
            spans[letter] = (int(max(0, corners[0, axis])), int(min(size, corners[1, axis] + 1)))
        elif letter in axis_map.iterated:
            spans[letter] = (int(step[in_viewer]), int(step[in_viewer]) + 1)
    region = _complete(spans, axis_map)
    if any(stop - start < 1 for start, stop in region) or all(corners[1] == corners[0]):
        raise OptionsError("Nothing of the image is visible. Move the view, or choose Whole image.")
    return region


def rectangles(
    shapes: Shapes | None, layer: Image | Labels, axis_map: AxisMap, displayed: Sequence[int] | None = None, ndim: int = 0
) -> Regions:
    """Return what each rectangle of a Shapes layer means (the selected ones, else all).

    One that is drawn on a single plane of a volume means all of its planes; two that lie above each other mean what is between them.

    Parameters
    ----------
    shapes : napari.layers.Shapes or None
    layer : napari.layers.Image or Labels
    axis_map : AxisMap
    displayed : sequence of int, optional
        The viewer's displayed axes: of oblique layers what is drawn in the rectangle is meant. By default what lies in it.
    ndim : int
        The viewer's number of axes.

    Raises
    ------
    OptionsError
        If there is no rectangle, or none of them touches the image.
    """
    shapes, drawn = _drawn(shapes, layer, displayed, ndim)
    letters = _letters(layer, axis_map)
    groups: list[NDArray[np.float64]] = []
    for points in drawn:
        group = points
        while (place := next((place for place, other in enumerate(groups) if _above(other, group, letters, axis_map)), None)) is not None:
            group = np.concatenate([groups.pop(place), group])
        groups.append(group)
    regions = [region for points in groups if (region := _frame(points, shapes.ndim, layer, axis_map)) is not None]
    return tuple(regions) or _refuse(shapes)


def framed(
    shapes: Shapes | None, layer: Image | Labels, axis_map: AxisMap, displayed: Sequence[int] | None = None, ndim: int = 0
) -> Region:
    """Return the frame around the rectangles of a Shapes layer; arguments and errors are those of `rectangles`."""
    shapes, drawn = _drawn(shapes, layer, displayed, ndim)
    region = _frame(np.concatenate(drawn), shapes.ndim, layer, axis_map)
    return _refuse(shapes) if region is None else region


def _drawn(
    shapes: Shapes | None, layer: Image | Labels, displayed: Sequence[int] | None, ndim: int
) -> tuple[Shapes, list[NDArray[np.float64]]]:
    """Return the layer, and the corners of every rectangle that is meant, in pixels of the image."""
    if shapes is None:
        raise OptionsError("No Shapes layer is open. Add one and draw a rectangle, or choose Whole image.")
    wanted = sorted(shapes.selected_data) or range(len(shapes.data))
    corners = [np.asarray(shapes.data[index]) for index in wanted if shapes.shape_type[index] == "rectangle"]
    if not corners:
        raise OptionsError(f'"{shapes.name}" holds no rectangle. Draw one, or choose Whole image.')

    def pixel(corner: NDArray[Any]) -> NDArray[np.float64]:
        if displayed is None:
            return np.asarray(layer.world_to_data(shapes.data_to_world(corner)), dtype=np.float64)
        return shown_at(layer, drawn_at(shapes, corner, displayed, ndim), displayed)

    return shapes, [np.array([pixel(corner) for corner in rectangle]) for rectangle in corners]


def _frame(points: NDArray[np.float64], drawn_ndim: int, layer: Image | Labels, axis_map: AxisMap) -> Region | None:
    """Return the frame around corners; None where nothing of the image lies in it."""
    low, high = _ends(points)
    spans: dict[str, tuple[int, int]] = {}
    for axis, letter in enumerate(_letters(layer, axis_map)):
        flat = axis < layer.ndim - drawn_ndim or (letter not in "YX" and high[axis] - low[axis] <= 1 and letter not in axis_map.iterated)
        if not flat:
            spans[letter] = (int(max(0, low[axis])), int(min(axis_map.sizes[letter], max(high[axis], low[axis] + 1))))
    region = _complete(spans, axis_map)
    return None if any(stop - start < 1 for start, stop in region) else region


def _ends(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.floor(points.min(axis=0) + 0.5), np.ceil(points.max(axis=0) + 0.5)


def _above(one: NDArray[np.float64], other: NDArray[np.float64], letters: str, axis_map: AxisMap) -> bool:
    """Whether rectangles lie on different planes of a volume, one above the other."""
    (low, high), (begin, end) = _ends(one), _ends(other)
    deep = [letter not in "YX" and letter not in axis_map.iterated for letter in letters[-one.shape[1] :]]
    common = (low < end) & (begin < high)
    return bool(common[~np.array(deep)].all() and not common[deep].all())


def _refuse(shapes: Shapes) -> NoReturn:
    raise OptionsError(f'No rectangle of "{shapes.name}" touches the image. Draw one on it, or choose Whole image.')


def meant(viewer: napari.viewer.Viewer, layer: Labels, axis_map: AxisMap) -> Region:
    """Return the part of a result that somebody wants to edit: the rectangles of the active Shapes layer, else what is visible.

    Raises
    ------
    OptionsError
        If nothing of the result is there.
    """
    active, dims = viewer.layers.selection.active, viewer.dims
    if isinstance(active, Shapes):
        return framed(active, layer, axis_map, dims.displayed, dims.ndim)
    return visible_part(layer, axis_map, dims.displayed, dims.current_step, dims.ndim, canvas_of(viewer))


def zoom_of(viewer: napari.viewer.Viewer) -> float:
    """Return how many pixels of the screen one unit of the world takes."""
    return max(float(getattr(viewer, "scene", viewer).camera.zoom), 1e-6)  # newer napari keeps the camera in the scene


def canvas_of(viewer: napari.viewer.Viewer) -> Canvas | None:
    """Return centre and half size of what a flat canvas shows, in world units along the displayed axes; None where it is unknown."""
    size = getattr(getattr(viewer, "canvas", None), "size", None)  # rows and columns
    if size is None:
        size = getattr(viewer, "_canvas_size", None)  # before napari 0.9
    camera = getattr(viewer, "scene", viewer).camera  # newer napari keeps it in the scene
    zoom = float(camera.zoom)
    if viewer.dims.ndisplay != 2 or size is None or zoom <= 0:
        return None
    centre = tuple(float(value) for value in camera.center[-2:])
    return centre, tuple(float(length) / 2 / zoom for length in size)


def seen(layer: Image | Labels, displayed: Sequence[int], canvas: Canvas) -> NDArray[np.intp]:
    """Return the first and the last pixel of a layer's finest level on the canvas."""
    centre, half = canvas
    points = []
    for signs in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        world = np.array(layer.data_to_world([0.0] * layer.ndim), dtype=np.float64)
        for axis, middle, reach, sign in zip(displayed, centre, half, signs, strict=True):
            world[axis - max(0, max(displayed) + 1 - layer.ndim)] = middle + sign * reach
        points.append(shown_at(layer, world, displayed))
    shape = np.array((layer.data[0] if layer.multiscale else layer.data).shape[: layer.ndim])
    low = np.clip(np.floor(np.min(points, axis=0) + 0.5), 0, shape)
    high = np.clip(np.ceil(np.max(points, axis=0) - 0.5), -1, shape - 1)
    return np.stack([low, high]).astype(np.intp)


def words(regions: Regions, axis_map: AxisMap) -> str:
    """Say how large a region is, or how many there are and how much of the image: ``"300 × 200"``, ``"2, 12 % of image"``."""
    if len(regions) == 1:
        sizes = [f"{stop - start}" for (start, stop), axis in zip(regions[0], axis_map.grid_axes, strict=True) if axis in axis_map.spatial]
        return " × ".join(sizes)
    pixels = sum(math.prod(stop - start for start, stop in box) for box in apart(regions))
    share = 100 * pixels / math.prod(axis_map.grid_shape)
    return f"{len(regions)}, {f'{share:.0f}' if share >= 1 else '< 1'} % of image"


def _letters(layer: Image | Labels, axis_map: AxisMap) -> str:
    letters = axis_map.axes[:-1] if getattr(layer, "rgb", False) else axis_map.axes
    return letters if len(letters) == layer.ndim else axis_map.grid_axes


def _complete(spans: dict[str, tuple[int, int]], axis_map: AxisMap) -> Region:
    return tuple(spans.get(axis, (0, size)) for axis, size in zip(axis_map.grid_axes, axis_map.grid_shape, strict=True))
