"""The batch itself: what fails is said in a line, and a kill costs the runs in flight alone."""

import base64
import json
import os
import re
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

import cbbt
from cbbt.results.tables import read_table, write_table
from cbbt.runs.batch import collect, main, run_alone
from cbbt.runs.grid import Grid

ROOT = Path(__file__).parent.parent
ASIDE = ["fit_seconds", "peak_megabytes", "commit"]  # columns of the table that are no result
TINY = {"methods": ["adapter"], "shots": [1], "seeds": [1, 2], "settings": {"epochs": 3}}


def write_grid(folder: Path, **values) -> Path:
    folders = {key: str(folder / key) for key in ("results", "tables", "figures")}
    folder.mkdir(exist_ok=True)
    (folder / "grid.yaml").write_text(yaml.safe_dump(TINY | folders | values))
    return folder / "grid.yaml"


def batch(grid: Path, *options: str) -> subprocess.Popen:
    """As the Makefile starts it, on the tables of a grid, in a process group of its own."""
    command = [sys.executable, "-m", "cbbt.runs.batch", "snakemake", "tables", "--cores", "1", "--configfile", str(grid)]
    command += ["--rerun-triggers", "mtime", "--rerun-incomplete", "--keep-going", "--quiet", "rules", *options]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, **pipes)


def ended(process: subprocess.Popen) -> tuple[int, list[str]]:
    """Exit status of a batch, and the lines of its report on what failed."""
    lines = process.communicate()[0].splitlines()
    heads = [index for index, line in enumerate(lines) if "did not finish" in line]
    return process.returncode, lines[heads[0] + 1 :] if heads else []


def test_a_failed_cell_is_told_in_a_line_and_the_others_are_made(tmp_path):
    for name in ("owl", "gull"):
        (tmp_path / "birds" / name).mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (32, 32), (index, 0, 0)).save(tmp_path / "birds" / name / f"{index}.png")
    grid = write_grid(tmp_path / "batch", datasets=["digits", str(tmp_path / "birds")], shots=[3])
    status, (line,) = ended(batch(grid))
    assert status != 0
    done = list((tmp_path / "batch" / "results" / "cells").glob("*.csv"))
    assert [path.stem for path in done] == ["digits.adapter.3shot.default"]
    assert "DataError: " in line and "shots=3, but class" in line and line.endswith(".ipynb]")


def kill_everything(process: subprocess.Popen) -> None:
    os.killpg(process.pid, signal.SIGKILL)  # snakemake, papermill and the shell at once


def kill_the_kernel(process: subprocess.Popen) -> None:
    (kernel,) = [each for each in psutil.Process(process.pid).children(recursive=True) if "ipykernel_launcher" in each.cmdline()]
    kernel.kill()


def test_kills_cost_the_runs_in_flight_alone(tmp_path, one_thread):
    """Its kernel killed, then all of it at once, a batch goes on and ends with the numbers of runs that nothing disturbed."""
    grid = {"datasets": ["digits", "shapes"], "seeds": [1, 2, 3], "settings": {"epochs": 400}}  # a second a run
    file = write_grid(tmp_path / "killed", **grid)
    grid = Grid.from_file(file)

    def records() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in file.parent.glob("results/runs/*/record.json")}

    def begun(until: int) -> subprocess.Popen:
        process = batch(file)
        while process.poll() is None and len(records()) < until:
            time.sleep(0.01)
        return process

    process = begun(until=1)
    kill_the_kernel(process)
    status, (line,) = ended(process)  # the batch lived: it made the other cell, and names this one
    done = {path.stem for path in file.parent.glob("results/cells/*.csv")}
    assert status != 0 and "the kernel died" in line and len(done) == 1
    assert {*done, line.split(":")[0].strip()} == {cell.name for cell in grid.cells()}

    before = records()
    process = begun(until=len(before) + 1)
    with pytest.raises(ValueError, match=f"another batch is running on .*process {process.pid}"):
        run_alone([], Path(grid.results))
    kill_everything(process)
    process.wait()
    assert not (file.parent / "tables" / "runs.csv").exists()

    before = records()
    assert 3 < len(before) < 6
    assert ended(batch(file)) == (0, [])
    assert before.items() <= records().items()  # not repeated
    calm = cbbt.run_all([config for cell in grid.cells() for config in grid.configs(cell)])
    write_table(cbbt.runs_table(calm), tmp_path / "calm.csv")
    calm, killed = (read_table(path).drop(columns=ASIDE) for path in (tmp_path / "calm.csv", file.parent / "tables" / "runs.csv"))
    pd.testing.assert_frame_equal(killed, calm)


