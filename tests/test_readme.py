"""The README's own method runs as it stands there, within its budget, and resumes; its results are those of the tables."""

import io
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from cbbt.results.statistics import difference_sentence

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
(EXAMPLE,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "my_method.py" in block]

# Appended to the example: the same run whole, and stopped after its twentieth step.
CHECK = """
import sys
from cbbt.learning.progress import Progress
config = cbbt.RunConfig("digits", "random_search", max_loss_queries=60)
calm = cbbt.run(config, out=sys.argv[1] + "/calm")
save = Progress.save
def stop(self, tensors, **own):
    save(self, tensors, **own)
    if self.step == 20:
        raise KeyboardInterrupt
Progress.save = stop
try:
    cbbt.run(config, out=sys.argv[1] + "/killed", save_every=-1)
except KeyboardInterrupt:
    Progress.save = save
killed = cbbt.run(config, out=sys.argv[1] + "/killed")
assert calm["queries"]["loss_queries"] == 60 and calm["learned"] == 128
assert calm["scores"] == killed["scores"] and calm["history"] == killed["history"] and calm["queries"] == killed["queries"]
assert killed["repeated_queries"]["loss_queries"] == 0
losses = [row["train_loss"] for row in calm["history"]]
assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]
print("as promised")
"""


def test_a_method_of_ones_own_takes_under_forty_lines():
    assert len(EXAMPLE.splitlines()) < 40


def test_a_method_of_ones_own_runs_and_resumes(tmp_path):
    (tmp_path / "my_method.py").write_text(EXAMPLE + CHECK)
    done = subprocess.run([sys.executable, "my_method.py", "runs"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("{'test_accuracy'") and "as promised" in done.stdout


def committed(path: str) -> str:
    """A file as git's index has it: a batch on another machine draws tables and figures anew."""
    return subprocess.run(["git", "show", f":./{path}"], cwd=ROOT, capture_output=True).stdout.decode()


@pytest.mark.parametrize("name", ["accuracy_table", "accuracy_table-peers"])
def test_tables_are_those_of_the_figures(name):
    rows = [line for line in committed(f"figures/{name}.md").splitlines() if line.startswith("|")]
    assert all(row in README for row in rows)  # none, where there is no git


READINGS = [("runs.csv", "cbbt_prompt", "true_gradient", shots) for shots in (16, 4, 1)]
READINGS += [("collaboration/runs.csv", "cbbt", "adapter", shots) for shots in (16, 4, 1)]
READINGS += [("plus/runs.csv", *pair, 16) for pair in (("cbbt_plus", "cbbt"), ("cbbt_plus_prompt", "cbbt_prompt"))]


@pytest.mark.parametrize("table, method, baseline, shots", READINGS)
def test_readings_are_computed(table, method, baseline, shots):
    text = committed(f"figures/data/{table}")
    if not text:
        pytest.skip("no git here")
    assert f"{shots} shots. {difference_sentence(pd.read_csv(io.StringIO(text)), method, baseline, shots)}" in README
