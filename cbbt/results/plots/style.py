"""The look of every figure, and the one way to save one.

Widths are those of two-column papers, in inches. Colours are Okabe & Ito's
(2008), told apart by all common kinds of colour vision; lines differ in marker
as well, so that they can be read in grey.
"""

from __future__ import annotations

import functools
import unicodedata
import warnings
from hashlib import sha256
from pathlib import Path

import matplotlib.style
from cycler import cycler
from matplotlib.font_manager import findfont, fontManager, get_font
from matplotlib.text import Text

COLUMN, PAGE = 3.25, 6.75  # inches: one column, both columns

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C8C")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

VENUES = {  # venue → width of a column and of the page in inches, font family, its size in points
    "acl": (3.03, 6.30, "serif", 8),
    "cvpr": (3.25, 6.875, "serif", 8),
    "icml": (3.25, 6.75, "serif", 8),
    "neurips": (5.5, 5.5, "serif", 8),
    "iclr": (5.5, 5.5, "serif", 8),
    "ieee": (3.5, 7.16, "sans-serif", 8),
}

STYLE = {
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 300,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # ships with matplotlib: the same everywhere
    "font.serif": ["STIXGeneral"],  # of the shape of Times, and ships with matplotlib too
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
    "axes.axisbelow": True,  # the grid lies under bars and bands
    "grid.color": "#E5E5E5",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # embed TrueType outlines, not Type 3
    "svg.hashsalt": "cbbt",
}


DEFAULTS = ["default", STYLE]  # matplotlib's own first: whatever the user's matplotlibrc says, the same figure


def use_style() -> None:
    """Make `STYLE`, on matplotlib's defaults, that of this process."""
    matplotlib.style.use(DEFAULTS)


def in_style(draw):
    """Decorator of a function that draws a figure: in `STYLE` on matplotlib's defaults, with a font for every character."""

    @functools.wraps(draw)
    def drawn(*arguments, **options):
        with matplotlib.style.context(DEFAULTS):
            figure = draw(*arguments, **options)
            find_fonts(figure)
        return figure

    return drawn


def find_fonts(figure) -> None:
    """Give texts with characters that their font lacks, such as Chinese names, an installed font that has them.

    Warns, once for each script, where there is none: matplotlib then draws boxes.
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
    """Texts that may hold a name; `findobj` would make ticks before the figure has its size."""
    yield from figure.texts
    for ax in figure.axes:
        yield from (ax.title, ax.xaxis.label, ax.yaxis.label, *ax.texts)
        yield from (tick.label1 for axis in (ax.xaxis, ax.yaxis) for tick in axis.majorTicks)
    for legend in [*figure.legends, *filter(None, (ax.get_legend() for ax in figure.axes))]:
        yield from (legend.get_title(), *legend.get_texts())


@functools.cache  # installed fonts are many
def _family_with(characters: str) -> str | None:
    """The first family of regular fonts, by name, that has all these characters; DejaVu Sans before others."""
    wanted = {ord(letter) for letter in characters}
    fonts = {font.name: font.fname for font in fontManager.ttflist if font.weight == 400 and font.style == "normal"}
    for name in sorted(fonts, key=lambda name: (name != STYLE["font.sans-serif"][0], name)):
        try:
            if "LastResort" not in fonts[name] and wanted <= get_font(fonts[name]).get_charmap().keys():
                return name
        except (OSError, RuntimeError):  # a font that was taken away, or of pictures
            continue
    return None


@functools.cache  # a warning for each script, not for each figure
def _warn_of_boxes(script: str) -> None:
    warnings.warn(
        f"no installed font has the {script} characters of some names, which are drawn as boxes: install one", stacklevel=2
    )


def fit_venue(figure, venue: str) -> None:
    """Give a figure the width and the font of a venue of `VENUES`; its height stays.

    A figure as wide as a column or less becomes a column, any other one as wide as
    the page. Raises ValueError for an unknown venue, naming the choices.
    """
    if venue not in VENUES:
        raise ValueError(f"venue {venue!r} is unknown, choose from {', '.join(VENUES)}")
    column, page, family, size = VENUES[venue]
    wide = figure.get_figwidth() > max(COLUMN, column)
    figure.set_figwidth(page if wide else column)
    for text in figure.findobj(Text):
        text.set_fontfamily(STYLE[f"font.{family}"])
        text.set_fontsize(text.get_fontsize() * size / STYLE["font.size"])
    find_fonts(figure)


def save_figure(figure, name: str, folder: str | Path, venue: str = "") -> list[Path]:
    """Write `folder/name.pdf` and `.png`, fitted to a venue if one is named; byte-identical when nothing changed.

    Notes in `figure.files` the SHA-256 of each file, by its name, so that a notebook can say of which files its picture is.
    """
    if venue:
        fit_venue(figure, venue)
    folder = Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    # No dates and no producer version in the files, or no two would be equal.
    metadata = {"pdf": {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None}, "png": {"Software": None}}
    paths = [folder / f"{name}.{kind}" for kind in metadata]
    with matplotlib.style.context(DEFAULTS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # said once, by `find_fonts`
        for path, blank in zip(paths, metadata.values()):
            figure.savefig(path, metadata=blank)
    figure.files = {path.name: sha256(path.read_bytes()).hexdigest() for path in paths}
    return paths
