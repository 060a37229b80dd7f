"""Split one object: by a line drawn across it, or by seeds in its parts."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

from napari_tileseg.errors import InputError
from napari_tileseg.refine.draft import Draft
from napari_tileseg.refine.picture import pixels_of
from napari_tileseg.refine.scope import Scope, touching
from napari_tileseg.refine.shape import spacing_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_tileseg.refine.canvas import Canvas
    from napari_tileseg.refine.delta import Edit
    from napari_tileseg.refine.scope import Piece

__all__ = ["split_line", "split_seeds"]


def split_line(canvas: Canvas, object_id: int, points: Sequence[Sequence[float]], *, normal: int | None = None) -> Edit:
    """Split an object along a line; in a volume along the wall that the line makes with the direction of view.

    The largest part keeps the id. A line that ends inside the object is drawn on straight.

    Parameters
    ----------
    canvas : Canvas
    object_id : int
    points : sequence of points
        Of the line, in pixels of the labels, one coordinate per axis; two at least.
    normal : int, optional
        In a volume, the axis that is looked along; by default the first one of space.

    Raises
    ------
    InputError
        If the object is not there, or the line does not cut it.
    """
    line = np.asarray(points, np.float64).reshape(-1, canvas.ndim)
    if len(line) < 2:
        raise InputError("A line takes two points at least. Draw it across the object.")
    piece = _piece(canvas, object_id, line)
    place, box = piece.place, piece.box
    draft = Draft(canvas)
    block = draft.read(place, box)
    mask = piece.mask(block)
    along = 0 if normal is None else place.axes.index(normal % canvas.ndim)
    flat = [axis for axis in range(mask.ndim) if mask.ndim == 2 or axis != along]
    path = np.stack([line[:, place.axes[axis]] - box[axis].start for axis in flat], axis=1)
    shape = tuple(mask.shape[axis] for axis in flat)
    whole, _ = ndimage.label(mask, structure=touching(mask.ndim))
    for drawn in (path, _extended(path, float(math.hypot(*shape)) + 2)):
        wall = _wall(drawn, shape)
        if mask.ndim == 3:
            wall = np.broadcast_to(np.expand_dims(wall, along), mask.shape)
        parts, count = ndimage.label(mask & ~wall, structure=touching(mask.ndim))
        # A piece that lay apart before, and that the line does not meet, is no part of its own.
        met = np.unique(whole[mask & wall])
        cut = np.unique(parts[(parts > 0) & np.isin(whole, met)])
        if len(cut) > 1 and count > 1:
            break
    else:
        raise InputError(f"The line does not cut object {object_id} in two. Draw it from one side to the other.")
    seeds = np.where(np.isin(parts, cut), parts, 0)
    for position in met:  # each pixel of the wall goes to the nearest part of what it cuts
        own = whole == position
        near = ndimage.distance_transform_edt(
            ~(own & (seeds > 0)), sampling=spacing_of(canvas, place), return_distances=False, return_indices=True
        )
        gap = own & (seeds == 0)
        if (seeds[own] > 0).any():
            seeds[gap] = seeds[tuple(axis[gap] for axis in near)]
    return _parted(draft, piece, block, seeds)


def split_seeds(
    canvas: Canvas,
    object_id: int,
    points: Sequence[Sequence[float]],
    image: Any = None,
    by: Literal["distance", "image", "scores"] = "distance",
) -> Edit:
    """Split an object into one part per seed, by a watershed. The largest part keeps the id.

    Parameters
    ----------
    canvas : Canvas
    object_id : int
    points : sequence of points
        Seeds, in pixels of the labels, one coordinate per axis; two at least, inside the object.
    image : array-like, optional
        On the labels' grid, read by the box; colours along one more, last axis.
    by : {"distance", "image", "scores"}
        Where parts meet: at the narrowest place; at the strongest edge of the image between them; where `image`, as scores of the
        foreground, is lowest.

    Raises
    ------
    InputError
        If the object is not there, or a seed is not in it.
    """
    given = np.asarray(points, np.float64).reshape(-1, canvas.ndim)
    pixels = [canvas.pixel(point.tolist()) for point in given]
    if len(set(pixels)) < 2:
        raise InputError("Splitting takes two seeds. Click in another part of the object too.")
    piece = _piece(canvas, object_id, given)
    place, box = piece.place, piece.box
    draft = Draft(canvas)
    block = draft.read(place, box)
    mask = piece.mask(block)
    local = [tuple(pixel[axis] - part.start for axis, part in zip(place.axes, box, strict=True)) for pixel in pixels]
    outside = [pixel for pixel, at in zip(pixels, local, strict=True) if not _inside(mask, at)]
    if outside:
        raise InputError(f"The seed at {outside[0]} is not in object {object_id}. Click inside it.")
    steps = spacing_of(canvas, place)
    depth = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=steps)[(slice(1, -1),) * mask.ndim]
    if by == "distance":
        local = _uphill(depth, local, steps)
        heights, part = -depth, 0.95
    elif image is None:
        raise InputError(f'Splitting by {"the image" if by == "image" else "scores"} takes an image. Choose one, or split by "distance".')
    else:
        values, part = pixels_of(image, canvas, place, box, grey=True), 0.5
        heights = (
            ndimage.gaussian_gradient_magnitude(values, 1.0, mode="nearest") if by == "image" else -ndimage.gaussian_filter(values, 1.0)
        )
    seeds = watershed(heights, _balls(depth, local, steps, part), mask=mask, connectivity=mask.ndim)
    return _parted(draft, piece, block, seeds)


def _piece(canvas: Canvas, object_id: int, points: NDArray[np.float64]) -> Piece:
    """Return the object (of a class the connected part) that is meant, at the time point of the points."""
    positions = {canvas.position(point.tolist()) for point in points}
    if len(positions) > 1:
        raise InputError("The points are at several time points. Choose points of one.")
    position = positions.pop()
    if canvas.classes:
        inside = [canvas.pixel(point.tolist()) for point in points if _hits(canvas, object_id, point)]
        if inside:
            return next(iter(Scope((object_id,), position, None, (inside[0],)).pieces(canvas)))
    return next(iter(Scope((object_id,), position).pieces(canvas)))


def _hits(canvas: Canvas, object_id: int, point: NDArray[np.float64]) -> bool:
    pixel = tuple(round(float(at)) for at in point)
    return all(0 <= at < size for at, size in zip(pixel, canvas.shape, strict=True)) and canvas.ids_at(pixel) == [object_id]


def _inside(mask: NDArray[np.bool_], at: tuple[int, ...]) -> bool:
    return all(0 <= place < size for place, size in zip(at, mask.shape, strict=True)) and bool(mask[at])


def _parted(draft: Draft, piece: Piece, block: NDArray[Any], parts: NDArray[Any]) -> Edit:
    """Give the parts (numbers above 0) ids; what has no number keeps its own."""
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    order = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)].tolist()
    table = np.zeros(len(sizes), block.dtype)
    table[order[0]] = piece.id
    table[order[1:]] = draft.canvas.index.free_ids(len(order) - 1)
    draft.write(piece.place, piece.box, block, np.where(parts > 0, table[parts], block))
    return draft.edit("split", f"Split object {piece.id} into {len(order)}.")


def _extended(path: NDArray[np.float64], by: float) -> NDArray[np.float64]:
    """Draw a line on straight at both ends."""
    ends = []
    for end, before in ((path[0], path[1:]), (path[-1], path[-2::-1])):
        away = end - before
        lengths = np.hypot(*away.T)
        far = np.flatnonzero(lengths > 2)  # the hand trembles: the direction is that over some pixels
        chosen = int(far[0]) if len(far) else int(np.argmax(lengths))
        ends.append(end + away[chosen] / max(lengths[chosen], 1e-9) * by)
    return np.concatenate([[ends[0]], path, [ends[1]]])


def _wall(path: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the pixels of a plane that a line goes through; no two parts touch across it, not even at corners."""
    steps = np.maximum(np.ceil(np.abs(np.diff(path, axis=0)).max(axis=1) * 4).astype(int), 1)
    fine = [np.linspace(path[i], path[i + 1], n, endpoint=False) for i, n in enumerate(steps)]
    pixels = np.rint(np.concatenate([*fine, path[-1:]])).astype(int)
    corners = np.stack([pixels[1:, 0], pixels[:-1, 1]], axis=1)  # where the line goes over a corner, the pixel beside it too
    every = np.concatenate([pixels, corners])
    every = every[((every >= 0) & (every < np.array(shape))).all(axis=1)]
    wall = np.zeros(shape, np.bool_)
    wall[tuple(every.T)] = True
    return wall


