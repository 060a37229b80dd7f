"""The README and the documentation say what is true: every snippet runs, every link leads somewhere, every table is current."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import tifffile

from napari_tileseg import Volume, read_volume, segment
from napari_tileseg.cli import main
from napari_tileseg.io.registry import BUILTIN

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]

NOT_RUN = {
    'pip install "napari-tileseg[all]"': "needs the network; tests/test_packaging.py installs the wheel",
    "napari": "opens a window and waits; tests/widgets opens one",
    "make demo": "is set-up and `tileseg demo`; the latter has tests of its own",
    "make test": "is this run",
    "make test-slow": "is the run of the long tests",
    "make bench": "measures for minutes",
    "make lint": "is run by CI",
    "python scripts/train_bundled.py DATA -o OUT": "trains for hours; tests/training over-fits a small model",
    "pip install -e .": "changes the environment that the tests run in",
}
"""Commands of the documentation that are not run here, and why."""

RUN_ELSEWHERE = {
    "SLURMCluster(": "tests/batch/test_slurm.py, with stand-ins for SLURM's commands",
}
"""What marks the Python of the documentation that is not run here, and where it is."""


class Snippet(NamedTuple):
    page: Path
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def snippets(page: Path) -> Iterator[Snippet]:
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(r"(?ms)^```(\w*)\n(.*?)^```$", text):
        yield Snippet(page, text[: match.start()].count("\n") + 2, match[1], match[2])


def prepare(folder: Path) -> None:
    """Put the files that the snippets speak of into a folder, all cut from the samples so that the runs are short."""
    image = np.asarray(read_volume(ROOT / "sample_data" / "nuclei_fluorescence.tif").data)
    tifffile.imwrite(folder / "cells.tif", image[:256, :320])
    np.save(folder / "frames.npy", np.stack([image[:128, :160], image[128:256, :160]]))
    (folder / "raw" / "plate_2").mkdir(parents=True)
    for number, name in enumerate(("image_1.tif", "image_2.tif", "plate_2/image_7.tif")):
        tifffile.imwrite(folder / "raw" / name, image[number * 100 : number * 100 + 96, :128])
    nuclei = np.asarray(read_volume(ROOT / "sample_data" / "nuclei_fluorescence_labels.tif").data)[:128, :128]
    for place, suffix in (("found", ".ome.tif"), ("truth", ".tif")):
        (folder / place).mkdir()
        tifffile.imwrite(
            folder / place / f"cell_1{suffix}", np.minimum(nuclei, 2) if place == "truth" else np.roll(np.minimum(nuclei, 2), 1, 0)
        )
    (folder / "job.json").write_text('{"model": "nuclei-2d", "input": "cells.tif", "output": "from_job.ome.tif"}')
    shutil.copy(ROOT / "sample_data" / "hippocampus_mri.nii.gz", folder / "brain.nii.gz")


def run_shell(code: str) -> None:
    """Run the commands of a snippet; `tileseg` in this process, because starting torch anew for each takes longer than the run."""
    for command in code.replace("\\\n", " ").splitlines():
        words = shlex.split(command, comments=True)
        if not words or " ".join(command.split()) in NOT_RUN:
            continue
        assert words[0] == "tileseg", f"`{command}` is neither run here nor excused in NOT_RUN"
        try:
            main(words[1:])
        except SystemExit as end:
            assert not end.code, f"`{command}` ended with {end.code}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_snippets_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The snippets of a page are run in their order, in one folder and one namespace, as a reader would."""
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for snippet in snippets(page):
        if snippet.language == "sh":
            run_shell(snippet.code)
        elif any(mark in snippet.code for mark in RUN_ELSEWHERE):
            assert snippet.language == "python"
        elif snippet.language == "python":
            exec(compile("\n" * (snippet.line - 1) + snippet.code, snippet.page, "exec"), namespace)
        elif snippet.language == "toml":
            tomllib.loads(snippet.code)
        else:
            assert snippet.language == "text", f"{snippet} is in {snippet.language or 'no language'}, which nobody checks"


def test_readme_has_snippets_of_both_kinds() -> None:
    assert {snippet.language for snippet in snippets(README)} >= {"sh", "python"}


def test_examples_of_extensions_do_what_they_say(tmp_path: Path) -> None:
    page = ROOT / "docs" / "extending.md"
    namespace: dict[str, Any] = {}
    for snippet in snippets(page):
        if "\ndef " in snippet.code:
            exec(compile(snippet.code, snippet.page, "exec"), namespace)
    stack = Volume(np.arange(24, dtype=np.uint16).reshape(2, 3, 4), "ZYX")
    namespace["write"](stack, tmp_path / "stack.npy")
    found = namespace["read"](tmp_path / "stack.npy")
    np.testing.assert_array_equal(found.data, stack.data)
    assert found.axes == stack.axes

    decoder = SimpleNamespace(**{name: namespace[name] for name in ("foreground", "decode", "margin")})
    scores = np.full((1, 8, 8), -9.0, np.float32)
    scores[0, 1:3, 1:3] = scores[0, 5:8, 5:8] = 9
    assert sorted(np.bincount(decoder.decode(scores, {}).ravel())[1:]) == [4, 9]
    assert np.bincount(decoder.decode(scores, {}, min_size=5).ravel())[1:].sum() == 9


def test_command_line_and_python_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README shows the same run twice; both must give the same labels."""
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    run_shell("tileseg segment cells.tif -o from_shell.ome.tif --model nuclei-2d")
    result = segment("cells.tif", "nuclei-2d", out="from_python.ome.tif")
    shell, python = (read_volume(f"from_{name}.ome.tif") for name in ("shell", "python"))
    np.testing.assert_array_equal(np.asarray(shell.data), np.asarray(python.data))
    np.testing.assert_array_equal(np.asarray(python.data), result.labels)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md", ROOT / "sample_data" / "README.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"(?ms)^```.*?^```$", "", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


def test_table_of_formats_is_the_registry() -> None:
    rows = re.findall(r"(?m)^\| ([^|]+) \| ((?:`\.[^`]+` ?)+) \| (yes|no) \| (yes|no) \|$", README.read_text(encoding="utf-8"))
    told = [(title, tuple(re.findall("`([^`]+)`", suffixes)), opens == "yes", saves == "yes") for title, suffixes, opens, saves in rows]
    assert told == [(item.title, item.suffixes, bool(item.reader), bool(item.writer)) for item in BUILTIN]


def test_table_of_models_is_current() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "readme_models.py"))
    assert f"{script['BEGIN']}\n\n{script['table']()}\n{script['END']}" in README.read_text(encoding="utf-8"), (
        "run: python scripts/readme_models.py"
    )


def test_pages_say_nothing_of_the_machine_they_were_written_on() -> None:
    for page in PAGES:
        assert not re.search(r"/(work|tmp|root|home)/", page.read_text(encoding="utf-8")), page.name
