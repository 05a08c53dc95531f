"""The field in one table: what each method needs, its accuracy and its cost.

Reads only the table of runs; notebook 05 shows it. Methods are grouped by what they
need from the box: the less a group needs, the more services it can use.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cbbt.catalogue import CATALOGUE, UNTUNED, label, method_order
from cbbt.results.formatting import accuracy_cell, shots_name, to_latex, to_markdown, write_texts
from cbbt.results.statistics import LEVEL
from cbbt.results.tables import SCORE, mean_over_datasets, require, scores

COST = {"learned": "learned parameters", "loss_queries": "loss queries", "class_prompts": "class prompts", "images": "images",
        "fit_seconds": "seconds", "peak_megabytes": "memory (MB)"}  # fmt: skip
PRICE = {name: COST[name] for name in ("loss_queries", "class_prompts", "images", "learned", "fit_seconds")}
ANSWERS = ("features", "logits", "losses", "gradients")  # those of a method's needs in the catalogue that the box returns
WHITE, FEATURES, PROMPTS, LOSSES, UNSAID = BLOCKS = (
    *("white box", "features alone", "+ prompts' features or logits", "+ losses or pixels"),
    "not said",  # methods of your own
)


def block(method: str) -> str:
    """The entry of `BLOCKS` for a method, by what it needs from the box according to the catalogue."""
    needs = set(CATALOGUE[method].access.split(", ")) if method in CATALOGUE else set()
    if "gradients" in needs:
        return WHITE
    if needs & {"losses", "pixels"}:
        return LOSSES
    if "token embeddings" in needs:
        return PROMPTS
    return FEATURES if needs else UNSAID


def access_table(methods) -> pd.DataFrame:
    """What each method sends to the box, what the box returns, and what the method learns; a row per method.

    All send images and class names; "sends" names them only if a method sends nothing else.
    """
    rows = {}
    for name in method_order(methods):
        needs = CATALOGUE[name].access.split(", ")
        sent = ", ".join(need for need in needs if need not in ANSWERS) or "images, class names"
        answers = ", ".join(need for need in needs if need in ANSWERS)
        rows[label(name)] = {"sends": sent, "comes back": answers, "learns": CATALOGUE[name].learns}
    return pd.DataFrame(rows).T.rename_axis("method")


def peers_table(runs: pd.DataFrame, shots: int) -> pd.DataFrame:
    """Accuracy and cost of each method at one number of shots, the most accurate first.

    Columns: what the box must take or give; the mean accuracy over all data sets in
    percent and its standard deviation over seeds; seeds; then means over all runs of
    `COST`. Raises ValueError if no run has these shots.
    """
    accuracy = mean_over_datasets(scores(runs, shots))
    chosen = runs[(runs.shots == shots) | runs.method.isin(UNTUNED)].groupby("method")
    table = pd.DataFrame(
        {
            "access": {name: CATALOGUE[name].access if name in CATALOGUE else "" for name in accuracy},
            "accuracy": accuracy.mean(),
            "sd": accuracy.std().where(~accuracy.columns.isin(UNTUNED)),
            "seeds": accuracy.count(),
        }
    )
    table = table.join(chosen[list(COST)].mean().rename(columns=COST)).sort_values("accuracy", ascending=False, kind="stable")
    return table.rename(index=label).rename_axis("method")


def field_table(runs: pd.DataFrame) -> pd.DataFrame:
    """The whole field as text cells: rows (block of `BLOCKS`, method), in each block the most accurate first.

    Columns: "1 shot", "4 shots", … (every number that the table has): the mean accuracy over all data sets in percent
    ± its sd over seeds, as in `formatting.accuracy_table`; "seeds", the maximum in the row. Then, at the most shots, means
    over all runs: queries at three grains, learned parameters, seconds. "–": no run, or no seed with every data set.
    Raises ValueError for a table that mixes backbones or has two rows of one run.
    """
    require(runs, [SCORE, *PRICE])
    counts = shots_in(runs)
    means = {shots: mean_over_datasets(scores(runs, shots)) for shots in counts}
    prices = runs[runs.shots.isin([0, counts[-1]])].groupby("method")[list(PRICE)].mean()
    reached = means[counts[-1]].mean().dropna()
    order = sorted(set(runs.method), key=lambda name: (BLOCKS.index(block(name)), -reached.get(name, 0.0)))
    table = pd.DataFrame(
        index=pd.MultiIndex.from_tuples([(block(name), label(name)) for name in order], names=["needs", "method"])
    )
    seeds = pd.DataFrame({shots: wide.count() for shots, wide in means.items()}).max(axis=1).astype(int)
    for shots, wide in means.items():
        columns = wide.reindex(columns=order)
        table[shots_name(shots)] = [accuracy_cell(columns[name].dropna(), seeds[name], name) for name in order]
    table["seeds"] = ["–" if name in UNTUNED else str(seeds[name]) for name in order]
    for column, title in PRICE.items():
        table[title] = [_number(prices[column].get(name)) for name in order]
    return table


def field_caption(runs: pd.DataFrame) -> str:
    """The caption of `field_table`."""
    *fewer, most = shots_in(runs)
    at = f" Queries, learned parameters and seconds at {shots_name(most)}." if fewer else ""
    over = f"mean over {runs.dataset.nunique()} data sets ± standard deviation over seeds"
    return f"Test accuracy (%), {runs.backbone.iloc[0]}, {over}, and its price, by what the box must give; best in bold.{at}"


def write_field_table(runs: pd.DataFrame, folder: str | Path) -> str:
    """Write the table of the field as `folder/field_table.md` and `.tex`, UTF-8, and return the former's text."""
    table, caption = field_table(runs), field_caption(runs)
    best = [shots_name(shots) for shots in shots_in(runs)]
    texts = {"md": to_markdown(table, caption, best), "tex": to_latex(table, caption, "tab:field", best)}
    return write_texts(texts, folder, "field_table")


