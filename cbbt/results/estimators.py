"""Accuracy of a prompt with each gradient estimator, at the estimator's own best learning rate.

Reads the table of runs of configs/estimators.yaml, evaluated on the validation pools;
notebook A3 shows it.
"""

from __future__ import annotations

import pandas as pd

from cbbt.results.choice import VALIDATION, candidates, leave_one_out, left_out_accuracy
from cbbt.results.formatting import shots_name
from cbbt.results.statistics import t_tests

TRUE = "true gradient"
PARTS = (  # each with one part more of CBBT on the support than the one before; the third is the method
    "sphere, batch",
    "sphere, whole support",
    "orthogonal, whole support",
    "remembering, whole support",
)


def estimator_name(run: pd.Series) -> str:
    """A run's estimator: the number of directions, or, if not every step queries, their family and scoring."""
    if run.method == "true_gradient":
        return TRUE
    if run.prompt_every == 1:
        return f"q = {run.q}"
    return f"{run.directions}, {'whole support' if run.scoring == 'support' else 'batch'}"


def rate_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Columns estimator, shots, prompt_lr, accuracy: validation accuracy in percent, mean over data sets and seeds."""
    named = runs.assign(estimator=runs.apply(estimator_name, axis=1))
    return named.groupby(["estimator", "shots", "prompt_lr"], sort=False)[VALIDATION].mean().rename("accuracy").reset_index()


def directions_table(runs: pd.DataFrame, method: str) -> pd.DataFrame:
    """Validation accuracy against the number of directions at one budget of loss queries.

    runs: of a search whose candidates differ in q under one budget (configs/search_peers.yaml), where more directions
    leave fewer steps. Runs that leave more than a twentieth of the budget are omitted; of several rates with one q the
    best for each data set is used. Columns: shots, dataset, q, accuracy (percent), ahead (points over the data set's
    mean over q). Raises ValueError for a table without such runs.
    """
    spent = runs[(runs.method == method) & (runs.loss_queries >= 0.95 * runs.max_loss_queries)]
    if spent.empty:
        raise ValueError(f"no run of {method!r} spends its budget of loss queries")
    table = spent.groupby(["shots", "dataset", "q"], sort=False)[VALIDATION].max().rename("accuracy").reset_index()
    return table.assign(ahead=table.accuracy - table.groupby(["shots", "dataset"]).accuracy.transform("mean"))


def estimator_table(runs: pd.DataFrame, shots: int, baseline: str) -> pd.DataFrame:
    """Each estimator with the rate chosen on the other data sets, at one number of shots.

    Columns: class prompts (of a fit, mean over data sets), accuracy (percent, mean over data
    sets), at the edge (number of data sets whose rate is the lowest or the highest tried), and
    the difference from `baseline` in points over data sets as in `statistics.difference_table`.
    """
    named = runs[runs.shots == shots].assign(estimator=lambda table: table.apply(estimator_name, axis=1))
    rows, reached = {}, {}
    for name, own in named.groupby("estimator", sort=False):
        table = candidates(own, ["prompt_lr"], own.method.iloc[0], shots)
        reached[name] = left_out_accuracy(table)
        edges = leave_one_out(table).isin((table.index.min(), table.index.max())).sum()
        rows[name] = {"class prompts": own.class_prompts.mean(), "accuracy": reached[name].mean(), "at the edge": edges}
    tests = {name: t_tests(reached[name] - reached[baseline]) for name in rows if name != baseline}
    return pd.DataFrame(rows).T.join(pd.DataFrame(tests).T)


def estimator_sentences(table: pd.DataFrame, shots: int) -> list[str]:
    """What fewer directions cost, what each part of CBBT on the support changes, and which class prompts are saved.

    table: of `estimator_table` for configs/estimators.yaml, at this number of shots, against q = 64.
    """
    reached, prompts, ahead = table.accuracy, table["class prompts"], table["mean"]
    scoring, orthonormal, reuse = reached[list(PARTS)].diff().iloc[1:]
    accuracies = ", ".join(f"{reached[f'q = {q}']:.1f}" for q in (64, 16, 4, 1))
    cheaper = {"q = 16 sends": "q = 16", "q = 4 sends": "q = 4", "q = 1 sends": "q = 1", "CBBT on the support": PARTS[2]}
    saved = [f"{who} one in {prompts['q = 64'] / prompts[name]:.0f} ({ahead[name]:+.1f} points)" for who, name in cheaper.items()]
    return [
        f"On validation with {shots_name(shots)} the true gradient reaches {reached[TRUE]:.1f} %, and q = 64, 16, 4 and 1 reach "
        f"{accuracies}: each at its own best rate.",
        f"With q = 7 one step in three, scoring on the whole support changes {scoring:+.1f} points, orthonormal directions "
        f"{orthonormal:+.1f} more, reusing the last estimate {reuse:+.1f} more.",
        f"Of the class prompts of q = 64, {', '.join(saved)}.",
    ]
