"""What goes wrong while a training is under way, and labels that lie otherwise than their image."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from scenes import config, folders, scene

from napari_tileseg import Volume, train
from napari_tileseg.errors import DeviceMemoryError, InputError
from napari_tileseg.training import train as training
from napari_tileseg.training import validate as validating
from napari_tileseg.training.config import TrainConfig
from napari_tileseg.training.events import EpochEnded, Noted, TrainingEnded
from napari_tileseg.training.report import inspect

if TYPE_CHECKING:
    from collections.abc import Callable


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def replace(path: Path) -> None:
    Image.fromarray(scene(3, (20, 30))[0]).save(path)


@pytest.mark.parametrize("harm", [remove, truncate, replace])
def test_a_validation_image_that_changes_meanwhile_is_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(validating, "_KEPT", 0)  # as if there were more images than memory
    places = folders(tmp_path, 6)
    fields = config(tmp_path / "m", **places, val_share=0.34)
    kept = inspect(fields).val
    events: list[Any] = []

    def listen(event: Any) -> None:
        events.append(event)
        if isinstance(event, EpochEnded) and event.epoch == 1:
            harm(kept[0].image)

    spec = train(fields, on_event=listen)
    assert spec.training["epochs"] == 2
    told = [event.message for event in events if isinstance(event, Noted)]
    assert any(f'"{kept[0].name}" is left out of this validation' in message for message in told)
    assert isinstance(events[-1], TrainingEnded)


@pytest.mark.parametrize("harm", [remove, truncate, replace])
def test_an_image_that_changes_before_it_is_learnt_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Path], None]
) -> None:
    look = training.inspect

    def look_and_harm(*given: Any, **more: Any) -> Any:
        report = look(*given, **more)
        harm(report.train[0].image)
        return report

    monkeypatch.setattr(training, "inspect", look_and_harm)
    with pytest.raises(InputError, match=r'"scene_\d" has changed, or is gone'):
        train(config(tmp_path / "m", **folders(tmp_path)))


def pairs() -> list[tuple[Any, Any]]:
    return [(Volume(image, "YX", name=f"s{number}"), labels) for number, (image, labels) in enumerate(map(scene, range(4)))]


def test_what_onednn_says_of_memory_halves_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = training.Objective.forward

    def narrow(self: Any, scores: torch.Tensor, batch: Any) -> torch.Tensor:
        if len(scores) > 1:
            raise RuntimeError("could not create a primitive")
        return forward(self, scores, batch)

    monkeypatch.setattr(training.Objective, "forward", narrow)
    events: list[Any] = []
    train(config(tmp_path / "m", epochs=1), pairs(), on_event=events.append)
    assert any("1 crops are learnt at once" in event.message for event in events if isinstance(event, Noted))


def test_no_memory_to_cut_a_batch_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any, number: int) -> Any:
        raise MemoryError

    monkeypatch.setattr(training.Sampler, "batch", full)
    with pytest.raises(DeviceMemoryError, match="Choose a smaller batch"):
        train(config(tmp_path / "m"), pairs())


def test_no_memory_for_the_optimiser_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any, closure: Any = None) -> Any:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(torch.optim.AdamW, "step", full)
    with pytest.raises(DeviceMemoryError, match="Choose a smaller network"):
        train(config(tmp_path / "m"), pairs())


SCRIPT = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {here!r})
import torch
from scenes import config, folders
from napari_tileseg import train
root = Path({root!r})
places = folders(root, 4)
torch.nn.Conv2d(1, 1, 3)(torch.zeros(1, 1, 8, 8)).sum().backward()
size = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize")) * 1024
resource.setrlimit(resource.RLIMIT_AS, (size + 400 * 2**20,) * 2)
train(config(root / "m", **places, window=(256, 256), batch=16, epochs=1, epoch_steps=2), on_event=lambda event: print(event))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited as Linux does it")
def test_a_batch_that_does_not_fit_into_real_memory_is_learnt_in_parts(tmp_path: Path) -> None:
    script = SCRIPT.format(here=str(Path(__file__).parent), root=str(tmp_path))
    # What a freed tensor leaves between others must go back, else it is chance which of torch's blocks, small ones that its
    # libraries cannot do without among them, does not fit any more.
    exact = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=os.environ | exact, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "crops are learnt at once" in done.stdout


def test_labels_that_are_mirrored_in_the_world_are_left_out(tmp_path: Path) -> None:
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    for number in range(3):
        for kind, array in zip(("images", "labels"), scene(number, (10, 12, 14)), strict=True):
            mirrored = -1.0 if kind == "labels" and number == 1 else 1.0
            made = nibabel.Nifti1Image(array.T, np.diag([mirrored, 1.0, 1.0, 1.0]))
            made.header.set_xyzt_units("mm")
            nibabel.save(made, tmp_path / kind / f"brain_{number}.nii.gz")
    report = inspect(TrainConfig(images=str(tmp_path / "images"), labels=str(tmp_path / "labels")))
    assert [fact.item.name for fact in report.facts] == ["brain_0", "brain_2"]
    assert any("lead elsewhere in the world" in warning and "brain_1" in warning for warning in report.warnings)


def test_turned_labels_are_called_so() -> None:
    odd = (Volume(scene(3, (40, 48))[0], "YX", name="odd"), scene(3, (40, 48))[1].T)
    report = inspect(TrainConfig(), [*pairs(), odd])
    assert any("their axes are in another order" in warning for warning in report.warnings)


def test_a_class_that_is_in_one_part_only_is_said() -> None:
    fields = TrainConfig(classes=("background", "dim", "bright"))
    kept = {item.name for item in inspect(fields, pairs()).val}
    there = [(image, labels if image.name in kept else np.minimum(labels, 1)) for image, labels in pairs()]
    assert any('"bright" is only in images that are kept' in warning for warning in inspect(fields, there).warnings)
    here = [(image, np.minimum(labels, 1) if image.name in kept else labels) for image, labels in pairs()]
    assert any('"bright" is in none of the images that are kept' in warning for warning in inspect(fields, here).warnings)
