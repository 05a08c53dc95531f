"""The few-shot draw against published index files, and shots cached as pickles."""

import json
import os
import pickle
import random
import sys
import types
from unittest import mock

import numpy as np
import pytest
import torch

from cbbt.data.cards import CARDS
from cbbt.data.load import load_task
from cbbt.data.task import DataError, Item, draw_shots

from .data_layouts import COOP, coop_root, write_benchmark

ORACLES = [("caltech101", "caltech101"), ("dtd", "dtd"), ("eurosat", "eurosat")]


def published_shots(folder: str, shots: int, seed: int, prefix: str) -> dict[str, list]:
    content = json.loads((COOP / folder / f"shot_{shots}-seed_{seed}.json").read_text())
    parts = {"train": content["train"]["data"], "val": content["val"]["data"]}
    return {s: [(d["impath"].removeprefix(prefix), d["label"], d["classname"]) for d in p] for s, p in parts.items()}


@pytest.mark.parametrize("name, folder", ORACLES)
def test_the_draw_is_coops_path_for_path_and_in_order(tmp_path, name, folder):
    root, card = coop_root(tmp_path, name, folder), CARDS[name]
    full = load_task(name, root=root)
    for shots in (1, 16):
        for seed in (1, 2, 3):
            oracle = published_shots(folder, shots, seed, f"{card.folder}/{card.images}/")
            train, val = draw_shots(full.train, full.val, shots, seed)
            assert [(i.key, i.label, i.class_name) for i in train] == oracle["train"]
            assert [(i.key, i.label, i.class_name) for i in val] == oracle["val"]
            assert len(train) == shots * card.classes and len(val) == min(shots, 4) * card.classes
    for item in train + val:
        item.path.parent.mkdir(exist_ok=True)
        item.path.touch()
    random.seed(99)
    task = load_task(name, shots=16, seed=3, root=root)
    assert (task.train, task.val, task.test) == (train, val, full.test)


def test_the_draw_neither_reads_nor_moves_other_random_states():
    items = [Item(label=n % 5, class_name=str(n % 5), key=str(n)) for n in range(200)]
    draws = []
    for other in (0, 1):
        random.seed(other), np.random.seed(other), torch.manual_seed(other)
        states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
        draws.append(draw_shots(items[:100], items[100:], 4, seed=7))
        assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert draws[0] == draws[1] != draw_shots(items[:100], items[100:], 4, seed=8)


def test_validation_gives_what_there_is(tmp_path):
    write_benchmark(tmp_path, "dtd")
    task = load_task("dtd", shots=6, root=tmp_path)
    assert [item.label for item in task.val] == [0] * 3 + [1] * 3 + [2] * 3


def write_cache(root, name, module, content_of, shots=2, seed=1):
    """A pickle as Dassl writes it: Datum of `module`, private attributes, absolute paths of another machine."""

    class Datum:
        def __init__(self, path, label, class_name):
            self._impath, self._label, self._domain, self._classname = path, label, 0, class_name

    Datum.__module__, Datum.__qualname__ = module, "Datum"
    parts = module.split(".")
    packages = {".".join(parts[:n]): types.ModuleType(parts[n - 1]) for n in range(1, len(parts) + 1)}
    packages[module].Datum = Datum
    with mock.patch.dict(sys.modules, packages):
        content = pickle.dumps(content_of(Datum), protocol=pickle.HIGHEST_PROTOCOL)
    folder = root / CARDS[name].folder / "split_fewshot"
    folder.mkdir(exist_ok=True)
    (folder / f"shot_{shots}-seed_{seed}.pkl").write_bytes(content)


def as_datums(Datum, name, items):
    card = CARDS[name]
    home = "/home/them/DATA/" + "/".join(part for part in (card.folder, card.images) if part)
    return [Datum(f"{home}/{item.key}", item.label, item.class_name) for item in items]


@pytest.mark.parametrize("name", CARDS)
@pytest.mark.parametrize("module", ["dassl.data.datasets.base_dataset", "my_dassl.data.datasets.base_dataset"])
def test_cached_shots_are_found_below_todays_root(tmp_path, name, module):
    write_benchmark(tmp_path, name)
    full = load_task(name, root=tmp_path)
    train, val = full.train[::-5], full.val[::-4]  # an order that no draw gives
    content = {"train": train} if name == "imagenet" else {"train": train, "val": val}
    write_cache(tmp_path, name, module, lambda D: {s: as_datums(D, name, items) for s, items in content.items()})
    before = sorted(os.walk(tmp_path))
    task = load_task(name, shots=2, root=tmp_path, cached_shots=True)
    assert (task.train, task.val, task.test) == (train, val, full.test)
    assert all(item.path.is_relative_to(tmp_path) for item in task.train + task.val)
    assert sorted(os.walk(tmp_path)) == before
    assert load_task(name, shots=2, root=tmp_path).train != train  # read only when asked


def test_cached_shots_must_be_of_the_split(tmp_path):
    write_benchmark(tmp_path, "dtd")
    full, module = load_task("dtd", root=tmp_path), "dassl.data.datasets.base_dataset"

    def refused(content_of, message):
        write_cache(tmp_path, "dtd", module, content_of)
        with pytest.raises(DataError, match=message):
            load_task("dtd", shots=2, root=tmp_path, cached_shots=True)

    refused(lambda D: {"train": as_datums(D, "dtd", full.test)}, "train: '/home/.*test_0.jpg' with label 0 is not an")
    refused(lambda D: {"train": [D("/x/dtd/images/../a.jpg", 0, "")]}, "is not an image of that split of dtd")
    refused(lambda D: {"train": [D(str(full.train[0].path), 1, "")]}, "train_0.jpg' with label 1 is not an image")
    refused(lambda D: {"train": ["a.jpg"]}, "train: expected a list of Datum, got list")
    refused(lambda D: {"test": []}, "expected a dict with train and val, got a dict with test")
    refused(lambda D: [1], "expected a dict with train and val, got list")
    with pytest.raises(DataError, match="no cached shots at .*shot_3-seed_1.pkl; omit cached_shots"):
        load_task("dtd", shots=3, root=tmp_path, cached_shots=True)
    with pytest.raises(DataError, match="cached_shots needs a benchmark, the split 'coop' .* got digits"):
        load_task("digits", shots=2, cached_shots=True)


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("taken",)


@pytest.mark.parametrize(
    "content, message",
    [
        (pickle.dumps({"train": [Hostile()]}), f"refused the global {os.mkdir.__module__}.mkdir"),
        (pickle.dumps({"train": np.zeros(2)}), "refused the global numpy"),
        (pickle.dumps({"train": list(range(99))})[:40], "cannot read the cached shots"),
        (b"not a pickle", "cannot read the cached shots"),
        (b"", "cannot read the cached shots"),
        (b"cbuiltins\neval\n(S'1'\ntR.", "refused the global builtins.eval"),
        (b"cdassl.data.datasets.base_dataset\nos.system\n.", "refused the global dassl.*os.system"),
    ],
)
def test_a_pickle_runs_nothing(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    folder = write_benchmark(tmp_path, "dtd") / "split_fewshot"
    folder.mkdir()
    (folder / "shot_2-seed_1.pkl").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_task("dtd", shots=2, root=tmp_path, cached_shots=True)
    assert not (tmp_path / "taken").exists()
