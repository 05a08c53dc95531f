"""Published numbers stand beside one's own, with sources, and are compared with nothing."""

import pandas as pd
import pytest

from cbbt.data.cards import CARDS
from cbbt.results.published import FILES, beside, published


def runs(dataset="eurosat", backbone="RN50"):
    keys = {"dataset": dataset, "backbone": backbone, "shots": 16}
    tuned = [keys | {"method": "cbbt", "seed": seed, "test_accuracy": 60.0 + seed} for seed in (1, 2, 3)]
    return pd.DataFrame([*tuned, keys | {"method": "zero_shot", "shots": 0, "seed": 1, "test_accuracy": 40.0}])


def test_every_row_has_a_source_and_cbbts_own_cells_are_empty():
    table = published()
    assert set(table.dataset) == set(CARDS) and table.source.str.len().gt(5).all()
    assert not table.method.str.startswith("CBBT").any()
    assert not table.duplicated(["method", "source", "backbone", "shots", "dataset"]).any()


def test_own_runs_stand_above_the_published_of_the_same_backbone_and_shots():
    table = beside(runs(), 16)
    assert list(table.columns) == ["eurosat"]
    assert table.loc[("CBBT", "this kit"), "eurosat"] == 62.0
    assert table.loc[("Zero-shot CLIP", "this kit"), "eurosat"] == 40.0
    assert table.loc[("CraFT", "github.com/mrflogs/CraFT, exp.log"), "eurosat"] == 75.30
    others = set(beside(runs(backbone="ViT-B-16"), 16).index.get_level_values("method"))
    assert "SharpZO" in others and "CraFT" not in others
    assert beside(runs("digits", "mini"), 16).empty


def test_a_reader_fills_the_slots(tmp_path):
    slots = pd.read_csv(FILES[1])
    slots["eurosat"] = [12.5, None]
    slots.to_csv(tmp_path / "mine.csv", index=False)
    table = beside(runs(), 16, files=(FILES[0], tmp_path / "mine.csv"))
    assert table.xs("CBBT (published)", level="method")["eurosat"].item() == 12.5
    slots["eurosat"] = ["sixty", None]
    slots.to_csv(tmp_path / "mine.csv", index=False)
    with pytest.raises(ValueError, match="no percentage"):
        published([tmp_path / "mine.csv"])
    slots.drop(columns="dtd").to_csv(tmp_path / "mine.csv", index=False)
    with pytest.raises(ValueError, match="must have the columns"):
        published([tmp_path / "mine.csv"])
