"""The batch itself: what fails is said in a line, and a kill costs the runs in flight alone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import yaml
from PIL import Image

from cbbt.tables import read_table

ROOT = Path(__file__).parent.parent
TINY = {"methods": ["adapter"], "shots": [1], "seeds": [1, 2], "settings": {"epochs": 3}}


def write_grid(folder: Path, **values) -> Path:
    folders = {key: str(folder / key) for key in ("results", "tables", "figures")}
    folder.mkdir(exist_ok=True)
    (folder / "grid.yaml").write_text(yaml.safe_dump(TINY | folders | values))
    return folder / "grid.yaml"


def batch(grid: Path) -> subprocess.Popen:
    """Snakemake on the tables of a grid, in a process group of its own."""
    command = [sys.executable, "-m", "snakemake", "tables", "-c1", "--nolock", "--keep-going", "--rerun-incomplete"]
    command += ["--rerun-triggers", "mtime", "--configfile", str(grid), "--quiet", "all"]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)


def test_a_failed_cell_is_told_in_a_line_and_the_others_are_made(tmp_path):
    for name in ("owl", "gull"):
        (tmp_path / "birds" / name).mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (32, 32), (index, 0, 0)).save(tmp_path / "birds" / name / f"{index}.png")
    grid = write_grid(tmp_path / "batch", datasets=["digits", str(tmp_path / "birds")], shots=[3])
    assert batch(grid).wait() != 0
    done = list((tmp_path / "batch" / "results" / "cells").glob("*.csv"))
    assert [path.stem for path in done] == ["digits.adapter.3shot.default"]
    report = subprocess.run([sys.executable, "-m", "cbbt.report", grid], capture_output=True, text=True, check=True).stdout
    lines = [line for line in report.splitlines() if "DataError" in line]
    assert "1 notebooks did not end" in report and len(lines) == 1
    assert "3 shots asked for, but class" in lines[0] and lines[0].endswith(".ipynb]")


def test_a_killed_batch_ends_with_the_same_table(tmp_path):
    calm, killed = (write_grid(tmp_path / name, datasets=["digits", "shapes"]) for name in ("calm", "killed"))
    assert batch(calm).wait() == 0
    process = batch(killed)
    while process.poll() is None and not list((tmp_path / "killed").glob("results/runs/*/record.json")):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)  # snakemake, papermill and the shell at once
    process.wait()
    assert not (tmp_path / "killed" / "tables" / "runs.csv").exists()
    assert batch(killed).wait() == 0
    tables = [read_table(tmp_path / name / "tables" / "runs.csv").drop(columns="fit_seconds") for name in ("calm", "killed")]
    pd.testing.assert_frame_equal(*tables)
    assert len(tables[0]) == len(set(tables[0].run_id)) == 4
