"""The style of all figures, and how they are saved.

Seaborn's theme for papers, at the widths of two-column papers, in inches. The looks
of methods are in `cbbt.catalogue`.
"""

from __future__ import annotations

import functools
import unicodedata
import warnings
from hashlib import sha256
from pathlib import Path

import matplotlib.pyplot as plt
import matplotlib.style
import seaborn as sns
from matplotlib.font_manager import findfont, fontManager, get_font
from matplotlib.text import Text

COLUMN, PAGE = 3.25, 6.75  # inches: one column, both columns

SERIES = ("#0072B2", "#D55E00", "#009E73", "#56B4E9", "#FEB300", "#000000")  # for anything but methods; after Okabe & Ito (2008)
MARKERS = ("o", "s", "^", "D", "v", "P")

VENUES = {  # venue → width of a column and of the page in inches, font family, its size in points
    "acl": (3.03, 6.30, "serif", 8),
    "cvpr": (3.25, 6.875, "serif", 8),
    "icml": (3.25, 6.75, "serif", 8),
    "neurips": (5.5, 5.5, "serif", 8),
    "iclr": (5.5, 5.5, "serif", 8),
    "ieee": (3.5, 7.16, "sans-serif", 8),
}

THEME = sns.axes_style("whitegrid") | sns.plotting_context("paper", font_scale=8 / 9.6)  # seaborn's, with text of 8 points
STYLE = THEME | {
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 300,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # ships with matplotlib, so the same everywhere
    "font.serif": ["STIXGeneral"],  # resembles Times, and ships with matplotlib too
    "axes.edgecolor": "0.15",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 8,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "xtick.bottom": True,
    "xtick.major.size": 3,
    "xtick.minor.size": 1.5,
    "ytick.left": True,
    "ytick.major.size": 3,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "legend.frameon": False,
    "legend.title_fontsize": 7,
    "legend.fontsize": 7,
    "patch.force_edgecolor": False,
    "pdf.fonttype": 42,  # embed TrueType outlines, not Type 3
    "svg.hashsalt": "cbbt",
}


DEFAULTS = ["default", STYLE]  # matplotlib's defaults first, so that a user's matplotlibrc changes nothing


def use_style() -> None:
    """Set `STYLE`, on matplotlib's defaults, for this process."""
    matplotlib.style.use(DEFAULTS)


def in_style(draw):
    """Decorator of a function that draws a figure: `STYLE` on matplotlib's defaults, with a font for every character.

    The figure is closed in pyplot, where seaborn's grids register it; otherwise a notebook would show it twice.
    """

    @functools.wraps(draw)
    def drawn(*arguments, **options):
        with matplotlib.style.context(DEFAULTS):
            figure = draw(*arguments, **options)
            find_fonts(figure)
            plt.close(figure)
        return figure

    return drawn


def find_fonts(figure) -> None:
    """Give texts with characters that their font lacks, such as Chinese names, an installed font that has them.

    Warns, once for each script, if there is none: matplotlib then draws boxes.
    """
    for text in _texts(figure):
        if text.get_text().isascii():
            continue
        has = get_font(findfont(text.get_fontproperties())).get_charmap()
        lacking = "".join(sorted({letter for letter in text.get_text() if letter.isprintable() and ord(letter) not in has}))
        if lacking and (family := _family_with(lacking)):
            text.set_fontfamily([*text.get_fontfamily(), family])
        elif lacking:
            _warn_of_boxes(unicodedata.name(lacking[0], "unnamed").split()[0].split("-")[0])


def _texts(figure):
    """Texts that may hold a name; `findobj` would create ticks before the figure has its size."""
    yield from figure.texts
    for ax in figure.axes:
        yield from (ax.title, ax.xaxis.label, ax.yaxis.label, *ax.texts)
        yield from (tick.label1 for axis in (ax.xaxis, ax.yaxis) for tick in axis.majorTicks)
    for legend in [*figure.legends, *filter(None, (ax.get_legend() for ax in figure.axes))]:
        yield from (legend.get_title(), *legend.get_texts())


@functools.cache  # there are many installed fonts
def _family_with(characters: str) -> str | None:
    """The first family of regular fonts, by name, that has all these characters; DejaVu Sans before others."""
    wanted = {ord(letter) for letter in characters}
    fonts = {font.name: font.fname for font in fontManager.ttflist if font.weight == 400 and font.style == "normal"}
    for name in sorted(fonts, key=lambda name: (name != STYLE["font.sans-serif"][0], name)):
        try:
            if "LastResort" not in fonts[name] and wanted <= get_font(fonts[name]).get_charmap().keys():
                return name
        except (OSError, RuntimeError):  # a font that was removed, or a bitmap font
            continue
    return None


@functools.cache  # a warning for each script, not for each figure
def _warn_of_boxes(script: str) -> None:
    warnings.warn(
        f"no installed font has the {script} characters of some names, which are drawn as boxes: install one", stacklevel=2
    )


def fit_venue(figure, venue: str) -> None:
    """Give a figure the width and the font of a venue of `VENUES`; its height is kept.

    A figure as wide as a column or less becomes a column, any other one as wide as
    the page. Raises ValueError for an unknown venue, naming the choices.
    """
    if venue not in VENUES:
        raise ValueError(f"venue {venue!r} is unknown, choose from {', '.join(VENUES)}")
    column, page, family, size = VENUES[venue]
    wide = figure.get_figwidth() > max(COLUMN, column)
    figure.set_figwidth(page if wide else column)
    figure.draw_without_rendering()  # creates all ticks, as later ones would have the old font
    for text in figure.findobj(Text):
        text.set_fontfamily(STYLE[f"font.{family}"])
        text.set_fontsize(text.get_fontsize() * size / STYLE["font.size"])
    find_fonts(figure)


def save_figure(figure, name: str, folder: str | Path, venue: str = "") -> list[Path]:
    """Write `folder/name.pdf` and `.png`, fitted to a venue if one is named; byte-identical when nothing changed.

    Stores in `figure.files` the SHA-256 of each file by its name, so that a notebook can say which files its picture shows.
    """
    folder = Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    # No dates and no producer version in the files, so that equal figures give equal files.
    metadata = {"pdf": {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None}, "png": {"Software": None}}
    paths = [folder / f"{name}.{kind}" for kind in metadata]
    with matplotlib.style.context(DEFAULTS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # warned about once, by `find_fonts`
        if venue:
            fit_venue(figure, venue)
        for path, blank in zip(paths, metadata.values()):
            figure.savefig(path, metadata=blank)
    figure.files = {path.name: sha256(path.read_bytes()).hexdigest() for path in paths}
    return paths
