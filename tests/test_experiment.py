"""Runs and records: checked settings, complete records, and kills that change nothing."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

import cbbt
from cbbt.data.task import identity
from cbbt.methods import DEFAULTS, METHODS
from cbbt.results.records import RECORD
from cbbt.runs.config import method_configs
from cbbt.runs.workbench import Workbench

QUICK = {"dataset": "digits", "shots": 2, "epochs": 3, "q": 8, "views": 2}
# What a kill may change: how long it took, how much memory, and what had to be asked again.
EPHEMERAL = ("seconds", "peak_megabytes", "repeated_queries")


def lasting(record: dict) -> dict:
    return {key: value for key, value in record.items() if key not in EPHEMERAL}


@pytest.mark.parametrize(
    "settings, error, message",
    [
        ({"method": "cbtt"}, ValueError, "method='cbtt' is unknown, choose from zero_shot"),
        ({"position": "left"}, ValueError, "end, middle, front"),
        ({"shots": -1}, ValueError, "shots must be at least 0"),
        ({"shots": 0}, ValueError, "'cbbt' needs shots ≥ 1"),
        ({"shots": 2.5}, TypeError, "shots must be int, got 2.5"),
        ({"split": "zhou"}, ValueError, "coop, torchvision"),
        ({"class_names": "cat"}, ValueError, "class_names: there is no file /.*/cat"),
        ({"class_names": 3}, ValueError, "class_names should be names in label order, a mapping"),
        ({"q": True}, TypeError, "q must be int"),
        ({"epsilon": -1.0}, ValueError, "epsilon must be positive or None"),
        ({"adapter_ratio": 1.5}, ValueError, r"\[0, 1\], got 1.5"),
        ({"prompt_lr": 0}, ValueError, "prompt_lr must be positive"),
        ({"augmentation": "auto"}, ValueError, "cbbt, crop, none"),
        ({"start": "prompt"}, ValueError, "start='prompt' is unknown, choose from context, template"),
        ({"adapter_lr": 0}, ValueError, "adapter_lr must be positive"),
    ],
)
def test_wrong_settings_are_named(settings, error, message):
    with pytest.raises(error, match=message):
        cbbt.RunConfig("digits", **settings)


def test_unknown_settings_name_the_nearest():
    with pytest.raises(ValueError, match="unknown setting 'epoch'; nearest: epochs"):
        cbbt.RunConfig.from_dict({"dataset": "digits", "epoch": 3})


def test_a_folder_of_ones_own_is_run_with_ones_own_words(tmp_path):
    for label, name in enumerate(("n01", "n02")):
        (tmp_path / "birds" / name).mkdir(parents=True)
        for index in range(12):
            Image.new("RGB", (40, 30), (20 * index, 200 * label, 40)).save(tmp_path / "birds" / name / f"{index}.png")
    values = {"dataset": str(tmp_path / "birds"), "method": "zero_shot", "shots": 0}
    own = cbbt.RunConfig.from_dict(values | {"template": "a {}.", "class_names": ["red circle", "green circle"]})
    assert own.class_names == ("red circle", "green circle")
    first, record = cbbt.run(own, out=tmp_path / "runs"), cbbt.load_records(tmp_path / "runs")[0]
    assert cbbt.RunConfig.from_dict(record["config"]) == own and record["scores"] == first["scores"]
    assert record["n_classes"] == 2 and 0 <= record["scores"]["test_accuracy"] <= 100
    with pytest.raises(cbbt.DataError, match="2 names in label order"):
        cbbt.run(cbbt.RunConfig.from_dict(values | {"class_names": ["red circle"]}))
    with pytest.raises(cbbt.DataError, match="for benchmarks"):
        cbbt.run(cbbt.RunConfig.from_dict(values | {"split": "torchvision"}))


@pytest.mark.parametrize("methods, seeds, settings, error, message", [
    ([], [1], {}, ValueError, "methods is empty"),
    (["cbbt"], [], {}, ValueError, "seeds is empty"),
    (["cbbt"], [1], {"shots": 4}, ValueError, "shots is not allowed in the settings"),
    (["cbbt"], [1], {"cbbt": {"shots": 4}}, ValueError, "shots is not allowed in the settings"),
    (["cbbt"], [1], {"coop4": {"q": 4}}, ValueError, "'coop4' is unknown, choose from cbbt"),
    (["coop"], [1], {}, ValueError, "method='coop' is unknown, choose from zero_shot, .*true_gradient, coop4, coop16"),
    (["cbbt"], [1], {"cbbt": 3}, TypeError, "settings of cbbt must be fields and values"),
])  # fmt: skip
def test_what_a_notebook_cannot_run_is_named(methods, seeds, settings, error, message):
    with pytest.raises(error, match=message):
        method_configs(methods, seeds, settings, {"dataset": "digits", "shots": 2})


def test_settings_reach_the_methods_they_are_for():
    settings = {"q": 8, "zip": {"rank": 4}}
    cbbt_run, zip_run = method_configs(["cbbt", "zip"], [1], settings, {"dataset": "digits", "shots": 2})
    assert (cbbt_run.q, zip_run.q, zip_run.settings.rank, cbbt_run.shots) == (8, 8, 4, 2)


def test_class_names_are_kept_whatever_form_they_come_in(tmp_path):
    file = tmp_path / "names.yaml"
    file.write_text("2: tulip\n1: rose\n")
    forms = [{1: "rose", 2: "tulip"}, {"2": "tulip", "1": "rose"}, file, str(file)]
    configs = [cbbt.RunConfig("digits", class_names=names) for names in forms]
    assert len({config.run_id for config in configs}) == 1 and configs[2].class_names == {"1": "rose", "2": "tulip"}
    assert all(config == configs[0] for config in configs)
    assert cbbt.RunConfig.from_dict(json.loads(json.dumps(dataclasses.asdict(configs[0])))) == configs[0]
    file.write_text("1: rose\n2: lily\n")
    assert cbbt.RunConfig("digits", class_names=file).run_id != configs[0].run_id


def test_an_unknown_dataset_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="digits"):
        cbbt.run(cbbt.RunConfig("digit"))


# Of each field, a value other than its default, and what it needs beside it.
OTHER = {
    **{"dataset": "shapes", "method": "cbbt_tip", "backbone": "RN50", "pretrained": None, "shots": 4, "seed": 2},
    **{"start": "template", "context_length": 2, "context_init": "photo", "class_specific": True, "position": "front"},
    **{"q": 65, "epsilon": 0.1, "directions": "orthogonal", "differences": "two-sided", "factor": "released"},
    **{"scoring": "support", "prompt_every": 2, "fresh_text": True, "epochs": 51, "min_epoch_steps": 6, "batch_size": 33},
    **{"prompt_lr": 0.1, "weight_decay": 0.1, "clip_norm": 1.0, "warmup_epochs": 2, "warmup_lr": 0.1, "cosine": "step"},
    **{"adapter_ratio": 0.1, "adapter_reduction": 2, "adapter_lr": 0.1, "adapter_weight_decay": 0.1, "adapter_start": 1},
    **{"only_adapter": True, "cache_alpha": 2.0, "cache_beta": 2.0, "cache_lr": 0.1, "augmentation": "crop", "views": 2},
    **{"split": "torchvision", "template": "a {}.", "class_names": ("a", "b"), "judge": "validation"},
    **{"classes": "base", "targets": ["noise"], "service": "half"},
    **{"max_class_prompts": 10, "max_loss_queries": 10, "max_images": 10, "options": {"rank": 4}},
}
NEEDED = {"blackvip": {"encoder_weights": "mae.pt"}, "llm_search": {"endpoint": "https://host/v1", "model": "m"}}
BESIDE = {"only_adapter": {"adapter_start": 1, "fresh_text": True}, "options": {"method": "zip"}}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(cbbt.RunConfig)])
def test_every_field_is_in_a_runs_name(name):
    base = {"dataset": "digits"} | BESIDE.get(name, {})
    changed = cbbt.RunConfig(**base | {name: OTHER[name]})
    assert changed.run_id != cbbt.RunConfig(**base).run_id
    assert cbbt.RunConfig.from_dict(json.loads(json.dumps(dataclasses.asdict(changed)))) == changed


@pytest.mark.parametrize("method", METHODS)
def test_what_is_left_open_is_the_methods_own(method):
    """Nothing of the defaults stays None, and what is given is neither read over nor called otherwise."""
    needed = {"dataset": "digits", "method": method, "options": NEEDED.get(method, {})}
    config = cbbt.RunConfig(**needed)
    resolved = {name: getattr(config, name) for name in DEFAULTS}
    assert resolved == DEFAULTS | METHODS[method].defaults and None not in resolved.values()
    assert cbbt.RunConfig(**needed | resolved).run_id == config.run_id
    for name in DEFAULTS:
        assert getattr(cbbt.RunConfig(**needed | {name: OTHER[name]}), name) == OTHER[name]


def test_run_id_depends_on_every_setting_and_on_nothing_else():
    base = cbbt.RunConfig("digits")
    assert base.run_id == cbbt.RunConfig("digits").run_id
    changed = {
        dataclasses.replace(base, **change).run_id
        for change in ({"q": 65}, {"seed": 2}, {"epsilon": 0.1}, {"judge": "validation"}, {"position": "front"})
    }
    assert len(changed | {base.run_id}) == 6
    words = [{"split": "torchvision"}, {"template": "{}"}, {"class_names": ("a", "b")}]
    assert len({dataclasses.replace(base, **change).run_id for change in words} | {base.run_id}) == 4
    assert cbbt.RunConfig("digits", prompt_lr=1).run_id == cbbt.RunConfig("digits", prompt_lr=1.0).run_id


def test_a_record_is_complete_and_read_back(tmp_path):
    config = cbbt.RunConfig(**QUICK)
    record = cbbt.run(config, out=tmp_path)
    assert record == json.loads((tmp_path / config.run_id / RECORD).read_text())
    assert [path.name for path in (tmp_path / config.run_id).iterdir()] == [RECORD]
    columns = {"test_accuracy", "test_accuracy_best_val", "test_accuracy_official_selection", "test_ece"}
    assert set(record["scores"]) == columns
    assert record["scores"]["test_accuracy"] == record["history"][-1]["test_accuracy"]
    # 2 views of 20 shots, and 20 validation images; five steps of the whole support an epoch
    assert record["queries"] == {"images": 2 * 20 + 20, "loss_queries": 15 * 9, "class_prompts": 15 * 9 * 10}
    assert record["repeated_queries"] == {"images": 0, "loss_queries": 0, "class_prompts": 0}
    assert record["evaluation_queries"]["images"] == record["n_judged"]
    before = time.perf_counter()
    assert cbbt.run(config, out=tmp_path) == record and time.perf_counter() - before < 1
    table = cbbt.runs_table(cbbt.load_records(tmp_path))
    assert len(table) == 1 and table.test_accuracy[0] == record["scores"]["test_accuracy"]
    assert table.looks[0] == len(record["history"]) == 3  # models of which the best on test is one
    assert len(cbbt.curves_table([record])) == 3


@pytest.fixture
def judged(monkeypatch):
    """The images that runs are judged by, of each run in turn."""
    splits, original = [], Workbench.split
    monkeypatch.setattr(
        Workbench, "split", lambda self, judge, items, *a: splits.append(items) or original(self, judge, items, *a)
    )
    return splits


@pytest.mark.parametrize(
    "method, settings", [("adapter", {"shots": 2}), ("tip_adapter", {"shots": 16, "seed": 2}), ("zero_shot", {"shots": 0})]
)
def test_validation_can_judge_in_place_of_test(judged, method, settings):
    """By the pool of the whole split, without the run's own validation shots, and without any image to test by."""
    config = cbbt.RunConfig.from_dict(QUICK | settings | {"method": method, "judge": "validation"})
    record = cbbt.run(config)
    assert all(name.startswith("validation_") for name in record["scores"]) and record["scores"]["validation_accuracy"]
    whole, drawn = cbbt.load_task("digits"), cbbt.load_task("digits", shots=config.shots, seed=config.seed)
    (pool, own), shown = ({identity(item) for item in task.val} for task in (whole, drawn)), {*map(identity, judged[0])}
    assert len(own) == 10 * min(config.shots, 4) and shown == pool - own
    assert record["n_judged"] == len(judged[0]) == len(whole.val) - len(drawn.val)
    assert not shown & {identity(item) for item in (*drawn.train, *whole.test)}


