"""A remote array is indexed as a NumPy array is, and its boxes come over one exchange file."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_tileseg.errors import Cancelled, InputError
from napari_tileseg.volume import Volume
from napari_tileseg.worker import remote
from napari_tileseg.worker.exchange import BlockServer
from napari_tileseg.worker.messages import BlockError, Read, from_line, to_line
from napari_tileseg.worker.remote import RemoteArray

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Pair:
    """A remote array and its server, joined by what would go over the pipe."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reads: list[Read] = []
        self.server: BlockServer | None = None

    def connect(self, data: Any) -> RemoteArray:
        self.close()
        self.reads.clear()
        volume = Volume(data, "TCZYX"[-data.ndim :] if data.ndim > 1 else "YX")
        server = BlockServer(volume, self.folder / "exchange", lambda answer: array.answer(from_line(to_line(answer)).body))

        def ask(read: Read) -> None:
            self.reads.append(read)
            server.ask(from_line(to_line(read)).body)

        array = RemoteArray(data.shape, data.dtype.str, ask=ask)
        self.server = server
        return array

    def close(self) -> None:
        if self.server is not None:
            self.server.close()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    made = Pair(tmp_path_factory.mktemp("exchange"))
    yield made
    made.close()


shapes = hnp.array_shapes(min_dims=2, max_dims=5, max_side=6)
dtypes = st.sampled_from(["u1", ">u2", "<u2", ">i4", "i8", "?", "f2", ">f8", "f4", "c8"])


@given(data=st.data(), shape=shapes, dtype=dtypes)
def test_basic_indexing_is_numpys(pair: Pair, data: st.DataObject, shape: tuple[int, ...], dtype: str) -> None:
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    key = data.draw(hnp.basic_indices(shape, allow_newaxis=False))
    found = pair.connect(array)[key]
    expected = array[key]
    np.testing.assert_array_equal(found, expected)
    if found.ndim:  # a single number loses its byte order in NumPy too, depending on how it is asked for
        assert found.dtype == expected.dtype


def test_a_box_stays_when_the_next_one_comes(pair: Pair) -> None:
    data = np.arange(60).reshape(6, 10)
    array = pair.connect(data)
    first = array[:3]
    _ = array[3:]
    np.testing.assert_array_equal(first, data[:3])


def test_large_boxes_come_in_pieces(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "BLOCK_BYTES", 100)
    data = np.random.default_rng(0).integers(0, 255, (23, 7, 5), dtype=np.uint8)
    array = pair.connect(data)
    np.testing.assert_array_equal(array[20:1:-3, 1:, ::2], data[20:1:-3, 1:, ::2])
    assert len(pair.reads) > 1
    np.testing.assert_array_equal(np.asarray(array), data)
    assert (pair.folder / "exchange").stat().st_size <= data[20:1:-3, 1:, ::2].nbytes


def test_boxes_ask_forwards_only(pair: Pair) -> None:
    data = np.arange(200).reshape(10, 20)
    array = pair.connect(data)
    np.testing.assert_array_equal(array[8:2:-2, ::-1], data[8:2:-2, ::-1])
    assert all(start < stop and step > 0 for read in pair.reads for start, stop, step in read.box)


@pytest.mark.parametrize("key", [np.array([0, 1]), [0, 1], None, True, 1.5, (0, 0, 0), 10, (Ellipsis, Ellipsis)])
def test_other_indices_are_refused(pair: Pair, key: Any) -> None:
    array = pair.connect(np.zeros((10, 20)))
    with pytest.raises(IndexError):
        array[key]
    assert not pair.reads


def test_threads_take_turns(pair: Pair) -> None:
    data = np.random.default_rng(0).normal(size=(64, 32))
    array = pair.connect(data)
    wrong = []

    def read(row: int) -> None:
        for _ in range(10):
            if not np.array_equal(array[row], data[row]):
                wrong.append(row)

    threads = [threading.Thread(target=read, args=(row,)) for row in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (lambda key: np.zeros((1, 1)), "was asked for"),
        (lambda key: np.full((4, 5), "text", dtype=object), "which is no number"),
        (lambda key: 1 / 0, "division by zero"),
    ],
    ids=["shape", "type", "error"],
)
def test_what_cannot_be_read_is_a_sentence(pair: Pair, broken: Callable[[Any], Any], sentence: str) -> None:
    class Broken:
        shape, dtype, ndim = (4, 5), np.dtype("f4"), 2

        def __getitem__(self, key: Any) -> Any:
            return broken(key)

    with pytest.raises(InputError, match=rf'The image "image" could not be read: .*{sentence}.*\. Check') as caught:
        pair.connect(Broken())[...]
    assert "Traceback" in caught.value.details


def test_a_full_disk_is_an_error_not_a_crash(pair: Pair, tmp_path: Path) -> None:
    array = pair.connect(np.zeros((4, 5)))
    pair.server._path = tmp_path / "no" / "such" / "folder"  # type: ignore[union-attr]
    with pytest.raises(InputError, match="cannot be written"):
        array[...]


def test_waiting_ends_when_the_run_is_cancelled() -> None:
    stopped = threading.Event()
    asked = threading.Event()
    array = RemoteArray((4, 5), "f4", ask=lambda read: asked.set(), cancelled=stopped.is_set)
    caught: list[BaseException] = []

    def read() -> None:
        try:
            _ = array[...]
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    assert asked.wait(10)
    stopped.set()
    array.wake()
    thread.join(10)
    assert isinstance(caught[0], Cancelled)
    with pytest.raises(Cancelled):
        _ = array[...]


def test_a_late_answer_to_a_read_that_was_given_up_is_ignored() -> None:
    asked: list[Read] = []

    def ask(read: Read) -> None:
        asked.append(read)
        array.answer(BlockError(read.request - 1, "too late"))
        array.answer(BlockError(read.request, "in time"))

    array = RemoteArray((4, 5), "f4", ask=ask)
    with pytest.raises(InputError, match="in time"):
        _ = array[...]
