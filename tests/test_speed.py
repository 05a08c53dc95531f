"""The benchmark's bookkeeping: operations that it counts, turns that it takes. Nothing is timed here."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cbbt.box.text_tower import TextTower

NAMES = ("cat", "sailing boat", "car", "apple pie")


@pytest.fixture(scope="module")
def speed():
    path = Path(__file__).parent.parent / "benchmarks" / "speed.py"
    spec = importlib.util.spec_from_file_location("speed", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def counted(call) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def test_bare_products_are_counted_right(speed, loaded):
    products, operations = speed.bare_products(TextTower(loaded.model, loaded.tokenizer), rows=5)
    assert counted(products) == operations


@pytest.mark.parametrize("length", [1, 4, 16])
def test_the_tower_makes_hardly_more_operations_than_are_necessary(speed, loaded, length):
    tower = TextTower(loaded.model, loaded.tokenizer)
    contexts = torch.randn(6, length, 32)
    necessary = speed.necessary_operations(tower, 6, length, NAMES)
    made = counted(lambda: tower.encode(contexts, NAMES))
    # Queries of the last layer that nobody reads, and both halves of the causal products.
    assert necessary < made < 1.15 * necessary


def test_calls_take_turns_and_the_first_turn_is_left_out(speed, monkeypatch):
    now, order = [0.0], []

    def call(name, seconds):
        def run():
            order.append(name)
            now[0] += seconds * len(order)

        return run

    monkeypatch.setattr(speed.time, "perf_counter", lambda: now[0])
    table = speed.turns({"a": call("a", 1), "b": call("b", 10)}, 2, torch.device("cpu"))
    assert order == ["a", "b"] * 3
    assert table.to_dict("list") == {"a": [3, 5], "b": [40, 60]}
