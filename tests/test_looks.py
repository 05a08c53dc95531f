"""What stands in one panel is told apart: by colour, whatever the colour vision, and by marker."""

import ast
from itertools import combinations
from pathlib import Path

import nbformat
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.markers import MarkerStyle
from seaborn import color_palette

from cbbt.catalogue import CATALOGUE, SHADES, UNTUNED
from cbbt.methods import METHODS
from cbbt.results.plots.parts import DASHES, MOST, look
from cbbt.results.plots.style import MARKERS, SERIES

LEAST = 15  # of CIEDE2000
VISIONS = {  # Machado, Oliveira & Fernandes, IEEE TVCG 2009: what the eye makes of linear RGB, without one kind of cone
    "normal": np.eye(3),
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
}
XYZ = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
WHITE = [0.95047, 1.0, 1.08883]


def lab(colour: str, vision: str) -> np.ndarray:
    """CIELAB of a colour as one kind of eye sees it (IEC 61966-2-1, D65)."""
    encoded = np.array(to_rgb(colour))
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    xyz = XYZ @ np.clip(VISIONS[vision] @ linear, 0, 1) / WHITE
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def ciede2000(one, other) -> float:
    """The difference of two colours in CIELAB (Sharma, Wu & Dalal, Color Res. Appl. 2005)."""
    (l1, a1, b1), (l2, a2, b2) = one, other
    chroma = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    grey = 1.5 - 0.5 * np.sqrt(chroma**7 / (chroma**7 + 25**7))
    c1, c2 = np.hypot(grey * a1, b1), np.hypot(grey * a2, b2)
    h1, h2 = np.degrees(np.arctan2(b1, grey * a1)) % 360, np.degrees(np.arctan2(b2, grey * a2)) % 360
    turn = (h2 - h1 + 180) % 360 - 180 if c1 * c2 else 0.0
    hue = np.radians(h1 + turn / 2 if c1 * c2 else h1 + h2)
    lightness, chroma = (l1 + l2) / 2, (c1 + c2) / 2
    weight = 1 - 0.17 * np.cos(hue - np.radians(30)) + 0.24 * np.cos(2 * hue)
    weight += 0.32 * np.cos(3 * hue + np.radians(6)) - 0.20 * np.cos(4 * hue - np.radians(63))
    bend = (np.degrees(hue) % 360 - 275) / 25
    rotation = -2 * np.sqrt(chroma**7 / (chroma**7 + 25**7)) * np.sin(np.radians(60 * np.exp(-(bend**2))))
    light = (l2 - l1) / (1 + 0.015 * (lightness - 50) ** 2 / np.sqrt(20 + (lightness - 50) ** 2))
    strong = (c2 - c1) / (1 + 0.045 * chroma)
    tint = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn) / 2) / (1 + 0.015 * chroma * weight)
    return float(np.sqrt(light**2 + strong**2 + tint**2 + rotation * strong * tint))


def closest(colours: dict[str, str]) -> tuple[float, str, str, str]:
    """The least difference of any two of these colours, for any vision."""
    return min(
        (ciede2000(lab(colours[one], vision), lab(colours[other], vision)), one, other, vision)
        for one, other in combinations(colours, 2)
        for vision in VISIONS
    )


def drawn_together() -> list:
    """The lists of methods in the notebooks' cells, as many as a panel holds."""
    found = []
    for path in sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb")):
        for number, cell in enumerate(nbformat.read(path, as_version=4).cells):
            nodes = ast.walk(ast.parse(cell.source)) if cell.cell_type == "code" else ()
            for node in (node for node in nodes if isinstance(node, ast.List)):
                names = [each.value for each in node.elts if isinstance(each, ast.Constant)]
                if set(names) <= set(CATALOGUE) and 1 < len(set(names) - set(UNTUNED)) <= MOST:
                    found.append(pytest.param(names, id=f"{path.stem}-{number}-{names[-1]}"))
    return found


@pytest.mark.parametrize(
    "one, other, expected",
    [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_differences_of_colours_are_those_of_the_published_pairs(one, other, expected):
    """Sharma, Wu & Dalal, table 1."""
    assert ciede2000(one, other) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("methods", drawn_together())
def test_methods_in_one_panel_are_told_apart(methods):
    """With zero-shot's line, which stands in every panel of accuracies."""
    least, *which = closest({name: look(name)[0] for name in {*methods, "zero_shot"}})
    assert least >= LEAST, which


def test_other_series_are_told_apart():
    assert closest({colour: colour for colour in SERIES})[0] >= LEAST and len(MARKERS) == len(SERIES) == MOST
    directions = [*color_palette("cividis", 4).as_hex(), look("true_gradient")[0]]  # of the figure of rates
    assert closest({colour: colour for colour in directions})[0] >= LEAST


def test_every_kind_has_its_hue():
    """The first shade of each, as in the legend of the figure of prices, but for methods of one's own."""
    assert closest({kind: shades[0] for kind, shades in SHADES.items() if kind != "own"})[0] >= LEAST


def test_looks_are_one_for_each_method():
    """Of a kind no two share marker and shade; what is not tuned is a line without a marker, each with its dashes."""
    assert list(CATALOGUE) == list(METHODS)
    looks = {name: (entry.kind, entry.marker) for name, entry in CATALOGUE.items() if name not in UNTUNED}
    assert len(set(looks.values())) == len(looks)
    assert all(MarkerStyle(marker).is_filled() for _, marker in looks.values())  # seaborn does not mix filled and open ones
    assert {CATALOGUE[name].marker for name in UNTUNED} == {""}
    assert set(DASHES) == set(UNTUNED) and len(set(DASHES.values())) == len(UNTUNED)
    assert look("my_method") == look("my_method") and look("my_method")[0] in SHADES["own"]
