"""Several processes, one of which runs out of memory: all go on with smaller parts, to the weights of one process; and their dropout."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from ranks_script import SCENES, learn
from torch import nn

from napari_tileseg.training.attempt import Abandoned, Attempt
from napari_tileseg.training.ranks import ALONE
from napari_tileseg.training.shared_normalization import watch_normalization

if TYPE_CHECKING:
    from collections.abc import Sequence

SCRIPT = Path(__file__).with_name("ranks_script.py")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Sequence[dict[str, Any]]:
    """What each of two processes has learnt and told in each scene."""
    if sys.platform == "win32":
        pytest.skip("torchrun asks for libuv, which torch is built without there")
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT), str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("scene", SCENES)
def test_all_go_on_where_one_has_no_memory(found: Sequence[dict[str, Any]], scene: str) -> None:
    first, second = (told[scene] for told in found)
    alone = learn(scene, ALONE, {0})
    assert first.keys() == second.keys() == alone.keys()
    np.testing.assert_allclose(first["losses"], second["losses"], rtol=1e-6)
    np.testing.assert_allclose(first["losses"], alone["losses"], rtol=1e-4)
    if scene == "for any crop":
        assert first["error"] == second["error"] == alone["error"], "one sentence, which only one of them tells"
        assert "for a single crop of 16 x 16" in first["error"]
        return
    assert first["splits"] == second["splits"] == alone["splits"]
    assert len(first["splits"]) == (scene != "never")
    for name, value in alone["state"].items():
        torch.testing.assert_close(first["state"][name], second["state"][name], rtol=0, atol=0)
        torch.testing.assert_close(first["state"][name], value, rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_dropout_differs_between_processes_and_is_the_same_for_the_same_seed(found: Sequence[dict[str, Any]]) -> None:
    (first, again, other), (beside, *_) = (told["dropout"] for told in found)
    for name, value in first["state"].items():
        torch.testing.assert_close(again["state"][name], value, rtol=0, atol=0)
        torch.testing.assert_close(beside["state"][name], value, rtol=0, atol=0)
    assert not all(torch.equal(other["state"][name], value) for name, value in first["state"].items())
    assert first["next"] == again["next"] != beside["next"], "each process draws numbers of its own"


def test_an_attempt_alone_asks_nobody() -> None:
    attempt = Attempt()
    attempt.meet()
    attempt.give_up()
    with pytest.raises(Abandoned):
        attempt.meet()
    attempt.begin()
    attempt.meet()


def test_the_normalisation_of_gpus_asks_before_each_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(Attempt, "meet", lambda self: asked.append("well"))
    monkeypatch.setattr(nn.SyncBatchNorm, "forward", lambda self, values: (asked.append("forth"), values * self.weight[0])[1])
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.SyncBatchNorm(2), nn.ReLU(inplace=True))
    watched = copy.deepcopy(watch_normalization(network, Attempt()))
    found = watched(torch.ones(1, 1, 4, 4)).sum()
    assert asked == ["well", "forth"]
    found.backward()
    assert asked == ["well", "forth", "well"]
    watched.eval()(torch.ones(1, 1, 4, 4))
    assert asked == ["well", "forth", "well", "forth"], "nothing is exchanged where nothing is learnt"
