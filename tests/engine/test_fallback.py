"""What an Apple GPU leaves to the processor is allowed, and told by name; the warning here is torch's own sentence."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from napari_tileseg.engine import predict
from napari_tileseg.engine.arrays import ArraySink, ArraySource, FunctionPredictor
from napari_tileseg.engine.events import Warned
from napari_tileseg.engine.fallback import FALLBACK, missing_operators
from napari_tileseg.engine.run import run
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.worker.interpreter import environment

SENTENCE = (
    "The operator 'aten::upsample_trilinear3d.out' is not currently supported on the MPS backend and will fall back to run on the CPU. "
    "This may have performance implications. (Triggered internally at MPSFallback.mm:13.)"
)


def test_operations_are_told_by_name_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "missing_operators", lambda device, found: missing_operators("mps", found))
    calls = []

    def network(batch: torch.Tensor) -> torch.Tensor:
        calls.append(len(batch))
        if len(calls) == 2:  # torch says it once
            warnings.warn(SENTENCE, UserWarning, stacklevel=1)
        return torch.cat([batch, -batch], 1)

    spec = ModelSpec(name="m", axes="CYX", channels=1, classes=["a", "b"], window=(8, 8))
    image = np.zeros((1, 20, 20), np.float32)
    events = list(run(ArraySource(image), FunctionPredictor(spec, network), ArraySink((20, 20))))
    told = [event.message for event in events if isinstance(event, Warned)]
    assert told == ["The GPU cannot compute upsample_trilinear3d.out; the processor does that part, which takes longer."]


def test_other_warnings_go_their_way() -> None:
    found: set[str] = set()
    with pytest.warns(UserWarning, match="something else"), missing_operators("mps", found):
        warnings.warn("something else", UserWarning, stacklevel=1)
    assert not found


def test_other_devices_are_left_alone() -> None:
    found: set[str] = set()
    with pytest.warns(UserWarning, match="fall back"), missing_operators("cpu", found):
        warnings.warn(SENTENCE, UserWarning, stacklevel=1)
    assert not found


@pytest.mark.parametrize("value", [None, "0"])
def test_the_models_process_may_fall_back_unless_the_user_says_no(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (name,) = FALLBACK
    if value is None:
        monkeypatch.delenv(name, raising=False)
    else:
        monkeypatch.setenv(name, value)
    assert environment()[name] == (value or "1")
