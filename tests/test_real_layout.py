"""Full-size RN50 (random weights) on a folder in CoOp's layout, end to end: run, kill, resume, papermill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import papermill
import pytest

import cbbt
from cbbt.results.records import RECORD
from tests.data_layouts import CLASSES, write_benchmark

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
CONFIG = {"dataset": "eurosat", "backbone": "RN50", "pretrained": None, "shots": 2}
SETTINGS = {"q": 4, "epochs": 4, "batch_size": 3, "augmentation": "cbbt", "views": 2}

RUN = """
import json, sys, torch, cbbt
torch.set_num_threads(1)
cbbt.run(cbbt.RunConfig(**json.loads(sys.argv[1])), out=sys.argv[2], root=sys.argv[3], cache=sys.argv[4], save_every=0)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_benchmark(folder, "eurosat")
    return folder


@pytest.mark.soak
def test_a_run_that_is_killed_ends_with_the_same_numbers(root, tmp_path):
    config = CONFIG | SETTINGS | {"method": "cbbt"}

    def start(name):
        arguments = [json.dumps(config), tmp_path / name, root, tmp_path / "features"]
        return subprocess.Popen([sys.executable, "-c", RUN, *arguments])

    run_id = cbbt.RunConfig(**config).run_id
    assert start("calm").wait() == 0
    calm = json.loads((tmp_path / "calm" / run_id / RECORD).read_text())
    process, checkpoint = start("killed"), tmp_path / "killed" / run_id / "checkpoint.safetensors"
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not checkpoint.with_name(RECORD).exists()
    assert start("killed").wait() == 0
    killed = json.loads((tmp_path / "killed" / run_id / RECORD).read_text())
    for part in ("scores", "history", "queries"):
        assert killed[part] == calm[part]
    steps = 4 * 2  # epochs × batches of 3 among 2 shots of 3 classes
    assert calm["history"][-1]["step"] == steps
    assert calm["queries"]["class_prompts"] == steps * (4 + 1) * len(CLASSES)
    assert calm["queries"]["images"] == 2 * 6 + 6  # two views of the shots, and the validation shots
    # The features were on disk, so the second life asked for no image again.
    assert killed["repeated_queries"]["images"] <= 0


def test_one_cell_of_the_papers_grid_through_papermill(root, tmp_path):
    parameters = CONFIG | {"data_root": str(root), "methods": ["zero_shot", "cbbt"], "seeds": [1], "settings": SETTINGS}
    parameters |= {"runs": str(tmp_path / "runs"), "table": str(tmp_path / "table.csv")}
    papermill.execute_notebook(
        NOTEBOOKS / "03_training.ipynb", tmp_path / "out.ipynb", parameters, progress_bar=False, log_output=False
    )
    records = cbbt.load_records(tmp_path / "runs")
    assert [record["config"]["method"] for record in records] == ["cbbt", "zero_shot"]
    assert (tmp_path / "table.csv").exists() and records[0]["n_judged"] == 6
