"""Diagrams: CBBT's step, and what each method sends, receives and learns.

Coordinates are inches on a page-wide canvas. The diagram shows, from left to right, what the
user owns and sends, the wall with the served model behind it, and what the user does with
the features. The estimated gradient has the hue of the prompt side, the exact one that of the output side.
"""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle

from cbbt.catalogue import SHADES, method_order
from cbbt.results.peers import access_table
from cbbt.results.plots.parts import point
from cbbt.results.plots.style import PAGE, in_style

HEIGHT = 3.22
PROMPT, ADAPTER = SHADES["prompt"][0], SHADES["output"][0]
LINE = 0.25  # height of a method's card
TUNED, WALL, PLAIN = "#F7E3C6", "#262626", "#F4F4F4"


@in_style
def method_diagram() -> Figure:
    """CBBT's step: prompt gradients estimated from loss queries, adapter gradients exact."""
    figure = Figure(figsize=(PAGE, HEIGHT))
    figure.set_layout_engine("none")  # all positions are fixed
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, PAGE), ylim=(0, HEIGHT), aspect="equal")
    ax.set_axis_off()
    _prompts(ax)
    _images(ax)
    _wall(ax)
    _output_side(ax)
    _estimated_gradient(ax)
    _exact_gradient(ax)
    return figure


@in_style
def method_cards(*methods: str) -> Figure:
    """A line for each method of the catalogue, in its look: what it sends, what the box returns, and what it learns.

    Raises ValueError for no method.
    """
    names = method_order(methods)
    if not names:
        raise ValueError("there is no method to draw")
    height = LINE * (len(names) + 1.2)
    figure = Figure(figsize=(PAGE, height))
    figure.set_layout_engine("none")
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, PAGE), ylim=(0, height), aspect="equal")
    ax.set_axis_off()
    columns = {"method": (0.32, "left"), "sends": (3.32, "right"), "comes back": (4.26, "left"), "learns": (5.00, "left")}
    _box(ax, 3.60, 0.05, 0.36, height - 0.1, face=WALL, edge="black")
    ax.text(3.78, height / 2, "BOX", color="white", ha="center", va="center", fontsize=7, fontweight="bold")
    for title, (x, side) in columns.items():
        ax.text(x, height - 0.6 * LINE, title, ha=side, va="center", fontsize=7, fontweight="bold")
    table = access_table(names).reset_index()
    for row, (name, cells) in enumerate(zip(names, table[list(columns)].itertuples(index=False))):
        y = height - (row + 1.6) * LINE
        ax.plot(0.17, y, markersize=5.5, **point(name))
        for text, (x, side) in zip(cells, columns.values()):
            ax.text(x, y, text, ha=side, va="center", fontsize=7)
        _arrow(ax, (3.37, y), (3.58, y))
        _arrow(ax, (3.98, y), (4.20, y))
    return figure


def _prompts(ax) -> None:
    """The perturbed prompts as a stack of cards; only the context is tuned."""
    for shift in (0.14, 0.07):
        _box(ax, 0.08 + shift, 1.52 + shift, 2.06, 0.42, face="white", edge=PROMPT, line=0.7)
    _box(ax, 0.08, 1.52, 2.06, 0.42, face="white", edge=PROMPT)
    tokens = (("SOS", 0.32, PLAIN), ("$v_1$", 0.28, TUNED), ("…", 0.14, "white"), ("$v_M$", 0.28, TUNED))
    tokens += (("class $c$", 0.44, PLAIN), (".", 0.13, PLAIN), ("EOT", 0.32, PLAIN))
    x = 0.115
    for text, width, face in tokens:
        edge = "white" if face == "white" else "#8C8C8C"
        _box(ax, x, 1.61, width, 0.24, face=face, edge=edge, line=0.5, rounding=0.03)
        ax.text(x + width / 2, 1.73, text, ha="center", va="center", fontsize=6.3)
        x += width + 0.013
    prompts = "prompts with $v$ and $v + \\varepsilon u_1,\\, …,\\, v + \\varepsilon u_q$"
    ax.text(0.08, 2.17, prompts, fontsize=7.2, color=PROMPT, va="center")
    _arrow(ax, (2.30, 1.76), (2.55, 1.76))


def _images(ax) -> None:
    for shift in (0.14, 0.07, 0.0):
        picture = Rectangle((1.50 + shift, 0.46 + shift), 0.50, 0.44, facecolor="#DDE8EE", edgecolor="#5A5A5A")
        ax.add_patch(picture)
        picture.set_linewidth(0.7)
    hills = [(1.53, 0.49), (1.68, 0.71), (1.78, 0.59), (1.86, 0.68), (1.97, 0.49)]
    ax.add_patch(Polygon(hills, facecolor="#8FA9B8"))
    ax.add_patch(Circle((1.87, 0.80), 0.045, facecolor="#E69F00"))
    ax.text(1.42, 0.75, "batch of\nimages", ha="right", va="center", fontsize=7.2)
    _arrow(ax, (2.20, 0.75), (2.55, 0.75))


