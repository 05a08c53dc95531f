"""Sentences with the numbers of notebook 4's figures: a figure's table in, text out.

`GRADIENTS` maps the name of a table of gradients to its sentence. For the difference of two methods see
`cbbt.results.statistics.difference_sentence`. Errors are those of `cbbt.results.tables`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pandas as pd

from cbbt.catalogue import UNTUNED, label
from cbbt.results.formatting import shots_name
from cbbt.results.statistics import LEVEL, difference_sentence, difference_table, differences, holm, peer_table, signed
from cbbt.results.tables import SCORE, SPLIT, gain_split, last_epoch, mean_over_datasets, scores, selection_table


def accuracy(runs: pd.DataFrame, shots: int, method: str) -> str:
    """The most accurate method, this one, and zero-shot; means over data sets and seeds."""
    means = mean_over_datasets(scores(runs, shots)).mean().dropna().sort_values(ascending=False, kind="stable")
    if means.empty:
        return "No method has a seed with every data set."
    named = dict.fromkeys([means.index[0], *means.index.intersection([method, "zero_shot"])])
    reached = ", ".join(f"{label(name)} {means[name]:.1f} %" for name in named)
    return f"At {shots_name(shots)}, mean over data sets: {reached}; the first is the highest of {_count(len(means), 'method')}."


def gain(runs: pd.DataFrame, shots: int, method: str) -> str:
    """CBBT's points over zero-shot, split into wording, prompt and adapter; without runs for the split, those of `method`."""
    if set(SPLIT) <= set(runs.method):
        line = gain_split(runs, shots).iloc[-1].map(partial(signed, digits=1))
        alone = f"a prompt alone adds {line.prompt}, an adapter alone {line.adapter}, both together {line.both}"
        return f"Of CBBT's {line['in all']} points over zero-shot, {line.wording} are the wording's; above it {alone}."
    points = differences(runs, method, "zero_shot", shots).groupby("dataset").difference.mean().mean()
    return f"{label(method)} gains {signed(points, 1)} points over zero-shot."


def peers(runs: pd.DataFrame, shots: int, method: str) -> str:
    """The number of significant differences to other tuned methods, and the largest difference."""
    table = peer_table(runs, method, shots)
    shown = [label(name) for name in table.index[table["p, Holm"] < LEVEL]]
    largest = table["mean"].abs().idxmax()
    others = _count(len(table), "difference")
    said = f"Of {others} between {label(method)} and another tuned method, shown after Holm's correction: {len(shown)}"
    listed = f" ({', '.join(shown)})" if shown else ""
    points = table["mean"][largest]
    return f"{said}{listed}; the largest is {signed(points, 1)} points {'over' if points > 0 else 'against'} {label(largest)}."


def queries(runs: pd.DataFrame, shots: int, method: str, baseline: str) -> str:
    """Class prompts of a whole fit of the two methods, mean over data sets and seeds."""
    spent = runs[(runs.shots == shots) & ~runs.method.isin(UNTUNED)].groupby("method").class_prompts.mean()
    named = [name for name in (method, baseline) if name in spent] or list(spent.index[:2])
    listed = "; ".join(f"{label(name)} {spent[name]:,.0f}" for name in named)
    return f"Class prompts encoded in one fit: {listed}." if named else ""


def curves(table: pd.DataFrame, dataset: str, shots: int, method: str) -> str:
    """Steps and test accuracy at the end of the curves of one data set: the highest, and this method's."""
    last = last_epoch(table, dataset, shots)
    if SCORE not in last:
        return ""
    ordered = last.sort_values(SCORE, ascending=False, kind="stable")
    named = dict.fromkeys([ordered.index[0], *ordered.index.intersection([method])])
    ends = "; ".join(f"{label(name)} {last[SCORE][name]:.1f} % after {last.step[name]:.0f} steps" for name in named)
    return f"At the end of the curves on {dataset}: {ends}; the first is the highest of {len(last)}."


def selection(runs: pd.DataFrame, shots: int, method: str) -> str:
    """What choosing the epoch on the test split, or on validation, adds to the last step's accuracy."""
    table = selection_table(runs, shots)
    if table.empty:
        return ""
    name = method if method in table.index else table.index[0]
    line = table.loc[name]
    test, validation = signed(line["test − last"]), signed(line["validation − last"])
    return (
        f"For {label(name)} the best of {line.looks:.0f} epochs on the test split has {test} points over the last step, the "
        f"best on validation {validation}."
    )


def _cosine(table: pd.DataFrame) -> str:
    means = table[table.family == "sphere"].groupby("q")[["cosine", "expected_cosine"]].mean()
    ends = [f"{line.cosine:.2f} at q = {q} (theory {line.expected_cosine:.2f})" for q, line in means.iloc[[0, -1]].iterrows()]
    return f"With directions on the sphere the cosine of the estimate rises from {' to '.join(ends)}."


