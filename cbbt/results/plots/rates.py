"""Validation accuracy against the prompt's rate, one line per estimate of the gradient."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from cbbt.results.estimators import TRUE
from cbbt.results.plots.parts import COLOURS, MARKERS, legend
from cbbt.results.plots.style import PAGE, in_style

BLACK = "#000000"  # the true gradient's alone


@in_style
def accuracy_against_rate(table: pd.DataFrame) -> Figure:
    """A row per number of shots; on the left every step asks, with more or fewer directions, on the right one in three.

    `table`: of `cbbt.results.estimators.rate_table`. Lines are means over data sets and seeds;
    the true gradient stands in both columns.
    """
    shots, names = sorted(set(table.shots), reverse=True), list(dict.fromkeys(table.estimator))
    columns = {
        "every step, batches": [name for name in names if name.startswith("q =")],
        "one step in three, q = 7": [name for name in names if "," in name],
    }
    figure = Figure(figsize=(PAGE, 0.9 + 1.5 * len(shots)))
    axes = figure.subplots(len(shots), 2, squeeze=False, sharex=True, sharey="row")
    looks = [look for look in zip((*COLOURS, "#882255"), (*MARKERS, "8")) if look[0] != BLACK]
    look = {TRUE: (BLACK, "X")} | dict(zip(sum(columns.values(), []), looks))
    for row, count in zip(axes, shots):
        for ax, (title, own) in zip(row, columns.items()):
            for name in [TRUE, *own]:
                line = table[(table.estimator == name) & (table.shots == count)].sort_values("prompt_lr")
                ax.plot(line.prompt_lr, line.accuracy, color=look[name][0], marker=look[name][1], mec="white", mew=0.4)
            ax.set_xscale("log")
            ax.set_title(f"{title}, {count} shots")
        row[0].set_ylabel("validation accuracy (%)")
    rates = sorted(set(table.prompt_lr))
    for ax in axes[-1]:
        ax.set_xlabel("rate of the prompt")
        ax.set_xticks(rates, labels=[f"{rate:g}" for rate in rates])
        ax.xaxis.set_minor_locator(NullLocator())
    handles = [
        Line2D([], [], color=look[name][0], marker=look[name][1], label=name) for name in [TRUE, *sum(columns.values(), [])]
    ]
    legend(figure, [], handles, "means over data sets and seeds")
    return figure
