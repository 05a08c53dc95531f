"""README and docs: numbers are those of the tables, links lead somewhere, commands and examples run as they are printed."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import cbbt.box.server.serve
import cbbt.data.check
import cbbt.data.download
import cbbt.runs.experiment
from cbbt.cli import app
from cbbt.data.cards import CARDS
from cbbt.mini_clip.model import WEIGHTS, load_mini_clip
from cbbt.results.formatting import accuracy_table, shots_name, to_markdown
from cbbt.results.plots.ablation import by_factor, changes
from cbbt.results.speed import scaling_sentence, text_sentences
from cbbt.results.statistics import difference_sentence, difference_table, holm
from cbbt.results.tables import read_table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = {path: path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
TEXT = "\n".join(PAGES.values())  # a sentence may move from one page to another
EXAMPLES = {block.split()[1].rstrip(":"): block for block in re.findall(r"```python\n(# \w+\.py.*?)```", TEXT, re.DOTALL)}
EXAMPLE = EXAMPLES["my_method.py"]

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


def test_the_readme_is_a_landing_page():
    assert 900 <= len(README.split()) <= 1100


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", PAGES[path])
    places = [(path.parent / link).resolve().relative_to(ROOT) for link in links if not link.startswith("http")]
    assert [place for place in places if not (ROOT / place).exists()] == []


def test_every_page_is_linked_from_the_readme():
    assert [path.name for path in PAGES if path.name != "README.md" and f"(docs/{path.name})" not in README] == []


COMMANDS = re.findall(r"^cbbt .*", re.sub(r" \\\n *", " ", TEXT), re.MULTILINE)


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_are_right(line, monkeypatch):
    """Options, settings and grids are checked; nothing is downloaded, and no run carried out."""
    record = {"scores": {}, "queries": {}, "seconds": {"total": 0.0}, "run_id": ""}
    monkeypatch.setattr(cbbt.runs.experiment, "run", lambda config, **options: record)
    monkeypatch.setattr(cbbt.data.download, "download_data", lambda name, root, progress: CARDS[name].folder)
    monkeypatch.setattr(cbbt.box.server.serve, "serve", lambda *model, **options: None)
    monkeypatch.setattr(cbbt.data.check, "check_data", lambda root, names, **options: pd.DataFrame())
    monkeypatch.chdir(ROOT)
    done = CliRunner().invoke(app, shlex.split(line, comments=True)[1:])
    assert done.exit_code == 0, done.output


def test_a_method_of_ones_own_is_short():
    assert len(EXAMPLE.splitlines()) < 40
    assert len(re.search(r"def fit.*?\n\n", EXAMPLES["prototypes.py"], re.DOTALL)[0].strip().splitlines()) == 5


def test_the_functional_example_runs(tmp_path):
    done = subprocess.run([sys.executable, "-c", EXAMPLES["prototypes.py"]], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("{'test_accuracy'"), done.stderr


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


def cells(line: str) -> tuple[str, ...]:
    """The cells of a row of a Markdown table, without the marks of bold type."""
    return tuple(cell.strip().strip("*") for cell in line.strip().strip("|").split("|"))


def rows(header: str) -> list[tuple[str, ...]]:
    """The rows of the table whose header begins so."""
    lines = TEXT[TEXT.index(header) :].split("\n\n")[0].splitlines()
    return [cells(line) for line in lines[2:]]


def require(*sentences: str) -> None:
    assert [sentence for sentence in sentences if sentence not in TEXT] == []


ACCURACIES = ("runs", "peers/runs", "photos/runs")


def accuracy_lines(runs) -> list[str]:
    return [line for line in to_markdown(accuracy_table(runs, 16)).splitlines() if line.startswith("|")]


@pytest.mark.parametrize("name", ACCURACIES)
def test_the_accuracies_are_those_of_the_runs(table, name):
    require("\n".join(accuracy_lines(table(name))))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_table_of_measured_numbers_is_one_of_the_tables(table, path):
    known = {cells(line) for name in ACCURACIES for line in accuracy_lines(table(name))}
    known |= {*speed_rows(table), *plan_rows(table), step_row(table), *wire_rows(table), *load_rows(table)}
    shown = re.findall(r"^\|(?! `).*", PAGES[path], re.MULTILINE)  # a row that begins with code explains a name
    measured = [cells(line) for line in shown if re.search(r"\d\.\d|±|\de-\d|×", line)]
    assert [row for row in measured if row not in known] == []


def test_the_number_of_runs_is_said(table):
    for text in (README, PAGES[ROOT / "docs" / "results.md"]):
        assert f"{len(table('runs'))} runs" in text


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
    require(f"{shots_name(shots)}. {difference_sentence(table(name), method, baseline, shots)}")


@pytest.mark.parametrize("dataset", ["eurosat", "caltech101"])
def test_the_readings_on_photographs_are_those_of_the_runs(table, dataset):
    runs = table("photos/runs")
    ours = [("cbbt_plus", other) for other in ("cbbt", "lfa", "kernel_ridge")]
    pairs = [("cbbt", "adapter"), *ours, ("cbbt_prompt", "true_gradient")]
    require(*(difference_sentence(runs[runs.dataset == dataset], *pair, 16) for pair in pairs))
    assert f"({runs[runs.dataset == dataset].n_judged.max():,}" in README


def test_no_reading_is_left_of_an_older_table():
    assert TEXT.count("95 % t interval") == len(READINGS) + 2 * 5  # five on each set of photographs


def test_the_readme_says_what_the_prompt_and_a_probe_are_worth_on_photographs(table):
    runs = [rows for _, rows in table("photos/runs").groupby("dataset", sort=False)]
    lines = {
        other: [difference_table(rows, "cbbt", other, 16).iloc[-1] for rows in runs] for other in ("adapter", "linear_probe")
    }
    assert all(line["p, equal"] < 0.05 for line in lines["adapter"])
    assert "CBBT equals its adapter alone within one point" in README
    assert all(line.p < 0.05 for line in lines["linear_probe"])
    ahead = " and ".join(f"{-line['mean']:.1f}" for line in lines["linear_probe"])
    assert f"a linear probe on the same features is ahead of it by {ahead} points" in README


def test_the_share_of_class_prompts_is_that_of_the_runs(table):
    runs = table("runs")
    prompts = runs[runs.shots == 16].groupby("method").class_prompts.mean()
    require(f"sends 1/{prompts['cbbt'] / prompts['cbbt_plus']:.0f} of the class prompts that CBBT sends")


def test_the_times_on_photographs_are_those_of_the_table(table):
    speed = table("speed_photos").set_index("part")
    minutes = 8100 * speed.seconds["features"] / speed.images["features"] / 60
    require(f"take {minutes:.1f} minutes, a run of CBBT {speed.seconds['a run of cbbt']:.0f} s")
    require(f"of CBBT+ {speed.seconds['a run of cbbt_plus']:.0f} s")


def test_the_settings_that_matter_are_those_of_the_ablation(table):
    found = changes(by_factor(table("ablation/runs"), 1 / 128))["mean"]
    by = {key: f"{value:+.1f}".replace("-", "−") for key, value in found.items()}
    ratio = [by["cbbt", "adapter_ratio", value] for value in (0.2, 0.8)]
    epsilon = [by["cbbt", "epsilon", value] for value in (0.0001, 0.1)]
    require(
        f"leaving it out changes CBBT by {by['cbbt', 'adapter', 'none']} points",
        f"its ratio r of 0.2 or 0.8 instead of 0.5 by {ratio[0]} or {ratio[1]}",
        f"q = 1 instead of 64 changes {by['cbbt', 'q', 1]} points; in a prompt alone {by['cbbt_prompt', 'q', 1]}",
        f"16 vectors instead of one change {by['cbbt', 'context_length', 16]}",
        f"a step ε of 0.0001 or 0.1 instead of 0.0078 {epsilon[0]} or {epsilon[1]}",
    )


def speed_rows(table) -> list[tuple[str, ...]]:
    shown = table("speed_text")
    shown = shown[shown.context_length != 4]
    keys = zip(*(shown[name] for name in ("backbone", "classes", "context_length", "prompts_per_second")))
    times = [(f"{row.over_padded} ×", f"{row.over_cut} ×", f"{row.largest_difference:.2g}") for row in shown.itertuples()]
    return [(*map(str, key), *line) for key, line in zip(keys, times)]


def plan_rows(table) -> list[tuple[str, ...]]:
    return [
        (row.backbone, "2 CPU cores", f"{row.seconds_per_step:.1f} s", f"{row.images_per_second}")
        + (f"{row.minutes_prompts:.0f} min", f"{row.minutes_images:.0f} min")
        for row in table("speed_plan").itertuples()
    ]


def wire_rows(table) -> list[tuple[str, ...]]:
    return [
        (row.backbone, str(row.classes), f"{row.seconds:.3f} s", f"{row.overhead_ms:.0f} ms", f"{100 * row.share:.1f} %")
        + (f"{row.bytes_up / 1e6:.2f} MB", f"{row.bytes_down / 1e6:.1f} MB")
        for row in table("remote_wire").itertuples()
    ]


def load_rows(table) -> list[tuple[str, ...]]:
    return [
        (
            str(row.sets),
            f"up to {row.join} contexts" if row.join else "no",
            f"{row.prompts_local:.0f}",
            f"{row.prompts_served:.0f}",
        )
        + (f"{row.ratio:.2f} ×", f"{row.spread:.2f} ×")
        for row in table("remote_load").itertuples()
    ]


def test_the_cost_of_the_network_is_that_of_the_tables(table):
    pixels = table("remote_pixels").set_index("what")
    assert rows("| model | classes | seconds |") == wire_rows(table)
    assert rows("| prompt sets a query |") == load_rows(table)
    photo, features = pixels.loc["64 images of photo"], pixels.loc["650 features of RN50"]
    require(
        f"{photo.bytes / 1e6:.1f} MB of pixels shrink to {photo.compressed / 1e6:.1f} MB",
        f"features shrink by {100 * (1 - features.compressed / features.bytes):.0f} %",
    )


def step_row(table) -> tuple[str, ...]:
    """A step of the released loop and of the kit, as the README's comparison of the two has it."""
    step = table("speed_step").iloc[0]
    ours = f"shared tokens encoded once: {step.seconds:.2f} s, {step.ratio:.0f} ×"
    return "A step (q = 16)", f"padded to 77 tokens: {step.seconds_released_loop:.1f} s", ours


def test_the_speeds_are_those_of_the_tables(table):
    text, step, memory = table("speed_text"), table("speed_step").iloc[0], table("speed_memory").set_index("classes")
    assert rows("| backbone | classes | M |") == speed_rows(table)
    assert rows("| backbone | device | a step") == plan_rows(table)
    assert step_row(table) in rows("|  | [released code]") and step.backbone == "RN50" and step.classes == 10
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
