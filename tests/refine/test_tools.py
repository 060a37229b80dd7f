"""What is true of every tool: it changes nothing by itself, can be undone bit for bit, and keeps away from other objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_tileseg.errors import Cancelled, InputError, OutputError
from napari_tileseg.refine.canvas import Canvas
from napari_tileseg.refine.contour import active_contour, snap_outline
from napari_tileseg.refine.objects import (
    components,
    keep_largest,
    merge,
    reassign,
    relabel,
    remove,
    remove_at_border,
    remove_larger,
    remove_smaller,
)
from napari_tileseg.refine.scope import Scope
from napari_tileseg.refine.shape import convex_hull, fill_holes, grow, shrink, smooth
from napari_tileseg.refine.split import split_seeds
from napari_tileseg.refine.wand import grow_region, wand

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_tileseg.refine.delta import Edit


def picture(canvas: Canvas) -> NDArray[np.float64]:
    return np.random.default_rng(1).normal(size=canvas.shape).cumsum(axis=-1)


def two_pixels(canvas: Canvas, object_id: int) -> list[tuple[int, ...]]:
    box = canvas.index.box(object_id)
    inside = np.argwhere(canvas.read(box) == object_id) + [part.start for part in box]
    return [tuple(inside[0].tolist()), tuple(inside[-1].tolist())]


def background(canvas: Canvas) -> tuple[int, ...]:
    return tuple(np.argwhere(np.asarray(canvas.data[...]) == 0)[0].tolist())


def outline(canvas: Canvas) -> list[tuple[float, ...]]:
    fixed = (0.0,) * (canvas.ndim - 2)
    return [(*fixed, *corner) for corner in ((2, 2), (2, 9), (9, 9), (9, 2))]


ON_SOME: dict[str, Callable[[Canvas, list[int]], Edit]] = {
    "merge": lambda canvas, ids: merge(canvas, ids[:3]),
    "remove": lambda canvas, ids: remove(canvas, ids[:3]),
    "reassign": lambda canvas, ids: reassign(canvas, ids[:2], 999),
    "largest part": lambda canvas, ids: keep_largest(canvas, ids[:4]),
    "components": lambda canvas, ids: components(canvas, ids[:4]),
    "fill": lambda canvas, ids: fill_holes(canvas, ids[:4]),
    "smooth": lambda canvas, ids: smooth(canvas, ids[:4], 1.5),
    "grow": lambda canvas, ids: grow(canvas, ids[:4], 2.5),
    "shrink": lambda canvas, ids: shrink(canvas, ids[:4], 1.0),
    "hull": lambda canvas, ids: convex_hull(canvas, ids[:4]),
    "seeds": lambda canvas, ids: split_seeds(canvas, ids[0], two_pixels(canvas, ids[0])),
    "seeds by image": lambda canvas, ids: split_seeds(canvas, ids[0], two_pixels(canvas, ids[0]), picture(canvas), "image"),
    "region": lambda canvas, ids: grow_region(canvas, picture(canvas), ids[0], 2.0, reach=4),
    "contour": lambda canvas, ids: active_contour(canvas, picture(canvas), ids[:3], distance=2.0),
}
"""Tools on chosen objects, the first of `ids`."""

ON_ALL: dict[str, Callable[[Canvas], Edit]] = {
    "remove all": lambda canvas: remove(canvas, None),
    "smaller": lambda canvas: remove_smaller(canvas, 60.0),
    "larger": lambda canvas: remove_larger(canvas, 60.0),
    "largest object": lambda canvas: keep_largest(canvas, of="objects"),
    "border": remove_at_border,
    "relabel": relabel,
    "components": components,
    "fill": fill_holes,
    "smooth": lambda canvas: smooth(canvas, None, 1.0),
    "grow": lambda canvas: grow(canvas, None, 2.0),
    "shrink": lambda canvas: shrink(canvas, None, 1.0),
    "hull": convex_hull,
    "a slice": lambda canvas: grow(canvas, Scope.slice(canvas.space[0], 3), 2.0),
    "wand": lambda canvas: wand(canvas, picture(canvas), background(canvas), 3.0, reach=5),
    "outline": lambda canvas: snap_outline(canvas, picture(canvas), outline(canvas), distance=2.0),
}
"""Tools on everything."""

SHAPES = {"plane": (24, 30), "volume": (9, 16, 20), "planes over time": (3, 20, 22), "volumes over time": (2, 7, 12, 14)}


def canvas_of(kind: str, labels: Any, **options: Any) -> Canvas:
    space = {"plane": (-2, -1), "planes over time": (-2, -1)}.get(kind, (-3, -2, -1))
    spacing = {2: (1.0, 0.7), 3: (2.0, 1.0, 0.7)}[len(space)]
    return Canvas(labels, spacing=spacing, space=space, unit="um", **options)


@pytest.mark.parametrize(("kind", "where"), [*((kind, "memory") for kind in SHAPES), ("volume", "chunks")])
@pytest.mark.parametrize("name", [*ON_SOME, *(f"all: {name}" for name in ON_ALL)])
def test_tool_is_undone_bit_for_bit(
    kind: str,
    where: str,
    name: str,
    scene: Callable[..., NDArray[Any]],
    stored: Callable[..., Any],
    same_index: Callable[[Canvas], None],
) -> None:
    labels = scene(SHAPES[kind], 14, seed=len(name))
    if kind in ("planes over time", "volumes over time"):  # one object at one time point
        labels += np.arange(len(labels), dtype=labels.dtype).reshape(-1, *(1,) * (labels.ndim - 1)) * (labels > 0) * 300
    data = stored(labels, where)
    canvas = canvas_of(kind, data)
    if name.startswith("all: "):
        edit = ON_ALL[name.removeprefix("all: ")](canvas)
        chosen: set[int] | None = None
    else:
        sizes = {int(i): canvas.index.size(int(i)) for i in canvas.index.ids()}
        ids = sorted(sizes, key=lambda object_id: -sizes[object_id])
        edit = ON_SOME[name](canvas, ids)
        chosen = set(ids[:4])
    np.testing.assert_array_equal(np.asarray(data[...]), labels)  # a tool changes nothing
    assert edit.note.endswith(".")
    for step in (edit, edit.packed()):
        canvas.apply(step)
        after = np.asarray(data[...])
        untouched = np.ones(labels.shape, np.bool_)
        for delta in step.deltas:
            untouched[delta.box] = False
        np.testing.assert_array_equal(after[untouched], labels[untouched])
        assert edit.pixels >= np.count_nonzero(after != labels)
        if chosen is not None:
            others = ~np.isin(labels, [0, *chosen])
            np.testing.assert_array_equal(after[others], labels[others])
        same_index(canvas)
        canvas.revert(step)
        np.testing.assert_array_equal(np.asarray(data[...]), labels)
        same_index(canvas)


def test_every_tool_changes_something_somewhere(scene: Callable[..., NDArray[Any]]) -> None:
    """Otherwise the properties above say nothing."""
    for name, tool in ON_ALL.items():
        canvases = [canvas_of("volume", scene(SHAPES["volume"], 14, seed=seed)) for seed in range(6)]
        assert any(tool(canvas) for canvas in canvases), name


@pytest.mark.parametrize("name", ON_SOME)
def test_an_object_that_is_not_there_is_a_sentence(name: str, scene: Callable[..., NDArray[Any]]) -> None:
    canvas = canvas_of("volume", scene(SHAPES["volume"], 5, seed=0))
    with pytest.raises(InputError):
        ON_SOME[name](canvas, [1001, 1002, 1003, 1004])


@pytest.mark.parametrize("name", [name for name in ON_ALL if name not in ("wand", "outline")])
def test_labels_without_objects_give_no_step(name: str) -> None:
    canvas = canvas_of("volume", np.zeros(SHAPES["volume"], np.uint8))
    assert not ON_ALL[name](canvas)


@pytest.mark.parametrize("tool", [remove, components, fill_holes, convex_hull, keep_largest, relabel])
def test_a_step_that_is_cancelled_changes_nothing(tool: Callable[..., Edit], scene: Callable[..., NDArray[Any]]) -> None:
    labels = scene(SHAPES["volume"], 10, seed=0)
    canvas = canvas_of("volume", labels.copy())
    canvas.look()
    with pytest.raises(Cancelled):
        tool(canvas, None, cancel=lambda: True)
    np.testing.assert_array_equal(canvas.data, labels)


@pytest.mark.parametrize("tool", [fill_holes, convex_hull, components, lambda canvas: shrink(canvas, None, 1.0)])
def test_in_chunks_each_chunk_is_written_once(
    tool: Callable[[Canvas], Edit], scene: Callable[..., NDArray[Any]], stored: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = scene((12, 40, 40), 60, seed=3)
    one, many = (canvas_of("volume", stored(labels, where)) for where in ("memory", "chunks"))
    wanted = tool(one)
    monkeypatch.setattr("napari_tileseg.refine.draft._MANY", 4)
    monkeypatch.setattr("napari_tileseg.refine.draft._KEPT", 5000)
    edit = tool(many)
    assert len(wanted.deltas) > 8 >= len(edit.deltas)  # two chunks along each axis
    one.apply(wanted)
    many.apply(edit)
    np.testing.assert_array_equal(np.asarray(many.data[...]), one.data)
    many.revert(edit)
    np.testing.assert_array_equal(np.asarray(many.data[...]), labels)


class Full:
    """Labels on a disk that refuses after some writes, the last of them half done."""

    def __init__(self, labels: NDArray[Any], writes: int) -> None:
        self.labels, self.writes = labels, writes
        self.shape, self.dtype = labels.shape, labels.dtype

    def __getitem__(self, key: Any) -> NDArray[Any]:
        return self.labels[key]

    def __setitem__(self, key: Any, value: NDArray[Any]) -> None:
        self.writes -= 1
        if self.writes == 0:
            self.labels[key] = np.where(np.arange(value.size).reshape(value.shape) % 2, value, self.labels[key])
            raise OSError(28, "No space left on device")
        self.labels[key] = value


@pytest.mark.parametrize("writes", [1, 3, 5])
@pytest.mark.parametrize("undo", [False, True])
def test_a_disk_that_refuses_half_way_leaves_the_labels_as_they_were(scene: Callable[..., NDArray[Any]], writes: int, undo: bool) -> None:
    labels = scene((9, 16, 20), 14, seed=3)
    canvas = Canvas(Full(labels, 1000))
    edit = remove(canvas, None)
    assert len(edit.deltas) >= 5
    if undo:
        canvas.apply(edit)
    before = labels.copy()
    canvas.data.writes = writes
    with pytest.raises(OutputError, match="No space left"):
        (canvas.revert if undo else canvas.apply)(edit)
    np.testing.assert_array_equal(labels, before)


def test_objects_of_different_time_points_stay_apart(scene: Callable[..., NDArray[Any]]) -> None:
    labels = np.zeros((2, 6, 12, 12), np.uint8)
    labels[:, 2:4, 3:6, 3:6] = 7
    canvas = Canvas(labels, space=(1, 2, 3))
    assert canvas.index.positions(7) == [(0,), (1,)]
    edit = grow(canvas, Scope((7,), (1,)), 1.0)
    assert {delta.start[0] for delta in edit.deltas} == {1}
    canvas.apply(edit)
    assert canvas.index.size(7, (0,)) == 18 < canvas.index.size(7, (1,))


def test_scope_of_a_slice_changes_only_that_slice(scene: Callable[..., NDArray[Any]]) -> None:
    labels = scene(SHAPES["volume"], 14, seed=3)
    for axis, index in ((0, 4), (1, 7), (2, 11)):
        canvas = canvas_of("volume", labels.copy())
        canvas.apply(smooth(canvas, Scope.slice(axis, index), 2.0))
        changed = np.argwhere(canvas.data != labels)
        assert len(changed)
        assert set(changed[:, axis].tolist()) == {index}


def test_a_click_on_a_class_means_the_part_there() -> None:
    labels = np.zeros((20, 20), np.uint8)
    labels[1:4, 1:4] = labels[10:14, 10:14] = 2
    labels[10:14, 14:16] = 1
    canvas = Canvas(labels, classes=True)
    canvas.apply(remove(canvas, Scope.clicked(canvas, (11.2, 12.4))))
    assert canvas.index.size(2) == 9
    assert canvas.index.size(1) == 8
    with pytest.raises(InputError, match="no object there"):
        Scope.clicked(canvas, (0, 0))
    with pytest.raises(InputError, match="outside"):
        Scope.clicked(canvas, (0, 99))


def test_a_long_part_of_a_class_is_found_whole() -> None:
    labels = np.zeros((300, 300), np.uint8)
    labels[::2, :] = 1
    labels[1::4, -1] = labels[3::4, 0] = 1  # a line that goes to and fro over all of it
    canvas = Canvas(labels, classes=True)
    (piece,) = Scope.clicked(canvas, (150, 150)).pieces(canvas)
    assert piece.size == canvas.index.size(1)
