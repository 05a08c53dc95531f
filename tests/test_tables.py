"""Tables of runs: numbers against hand counts, and what is refused."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cbbt.results import formatting, statistics, tables


def runs_of(scores: dict, shots: int = 16) -> pd.DataFrame:
    """{(dataset, method): accuracies of seeds 1, 2, …} → a table of runs; None is a missing run."""
    rows = [
        {"dataset": dataset, "backbone": "mini", "method": method, "shots": 0 if method == "zero_shot" else shots}
        | {"seed": seed, "test_accuracy": accuracy, "test_accuracy_best_val": accuracy + 1}
        | {"test_accuracy_official_selection": accuracy + 2, "looks": 0 if method == "zero_shot" else 10 * seed}
        for (dataset, method), accuracies in scores.items()
        for seed, accuracy in enumerate(accuracies, start=1)
        if accuracy is not None
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def runs():
    return runs_of(
        {
            ("digits", "zero_shot"): [50.0],
            ("digits", "adapter"): [60.0, 61.0, 62.0],
            ("digits", "cbbt"): [61.0, 63.0, 65.0],
            ("shapes", "zero_shot"): [70.0],
            ("shapes", "adapter"): [80.0, 82.0, 84.0],
            ("shapes", "cbbt"): [79.0, 81.0, None],
        }
    )


def test_zero_shot_stands_beside_every_seed(runs):
    wide = tables.scores(runs, 16)
    assert list(wide) == ["zero_shot", "adapter", "cbbt"]
    assert wide.zero_shot["digits"].tolist() == [50.0] * 3
    assert np.isnan(wide.cbbt["shapes", 3])


def test_the_mean_over_data_sets_takes_only_seeds_that_have_all(runs):
    means = tables.mean_over_datasets(tables.scores(runs, 16))
    assert means.adapter.tolist() == [70.0, 71.5, 73.0]
    assert means.cbbt[:2].tolist() == [70.0, 72.0] and np.isnan(means.cbbt[3])


def test_seeds_are_tested_within_a_data_set_and_data_sets_among_each_other(runs):
    table = statistics.difference_table(runs, "cbbt", "adapter", 16)
    assert table.n.to_dict() == {"digits": 3, "shapes": 2, "all data sets": 2}
    within, line = stats.ttest_rel([61, 63, 65], [60, 61, 62]), table.loc["digits"]
    assert line["mean"] == pytest.approx(2) and line.p == pytest.approx(within.pvalue)
    assert (line.low, line.high) == pytest.approx(tuple(within.confidence_interval(0.95)))
    among, line = stats.ttest_1samp([2.0, -1.0], 0), table.loc["all data sets"]
    assert line["mean"] == pytest.approx(0.5) and line.p == pytest.approx(among.pvalue)
    assert np.isnan(table.loc["shapes", "p"])  # the same difference twice: no spread to test against


def test_the_interval_over_data_sets_is_the_mixed_models():
    """Coverage of the true mean where seeds of a data set have an effect in common; pairs taken as independent miss it."""
    draw, hits, pooled = np.random.default_rng(0), 0, 0
    for _ in range(400):
        effects = 0.5 + draw.normal(0, 1, 4)[:, None] + draw.normal(0, 0.3, (4, 5))
        values = {(f"d{k}", name): list(50 + (name == "cbbt") * effects[k]) for k in range(4) for name in ("adapter", "cbbt")}
        line = statistics.difference_table(runs_of(values), "cbbt", "adapter", 16).iloc[-1]
        hits += line.low < 0.5 < line.high
        low, high = stats.ttest_1samp(effects.ravel(), 0.5).confidence_interval(0.95)
        pooled += low < 0.5 < high
    assert 0.92 < hits / 400 < 0.98 and pooled / 400 < 0.75


def test_equality_needs_a_test_of_its_own():
    """Two one-sided tests: both p are those of scipy, and few data sets show neither difference nor equality."""
    close = {f"d{k}": [0.1 * k, 0.1 * k + 0.2, -0.1] for k in range(6)}
    runs = runs_of(
        {
            (name, method): [60 + d * (method == "cbbt") for d in values]
            for name, values in close.items()
            for method in ("adapter", "cbbt")
        }
    )
    means = [np.mean(values) for values in close.values()]
    line = statistics.difference_table(runs, "cbbt", "adapter", 16).iloc[-1]
    sides = stats.ttest_1samp(means, -1, alternative="greater").pvalue, stats.ttest_1samp(means, 1, alternative="less").pvalue
    assert line["p, equal"] == pytest.approx(max(sides)) and statistics.verdict(line).endswith("equal within ±1 point")
    apart = runs_of(
        {("a", "adapter"): [60.0, 61], ("a", "cbbt"): [61.0, 62.5], ("b", "adapter"): [60.0, 61], ("b", "cbbt"): [58.0, 60.5]}
    )
    assert "neither a difference nor equality is shown" in statistics.difference_sentence(apart, "cbbt", "adapter", 16)


def test_cells_are_mean_and_sample_deviation_with_the_number_of_seeds(runs):
    table = formatting.accuracy_table(runs, 16)
    assert table.loc["CBBT"].tolist() == ["63.0 ± 2.0", "80.0 ± 1.4 [2]", "71.0 ± 1.4 [2]", "3"]
    assert table.loc["Zero-shot CLIP"].tolist() == ["50.0", "70.0", "60.0", "–"]


def test_one_seed_has_no_spread_and_one_data_set_no_mean():
    table = formatting.accuracy_table(runs_of({("digits", "cbbt"): [61.04]}), 16)
    assert table.to_dict("list") == {"digits": ["61.0"], "seeds": ["1"]}


def test_a_method_without_every_data_set_has_no_mean():
    runs = runs_of({("digits", "cbbt"): [61.0], ("digits", "adapter"): [60.0], ("shapes", "adapter"): [70.0]})
    table = formatting.accuracy_table(runs, 16)
    assert table.loc["CBBT", ["shapes", "mean"]].tolist() == ["–", "–"]
    assert table.loc["Adapter only", "mean"] == "65.0"


def test_the_best_of_each_column_is_bold_and_ties_are_all_bold(runs):
    text = formatting.to_markdown(formatting.accuracy_table(runs, 16), "Caption.")
    bold = {line.split("|")[1].strip(): line.count("**") // 2 for line in text.splitlines() if line.startswith("| ")}
    assert bold == {"method": 0, "Zero-shot CLIP": 0, "Adapter only": 2, "CBBT": 1}
    assert text.endswith("\n\nCaption.\n")
    tied = formatting.to_markdown(formatting.accuracy_table(runs_of({("d", "cbbt"): [61.01], ("d", "adapter"): [61.04]}), 16))
    assert tied.count("**61.0**") == 2


def test_latex_is_a_booktabs_table_with_nothing_unescaped(runs):
    runs["dataset"] = runs.dataset.replace("digits", "hand_written")
    text = formatting.to_latex(formatting.accuracy_table(runs, 16), formatting.accuracy_caption(runs, 16))
    for part in (r"\toprule", r"\midrule", r"\bottomrule", r"hand\_written", r"\textbf{63.0 $\pm$ 2.0}", r"(\%)"):
        assert part in text
    assert "±" not in text and "−" not in text and "–" not in text


def test_the_caption_names_the_test_and_its_pairs(runs):
    caption = formatting.accuracy_caption(runs, 16)
    assert "Adapter only − CBBT" in caption and "over 2 data sets" in caption and "In brackets" in caption  # 71.5 against 71.0


@pytest.mark.parametrize(
    "differences, verdict", [([1.0, 1.1, 0.9], "points, a difference ("), ([1.0, -1.1, 0.4], "neither a difference")]
)
def test_the_sentence_calls_a_gain_a_gain_only_if_the_test_does(differences, verdict):
    runs = runs_of({("d", "adapter"): [60.0] * 3, ("d", "cbbt"): [60 + difference for difference in differences]})
    assert verdict in statistics.difference_sentence(runs, "cbbt", "adapter", 16)


def test_one_pair_gets_no_test():
    runs = runs_of({("d", "adapter"): [60.0], ("d", "cbbt"): [61.0]})
    assert "+1.00 points (1 seeds of d, no test)" in statistics.difference_sentence(runs, "cbbt", "adapter", 16)


def test_selection_table_counts_from_the_last_step(runs):
    table = tables.selection_table(runs, 16)
    assert list(table.index) == ["adapter", "cbbt"]
    assert table["validation − last"].tolist() == pytest.approx([1, 1])
    assert table["test − last"].tolist() == pytest.approx([2, 2])
    assert table.looks.tolist() == pytest.approx([20, 18])  # means over the runs: of three seeds twice, of three and two
    assert tables.selection_table(runs.drop(columns="test_accuracy_best_val"), 16).empty
    with pytest.raises(ValueError, match="the table lacks looks; its columns are dataset"):
        tables.selection_table(runs.drop(columns="looks"), 16)


def test_after_equal_steps_every_method_has_the_last_epoch_that_all_had_reached():
    """By hand: one method ends after 20 steps, the other counts its epochs in sixes."""
    key = {"dataset": "digits", "backbone": "mini", "shots": 16}
    rows = [
        key | {"method": method, "seed": seed, "epoch": epoch, "step": length * epoch, "test_accuracy": 10.0 * epoch + seed}
        for method, length, epochs in (("cbbt_prompt", 6, 9), ("true_gradient", 5, 4))
        for seed in (1, 2)
        for epoch in range(1, epochs + 1)
    ]
    curves = pd.DataFrame(rows)
    table = tables.after_equal_steps(curves, ["true_gradient", "cbbt_prompt"], 16)
    assert table.loc["digits"].to_dict() == {"step": 20, "true_gradient": 41.5, "cbbt_prompt": 31.5}  # 18 of 20 steps
    one_cut = curves[(curves.seed == 1) | (curves.step <= 10)]  # a run that ended early holds for all
    assert tables.after_equal_steps(one_cut, ["true_gradient", "cbbt_prompt"], 16).loc["digits", "step"] == 6
    with pytest.raises(ValueError, match="no curve of cbbt with shots=16"):
        tables.after_equal_steps(curves, ["true_gradient", "cbbt"], 16)


def test_what_cannot_be_compared_is_refused(runs):
    with pytest.raises(ValueError, match="lacks test_accuracy; its columns are dataset"):
        tables.scores(runs.drop(columns="test_accuracy"), 16)
    with pytest.raises(ValueError, match="no run has shots=4; the table has 16"):
        tables.scores(runs, 4)
    with pytest.raises(ValueError, match="no run of method 'coop4' .* zero_shot, adapter, cbbt"):
        statistics.differences(runs, "coop4", "cbbt", 16)
    with pytest.raises(ValueError, match="two rows of dataset=digits, .*method=zero_shot"):
        tables.scores(pd.concat([runs, runs]), 16)
    with pytest.raises(ValueError, match="mixes backbones RN50, mini"):
        tables.scores(pd.concat([runs, runs.assign(backbone="RN50")]), 16)
    with pytest.raises(ValueError, match="backbone='RN50', choose from mini"):
        tables.keep(runs, "RN50")
    with pytest.raises(FileNotFoundError, match="make reproduce"):
        tables.read_table("nowhere/runs.csv")


def test_keep_takes_one_backbone(runs):
    both = pd.concat([runs, runs.assign(backbone="RN50")])
    assert set(tables.keep(both, "RN50").backbone) == {"RN50"}
    assert tables.keep(pd.DataFrame(), "RN50").empty


def test_keep_takes_one_setting(runs):
    both = pd.concat([runs.assign(q=64, epsilon=np.nan), runs.assign(q=4, epsilon=0.1)])
    for settings in ({"q": 64}, {"epsilon": None}):
        pd.testing.assert_frame_equal(tables.keep(both, settings=settings)[list(runs)], runs)
    with pytest.raises(ValueError, match="no row has q=8, choose from 64, 4"):
        tables.keep(both, settings={"q": 8})
    with pytest.raises(ValueError, match="no column 'directions', choose from dataset, .*, q, epsilon"):
        tables.keep(both, settings={"directions": 8})


def test_a_table_without_rows_is_read_as_empty(tmp_path):
    pd.DataFrame().to_csv(tmp_path / "curves.csv", index=False)
    assert tables.read_table(tmp_path / "curves.csv").empty


def test_the_table_beside_is_read_on_the_same_tasks_and_backbones(runs, tmp_path):
    tables.write_table(
        pd.concat([runs.assign(dataset="other"), runs, runs.assign(backbone="RN50")]), tmp_path / "field" / "runs.csv"
    )
    beside = tables.read_beside(tmp_path / "peers", "field", runs)
    assert len(beside) == len(runs) and set(beside.dataset) == set(runs.dataset) and set(beside.backbone) == set(runs.backbone)
    none = tables.read_beside(tmp_path / "peers", "missing", runs)
    assert none.empty and list(none) == list(runs)


def test_a_table_as_parquet_keeps_types_and_gaps(tmp_path):
    table = pd.DataFrame({"method": ["a", "b"], "shots": [1, 16], "epsilon": [None, 0.1], "template": [None, "a {}"]})
    tables.write_table(table, tmp_path / "runs.parquet")
    back = tables.read_table(tmp_path / "runs.parquet")
    assert back.shots.tolist() == [1, 16] and back.template.isna().tolist() == [True, False]
    assert back.epsilon.iloc[1] == 0.1 and [path.name for path in tmp_path.iterdir()] == ["runs.parquet"]


NAMES = ["2024", "NA", "null", "1e5", "True", "a,b", '"', "数字", " x"]


def test_names_that_look_like_numbers_or_gaps_stay_names(tmp_path):
    runs = runs_of({(name, method): [60.0, 61.5] for name in NAMES for method in ("adapter", "cbbt")})
    runs["run_id"], runs["epsilon"], runs["commit"], runs["torch_version"] = runs.dataset, np.nan, "12e4567", "2.10"
    tables.write_table(runs, tmp_path / "runs.csv")
    back = tables.read_table(tmp_path / "runs.csv")
    pd.testing.assert_frame_equal(back, runs, check_dtype=False)
    assert back.shots.dtype.kind == "i" and back.epsilon.isna().all() and set(back.commit) == {"12e4567"}
    assert list(formatting.accuracy_table(back, 16)) == [*NAMES, "mean", "seeds"]


SPECIAL = r"a\b & 5% $x_1$ #{~}^2 |<>"


def test_latex_escapes_every_special_character(runs):
    runs = runs.replace({"dataset": {"digits": SPECIAL}, "backbone": {"mini": SPECIAL}, "method": {"cbbt": SPECIAL}})
    text = formatting.to_latex(formatting.accuracy_table(runs, 16), formatting.accuracy_caption(runs, 16))
    escaped = r"a\textbackslash{}b \& 5\% \$x\_1\$ \#\{\textasciitilde{}\}\textasciicircum{}2 $|$$<$$>$"
    assert text.count(escaped) >= 3 and SPECIAL not in text
    assert len([line for line in text.splitlines() if line.count(" & ") == 4]) == 4  # no cell more than before


def test_a_name_makes_no_column_of_its_own_in_markdown(runs):
    text = formatting.to_markdown(formatting.accuracy_table(runs.replace({"dataset": {"digits": "a|b $5-$10"}}), 16))
    assert r"a\|b \$5-\$10" in text


def test_the_table_is_written_in_utf8_whatever_the_locale(runs, tmp_path):
    runs = runs.replace({"dataset": {"digits": "数字"}})
    runs.to_csv(tmp_path / "runs.csv", index=False)
    code = "import sys; from cbbt.results import formatting, tables; " + (
        "formatting.write_accuracy_table(tables.read_table(sys.argv[1] + '/runs.csv'), 16, sys.argv[1], '-RN50')"
    )
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    subprocess.run([sys.executable, "-c", code, tmp_path], env=os.environ | ascii_only, check=True)
    assert "数字" in (tmp_path / "accuracy_table-RN50.md").read_text(encoding="utf-8")
    assert r"\label{tab:accuracy-RN50}" in (tmp_path / "accuracy_table-RN50.tex").read_text(encoding="utf-8")


def test_two_settings_of_one_run_are_refused_with_what_to_choose_from(runs):
    runs.insert(0, "q", 64)
    runs.insert(1, "epochs", 50)
    both = pd.concat([runs, runs[runs.method == "cbbt"].assign(q=4)])
    with pytest.raises(ValueError, match=r"two rows of dataset=digits, .*seed=1: keep the runs of one setting \(q: 64, 4\)$"):
        tables.scores(both, 16)


def test_zero_shot_runs_alone_make_a_table():
    runs = runs_of({("digits", "zero_shot"): [50.0, 50.0], ("shapes", "zero_shot"): [70.0, 70.0]})
    table = formatting.accuracy_table(runs, 0)
    assert table.loc["Zero-shot CLIP"].tolist() == ["50.0", "70.0", "60.0", "–"]
    assert "without training images, mini" in formatting.accuracy_caption(runs, 0)


def test_a_data_set_called_as_a_column_is_refused():
    with pytest.raises(ValueError, match="a data set has the name of a table column, mean.*another name"):
        tables.scores(runs_of({("mean", "cbbt"): [61.0]}), 16)


def test_each_backbone_is_a_part_of_its_own(runs):
    other = runs[runs.dataset == "shapes"].assign(backbone="hf-hub:timm/ViT", shots=runs.shots // 4)
    first, second = tables.by_backbone(pd.concat([runs, other]), pd.DataFrame(), dataset="digits")
    assert (first.title, first.suffix, first.shots, first.dataset) == ("mini", "-mini", 16, "digits")
    assert (second.title, second.suffix, second.shots, second.dataset) == ("hf-hub:timm/ViT", "-hf-hub-timm-ViT", 4, "shapes")
    (only,) = tables.by_backbone(runs, pd.DataFrame())
    assert (only.title, only.suffix) == ("", "") and len(only.runs) == len(runs)
    for empty in (pd.DataFrame(), runs.drop(columns="backbone")):
        with pytest.raises(ValueError, match="no rows|lacks backbone"):
            tables.by_backbone(empty, pd.DataFrame())


def test_a_missing_table_is_named_by_its_whole_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/my_tables/runs.csv does not exist"):
        tables.read_table("my_tables/runs.csv")
