"""The effect of each part of CBBT+: the prompt against its queries, and the whole without one part.

Reads the tables of configs/plus_parts.yaml (runs) and configs/field.yaml (curves); notebook A3 shows them.
"""

from __future__ import annotations

import json

import pandas as pd

from cbbt.catalogue import label, method_order
from cbbt.results.formatting import shots_name
from cbbt.results.statistics import LEVEL, MARGIN, difference_table, holm
from cbbt.results.tables import RUN, SCORE, require

WHOLE = "whole"
PROMPT, MEMORY = "prompt", "kept directions (prompt only)"
PARTS = (PROMPT, "kernel", "adapter", "map", "gda", MEMORY)  # in the order of tables and figures


def part_left_out(whole: dict, options: dict) -> str | None:
    """The entry of `PARTS` that a run lacks, from its options and the whole's; `WHOLE` if they are equal, else None."""
    changed = {name: options[name] for name in whole if options[name] != whole[name]}
    if not changed:
        return WHOLE
    if changed == {"prompt_weight": 0, "steps": 0}:
        return PROMPT
    if set(changed) == {"memory"}:
        return MEMORY
    left = [expert for expert in whole["experts"] if expert not in options["experts"]]
    return left[0] if set(changed) == {"experts"} and len(whole["experts"]) - len(options["experts"]) == len(left) == 1 else None