def _uphill(depth: NDArray[np.float64], seeds: list[tuple[int, ...]], steps: Sequence[float]) -> list[tuple[int, ...]]:
    """Move seeds to the middle of their parts; none moves if two would come to the same one."""
    smooth = ndimage.gaussian_filter(depth, 1.0)
    moved = []
    for seed in seeds:
        at = seed
        while True:
            around = tuple(slice(max(index - 1, 0), index + 2) for index in at)
            best = np.unravel_index(int(smooth[around].argmax()), smooth[around].shape)
            higher = tuple(int(index) + part.start for index, part in zip(best, around, strict=True))
            if smooth[higher] <= smooth[at]:
                break
            at = higher
        moved.append(at)
    for (first, one), (second, other) in itertools.combinations(zip(seeds, moved, strict=True), 2):
        apart = math.dist([a * step for a, step in zip(one, steps, strict=True)], [b * step for b, step in zip(other, steps, strict=True)])
        if first != second and apart <= 0.7 * max(float(depth[one]), float(depth[other])):
            return seeds
    return moved


def _balls(depth: NDArray[np.float64], seeds: list[tuple[int, ...]], steps: Sequence[float], part: float) -> NDArray[np.int32]:
    """Return a number for each seed, in a ball around it that fills a part of the way to the outline.

    A flood that begins at a single pixel off the middle of its part is late there, and loses it to the other seed's.
    """
    markers = np.zeros(depth.shape, np.int32)
    nearest = np.full(depth.shape, np.inf)
    grid = np.ogrid[tuple(slice(0, size) for size in depth.shape)]
    for number, seed in enumerate(seeds, 1):
        away = sum(((axis - at) * step) ** 2 for axis, at, step in zip(grid, seed, steps, strict=True))
        relative = np.sqrt(away) / max(part * float(depth[seed]), 1e-9)
        closer = (relative <= 1) & (relative < nearest)
        markers[closer] = number
        nearest[closer] = relative[closer]
    for number, seed in reversed(list(enumerate(seeds, 1))):
        markers[seed] = number
    return markers