def _epsilon(table: pd.DataFrame) -> str:
    means = table[table.differences == "forward"].groupby("epsilon").cosine.mean()
    good = means.index[means > means.max() - 0.02]
    within = f"within 0.02 of their best cosine, {means.max():.2f}"
    return f"Forward differences stay {within}, for ε from {good[0]:.2g} to {good[-1]:.2g} among those tried."


def _dimension(table: pd.DataFrame) -> str:
    longest = table[table.dimension == table.dimension.max()]
    norms = longest.groupby("factor").norm_ratio.agg(lambda ratios: (ratios**2).mean() ** 0.5)
    times = f"{norms['dimension']:.1f} times as long as the gradient, with the released factor {norms['released']:.1f} times"
    return f"At d = {longest.dimension.iloc[0]} the estimate with the factor d is {times}."


def _budget(table: pd.DataFrame) -> str:
    chosen = table[(table.budget == table.budget.max()) & (table.epsilon == table.epsilon.min())]
    means = chosen.groupby("differences").cosine.mean()
    reached = ", ".join(f"{value:.2f} by {name} differences" for name, value in means.items())
    return f"For {chosen.budget.iloc[0]} losses and the smallest ε the cosine is {reached}."


def _precision(table: pd.DataFrame) -> str:
    means = table[table.is_default].groupby("precision", sort=False).cosine.mean()
    listed = ", ".join(f"{name} {signed(value).removeprefix('+')}" for name, value in means.items())
    return f"Cosines at the default ε: {listed}."


def _batch(table: pd.DataFrame) -> str:
    means = table.groupby(["batch_size", "q"])[["estimator_error", "batch_error"]].mean()
    size, q = min(means.index, key=lambda pair: (abs(pair[0] - 32), -pair[1]))
    line = means.loc[(size, q)]
    errors = f"squared error of the estimator is {line.estimator_error:.2f}, that of the batch {line.batch_error:.2f}"
    return f"At a batch of {size} and q = {q} the {errors}."


def _landscape(table: pd.DataFrame) -> str:
    off = (table.loss - table.linear).abs().groupby(table.direction, sort=False).max()
    listed = ", ".join(f"{points:.2f} ({name})" for name, points in off.items())
    return f"Within a distance of {table.distance.max():g} the loss departs from its tangent by at most {listed}."


def _answers(table: pd.DataFrame) -> str:
    means = table.groupby(["q", "length"]).error.mean().unstack("length")
    length = min(means, key=lambda value: abs(value - 0.1))
    listed = ", ".join(f"{error:.2g} for q = {q}" for q, error in means[length].items())
    return f"For a step of {length:g} of the context's length, the predicted text features are off by {listed}."


def _descent(table: pd.DataFrame) -> str:
    last = table.sort_values("prompt_sets").groupby(["descent", "seed"], sort=False).tail(1)
    ends = last.groupby("descent", sort=False)[["loss", "prompt_sets"]].mean()
    listed = "; ".join(f"{name}: {line.loss:.2f} after {line.prompt_sets:,.0f} prompt sets" for name, line in ends.iterrows())
    return f"Loss of the support at the end: {listed}."


def _training(table: pd.DataFrame) -> str:
    last = table[table.step == table.step.max()].groupby("estimator").validation_accuracy.mean()
    reached = f"{last.max():.1f} % on validation with “{last.idxmax()}”, the best of {len(last)}, and {last['sphere']:.1f} %"
    return f"After {table.step.max()} steps a prompt has {reached} with “sphere”."


def difference_sentences(runs: pd.DataFrame, pairs: list[tuple[str, str, int]]) -> list[str]:
    """A sentence for each (method, baseline, shots), and how many of them show a difference, corrected for their number."""
    said = [f"{shots_name(pair[-1])}. {difference_sentence(runs, *pair)}" for pair in pairs]
    p = pd.Series([difference_table(runs, *pair).iloc[-1].p for pair in pairs])
    shown = int((holm(p) < LEVEL).sum())
    return [*said, f"Corrected for these {len(p)} comparisons (Holm 1979), {shown} of them show a difference."]


GRADIENTS: dict[str, Callable[[pd.DataFrame], str]] = {
    "gradient_cosine": _cosine,
    "gradient_epsilon": _epsilon,
    "gradient_dimension": _dimension,
    "gradient_budget": _budget,
    "gradient_precision": _precision,
    "gradient_batch": _batch,
    "gradient_landscape": _landscape,
    "gradient_answers": _answers,
    "gradient_answers_descent": _descent,
    "gradient_training": _training,
}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"