def shots_in(runs: pd.DataFrame) -> list[int]:
    """The numbers of shots of a table's tuned runs, ascending. Raises ValueError if none is tuned."""
    counts = sorted(set(runs.shots[~runs.method.isin(UNTUNED)]))
    if not counts:
        raise ValueError("the table has no tuned method")
    return counts


def _number(value: float | None) -> str:
    """A mean count or seconds, as printed."""
    if pd.isna(value):
        return "–"
    digits = 0 if value >= 100 or value == round(value) else 1 if value >= 1 else 2
    return f"{value:,.{digits}f}"


def improves(runs: pd.DataFrame, dataset: str, shots: int) -> pd.Series:
    """Each method's mean gain over zero-shot on one data set, in points, the highest first.

    Raises ValueError for a table without zero-shot runs of it.
    """
    wide = scores(runs[runs.dataset == dataset], shots)
    if "zero_shot" not in wide:
        raise ValueError(f"no zero-shot run on {dataset!r}; the table has {', '.join(wide)}")
    gains = wide.sub(wide["zero_shot"], axis=0).drop(columns=list(UNTUNED), errors="ignore").mean()
    return gains.sort_values(ascending=False, kind="stable").rename(index=label)


def leaders_sentence(runs: pd.DataFrame, shots: int) -> str:
    """The three most accurate tuned methods of each block but the white box, in percent, mean over all data sets."""
    ranked = _means(runs, shots).drop(list(UNTUNED), errors="ignore").sort_values(ascending=False)
    named = {kind: [name for name in ranked.index if block(name) == kind][:3] for kind in BLOCKS if kind != WHITE}
    parts = [
        f"{kind}: " + ", ".join(f"{label(name)} {ranked[name]:.1f}" for name in names) for kind, names in named.items() if names
    ]
    return f"*{shots_name(shots)}*, mean over tasks in percent, the first three that need {'; '.join(parts)}."


def comparison_sentence(table: pd.DataFrame, method: str, shots: int) -> str:
    """Which methods `statistics.peer_table` shows to be ahead of `method`, behind it and equal to it; its rows are labels."""
    shown = table["p, Holm"] < LEVEL
    ahead, behind, equal = (
        ", ".join(table.index[rows]) or "none"
        for rows in (shown & (table["mean"] < 0), shown & (table["mean"] > 0), table["p, equal"] < LEVEL)
    )
    return (
        f"*{label(method)} against each other method at {shots_name(shots)}*, corrected for their number: shown to be ahead of "
        f"it: {ahead}; behind it: {behind}. Equal within a point (not corrected): {equal}."
    )


def references_sentence(runs: pd.DataFrame, shots: int) -> str:
    """What prompts reach through the white box, and the untouched box with and without the template, in percent."""
    means = _means(runs, shots)
    white = ", ".join(f"{label(name)} {means[name]:.1f}" for name in means.index if block(name) == WHITE) or "no run"
    template, bare = (means.get(name, float("nan")) for name in ("zero_shot", "zero_shot_bare"))
    return (
        f"*Through the white box* at {shots_name(shots)}, prompts alone: {white}; the untouched box has {template:.1f} with the "
        f"template and {bare:.1f} with the bare prompt."
    )


def _means(runs: pd.DataFrame, shots: int) -> pd.Series:
    """Accuracy in percent, mean over all data sets and seeds: of the methods with a seed that has every data set."""
    return mean_over_datasets(scores(runs, shots)).mean().dropna()