def _wall(ax) -> None:
    _box(ax, 2.57, 0.30, 1.36, 2.08, face=WALL, edge="black", line=1.2, rounding=0.08)
    ax.text(3.25, 2.21, "BLACK BOX", color="white", ha="center", va="center", fontsize=8, fontweight="bold")
    for y, text in ((1.76, "text encoder"), (0.75, "image encoder")):
        _box(ax, 2.74, y - 0.24, 1.02, 0.48, face="#4A4A4A", edge="#9A9A9A", line=0.7)
        ax.text(3.25, y, text, color="white", ha="center", va="center", fontsize=7.5)
    promise = "no weights, no gradients;\nevery query is counted"
    ax.text(3.25, 1.255, promise, color="#D5D5D5", ha="center", va="center", fontsize=6.5)


def _output_side(ax) -> None:
    """Features leave the box; the adapter and the loss are on the user's side."""
    _arrow(ax, (3.95, 1.76), (5.38, 1.76))
    ax.text(4.65, 1.83, "$t_c(v),\\; t_c(v + \\varepsilon u_i)$", ha="center", va="bottom", fontsize=7.5)
    _arrow(ax, (3.95, 0.75), (4.30, 0.75))
    ax.text(4.11, 0.81, "$f$", ha="center", va="bottom", fontsize=7.5)
    _box(ax, 4.32, 0.48, 0.74, 0.54, face="#D6E6F2", edge=ADAPTER)
    ax.text(4.69, 0.75, "adapter $A$", ha="center", va="center", fontsize=7.2, color=ADAPTER)
    ax.text(4.66, 1.09, "$f' \\propto r\\,A(f) + (1 - r)\\,f$", ha="center", va="bottom", fontsize=7)
    _arrow(ax, (5.08, 0.75), (5.38, 0.75))
    ax.text(5.21, 0.81, "$f'$", ha="center", va="bottom", fontsize=7.5)
    _box(ax, 5.40, 0.48, 1.27, 1.54, face=PLAIN, edge="#5A5A5A")
    ax.text(6.035, 1.83, "cross-entropy $L$ of", ha="center", va="center", fontsize=7.2)
    ax.text(6.035, 1.61, "$\\tau\\, f'\\!\\cdot t_c$", ha="center", va="center", fontsize=8.5)
    losses = "$L(v),\\; L(v + \\varepsilon u_1),$\n$…,\\; L(v + \\varepsilon u_q)$"
    ax.text(6.035, 1.22, losses, ha="center", va="center", fontsize=7.2, color=PROMPT)
    ax.text(6.035, 0.75, "$L(v)$", ha="center", va="center", fontsize=7.2, color=ADAPTER)
    for y in (1.44, 0.98):
        ax.plot([5.52, 6.55], [y, y], color="#BDBDBD", linewidth=0.7, marker="")


def _estimated_gradient(ax) -> None:
    """Losses go over the top of the wall to the prompts."""
    _box(ax, 2.02, 2.60, 2.46, 0.54, face="white", edge=PROMPT)
    quotient = "\\dfrac{L(v + \\varepsilon u_i) \\,-\\, L(v)}{\\varepsilon}"
    formula = f"$\\hat g \\,=\\, \\dfrac{{d}}{{q}}\\,\\sum_{{i=1}}^{{q}}\\, {quotient}\\; u_i$"
    ax.text(3.25, 2.87, formula, ha="center", va="center", fontsize=7.6)
    _path(ax, [(6.035, 2.04), (6.035, 2.87), (4.50, 2.87)], PROMPT)
    ax.text(5.26, 2.92, "$q + 1$ losses", ha="center", va="bottom", fontsize=7, color=PROMPT)
    _path(ax, [(2.00, 2.87), (1.31, 2.87), (1.31, 2.28)], PROMPT)
    ax.text(1.67, 2.92, "clip, Adam", ha="center", va="bottom", fontsize=7, color=PROMPT)
    ax.text(0.08, 2.87, "prompt:\nestimated gradient", ha="left", va="center", fontsize=7.2, fontweight="bold", color=PROMPT)


def _exact_gradient(ax) -> None:
    """The gradient goes from the loss back to the adapter, and not through the wall."""
    _path(ax, [(6.035, 0.46), (6.035, 0.14), (4.69, 0.14), (4.69, 0.46)], ADAPTER)
    ax.text(5.36, 0.18, "$\\nabla_{\\!A}\\,L(v)$, backpropagated", ha="center", va="bottom", fontsize=7, color=ADAPTER)
    ax.text(4.62, 0.14, "adapter: exact gradient", ha="right", va="center", fontsize=7.2, fontweight="bold", color=ADAPTER)


def _box(ax, x, y, width, height, *, face, edge, line=1.1, rounding=0.05) -> None:
    shape = f"round,pad=0,rounding_size={rounding}"
    ax.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=shape, facecolor=face, edgecolor=edge, linewidth=line))


def _arrow(ax, start, end, colour="#3A3A3A") -> None:
    ax.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=8, shrinkA=0, shrinkB=0, color=colour, linewidth=1.1)
    )


def _path(ax, points, colour) -> None:
    """A line through right angles that ends in an arrow."""
    xs, ys = zip(*points[:-1])
    ax.plot(xs, ys, color=colour, linewidth=1.1, marker="", solid_joinstyle="miter")
    _arrow(ax, points[-2], points[-1], colour)
