"""Published numbers stand beside one's own, with sources, and are compared with nothing."""

import pandas as pd
import pytest

from cbbt.catalogue import CATALOGUE
from cbbt.data.cards import CARDS
from cbbt.results.published import FILES, beside, published, references


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


def test_references_are_published_rows_under_the_names_of_the_kits_methods():
    table = references("RN50")
    assert set(table.method) == {"zero_shot", "coop16", "tip_adapter_f", "bbt", "craft"} < set(CATALOGUE)
    assert not table.duplicated(["method", "dataset", "shots"]).any()  # one source each: it can be drawn as one line
    eurosat = table[table.dataset == "eurosat"].pivot(index="method", columns="shots", values="accuracy")
    assert eurosat.loc["bbt", [1, 2, 4, 8, 16]].tolist() == [25.60, 35.59, 42.66, 53.14, 69.01]
    assert eurosat.loc["tip_adapter_f", 1] == 59.53 and eurosat.loc["zero_shot"].dropna().to_dict() == {0: 37.56}
    with pytest.raises(ValueError, match="nothing published of backbone 'RN500', choose from RN50, ViT-B-16$"):
        references("RN500")


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