def test_grids_share_the_runs_that_they_have_in_common(tmp_path, one_thread):
    """Two grids with one folder of records: the second repeats nothing of the first, and collects its own runs alone."""
    shared = tmp_path / "shared"
    first = Grid.from_file(write_grid(tmp_path / "first", datasets=["digits"], runs=str(shared), seeds=[1, 3]))
    cbbt.run_all([config for cell in first.cells() for config in first.configs(cell)], out=first.runs)
    before = {path: path.stat().st_mtime_ns for path in shared.glob("*/record.json")}
    file = write_grid(tmp_path / "second", datasets=["digits"], runs=str(shared))
    assert ended(batch(file)) == (0, [])
    records = {path: path.stat().st_mtime_ns for path in shared.glob("*/record.json")}
    assert len(before) == 2 and len(records) == 3 and before.items() <= records.items()
    assert not (tmp_path / "second" / "results" / "runs").exists()
    table = read_table(tmp_path / "second" / "tables" / "runs.csv")
    second = Grid.from_file(file)
    assert table.run_id.tolist() == [config.run_id for cell in second.cells() for config in second.configs(cell)]
    assert [record["config"]["seed"] for record in collect(first)] == [1, 3]
    assert table.looks.tolist() == [3, 3]
    with pytest.raises(ValueError, match=f"1 of 2 runs have no record, first {tmp_path}/other/results/runs/"):
        other = Grid.from_file(write_grid(tmp_path / "other", datasets=["digits"]))
        cbbt.run_all(other.configs(other.cells()[0])[:1], out=other.runs)
        collect(other)


def test_a_grid_file_stands_for_itself(tmp_path):
    """Nothing of the default grid is in another one's batch; what is typed on the command line is."""
    file = write_grid(tmp_path / "mine", datasets=["shapes"], seeds=[1])
    command = [sys.executable, "-m", "snakemake", "tables", "-n", "-p", "--nolock", "--configfile", file, "--config", "shots=[2]"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"cells/(\S+)\.csv", shown)) == {"shapes.adapter.2shot.default"}
    (code,) = set(re.findall(r"03_training\S* .*?-b (\S+)", shown))
    given = yaml.safe_load(base64.b64decode(code))
    assert given["settings"] == {"adapter": {"epochs": 3}} and given["pretrained"] == "default" and given["backbone"] == "mini"


@pytest.mark.parametrize(
    "content, said",
    [
        (None, "papr.yaml cannot be read: .*No such file"),
        ("datasets: [digits", "papr.yaml cannot be read"),
        ("digits", "papr.yaml should hold keys and values"),
        ("dataset: [digits]", "papr.yaml: unknown key 'dataset' in the grid; valid: datasets"),
        (json.dumps(TINY | {"results": "r", "tables": "t", "figures": "f", "datasets": ["eurosat"]}), "eurosat needs your"),
    ],
)
def test_a_grid_that_cannot_be_is_told_in_a_line(tmp_path, content, said, capsys):
    if content is not None:
        (tmp_path / "papr.yaml").write_text(content)
    assert main("snakemake", "--configfile", str(tmp_path / "papr.yaml")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(said, line)


def test_figures_that_were_deleted_are_drawn_again(tmp_path):
    """A finished batch, made up: its tables, and the list of the figures that were drawn."""
    file = write_grid(tmp_path / "done", datasets=["digits"])
    results, tables, figures = (file.parent / name for name in ("results", "tables", "figures"))
    made = [tables / f"{name}.csv" for name in ("tasks", "gradient_cosine", "runs", "curves")]
    for path in (*made, figures / "a.pdf"):
        path.parent.mkdir(exist_ok=True)
        path.touch()

    def planned() -> bool:
        drawn = results / "notebooks" / "04_figures.done"
        drawn.parent.mkdir(parents=True, exist_ok=True)
        drawn.write_text(str(figures / "a.pdf"))
        command = [sys.executable, "-m", "snakemake", "-n", "--nolock", "--rerun-triggers", "mtime", "--configfile", file]
        return "rule figures:" in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert not planned()
    (figures / "a.pdf").unlink()
    assert planned()
