"""The look of every figure, and the one way to save one.

Widths are those of two-column papers, in inches. Colours are Okabe & Ito's
(2008), told apart by all common kinds of colour vision; lines differ in marker
as well, so that they can be read in grey.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from cycler import cycler

COLUMN, PAGE = 3.25, 6.75  # inches: one column, both columns

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C8C")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

STYLE = {
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 300,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # ships with matplotlib: the same everywhere
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.prop_cycle": cycler(color=COLOURS) + cycler(marker=MARKERS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E5E5E5",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # embed TrueType outlines, not Type 3
    "svg.hashsalt": "cbbt",
}


def use_style() -> None:
    """Make `STYLE` matplotlib's default for this process."""
    mpl.rcParams.update(STYLE)


def save_figure(figure, name: str, folder: str | Path) -> list[Path]:
    """Write `folder/name.pdf` and `.png`; byte-identical when nothing changed."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # No dates and no producer version in the files, or no two would be equal.
    metadata = {"pdf": {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None}, "png": {"Software": None}}
    paths = [folder / f"{name}.{kind}" for kind in metadata]
    with mpl.rc_context(STYLE):  # whatever the caller's settings, the same file
        for path, blank in zip(paths, metadata.values()):
            figure.savefig(path, metadata=blank)
    return paths
