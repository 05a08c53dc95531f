"""The README: its numbers are those of the tables; its own method runs as it stands there, within its budget, and resumes."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from cbbt.mini_clip.model import WEIGHTS, load_mini_clip
from cbbt.results.formatting import accuracy_table, to_markdown
from cbbt.results.speed import scaling_sentence, text_sentences
from cbbt.results.statistics import difference_sentence, difference_table, holm
from cbbt.results.tables import read_table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
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


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A function that reads a table of figures/data by its name, as git has it: the batch writes over those on disk."""
    git, folder = {"cwd": ROOT, "capture_output": True}, tmp_path_factory.mktemp("committed")
    tables = subprocess.run(["git", "ls-files", "figures/data"], **git).stdout
    subprocess.run(["git", "checkout-index", "--stdin", f"--prefix={folder}/"], input=tables, **git)
    source = folder if tables else ROOT
    return lambda name: read_table(source / "figures" / "data" / f"{name}.csv")


def rows(header: str) -> list[list[str]]:
    """The cells of the README's table whose header begins so, without the marks of bold type."""
    lines = README[README.index(header) :].split("\n\n")[0].splitlines()
    return [[cell.strip().strip("*") for cell in line.strip("|").split("|")] for line in lines[2:]]


def require(*sentences: str) -> None:
    assert [sentence for sentence in sentences if sentence not in README] == []


@pytest.mark.parametrize("name", ["runs", "peers/runs", "photos/runs"])
def test_the_accuracies_are_those_of_the_runs(table, name):
    lines = to_markdown(accuracy_table(table(name), 16)).splitlines()
    require(*(line for line in lines if line.startswith("|")))


def test_the_number_of_runs_is_said(table):
    require(f"{len(table('runs'))} runs")


READINGS = [("runs", "cbbt_prompt", "true_gradient", shots) for shots in (16, 4, 1)]
READINGS += [("collaboration/runs", "cbbt", "adapter", shots) for shots in (16, 4, 1)]
READINGS += [("field/runs", "cbbt_plus", other, shots) for other in ("cbbt", "kernel_ridge") for shots in (16, 4, 1)]


def test_the_readings_are_corrected_for_their_number(table):
    p = pd.Series([difference_table(table(name), *compared).iloc[-1].p for name, *compared in READINGS])
    shown = ("none shows a difference", "one shows a difference", *(f"{n} show a difference" for n in ("two", "three", "four")))
    assert len(p) == 12
    require(f"after Holm's correction for these twelve lines {shown[(holm(p) <= 0.05).sum()]}")


@pytest.mark.parametrize("name, method, baseline, shots", READINGS)
def test_the_readings_are_those_of_the_runs(table, name, method, baseline, shots):
    require(f"{shots} shots. {difference_sentence(table(name), method, baseline, shots)}")


@pytest.mark.parametrize("dataset", ["eurosat", "caltech101"])
def test_the_readings_on_photographs_are_those_of_the_runs(table, dataset):
    runs = table("photos/runs")
    ours = [("cbbt_plus", other) for other in ("cbbt", "lfa", "kernel_ridge")]
    pairs = [("cbbt", "adapter"), *ours, ("cbbt_prompt", "true_gradient")]
    require(*(difference_sentence(runs[runs.dataset == dataset], *pair, 16) for pair in pairs))
    require(f"{runs[runs.dataset == dataset].n_judged.max():,}")


def test_the_times_on_photographs_are_those_of_the_table(table):
    speed = table("speed_photos").set_index("part")
    minutes = 8100 * speed.seconds["features"] / speed.images["features"] / 60
    require(f"take {minutes:.1f} minutes, a run of CBBT {speed.seconds['a run of cbbt']:.0f} s")
    require(f"of CBBT+ {speed.seconds['a run of cbbt_plus']:.0f} s")


def test_the_speeds_are_those_of_the_tables(table):
    text, step, memory = table("speed_text"), table("speed_step").iloc[0], table("speed_memory").set_index("classes")
    shown = text[text.context_length != 4]
    values = zip(*(shown[name] for name in ("backbone", "classes", "context_length", "prompts_per_second")))
    times = [[f"{row.over_padded} ×", f"{row.over_cut} ×", f"{row.largest_difference:.2g}"] for row in shown.itertuples()]
    assert rows("| backbone | classes | M |") == [[*map(str, keys), *line] for keys, line in zip(values, times)]
    plan = [
        [row.backbone, f"{row.seconds_per_step:.1f} s", f"{row.images_per_second}", f"{row.minutes_prompts:.0f} min"]
        + [f"{row.minutes_images:.0f} min"]
        for row in table("speed_plan").itertuples()
    ]
    assert [[line[0], *line[2:]] for line in rows("| backbone | device | a step")] == plan
    large = memory.loc[1000]
    require(
        text_sentences(text),
        scaling_sentence(table("speed_scaling")),
        f"takes {step.seconds:.2f} s, the released loop {step.seconds_released_loop:.1f} s: {step.ratio:.0f} ×",
        f"takes {memory.seconds[10]:.1f} s for ten classes, {memory.seconds[100]:.0f} s for a hundred, "
        f"and {large.seconds / 60:.1f} minutes and {large.peak_memory_gb:.1f} GB for a thousand",
    )


def test_the_cost_of_tf32_is_that_of_the_table(table):
    cosine = table("gradient_precision").groupby(["precision", "epsilon"]).cosine.mean().unstack()
    paper = cosine.columns[(cosine.columns > 1e-3) & (cosine.columns < 1e-2)][0]
    lost = 100 * (1 - cosine / cosine.loc["model in float64", paper])
    short, long, exact = lost.loc["products in TF32", paper], lost.loc["products in TF32", 0.1], lost.loc["model in float64", 0.1]
    require(f"costs the estimate {short:.0f} % of its cosine", f"{long:.0f} % against {exact:.0f} %")


def test_the_embedded_model_and_tasks_are_as_large_as_said(table):
    parameters = sum(parameter.numel() for parameter in load_mini_clip().parameters())
    tests = table("runs").n_judged
    require(
        f"({parameters / 1e6:.0f} M parameters, {WEIGHTS.stat().st_size / 1e6:.0f} MB",
        f"a test split of {round(tests.min(), -2):,} to {round(tests.max(), -2):,} images",
    )