def test_a_pool_of_nothing_but_shots_judges_nothing(tmp_path):
    for label, name in enumerate(("disc", "box")):
        (tmp_path / "birds" / name).mkdir(parents=True)
        for index in range(10):  # five to train by, two to validate by, three to test by
            Image.new("RGB", (32, 32), (20 * index, 200 * label, 0)).save(tmp_path / "birds" / name / f"{index}.png")
    values = {"dataset": str(tmp_path / "birds"), "method": "adapter", "epochs": 1, "judge": "validation"}
    assert cbbt.run(cbbt.RunConfig.from_dict(values | {"shots": 1}))["n_judged"] == 2
    with pytest.raises(cbbt.DataError, match="no image to evaluate on: its validation split is empty"):
        cbbt.run(cbbt.RunConfig.from_dict(values | {"shots": 2}))


def test_methods_see_the_same_shots_whatever_was_drawn_before():
    import random

    import torch

    first = cbbt.run(cbbt.RunConfig(**QUICK, method="adapter"))
    random.seed(99), torch.manual_seed(99)
    assert lasting(cbbt.run(cbbt.RunConfig(**QUICK, method="adapter"))) == lasting(first)


RUN = """
import json, sys, torch, cbbt
torch.set_num_threads(1)
config = cbbt.RunConfig.from_dict({"dataset": "digits", "shots": 4, "views": 2, "method": sys.argv[2]} | json.loads(sys.argv[3]))
cbbt.run(config, out=sys.argv[1], save_every=0.1)
print(config.run_id)
"""


