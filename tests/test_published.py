"""Published numbers stand beside one's own, with sources, and are compared with nothing."""

from functools import partial

import pandas as pd
import pytest

from cbbt.catalogue import CATALOGUE
from cbbt.data.cards import CARDS
from cbbt.results.published import FILES, PROTOCOLS, SHIFTS, beside, published, references


def runs(dataset="eurosat", backbone="RN50"):
    keys = {"dataset": dataset, "backbone": backbone, "shots": 16}
    tuned = [keys | {"method": "cbbt", "seed": seed, "test_accuracy": 60.0 + seed} for seed in (1, 2, 3)]
    return pd.DataFrame([*tuned, keys | {"method": "zero_shot", "shots": 0, "seed": 1, "test_accuracy": 40.0}])


def test_every_row_has_a_source_and_cbbts_own_cells_are_empty():
    table = published()
    assert set(table.dataset) == set(CARDS) and table.source.str.len().gt(5).all()
    assert not table.method.str.startswith("CBBT").any()
    assert not table.duplicated(["method", "source", "backbone", "shots", "dataset"]).any()


near = partial(pytest.approx, abs=0.006)  # as printed, with two digits


def means(protocol: str, method: str, backbone: str, datasets=CARDS) -> pd.Series:
    """Means over `datasets` by shots."""
    table = published(protocol=protocol)
    table = table[(table.method == method) & (table.backbone == backbone) & table.dataset.isin(datasets)]
    assert (table.groupby("shots").dataset.count() == len(datasets)).all()
    return table.groupby("shots").accuracy.mean()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_table_has_one_protocol_and_no_cell_twice(protocol):
    table = published(protocol=protocol)
    assert not table.duplicated(["method", "source", "backbone", "shots", "dataset"]).any()
    assert table.source.str.len().gt(5).all() and set(table.shots) <= {0, 1, 2, 4, 8, 16}
    columns = {"shift": {"imagenet", *SHIFTS}, "base": {*CARDS, "average"}, "new": {*CARDS, "average"}}
    assert set(table.dataset) == columns.get(protocol, set(CARDS))


def test_methods_of_features_have_their_means_and_say_what_they_were_chosen_on():
    assert means("features", "GDA", "RN50").tolist() == near([62.19, 66.19, 69.77, 73.31, 76.05])
    assert means("features", "APE-T", "RN50").tolist() == near([67.23, 69.43, 72.25, 74.47, 77.28])
    assert means("features", "TIMO", "RN50").tolist() == near([66.43, 68.15, 71.20, 73.55, 76.61])
    assert means("few-shot", "CoOp (third party)", "RN50").tolist() == near([59.80, 62.21, 66.84, 70.05])
    table = published(protocol="features")
    theirs = table[table.method.isin(["GDA", "APE", "TIMO"])]
    assert (theirs.chosen_on == "full validation split; ImageNet: test split").all() and theirs.text.str.len().gt(5).all()


def test_base_and_new_classes_have_the_harmonic_means_of_their_averages():
    both = pd.concat({protocol: published(protocol=protocol) for protocol in ("base", "new")}, names=["protocol"])
    averages = both[both.dataset == "average"].reset_index().pivot(index="method", columns="protocol", values="accuracy")
    harmonic = 2 / (1 / averages.base + 1 / averages.new)
    expected = {"Zero-shot CLIP": 71.70, "CoOp": 71.66, "CoCoOp": 75.83, "MaPLe": 78.55, "PromptSRC": 79.97, "2SFS": 80.20}
    assert harmonic.round(2).to_dict() == expected | {"GDA": 78.96}
    cells = both[(both.method == "GDA") & (both.dataset != "average")].groupby("protocol").accuracy.mean()
    assert (cells - averages.loc["GDA"]).abs().max() < 0.01


def test_shifts_have_the_means_of_their_sources():
    assert means("shift", "Zero-shot CLIP", "RN50", SHIFTS)[0] == near(40.58)
    expected = {("CraFT", "RN50"): 42.32, ("CraFT", "ViT-B-16"): 58.80, ("GDA", "ViT-B-16"): 60.37, ("SharpZO", "RN50"): 43.3}
    for (method, backbone), mean in (expected | {("Linear probe (rerun)", "RN50"): 28.16}).items():
        assert means("shift", method, backbone, SHIFTS)[16] == near(mean)
    alpha = published(protocol="shift")
    assert set(alpha[alpha.method == "GDA"].chosen_on) == {"ImageNet's test split"}


def test_other_protocols_stay_out_of_the_table_of_few_shots():
    assert not set(published().method) & {"GDA", "APE", "TIMO", "TaskRes (rerun)", "CoCoOp"}
    with pytest.raises(ValueError, match="protocol='transfer' is unknown, choose from few-shot, features"):
        published(protocol="transfer")


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
    with pytest.raises(ValueError, match="nothing published for backbone 'RN500', choose from RN50, ViT-B-16$"):
        references("RN500")


def test_a_reader_fills_the_slots(tmp_path):
    slots = pd.read_csv(FILES[1])
    slots["eurosat"] = [12.5, None]
    slots.to_csv(tmp_path / "mine.csv", index=False)
    table = beside(runs(), 16, files=(FILES[0], tmp_path / "mine.csv"))
    assert table.xs("CBBT (published)", level="method")["eurosat"].item() == 12.5
    slots["eurosat"] = ["sixty", None]
    slots.to_csv(tmp_path / "mine.csv", index=False)
    with pytest.raises(ValueError, match="not a percentage"):
        published([tmp_path / "mine.csv"])
    slots.assign(eurosat=None, protocol="other").to_csv(tmp_path / "mine.csv", index=False)
    with pytest.raises(ValueError, match="protocol in .*mine.csv='other' is unknown, choose from few-shot"):
        published([tmp_path / "mine.csv"])
    slots.drop(columns="dtd").to_csv(tmp_path / "mine.csv", index=False)
    with pytest.raises(ValueError, match="must have the columns"):
        published([tmp_path / "mine.csv"])
