"""The benchmark's bookkeeping: operations that it counts, turns that it takes. Nothing is timed here."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cbbt.box.text_tower import TextTower
from cbbt.results.plots.speed import computed_positions
from cbbt.results.speed import COMPUTED, SHARED, exponents, operation_counts, position_map

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


def test_every_token_is_computed_once():
    own = np.array([2, 3])
    positions = position_map(own, contexts=2, length=1)
    assert positions[:, :6].tolist() == [[1, 1, 1, 1, 0, 0], [2, 2, 1, 1, 1, 0], [2, 1, 1, 1, 0, 0], [2, 2, 1, 1, 1, 0]]
    assert positions.shape == (4, 77) and not positions[:, 6:].any()
    assert (positions == COMPUTED).sum() == operation_counts(own, 1, contexts=2)["tokens"] and SHARED in positions
    (axis,) = computed_positions(positions).axes
    assert axis.collections[0].get_array().tolist() == positions.tolist()


@pytest.mark.parametrize("length", [1, 4])
def test_the_count_by_hand_is_the_benchmarks(loaded, length):
    """But for the projection of each prompt's feature."""
    tower = TextTower(loaded.model, loaded.tokenizer)
    own = np.array([len(tower.tokens.ids(name)) + len(tower.stop) + 1 for name in NAMES])
    sizes = {"width": tower.context_dim, "layers": len(tower.text.transformer.resblocks)}
    projection = 2 * 6 * len(NAMES) * tower.text.text_projection.numel()
    counts = operation_counts(own, length, contexts=6, **sizes)
    assert counts["operations"] + projection == text_encoding.necessary_operations(tower, 6, length, NAMES)


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
