"""What is kept of a run: never taken for another's, never half of one, never two at once."""

import json
import subprocess
import sys
import warnings

import pytest

import cbbt
from cbbt.box.ledger import BudgetExceeded
from cbbt.methods import METHODS, tip_adapter, zero_shot
from cbbt.results.records import RECORD
from cbbt.runs.experiment import CHECKPOINT
from cbbt.runs.origin import StaleRecord

QUICK = {"shots": 2, "epochs": 2}


def fill(root, per_class: int, first: int = 0) -> None:
    """A folder of two classes with images of the task shapes."""
    for label, name in enumerate(("disc", "box")):
        (root / name).mkdir(parents=True, exist_ok=True)
        items = [item for item in cbbt.load_task("shapes").train if item.label == label]
        for number, item in enumerate(items[first : first + per_class]):
            item.image().save(root / name / f"{first + number}.png")


def test_a_record_of_other_images_is_refused(tmp_path, monkeypatch):
    fill(tmp_path / "birds", 8)
    config = cbbt.RunConfig(str(tmp_path / "birds"), "adapter", **QUICK)
    record = cbbt.run(config, out=tmp_path / "runs")
    assert record["task"] == "birds" and cbbt.runs_table([record]).dataset[0] == "birds"
    assert cbbt.run(config, out=tmp_path / "runs") == record
    # the same folder, written in another way or copied to another place, is the same data set
    (tmp_path / "elsewhere").mkdir()
    fill(tmp_path / "elsewhere" / "birds", 8)
    monkeypatch.chdir(tmp_path)
    for path in ("birds", "./birds/", tmp_path / "elsewhere" / "birds"):
        assert cbbt.run(cbbt.RunConfig(str(path), "adapter", **QUICK), out=tmp_path / "runs")["run_id"] == record["run_id"]
    fill(tmp_path / "birds", 8, first=8)
    with pytest.raises(StaleRecord, match="other images .*Remove that folder to run it again"):
        cbbt.run(config, out=tmp_path / "runs")


def test_a_checkpoint_of_other_images_is_refused(tmp_path, killed_at):
    fill(tmp_path / "birds", 8)
    config = cbbt.RunConfig(str(tmp_path / "birds"), "adapter", **QUICK)
    with killed_at(1):
        cbbt.run(config, out=tmp_path / "runs", save_every=-1)
    for image in (tmp_path / "birds" / "box").iterdir():
        image.write_bytes((tmp_path / "birds" / "disc" / "0.png").read_bytes())
    with pytest.raises(StaleRecord, match="other images"):
        cbbt.run(config, out=tmp_path / "runs")
    (tmp_path / "runs" / config.run_id / CHECKPOINT).unlink()  # as of a run that was killed before it had kept anything
    assert cbbt.run(config, out=tmp_path / "runs")["origin"] != {}


def test_a_record_of_other_weights_is_refused(tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    from cbbt.mini_clip.model import WEIGHTS

    file = tmp_path / "mine.safetensors"
    state = load_file(WEIGHTS)
    save_file(state, file)
    config = cbbt.RunConfig("shapes", "zero_shot", shots=0, pretrained=str(file))
    record = cbbt.run(config, out=tmp_path / "runs")
    assert cbbt.run(config, out=tmp_path / "runs") == record
    save_file({key: value + 0.1 * torch.ones_like(value) for key, value in state.items()}, file)
    with pytest.raises(StaleRecord, match="other weights"):
        cbbt.run(config, out=tmp_path / "runs")


def test_an_edited_method_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "mine", cbbt.Method(zero_shot.fit))
    config = cbbt.RunConfig("digits", "mine", shots=1)
    record = cbbt.run(config, out=tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cbbt.run(config, out=tmp_path) == record
    monkeypatch.setitem(METHODS, "mine", cbbt.Method(tip_adapter.fit))
    with pytest.warns(UserWarning, match="before its method's code was edited"):
        assert cbbt.run(config, out=tmp_path) == record


@pytest.mark.parametrize("content", [b"", b'{"run_id": "digits'])
def test_a_cut_record_is_named(tmp_path, content):
    config = cbbt.RunConfig("digits", "adapter", **QUICK)
    (tmp_path / config.run_id).mkdir()
    (tmp_path / config.run_id / RECORD).write_bytes(content)
    with pytest.raises(ValueError, match=f"{config.run_id}/{RECORD}"):
        cbbt.run(config, out=tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x40\x02\x00\x00\x00\x00\x00\x00" + b"{" * 90])
def test_a_cut_checkpoint_is_named(tmp_path, content):
    config = cbbt.RunConfig("digits", "adapter", **QUICK)
    (tmp_path / config.run_id).mkdir()
    (tmp_path / config.run_id / CHECKPOINT).write_bytes(content)
    with pytest.raises(ValueError, match=f"{config.run_id}/{CHECKPOINT} cannot be read .*remove it"):
        cbbt.run(config, out=tmp_path)


TWICE = """
import sys, cbbt
record = cbbt.run(cbbt.RunConfig("digits", "adapter", shots=2, epochs=60), out=sys.argv[1])
print(record["scores"], record["repeated_queries"], record["seconds"])
"""


def test_the_same_run_started_twice_is_made_once(tmp_path):
    both = [subprocess.Popen([sys.executable, "-c", TWICE, tmp_path], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    first, second = (process.communicate()[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert first == second and "'images': 0" in first
    assert [path.name for path in tmp_path.glob("*/*")] == [RECORD]


FAR = {"epochs": 3, "warmup_epochs": 0}


@pytest.mark.parametrize(
    "method, settings",
    [
        ("adapter", FAR | {"adapter_lr": 1e30}),
        ("true_gradient", FAR | {"prompt_lr": 1e30}),
        ("coop4", FAR | {"prompt_lr": 1e30}),
        ("cbbt", FAR | {"adapter_lr": 1e30, "q": 4}),
        ("cbbt_prompt", FAR | {"prompt_lr": 1e30, "q": 4}),
        ("tip_adapter_f", FAR | {"cache_lr": 1e30}),
        ("craft", {"max_loss_queries": 200, "options": {"head_lr": 1e30}}),
        ("zip", {"max_loss_queries": 40, "options": {"a": 1e38}}),
        ("bbt", {"max_loss_queries": 60, "options": {"sigma": 1e38}}),
    ],
)
def test_a_loss_that_is_no_number_ends_the_run(tmp_path, method, settings):
    config = cbbt.RunConfig("digits", method, shots=2, **settings)
    with pytest.raises(FloatingPointError, match=f"{config.run_id}: .*choose smaller steps .*="):
        cbbt.run(config, out=tmp_path)
    assert not (tmp_path / config.run_id / RECORD).exists()


@pytest.mark.parametrize("method, budget", [("cbbt", 64), ("cbbt_prompt", 10), ("bbt", 1), ("zip", 1), ("craft", 3)])
def test_a_budget_below_one_step_is_refused(method, budget):
    with pytest.raises(BudgetExceeded, match="does not allow one step, which costs .* loss_queries"):
        cbbt.run(cbbt.RunConfig("digits", method, shots=1, max_loss_queries=budget))


def test_records_are_strict_json(tmp_path):
    record = cbbt.run(cbbt.RunConfig("digits", "tip_adapter", shots=1), out=tmp_path)
    text = (tmp_path / record["run_id"] / RECORD).read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=lambda word: pytest.fail(word)) == record
    assert record["origin"].keys() == {"images", "weights", "method"}
