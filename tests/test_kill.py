"""``kill -9`` at any moment of a real command: the same command goes on, and the file is the one it would have written."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_tileseg.io import read_volume

SAMPLES = Path(__file__).parents[1] / "sample_data"
CASCADE = Path(__file__).parent / "models" / "loaders" / "nnunet" / "Dataset903_HippocampusCascade"
PATIENCE = 300

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no SIGKILL")


@dataclass
class Command:
    """One command line, started as often as it takes."""

    arguments: list[str]
    target: Path

    @property
    def journal(self) -> Path:
        return self.target.with_name(f".{self.target.name}.tileseg") / "journal.json"

    def start(self) -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-c",
            "from napari_tileseg.cli import main; main()",
            "segment",
            *self.arguments,
            "-o",
            str(self.target),
            "--json",
        ]
        # Output goes to a file: a pipe that nobody reads would stop the command.
        self.output = self.target.with_suffix(".log")
        with self.output.open("w") as stream:
            return subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})

    def finish(self) -> list[int]:
        process = self.start()
        assert process.wait(PATIENCE) == 0, self.output.read_text()
        return self.tiles()

    def kill_after(self, moments: int, delay: float) -> tuple[list[int], bool]:
        """Kill it some seconds after the journal has changed so many times; return its tiles, and whether it was faster."""
        process = self.start()
        seen, last, deadline = 0, self._stamp(), time.monotonic() + PATIENCE
        while seen < moments and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
            if (now := self._stamp()) != last:
                seen, last = seen + 1, now
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)  # which does nothing where it has ended by itself
        return self.tiles(), process.wait(PATIENCE) == 0

    def kill_at(self, tile: int) -> list[int]:
        """Kill it once it has told of a tile; return its tiles."""
        process = self.start()
        deadline = time.monotonic() + PATIENCE
        while tile not in self.tiles() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)
        return self.tiles()

    def tiles(self) -> list[int]:
        """Return the numbers of the tiles that the command has told of; a last line may be half-written."""
        lines = self.output.read_text().splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [event["done"] for event in events if event["event"] == "progress"]

    def _stamp(self) -> tuple[int, int] | None:
        try:
            found = self.journal.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a time series made of parts of a sample."""
    image = np.asarray(read_volume(SAMPLES / "nuclei_fluorescence.tif").data)
    path = tmp_path_factory.mktemp("film") / "film.ome.tif"
    crops = [image[start : start + 200, start : start + 160] for start in (0, 90, 150)]
    tifffile.imwrite(path, np.stack(crops), metadata={"axes": "TYX"}, photometric="minisblack")
    return path


CASES = {
    "classes": (["hippocampus_mri.nii.gz", "--model", "hippocampus-3d", "--window", "16,32,32"], ".nii.gz"),
    "objects": (["nuclei_fluorescence.tif", "--model", "nuclei-2d", "--window", "128,128"], ".ome.tif"),
    "film": (["film", "--model", "nuclei-2d", "--window", "64,64", "--min-size", "20"], ".ome.tif"),
}


def kill_and_go_on(name: str, film: Path, folder: Path, kills: list[tuple[int, float]]) -> None:
    """Kill one command again and again; compare with one that was left alone, and count what was computed twice."""
    (image, *options), suffix = CASES[name]
    source = str(film if image == "film" else SAMPLES / image)
    alone = Command([source, *options], folder / f"alone{suffix}")
    total = alone.finish()
    assert total == list(range(1, len(total) + 1))
    command = Command([source, *options], folder / f"killed{suffix}")
    most = _tiles_of_a_depth(command.arguments, len(total))
    reached = 0
    for moments, delay in kills:
        done, finished = command.kill_after(moments, delay)
        if done:
            assert reached - (done[0] - 1) <= most, "at most one depth of a window is computed twice"
            reached = max(reached, done[-1])
        if finished:
            break
    if not command.target.exists():
        done = command.finish()
        assert not done or reached - (done[0] - 1) <= most
    elif command.journal.parent.exists():  # killed between saving and tidying up: the next one tidies, and refuses to do it again
        assert command.start().wait(PATIENCE) == 1
        assert "is there already" in command.output.read_text()
    found, expected = read_volume(command.target), read_volume(alone.target)
    np.testing.assert_array_equal(np.asarray(found.data), np.asarray(expected.data))
    if suffix == ".ome.tif":
        assert command.target.read_bytes() == alone.target.read_bytes(), "not only the labels are the same"
    left = {path.name for path in folder.iterdir()}
    assert left == {alone.target.name, command.target.name, alone.output.name, command.output.name}, "nothing is left behind"


