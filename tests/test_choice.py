"""Settings are chosen on validation, and on nothing else."""

import pandas as pd
import pytest

from cbbt.results.choice import best_setting, settings_table


def runs(judge="validation"):
    accuracy = {(1, 0.2): 70.0, (1, 0.5): 72.0, (4, 0.2): 72.0, (4, 0.5): 60.0}
    return pd.DataFrame(
        [
            {"method": "cbbt", "judge": judge, "dataset": dataset, "shots": shots, "seed": seed}
            | {"context_length": length, "adapter_ratio": ratio, f"{judge}_accuracy": value + seed + shots}
            for (length, ratio), value in accuracy.items()
            for dataset in ("digits", "shapes")
            for shots in (1, 4)
            for seed in (1, 2, 3)
        ]
    )


def test_the_best_mean_wins_and_ties_keep_their_order():
    fields = ["context_length", "adapter_ratio"]
    table = settings_table(runs(), fields, "cbbt")
    assert list(table.index) == [(1, 0.5), (4, 0.2), (1, 0.2), (4, 0.5)]
    assert table.loc[(1, 0.5)].tolist() == [75.0, 78.0, 76.5]
    assert best_setting(runs(), fields, "cbbt") == {"context_length": 1, "adapter_ratio": 0.5}


def test_test_accuracies_and_unknown_methods_are_refused():
    with pytest.raises(ValueError, match="judge=validation"):
        settings_table(runs("test"), ["context_length"], "cbbt")
    with pytest.raises(ValueError, match="choose from cbbt"):
        best_setting(runs(), ["context_length"], "coop")
    two = pd.concat([runs().assign(backbone=name) for name in ("RN50", "mini")])
    with pytest.raises(ValueError, match="mixes backbones RN50, mini"):
        best_setting(two, ["context_length"], "cbbt")
