"""The documented way to SLURM: its script is what the page says, and it runs, with stand-ins for SLURM's two commands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
EXAMPLE = next(code for code in re.findall(r"(?ms)^```python\n(.*?)^```$", PAGE) if "SLURMCluster(" in code)
HEADER = next(text for text in re.findall(r"(?ms)^```text\n(.*?)^```$", PAGE) if "#SBATCH" in text)

posix = pytest.mark.skipif(sys.platform == "win32", reason="SLURM's jobs are shell scripts")


def run(folder: Path, code: str) -> str:
    """Run an example in a process of its own, at home in a folder, with everything on this computer."""
    (folder / "example.py").write_text(code, encoding="utf-8")
    config = "jobqueue:\n  slurm:\n    scheduler-options: {host: 127.0.0.1, dashboard: false, dashboard_address: ':0'}\n"
    (folder / "config").mkdir()
    (folder / "config" / "jobqueue.yaml").write_text(config, encoding="utf-8")
    activate = folder / "tileseg" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.write_text("export TILESEG_ACTIVATED=yes\n", encoding="utf-8")
    commands = folder / "commands"
    commands.mkdir()
    for name, body in {
        "sbatch": 'cp "$1" "$HOME/job.sh"\nbash "$HOME/job.sh" > "$HOME/job.log" 2>&1 &\necho "Submitted batch job 7"\n',
        "scancel": "exit 0\n",
        "squeue": "exit 0\n",
    }.items():
        (commands / name).write_text(f"#!/usr/bin/env bash\n{body}", encoding="utf-8")
        (commands / name).chmod(0o755)
    more = {"HOME": str(folder), "DASK_CONFIG": str(folder / "config"), "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=folder, env={**os.environ, **more}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@posix
def test_the_script_for_slurm_is_what_the_page_says(tmp_path: Path) -> None:
    made = EXAMPLE.index("    print(cluster.job_script())\n")
    script = run(tmp_path, EXAMPLE[:made] + "    print(cluster.job_script())\n    cluster.close()\n")
    assert script.startswith(HEADER)
    call = script[len(HEADER) :]
    assert re.search(r"-m distributed\.cli\.dask_worker tcp://\S+ --name \S+ --nthreads 1 --memory-limit 29.80GiB", call)


@posix
@pytest.mark.slow
def test_the_example_for_slurm_runs(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    for name in ("a", "b"):
        shutil.copy(ROOT / "sample_data" / "nuclei_fluorescence.tif", tmp_path / "raw" / f"{name}.tif")
    printed = run(tmp_path, EXAMPLE.replace("jobs=4", "jobs=1").replace("OMP_NUM_THREADS=8", "OMP_NUM_THREADS=1"))
    assert printed.endswith("2 done, 0 failed\n")
    assert {path.name for path in (tmp_path / "labels").glob("*.tif")} == {"a.ome.tif", "b.ome.tif"}
