"""napari's first Labels layer is made early, and the dock does not stand still for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_tileseg.widgets import first
from napari_tileseg.widgets.first import FirstLabels, import_all

if TYPE_CHECKING:
    import numpy as np
    import pytest


def test_it_is_made_once_and_only_when_it_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[np.ndarray] = []
    monkeypatch.setattr(first, "Labels", made.append)
    labels = FirstLabels()
    labels.make(image=True)
    assert not made, "its imports are not done"
    labels.on_imported(RuntimeError("the thread died"), image=True)
    assert not made
    labels.on_imported(True, image=False)
    assert not made, "there is no image"
    labels.make(image=True)
    labels.make(image=True)
    assert len(made) == 1


def test_what_is_not_there_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def missing(name: str) -> Any:
        asked.append(name)
        raise ImportError(name)

    monkeypatch.setattr(first, "import_module", missing)
    assert import_all() is True
    assert len(asked) == len(first._IMPORTED)
