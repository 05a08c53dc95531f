"""The batch itself: what fails is said in a line, and a kill costs the runs in flight alone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml
from PIL import Image

from cbbt.results.tables import read_table

ROOT = Path(__file__).parent.parent
ASIDE = ["fit_seconds", "peak_megabytes", "commit"]  # columns of the table that are no result
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


def failures(grid: Path) -> list[str]:
    """The lines of the batch's report on what failed."""
    report = subprocess.run([sys.executable, "-m", "cbbt.runs.report", grid], capture_output=True, text=True, check=True).stdout
    lines = report.splitlines()
    (head,) = [index for index, line in enumerate(lines) if "did not end" in line]
    return lines[head + 1 :]


def test_a_failed_cell_is_told_in_a_line_and_the_others_are_made(tmp_path):
    for name in ("owl", "gull"):
        (tmp_path / "birds" / name).mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (32, 32), (index, 0, 0)).save(tmp_path / "birds" / name / f"{index}.png")
    grid = write_grid(tmp_path / "batch", datasets=["digits", str(tmp_path / "birds")], shots=[3])
    assert batch(grid).wait() != 0
    done = list((tmp_path / "batch" / "results" / "cells").glob("*.csv"))
    assert [path.stem for path in done] == ["digits.adapter.3shot.default"]
    (line,) = failures(grid)
    assert "DataError: " in line and "3 shots asked for, but class" in line and line.endswith(".ipynb]")


def kill_everything(process: subprocess.Popen) -> None:
    os.killpg(process.pid, signal.SIGKILL)  # snakemake, papermill and the shell at once


def kill_the_kernel(process: subprocess.Popen) -> None:
    (kernel,) = [each for each in psutil.Process(process.pid).children(recursive=True) if "ipykernel_launcher" in each.cmdline()]
    kernel.kill()


@pytest.fixture(scope="module")
def calm_table(tmp_path_factory):
    grid = write_grid(tmp_path_factory.mktemp("batch") / "calm", datasets=["digits", "shapes"])
    assert batch(grid).wait() == 0
    return read_table(grid.parent / "tables" / "runs.csv").drop(columns=ASIDE)


@pytest.mark.parametrize("kill", [kill_everything, kill_the_kernel])
def test_a_kill_costs_the_runs_in_flight_alone(kill, calm_table, tmp_path):
    grid = write_grid(tmp_path / "killed", datasets=["digits", "shapes"])
    folder, process = grid.parent, batch(grid)
    while process.poll() is None and not list(folder.glob("results/runs/*/record.json")):
        time.sleep(0.01)
    kill(process)
    assert process.wait() != 0
    cells = {path.stem for path in folder.glob("results/cells/*.csv")}
    assert not (folder / "tables" / "runs.csv").exists()
    if kill is kill_the_kernel:  # the batch lives: it makes the other cell, and names this one
        (line,) = failures(grid)
        assert "the kernel died" in line and len(cells) == 1
        assert {*cells, line.split(":")[0].strip()} == {"digits.adapter.1shot.default", "shapes.adapter.1shot.default"}
    first = {path: path.stat().st_mtime_ns for path in folder.glob("results/runs/*/record.json")}
    assert first
    assert batch(grid).wait() == 0
    assert all(path.stat().st_mtime_ns == time for path, time in first.items())  # not repeated
    pd.testing.assert_frame_equal(read_table(folder / "tables" / "runs.csv").drop(columns=ASIDE), calm_table)
    assert len(calm_table) == len(set(calm_table.run_id)) == 4
