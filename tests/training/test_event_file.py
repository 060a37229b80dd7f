"""Files for TensorBoard: frames and checksums as it wants them, numbers of a training, pictures, and nothing of the computer."""

from __future__ import annotations

import io
import socket
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from scenes import config, folders
from tensorboardX.proto.event_pb2 import Event, SessionLog

from napari_tileseg import Volume, train
from napari_tileseg.errors import OutputError
from napari_tileseg.training.event_file import EVENT_FILES, EventFile
from napari_tileseg.training.events import EpochEnded, StepEnded
from napari_tileseg.training.training_log import TrainingLog, picture_of, samples_of
from napari_tileseg.training.unsupervised.config import UnsupervisedConfig
from napari_tileseg.training.unsupervised.events import Learned
from napari_tileseg.training.unsupervised.train import train_unsupervised

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def checksum(content: bytes) -> int:
    """CRC-32C, bit by bit, masked as in TFRecord files."""
    value = 0xFFFFFFFF
    for byte in content:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    value ^= 0xFFFFFFFF
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def events(path: Path) -> list[Any]:
    content, found, place = path.read_bytes(), [], 0
    while place < len(content):
        head = content[place : place + 8]
        (length,) = struct.unpack("<Q", head)
        body = content[place + 12 : place + 12 + length]
        assert struct.unpack_from("<I", content, place + 8)[0] == checksum(head)
        assert struct.unpack_from("<I", content, place + 12 + length)[0] == checksum(body)
        found.append(Event.FromString(body))
        place += 16 + length
    return found


def only(folder: Path) -> Path:
    (path,) = folder.glob(EVENT_FILES)
    return path


def numbers(path: Path) -> dict[tuple[str, int], float]:
    return {(value.tag, event.step): value.simple_value for event in events(path) for value in event.summary.value}


def picture(event: Any) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(event.summary.value[0].image.encoded_image_string)))


def test_the_checksum_is_that_of_the_standard() -> None:
    plain = (checksum(b"123456789") - 0xA282EAD8) & 0xFFFFFFFF
    assert (plain >> 17 | plain << 15) & 0xFFFFFFFF == 0xE3069283


