"""Validation accuracy against the prompt's rate, one line per estimate of the gradient."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from cbbt.results.estimators import TRUE
from cbbt.results.plots.parts import letters, tick_values
from cbbt.results.plots.style import MARKERS, PAGE, SERIES, in_style


@in_style
def accuracy_against_rate(table: pd.DataFrame) -> Figure:
    """A row per number of shots; on the left every step asks, with more or fewer directions, on the right one in three.

    `table`: of `cbbt.results.estimators.rate_table`. Lines are means over data sets and seeds;
    the true gradient stands in both columns, which share their axis.
    """
    shots, names = sorted(set(table.shots), reverse=True), list(dict.fromkeys(table.estimator))
    columns = {
        "every step, batches": [name for name in names if name.startswith("q =")],
        "one step in three, q = 7": [name for name in names if "," in name],
    }
    figure = Figure(figsize=(PAGE, 1.0 + 1.5 * len(shots)))
    axes = figure.subplots(len(shots), 2, squeeze=False, sharex=True, sharey="row")
    for row, count in zip(axes, shots):
        for ax, (title, own) in zip(row, columns.items()):
            order = [*own, TRUE]  # which is black, the last of the colours
            palette = dict(zip(order, [*SERIES[: len(own)], SERIES[-1]]))
            common = {"hue_order": order, "style_order": order, "palette": palette, "markers": dict(zip(order, MARKERS))}
            part = table[table.shots == count]
            sns.lineplot(part, x="prompt_lr", y="accuracy", hue="estimator", style="estimator", dashes=False, ax=ax, **common)
            ax.set(xscale="log", title=f"{title}, {count} shots", xlabel="rate of the prompt", ylabel="validation accuracy (%)")
            tick_values(ax.xaxis, table.prompt_lr)
            sns.move_legend(
                ax, "upper center", bbox_to_anchor=(0.5, -0.32), ncols=2, title="", columnspacing=0.8, handlelength=1.6
            )
            if count != shots[-1]:
                ax.get_legend().remove()
            ax.label_outer()
    letters(axes.flat)
    figure.suptitle("means over data sets and seeds", fontsize=7)
    return figure