def _tiles_of_a_depth(arguments: list[str], total: int) -> int:
    """Return how many tiles at most are computed twice: those that see the first row of pixels which is not finished."""
    from napari_tileseg.engine.recipe import resolve
    from napari_tileseg.engine.tiles import plan_tiles
    from napari_tileseg.job import SegmentOptions
    from napari_tileseg.models.registry import find_spec

    window = tuple(int(size) for size in arguments[arguments.index("--window") + 1].split(","))
    recipe = resolve(find_spec(arguments[2]), SegmentOptions(window=window))
    image = read_volume(arguments[0])
    shape = image.shape[-len(window) :]
    plan = plan_tiles(shape, window, overlap=recipe.overlap, steps=recipe.steps)
    assert total % len(plan) == 0, "the command resamples nothing"
    spans = [row.seen for row in plan.rows()]
    # What lies above the next row of tiles is finished. The last row is moved up to end with the image: there three can overlap.
    rows = max(sum(start <= end < stop for start, stop in spans) for end, _ in spans)
    return math.ceil(plan.tiles_per_row) * rows


@pytest.mark.parametrize("name", ["objects", pytest.param("classes", marks=pytest.mark.slow)])
def test_a_killed_command_goes_on(name: str, film: Path, tmp_path: Path) -> None:
    kill_and_go_on(name, film, tmp_path, [(3, 0.02)])


@pytest.mark.slow
def test_killed_in_the_last_row_which_more_tiles_reach(tmp_path: Path) -> None:
    (image, *options), suffix = CASES["classes"]
    arguments = [str(SAMPLES / image), *options]
    alone, command = Command(arguments, tmp_path / f"alone{suffix}"), Command(arguments, tmp_path / f"killed{suffix}")
    total = len(alone.finish())
    reached = command.kill_at(total - 5)[-1]
    done = command.finish()
    assert 1 < done[0] <= reached + 1 <= done[0] + _tiles_of_a_depth(arguments, total)
    np.testing.assert_array_equal(np.asarray(read_volume(command.target).data), np.asarray(read_volume(alone.target).data))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_many_moments(name: str, seed: int, film: Path, tmp_path: Path) -> None:
    chance = random.Random(seed)
    kills = [(chance.randint(0, 3), chance.choice([0, chance.random() * 0.01, chance.random() * 0.3])) for _ in range(8)]
    kill_and_go_on(name, film, tmp_path, kills)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.4, 0.999, 1.001, 1.5], ids=["first stage", "its end", "the second's begin", "second stage"])
def test_a_cascade_killed_in_either_stage_goes_on(share: float, tmp_path: Path) -> None:
    from napari_tileseg.estimation import estimate
    from napari_tileseg.job import SegmentOptions
    from napari_tileseg.models.registry import find_spec

    image, ref = SAMPLES / "hippocampus_mri.nii.gz", f"nnunet:{CASCADE}?configuration=3d_cascade_fullres"
    arguments = [str(image), "--model", ref, "--tta", "none"]
    before = find_spec(ref).previous
    assert before is not None
    first = estimate(read_volume(image), before.model, options=SegmentOptions(device="cpu", tta=False)).tiles
    alone = Command(arguments, tmp_path / "alone.nii.gz")
    total = len(alone.finish())
    assert total > first + 2
    command = Command(arguments, tmp_path / "killed.nii.gz")
    stop = round(first * share) if share < 1 else first + max(1, round((total - first) * (share - 1)))
    done = command.kill_at(max(1, stop))
    assert done
    assert not command.target.exists()
    again = command.finish()
    if share > 1:
        assert again[0] > first, "the first stage is not computed again"
    np.testing.assert_array_equal(np.asarray(read_volume(command.target).data), np.asarray(read_volume(alone.target).data))
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {alone.target.name, command.target.name, alone.output.name, command.output.name}, "nothing is left behind"
