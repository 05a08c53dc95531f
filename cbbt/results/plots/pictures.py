"""Figures of a task's images: shots, and their augmented views."""

from __future__ import annotations

from matplotlib.figure import Figure

from cbbt.data.cards import CARDS
from cbbt.results.plots.parts import NAME
from cbbt.results.plots.style import PAGE, in_style


def shots_figure(task, columns: int = 10) -> Figure:
    """One training shot of each of the first `columns` classes of a `Task`, with its class name; the title names the source."""
    firsts = {}
    for item in task.train:
        firsts.setdefault(item.label, item)
    items = [firsts[label] for label in sorted(firsts)[:columns]]
    captions = [item.class_name.replace("_", " ").replace(" ", "\n") for item in items]
    card = CARDS.get(task.name)
    title = f"{task.name}: {card.paper}, {card.licence}" if card and card.licence else task.name
    return row_of_pictures([item.image() for item in items], captions, title)


@in_style
def row_of_pictures(pictures, captions: list[str], title: str) -> Figure:
    """A page-wide row of pictures, as matplotlib's `imshow` takes them, each below its caption."""
    figure = Figure(figsize=(PAGE, PAGE / len(pictures) + 0.45))
    axes = figure.subplots(1, len(pictures), squeeze=False)[0]
    for picture, caption, axis in zip(pictures, captions, axes, strict=True):
        axis.imshow(picture, interpolation="nearest")
        axis.set_title(caption, fontsize=5.5, **NAME)
        axis.axis("off")
    figure.suptitle(title, x=0.01, ha="left", fontsize=8, **NAME)
    return figure