@pytest.mark.parametrize("method, settings", [
    ("cbbt", {"epochs": 80, "q": 16}),
    pytest.param("craft", {"numbers": 16, "population": 6, "evaluations": 2400}, marks=pytest.mark.soak),
])  # fmt: skip
def test_sigkill_at_any_moment_changes_no_number(tmp_path, method, settings):
    def start(folder):
        command = [sys.executable, "-c", RUN, str(folder), method, json.dumps(settings)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    run_id = start(tmp_path / "calm").communicate()[0].strip()
    calm = json.loads((tmp_path / "calm" / run_id / RECORD).read_text())
    folder = tmp_path / "killed" / run_id
    checkpoint = folder / "checkpoint.safetensors"
    kills = 0
    for delay in (0.0, 0.2):  # seconds after a checkpoint of this process
        begun = time.time()
        process = start(tmp_path / "killed")
        while process.poll() is None and not (checkpoint.exists() and checkpoint.stat().st_mtime > begun):
            time.sleep(0.01)
        time.sleep(delay)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills and not (folder / RECORD).exists()
    start(tmp_path / "killed").communicate()
    killed = json.loads((folder / RECORD).read_text())
    assert lasting(killed) == lasting(calm)
    assert calm["repeated_queries"]["images"] == 0
    # each start encodes the images anew: asked, but no part of the run's own cost
    assert killed["repeated_queries"]["images"] == kills * calm["queries"]["images"]
