"""The benchmark's bookkeeping: operations that it counts, turns that it takes. Nothing is timed here."""

import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cbbt.box.text_tower import TextTower
from cbbt.results.speed import exponents

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))  # scripts beside the package
import speed
import text_encoding
import timing

NAMES = ("cat", "sailing boat", "car", "apple pie")


def counted(call) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def test_bare_products_are_counted_right(loaded):
    products, operations = text_encoding.bare_products(TextTower(loaded.model, loaded.tokenizer), rows=5)
    assert counted(products) == operations


@pytest.mark.parametrize("length", [1, 4, 16])
def test_the_tower_makes_hardly_more_operations_than_are_necessary(loaded, length):
    tower = TextTower(loaded.model, loaded.tokenizer)
    contexts = torch.randn(6, length, 32)
    necessary = text_encoding.necessary_operations(tower, 6, length, NAMES)
    made = counted(lambda: tower.encode(contexts, NAMES))
    # Queries of the last layer that nobody reads, and both halves of the causal products.
    assert necessary < made < 1.15 * necessary


def test_calls_take_turns_and_the_first_turn_is_left_out(monkeypatch):
    now, order = [0.0], []

    def call(name, seconds):
        def run():
            order.append(name)
            now[0] += seconds * len(order)

        return run

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    table = timing.turns({"a": call("a", 1), "b": call("b", 10)}, 2, torch.device("cpu"))
    assert order == ["a", "b"] * 3
    assert table.to_dict("list") == {"a": [3, 5], "b": [40, 60]}


def test_exponents_of_power_laws():
    rows = [{"axis": "classes", "classes": c, "images": 32, "seconds": 3 * c**0.5} for c in (1, 10, 40)]
    rows += [{"axis": "images", "classes": 10, "images": n, "seconds": max(n, 100)} for n in (10, 100, 1000)]
    table = exponents(pd.DataFrame(rows))
    assert table.loc["classes"].tolist() == pytest.approx([0.5, 0.5])
    assert table.loc["images"].tolist() == pytest.approx([0.5, 1.0])


def test_the_command_writes_every_table_from_its_own_measurement(monkeypatch, tmp_path):
    for name in speed.TABLES:
        function = name.removeprefix("speed_") + "_table"
        monkeypatch.setattr(speed, function, lambda *sizes, name=name: pd.DataFrame({"table": [name]}))
    monkeypatch.setattr(sys, "argv", ["speed.py", "--out", str(tmp_path)])
    speed.main()
    assert {path.stem: pd.read_csv(path).table[0] for path in tmp_path.iterdir()} == {name: name for name in speed.TABLES}
