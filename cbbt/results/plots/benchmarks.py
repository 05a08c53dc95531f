"""Figure of the eleven benchmarks: published numbers of CLIP, and the kit's own runs."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from cbbt.catalogue import method_order
from cbbt.data.cards import CARDS
from cbbt.results.formatting import shots_name
from cbbt.results.plots.parts import NAME, category_axis, handle, legend, letters, looks, of_lines
from cbbt.results.plots.style import PAGE, in_style
from cbbt.results.tables import SCORE, require


@in_style
def benchmarks(references: pd.DataFrame, runs: pd.DataFrame, shots: int, methods: list[str]) -> Figure:
    """Accuracy of each method on each benchmark, joined by a line: published on the left, this kit's runs on the right.

    Both sides show the same methods if they have them, but different models and protocols: they are not to be
    compared. Rows are sorted by the published zero-shot accuracy; a benchmark without runs of the kit is empty on the
    right. Own marks are means over seeds. Needs columns dataset, backbone, method, shots, seed, test_accuracy.

    references: of `cbbt.results.published.references`, of one backbone. methods: six tuned ones at most, and zero-shot.
    Raises ValueError for more, or for a number of shots that neither side has.
    """
    require(runs, [SCORE])
    own = runs.rename(columns={SCORE: "accuracy"})
    sides = {f"published, CLIP {references.backbone.iloc[0]}": references, f"this kit, {runs.backbone.iloc[0]} model": own}
    table = pd.concat([side.assign(side=title) for title, side in sides.items()])
    table = table[table.dataset.isin(CARDS) & table.method.isin(methods) & table.shots.isin([0, shots])]
    of_lines(table, None)
    table = table.groupby(["side", "dataset", "method"], sort=False).accuracy.mean().reset_index()
    zero_shot = table[(table.side == next(iter(sides))) & (table.method == "zero_shot")].set_index("dataset").accuracy
    order = list(zero_shot.sort_values(kind="stable").index)
    figure = Figure(figsize=(PAGE, 1.2 + 0.2 * len(order)))
    axes = figure.subplots(1, 2, sharey=True)
    for ax, title in zip(axes, sides):
        part = table[(table.side == title) & table.dataset.isin(order)]
        part = part.assign(row=part.dataset.map(order.index))
        spans = part.groupby("row").accuracy.agg(["min", "max"])
        ax.hlines(spans.index, spans["min"], spans["max"], color="0.5", linewidth=0.8, zorder=1)
        sns.scatterplot(part, x="accuracy", y="row", s=24, linewidth=0.4, legend=False, zorder=2, ax=ax, **looks(part.method))
        ax.set(xlabel="test accuracy (%)", ylabel="", xlim=(0, 100))
        ax.set_title(title, **NAME)
    category_axis(axes[0], order)
    axes[1].grid(axis="y", visible=False)
    letters(axes)
    handles = [handle(method, "none") for method in method_order(table.method)]
    legend(figure, handles, f"{shots_name(shots)}; lines: from the least to the most accurate")
    return figure