def with_parts(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with a column `part`: what they lack of the whole, the first run of their data set, method, shots and seed.

    Runs that differ otherwise are omitted: if the whole has two experts, three other ones are not a part of it.
    Raises ValueError for two runs of one data set, method, shots and seed that lack the same part.
    """
    runs = runs.drop_duplicates("run_id")  # some variants are equal to the whole
    options = runs.options.map(json.loads)
    wholes = options.groupby([runs[key] for key in RUN]).transform("first")
    table = runs.assign(part=[part_left_out(whole, own) for whole, own in zip(wholes, options)]).dropna(subset="part")
    require(table, [SCORE], [*RUN, "part"])
    return table


def part_pairs(table: pd.DataFrame, shots: int) -> dict[str, pd.DataFrame]:
    """For each part its pairs of runs at one number of shots, as methods "with" and "without" it.

    table: of `with_parts`. Each pair has the data sets that have a run without the part.
    """
    pairs = {}
    for part in PARTS:
        lacking = table[(table.part == part) & (table.shots == shots)]
        whole = table[
            (table.part == WHOLE)
            & (table.shots == shots)
            & table.method.isin(lacking.method)
            & table.dataset.isin(lacking.dataset)
        ]
        if len(lacking):
            pairs[part] = pd.concat([whole.assign(method="with"), lacking.assign(method="without")])
    return pairs


def part_table(table: pd.DataFrame) -> pd.DataFrame:
    """The effect of each part in points: the whole minus the whole without it, over data sets, each the mean over its seeds.

    table: of `with_parts`. Rows: (shots, part). Columns as in `cbbt.results.statistics.difference_table`, and
    "p, Holm": p corrected for all rows.
    """
    rows = {
        (shots, part): difference_table(pair, "with", "without", shots).iloc[-1]
        for shots in sorted(set(table.shots))
        for part, pair in part_pairs(table, shots).items()
    }
    differences = pd.DataFrame(rows).T.rename_axis(["shots", "part"])
    return differences.assign(**{"p, Holm": holm(differences.p)}).astype({"n": int})


def accuracy_by_sets(curves: pd.DataFrame, shots: int) -> pd.DataFrame:
    """Test accuracy (percent) against prompt sets queried: for each method and seed the mean over data sets.

    Columns: method, seed, prompt_sets, accuracy. At each number a run counts with its latest model, after its end with
    the last; lines begin where all runs of a method have a model. Each loss query of a method that tunes only a prompt
    is a prompt set. Needs columns dataset, backbone, method, shots, seed, epoch, loss_queries, test_accuracy.
    """
    require(curves, [SCORE, "loss_queries"], [*RUN, "epoch"])
    parts = []
    for method, rows in curves[curves.shots == shots].groupby("method", sort=False):
        wide = rows.pivot_table(index="loss_queries", columns=["dataset", "seed"], values=SCORE, aggfunc="last").ffill().dropna()
        means = wide.T.groupby(level="seed").mean().T.rename_axis("prompt_sets").stack().rename("accuracy")
        parts.append(means.reset_index().assign(method=method))
    return pd.concat(parts, ignore_index=True)


def sets_to_reach(table: pd.DataFrame, method: str, accuracy: float) -> float:
    """The fewest prompt sets after which a method's mean over seeds has reached an accuracy; NaN if it never does.

    table: of `accuracy_by_sets`.
    """
    means = table[table.method == method].groupby("prompt_sets").accuracy.mean()
    return means.index[means >= accuracy].min()


def reach_table(curves: pd.DataFrame, method: str, near: float = 0.5) -> pd.DataFrame:
    """The number of prompt sets after which `method` reaches the final accuracy of each other method, or comes near it.

    Rows: (shots, other method). Columns: accuracy (percent, of the other, mean over data sets and seeds), prompt sets
    (of the other's fit, mean over them), reached after and near after (prompt sets of `method`, NaN if never; near: within
    `near` points), "one in, reached" and "one in, near" (the other's prompt sets divided by these).
    Needs the columns of `accuracy_by_sets`.
    """
    rows = {}
    for shots, own in curves.groupby("shots"):
        table, asked = accuracy_by_sets(own, shots), own.groupby(["method", "dataset", "seed"]).loss_queries.max()
        for other in [name for name in method_order(own.method) if name != method]:
            last = table[table.method == other].groupby("seed").accuracy.last().mean()
            reached, close = (sets_to_reach(table, method, last - margin) for margin in (0, near))
            row = {"accuracy": last, "prompt sets": asked[other].mean(), "reached after": reached, "near after": close}
            ratios = {"one in, reached": row["prompt sets"] / reached, "one in, near": row["prompt sets"] / close}
            rows[shots, other] = row | ratios
    return pd.DataFrame(rows).T.rename_axis(["shots", "method"])


def reach_sentences(reached: pd.DataFrame, method: str) -> list[str]:
    """After how many prompt sets `method` is where each other method ends; a sentence per row of `reach_table`.

    The ratio is to the prompt sets of CBBT's prompt where the other is the true gradient, which has no box to ask.
    """
    full = reached["prompt sets"].xs("cbbt_prompt", level="method")  # by shots
    said = []
    for (shots, other), row in reached.iterrows():
        asked = full[shots] if other == "true_gradient" else row["prompt sets"]
        places = {"reaches that": row["reached after"], "comes within half a point": row["near after"]}
        words = [
            f"{what} after {sets:.0f} prompt sets, one in {asked / sets:.0f}" if sets > 0 else f"never {what}"
            for what, sets in places.items()
        ]
        end = f"{shots_name(shots)}. *{label(other)}* ends at {row.accuracy:.1f} %"
        said.append(f"{end}; *{label(method)}* {', '.join(words)} of CBBT's {asked:,.0f}.")
    return said


def part_sentences(differences: pd.DataFrame) -> list[str]:
    """What each part brings, a sentence per number of shots, and which differences are shown; of `part_table`."""
    said = []
    for shots, rows in differences.groupby(level="shots"):
        parts = [f"{part} {row['mean']:+.2f} ({row.low:+.2f} to {row.high:+.2f})" for (_, part), row in rows.iterrows()]
        what = "What each part of CBBT+ brings, in points with 95 % intervals over tasks"
        said.append(f"{shots_name(shots)}. {what}: {'; '.join(parts)}.")
    shown, equal = (
        ", ".join(f"{part} at {shots}" for shots, part in differences.index[differences[p] < LEVEL]) or "none"
        for p in ("p, Holm", "p, equal")
    )
    corrected = f"Of these {len(differences)} differences shown after Holm's correction: {shown}"
    return [*said, f"{corrected}; equal within ±{MARGIN:g} point, not corrected: {equal}."]