def test_numbers_and_pictures_come_back(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    with EventFile(tmp_path / "new", first=3) as file:
        file.numbers(3, {"loss": 0.5, "val/dice a": 0.25})
        file.picture(4, "cells", pixels)
    head, start, told, shown = events(file.path)
    assert head.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (3, SessionLog.START), "what was told from here on before does not count"
    assert {value.tag: value.simple_value for value in told.summary.value} == {"loss": 0.5, "val/dice a": 0.25}
    assert shown.step == 4
    np.testing.assert_array_equal(picture(shown), pixels)


def test_what_is_written_can_be_read_at_once_and_files_follow_each_other(tmp_path: Path) -> None:
    first = EventFile(tmp_path)
    first.numbers(1, {"loss": 1.0})
    assert numbers(first.path) == {("loss", 1): 1.0}
    with EventFile(tmp_path, first=2) as second:
        assert first.path.name < second.path.name
    first.close()
    assert socket.gethostname() not in first.path.name or len(socket.gethostname()) < 3


def test_a_folder_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        EventFile(tmp_path / "file" / "log")


def test_a_training_writes_what_it_tells(tmp_path: Path) -> None:
    told: list[Any] = []
    settings = {**folders(tmp_path), "log": str(tmp_path / "log")}
    train(config(tmp_path / "m", **settings), on_event=told.append)
    found = numbers(only(tmp_path / "log" / "m" / "numbers"))
    for event in (event for event in told if isinstance(event, StepEnded)):
        assert found["steps/loss", event.step] == pytest.approx(event.loss)
        assert found["steps/rate", event.step] == pytest.approx(event.rate)
    for event in (event for event in told if isinstance(event, EpochEnded)):
        assert found["epochs/loss", 4 * event.epoch] == pytest.approx(event.loss)
        assert found["epochs/score", 4 * event.epoch] == pytest.approx(event.score)
        for name, score in event.scores.items():
            assert found["validation/" + name.replace(" ", "_"), 4 * event.epoch] == pytest.approx(score)
    shown = [event for event in events(only(tmp_path / "log" / "m" / "pictures")) if event.summary.value]
    assert [event.step for event in shown] == [4, 8]
    assert picture(shown[0]).shape == (48, 3 * 48, 3)
    assert numbers(only(tmp_path / "m")) == found, "the model carries the numbers; pictures of the user's images stay outside"


def test_what_goes_on_has_a_file_of_its_own(tmp_path: Path) -> None:
    steps: list[int] = []

    def listen(event: Any) -> None:
        if isinstance(event, StepEnded):
            steps.append(event.step)

    settings = folders(tmp_path)
    train(config(tmp_path / "m", **settings), on_event=listen, cancel=lambda: len(steps) >= 6)
    train(config(tmp_path / "m", **settings))
    first, second = sorted((tmp_path / "m").glob(EVENT_FILES))
    assert max(step for _, step in numbers(first)) == 6
    assert events(second)[1].step == 7
    assert ("epochs/loss", 8) in numbers(second)


def test_samples_of_what_needs_no_labels(tmp_path: Path) -> None:
    images = [Volume(np.random.default_rng(number).random((40, 40), np.float32), "YX", name=f"{number}") for number in range(3)]
    told: list[Any] = []
    chosen = UnsupervisedConfig(
        name="m", output=str(tmp_path / "m"), network="vae", steps=4, report_every=2, batch=4, device="cpu", log=str(tmp_path / "log")
    )
    train_unsupervised(chosen, volumes=images, on_event=told.append)
    found = numbers(only(tmp_path / "log" / "m" / "numbers"))
    for event in (event for event in told if isinstance(event, Learned)):
        for name, loss in event.losses.items():
            assert found[f"{event.stage}/{name}", event.step] == pytest.approx(loss)
    shown = [event for event in events(only(tmp_path / "log" / "m" / "pictures")) if event.summary.value]
    assert [event.step for event in shown] == [2, 4]
    assert picture(shown[0]).shape[0] == 28


def test_long_trainings_show_some_epochs_only(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path, 1000, 5)
    assert sum(log.wants(epoch) for epoch in range(1, 1001)) == 50
    assert log.wants(1)
    assert all(TrainingLog(tmp_path, 7, 5).wants(epoch) for epoch in range(1, 8))


@pytest.mark.parametrize(
    ("axes", "shape"), [("YX", (20, 30)), ("YXC", (20, 30, 3)), ("CYX", (2, 20, 30)), ("ZYX", (4, 20, 30)), ("TZCYX", (2, 4, 2, 20, 30))]
)
def test_pictures_show_the_plane_with_the_most_labels(axes: str, shape: tuple[int, ...]) -> None:
    image = np.zeros(shape, np.uint8)
    spatial = tuple(size for axis, size in zip(axes, shape, strict=True) if axis != "C")
    truth = np.zeros(spatial, np.int32)
    truth[(-1,) * (len(spatial) - 2)][5:10, 5:10] = 1
    truth[..., 0, 0] = -1
    drawn = picture_of(Volume(image, axes), truth, np.zeros_like(truth), ["#ff0000"])
    assert drawn.shape == (20, 90, 3)
    red = (drawn == (255, 0, 0)).all(-1)
    assert red[:, 30:60].sum() == 16
    assert red.sum() == 16


def test_large_pictures_are_made_smaller() -> None:
    labels = np.zeros((1500, 700), np.uint8)
    assert picture_of(Volume(labels, "YX"), labels, labels).shape == (500, 3 * 234, 3)


def test_samples_stand_side_by_side() -> None:
    row = samples_of(np.stack([np.full((1, 4, 5), -1, np.float32), np.full((1, 4, 5), 1, np.float32)]))
    assert row.shape == (4, 10, 3)
    assert (row[0, 0].tolist(), row[0, 9].tolist()) == ([0, 0, 0], [255, 255, 255])
    assert samples_of(np.zeros((3, 3, 4, 5), np.float32)).shape == (4, 15, 3)
