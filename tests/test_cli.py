"""The command `cbbt`: it does what the package does, and ends with one line where the package raises."""

import json
import subprocess
import sys
import time

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

import cbbt.data.check
import cbbt.data.download
import cbbt.runs.experiment
from cbbt.box.ledger import BudgetExceeded
from cbbt.box.weights import ModelError
from cbbt.cli import app
from cbbt.data.cards import CARDS
from cbbt.data.task import DataError

QUICK = ("--set", "epochs=1", "--set", "min_epoch_steps=1", "--set", "q=4")


def call(*arguments) -> object:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_help_answers_at_once_and_names_the_commands():
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "cbbt", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and time.perf_counter() - begun < 1
    assert all(name in done.stdout for name in ("check-data", "download", "run", "report"))


def test_the_command_loads_neither_torch_nor_pandas_before_it_needs_them():
    code = "import sys, cbbt.cli; assert not {'torch', 'pandas', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_run_is_that_of_the_package(tmp_path):
    done = call("run", "digits", "--method", "cbbt", "--shots", 1, "--seed", 2, *QUICK, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    config = cbbt.RunConfig("digits", shots=1, seed=2, epochs=1, min_epoch_steps=1, q=4)
    record = json.loads((tmp_path / config.run_id / "record.json").read_text())
    lines = dict(line.split() for line in done.stdout.splitlines()[1:])
    assert done.stdout.splitlines()[0] == config.run_id
    assert lines["test_accuracy"] == f"{record['scores']['test_accuracy']:.2f}"
    assert lines["loss_queries"] == f"{record['queries']['loss_queries']:,}"


def test_zero_shot_needs_no_shots_and_a_method_has_options_of_its_own(tmp_path):
    assert "-0shot-" in call("run", "digits", "--method", "zero_shot").stdout
    assert call("run", "digits", "--method", "lfa", "--set", "steps=1", "--out", tmp_path).exit_code == 0
    (record,) = tmp_path.glob("*/record.json")
    assert json.loads(record.read_text())["config"]["options"]["steps"] == 1


@pytest.mark.parametrize(
    "arguments, text",
    [
        (["nosuchtask"], "nosuchtask"),  # DataError
        (["digits", "--method", "nosuch"], "choose from"),  # ValueError
        (["digits", "--set", "nosuch=1"], "unknown setting"),
        (["digits", "--set", "q=many"], "q must be"),  # TypeError
        (["digits", "--set", "shots=4"], "shots is not allowed"),
        (["digits", "--backbone", "nosuch"], "nosuch"),  # ModelError
        (["digits", "--set", "max_loss_queries=1"], "budget"),  # BudgetExceeded
    ],
)
def test_errors_of_the_package_are_one_line(arguments, text):
    done = call("run", *arguments)
    assert done.exit_code == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("cbbt: ") and text in line


@pytest.mark.parametrize("kind", [DataError, ModelError, BudgetExceeded, FileNotFoundError, FloatingPointError])
def test_no_expected_error_has_a_traceback(monkeypatch, kind):
    def fail(*arguments, **options):
        raise kind("two\n  lines")

    monkeypatch.setattr(cbbt.runs.experiment, "run", fail)
    done = call("run", "digits")
    assert done.exit_code == 1 and done.stderr == "cbbt: two lines\n"


def test_a_bug_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(cbbt.runs.experiment, "run", lambda *arguments, **options: {}["scores"])
    assert isinstance(call("run", "digits").exception, KeyError)


@pytest.mark.parametrize(
    "arguments",
    [["nosuch"], ["run"], ["run", "digits", "--shots", "few"], ["run", "digits", "--set", "q"], ["check-data"]]
    + [["run", "digits", "--set", f"{name}=1"] for name in ("method", "seed")],
)
def test_wrong_usage_ends_with_two(arguments):
    done = call(*arguments)
    assert done.exit_code == 2 and "Usage" in done.stderr


def test_check_data_says_what_is_missing(tmp_path):
    done = call("check-data", "--data-root", tmp_path)
    assert done.exit_code == 1 and not done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines() if line[0] != " "] == [[name, "absent"] for name in CARDS]
    one = call("check-data", "eurosat", "--data-root", tmp_path / "none")
    assert "0 of 27,000 images" in one.stdout and "does not exist" in one.stdout
    assert call("check-data", "nosuch", "--data-root", tmp_path).exit_code == 1


@pytest.mark.parametrize("states, code", [(["ready"], 0), (["ready", "absent"], 1), (["incomplete", "ready"], 1)])
def test_check_data_ends_with_zero_where_all_is_there(monkeypatch, tmp_path, states, code):
    row = dict(dataset="dtd", present=9, expected=9, missing=(), broken_count=0, broken=(), note="", todo="")
    found = pd.DataFrame([row | {"state": state} for state in states])
    monkeypatch.setattr(cbbt.data.check, "check_data", lambda *arguments, **options: found)
    assert call("check-data", "--data-root", tmp_path).exit_code == code


def test_check_data_names_missing_and_broken_images(monkeypatch, tmp_path):
    row = dict(dataset="dtd", state="incomplete", present=9, expected=5640, missing=("a/b.jpg",), note="", todo="Images: there.")
    found = pd.DataFrame([row | {"broken_count": 2, "broken": ("c.jpg", "d.jpg")}])
    monkeypatch.setattr(cbbt.data.check, "check_data", lambda *arguments, **options: found)
    shown = call("check-data", "dtd", "--data-root", tmp_path, "--verify-images").stdout
    assert all(text in shown for text in ("9 of 5,640", "missing: a/b.jpg", "2 broken: c.jpg, d.jpg", "Images: there."))


def test_download_fetches_each_benchmark(monkeypatch, tmp_path):
    monkeypatch.setattr(cbbt.data.download, "download_data", lambda name, root, progress: root / name)
    done = call("download", "eurosat", "dtd", "--data-root", tmp_path)
    assert done.stdout.split() == [str(tmp_path / "eurosat"), str(tmp_path / "dtd")]


def test_report_reads_a_grid(tmp_path):
    grid = dict(datasets=["digits"], methods=["zero_shot"], shots=[1], seeds=[1])
    grid |= {name: str(tmp_path / name) for name in ("results", "tables", "figures")}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    (tmp_path / "tables").mkdir()
    columns = dict(run_id="a", dataset="digits", backbone="mini", method="zero_shot", shots=0, seed=1, test_accuracy=67.8)
    pd.DataFrame([columns]).to_csv(tmp_path / "tables" / "runs.csv", index=False)
    done = call("report", tmp_path / "grid.yaml")
    assert done.exit_code == 0 and "| Zero-shot CLIP" in done.stdout and "67.8" in done.stdout
    absent = call("report", tmp_path / "none.yaml")
    assert absent.exit_code == 1 and "none.yaml" in absent.stderr


@pytest.mark.parametrize("options, message", [
    ("--host 0.0.0.0", "cbbt: host 0.0.0.0 can be reached from other machines"),
    ("--grant everything", "choose from texts, images"),
    ("--keys nowhere.yaml", "cannot read the key file nowhere.yaml"),
])  # fmt: skip
def test_what_should_not_be_served_is_one_line(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["serve", *options.split()])
    assert done.exit_code == 1 and message in done.output and len(done.output.splitlines()) == 1
