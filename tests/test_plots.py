"""Figures from tables alone: what they draw, in all shapes a grid can have."""

import warnings
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.colors import same_color, to_rgb
from matplotlib.font_manager import fontManager
from matplotlib.text import Text

from cbbt.catalogue import CATALOGUE, UNTUNED
from cbbt.results import published
from cbbt.results.plots import accuracy, comparison, peers, speed, style
from cbbt.results.plots.benchmarks import benchmarks
from cbbt.results.plots.diagram import method_diagram
from cbbt.results.plots.style import COLUMN, PAGE, STYLE, VENUES, save_figure
from cbbt.results.statistics import difference_table
from cbbt.results.tables import read_table

DATA = Path(__file__).parent.parent / "figures" / "data"

GAINS = {"zero_shot": 0.0, "true_gradient": 9.0, "adapter": 8.0, "tip_adapter": 5.0, "cbbt": 10.0}
DATASETS = ("digits", "landcover", "textures", "shapes")


def grid(datasets=DATASETS, methods=tuple(GAINS), shots=(1, 16), seeds=(1, 2, 3), epochs=6):
    """Tables of runs and curves with noise of a point; adapters ask no prompts, Tip-Adapter has no epochs."""
    rng = np.random.default_rng(5)
    runs, curves = [], []
    for dataset in datasets:
        for method in methods:
            for k in (0,) if method in UNTUNED else shots:
                for seed in seeds:
                    key = {"dataset": dataset, "backbone": "mini", "method": method, "shots": k, "seed": seed}
                    accuracy = 50 + GAINS.get(method, 1.0) * np.log2(1 + k) / 4 + (rng.normal() if k else 0)
                    per_epoch = {"cbbt": 3250, "true_gradient": 50}.get(method, 0)
                    row = key | {"test_accuracy": accuracy, "images": 20 * k, "class_prompts": 10 + epochs * per_epoch}
                    row |= {"fit_seconds": 0.01 * (1 + per_epoch), "learned": 128 * (k > 0)}
                    if method not in (*UNTUNED, "tip_adapter"):
                        row |= {"test_accuracy_best_val": accuracy - 0.5, "test_accuracy_official_selection": accuracy + 1}
                    row["looks"] = epochs if "test_accuracy_best_val" in row else 0
                    if row["looks"]:
                        curves += [
                            key
                            | {"epoch": epoch, "step": 5 * epoch, "train_loss": 2 / epoch, "val_accuracy": accuracy}
                            | {"test_accuracy": accuracy - 6 + epoch, "class_prompts": 10 + epoch * per_epoch}
                            | {"loss_queries": epoch * per_epoch // 10, "images": 20 * k}
                            for epoch in range(1, epochs + 1)
                        ]
                    runs.append(row)
    return pd.DataFrame(runs), pd.DataFrame(curves)


RUNS, CURVES = grid()
KINDS = {"prompts": ["zero_shot", "true_gradient"], "sides": ["adapter", "tip_adapter", "cbbt"]}
REFERENCES = pd.DataFrame(
    [("Zero-shot CLIP", "zero_shot", 0, 41.0), ("BBT", "bbt", 16, 60.0)]
    + [("Tip-Adapter", "tip_adapter", shots, accuracy) for shots, accuracy in ((16, 63.0), (1, 57.0), (8, 61.0))],
    columns=["name", "method", "shots", "accuracy"],
).assign(backbone="RN50", dataset="digits")
CLIP = published.references("RN50")
FIGURES = {  # name → function of (runs, curves)
    "accuracy_against_shots": lambda runs, curves: accuracy.accuracy_against_shots(runs),
    "accuracy_by_kind": lambda runs, curves: accuracy.accuracy_by_kind(runs, KINDS, REFERENCES),
    "accuracy_against_queries": lambda runs, curves: accuracy.accuracy_against_queries(curves, 16),
    "accuracy_against_loss_queries": lambda runs, curves: accuracy.accuracy_against_queries(curves, 16, None, "loss_queries"),
    "training_curves": lambda runs, curves: accuracy.training_curves(curves, "digits", 16),
    "gain_over_zero_shot": lambda runs, curves: comparison.gain_over_zero_shot(runs, 16, ("cbbt", "adapter")),
    "gain_over_peers": lambda runs, curves: comparison.gain_over_peers(runs, 16),
    "accuracy_against_price": lambda runs, curves: peers.accuracy_against_price(runs, 16),
    "selection_comparison": lambda runs, curves: comparison.selection_comparison(runs, 16),
    "selection_gains": lambda runs, curves: comparison.selection_gains(runs, 16),
    "paired_differences": lambda runs, curves: comparison.paired_differences(runs, 16),
    "benchmarks": lambda runs, curves: benchmarks(CLIP, runs.replace({"dataset": {"digits": "eurosat"}}), 16, list(GAINS)),
    "differences_by_shots": lambda runs, curves: comparison.differences_by_shots(runs),
    "method_diagram": lambda runs, curves: method_diagram(),
}
NEEDS = {
    "accuracy_against_shots": "test_accuracy",
    "accuracy_by_kind": "test_accuracy",
    "accuracy_against_queries": "class_prompts",
    "accuracy_against_loss_queries": "loss_queries",
    "training_curves": "train_loss",
    "gain_over_zero_shot": "test_accuracy",
    "gain_over_peers": "test_accuracy",
    "accuracy_against_price": "learned",
    "selection_comparison": "test_accuracy_best_val",
    "selection_gains": "looks",
    "paired_differences": "seed",
    "differences_by_shots": "seed",
    "benchmarks": "test_accuracy",
}


USERS = {  # lines of a matplotlibrc that would change a figure, or end it
    **{"savefig.bbox": "tight", "savefig.transparent": True, "savefig.format": "svg", "figure.autolayout": True},
    **{"pdf.compression": 0, "pdf.fonttype": 3, "text.usetex": True, "text.parse_math": False, "font.family": "serif"},
    **{"axes.formatter.use_mathtext": True, "axes.xmargin": 0.3, "font.size": 20, "axes.grid": False, "savefig.dpi": 30},
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_drawn_again_is_the_same_file_and_has_a_paper_width(name, tmp_path):
    with mpl.rc_context(USERS):
        figure = FIGURES[name](RUNS, CURVES)
        own = save_figure(figure, name, tmp_path / "own")
        assert mpl.rcParams["text.usetex"]  # the user's settings stay theirs
    plain = save_figure(FIGURES[name](RUNS, CURVES), name, tmp_path / "plain")
    assert [path.read_bytes() for path in own] == [path.read_bytes() for path in plain]
    assert figure.get_figwidth() in (COLUMN, PAGE)


@pytest.mark.parametrize("name", NEEDS)
def test_a_missing_column_is_named(name):
    column = NEEDS[name]
    with pytest.raises(ValueError, match=f"the table lacks {column}; its columns are .*dataset"):
        FIGURES[name](RUNS.drop(columns=column, errors="ignore"), CURVES.drop(columns=column, errors="ignore"))


SHAPES = {
    "one data set": grid(datasets=("digits",)),
    "one seed": grid(seeds=(1,)),
    "eleven data sets": grid(datasets=("digits", *(f"benchmark_{i}" for i in range(10))), seeds=(1, 2), epochs=2),
    "missing runs": tuple(table[~((table.dataset == "shapes") & (table.seed == 2))] for table in (RUNS, CURVES)),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NEEDS)
def test_every_shape_of_grid_is_drawn_without_warnings_and_without_overlap(shape, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = FIGURES[name](*SHAPES[shape])
        figure.draw_without_rendering()
    assert overlapping_texts(figure) == [] and clipped_texts(figure) == []


def clipped_texts(figure) -> list[str]:
    """Titles and axis labels that reach beyond the page."""
    texts = [text for ax in figure.axes if ax.axison for text in (ax.title, ax.xaxis.label, ax.yaxis.label)]
    texts = [text for text in texts if text.get_text().strip()]
    boxes = [text.get_window_extent().shrunk(0.98, 0.98) for text in texts]
    page = figure.bbox
    return [
        text.get_text()
        for text, box in zip(texts, boxes)
        if not (page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1)
    ]


def overlapping_texts(figure) -> list[tuple[str, str]]:
    """Pairs of titles, axis labels, tick labels and legend entries whose boxes intersect."""
    texts = []
    for ax in figure.axes:
        if ax.axison:
            texts += [ax.title, ax.xaxis.label, ax.yaxis.label, *tick_labels(ax.xaxis), *tick_labels(ax.yaxis)]
        texts += ax.get_legend().get_texts() if ax.get_legend() else []
    texts += [text for legend in figure.legends for text in legend.get_texts()]
    texts = [text for text in texts if text.get_text().strip() and text.get_visible()]
    boxes = [text.get_window_extent().shrunk(0.98, 0.8) for text in texts]
    return [
        (texts[i].get_text(), texts[j].get_text()) for i in range(len(texts)) for j in range(i) if boxes[i].overlaps(boxes[j])
    ]


def tick_labels(axis) -> list:
    low, high = sorted(axis.get_view_interval())
    return [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]


def lines_of(ax, method):
    return [line for line in ax.lines if same_color(line.get_color(), CATALOGUE[method].colour)]


def dots_of(ax, colour):
    """The points of seaborn's strips and scatters in one colour: (x, y) pairs."""
    found = [each for each in ax.collections if len(each.get_offsets()) and len(each.get_facecolor())]
    return np.concatenate([each.get_offsets().data for each in found if same_color(each.get_facecolor()[0][:3], to_rgb(colour))])


def test_lines_are_means_over_seeds_with_a_band():
    ax = accuracy.accuracy_against_shots(RUNS).axes[0]
    expected = RUNS[(RUNS.dataset == "digits") & (RUNS.method == "cbbt")].groupby("shots").test_accuracy
    (line,) = lines_of(ax, "cbbt")
    assert line.get_xydata().tolist() == pytest.approx(expected.mean().reset_index().to_numpy())
    (band,) = [each for each in ax.collections if same_color(each.get_facecolor()[0][:3], CATALOGUE["cbbt"].colour)]
    edges = band.get_paths()[0].vertices
    top = edges[edges[:, 0] == 16, 1].max()
    assert top == pytest.approx(expected.mean()[16] + expected.std()[16])


def test_the_mean_panel_leaves_out_seeds_without_every_data_set():
    runs, _ = SHAPES["missing runs"]
    figure = accuracy.accuracy_against_shots(runs)
    panel = next(ax for ax in figure.axes if ax.get_title() == "mean")
    complete = RUNS[(RUNS.method == "cbbt") & (RUNS.shots == 16) & (RUNS.seed != 2)].test_accuracy.mean()
    assert lines_of(panel, "cbbt")[0].get_ydata()[-1] == pytest.approx(complete)


def test_each_kind_has_its_own_methods_and_what_is_published_of_them():
    """Published numbers stand open at their shots, where the runs have those, and enter no other kind, set or line."""
    figure = accuracy.accuracy_by_kind(RUNS, KINDS, REFERENCES)
    prompts, sides, other = figure.axes[0], figure.axes[1], figure.axes[len(KINDS) + 1]  # the third one is of landcover
    assert [ax.get_title() for ax in (prompts, sides)] == list(KINDS)
    own, theirs = lines_of(sides, "tip_adapter")
    means = RUNS[(RUNS.dataset == "digits") & (RUNS.method == "tip_adapter")].groupby("shots").test_accuracy.mean()
    assert own.get_xydata().tolist() == pytest.approx(means.reset_index().to_numpy()) and own.get_linestyle() == "-"
    assert theirs.get_xydata().tolist() == [[1, 57], [16, 63]]  # sorted, without the 8 shots that no run has
    assert (theirs.get_linestyle(), theirs.get_markerfacecolor()) == (":", "white")
    assert {line.get_linestyle(): line.get_ydata()[0] for line in lines_of(prompts, "zero_shot")} == {"--": 50.0, ":": 41.0}
    assert [line.get_linestyle() for line in lines_of(other, "tip_adapter")] == ["-"]
    assert not lines_of(prompts, "tip_adapter") and not lines_of(sides, "zero_shot") and not lines_of(sides, "bbt")
    assert sides.get_ylim() == prompts.get_ylim() != other.get_ylim()


def test_the_legend_of_a_kind_marks_what_is_published_as_another_models():
    figure = accuracy.accuracy_by_kind(RUNS, KINDS, REFERENCES)
    texts = [[text.get_text() for text in ax.get_legend().get_texts()] for ax in figure.axes[-len(KINDS) :]]
    tuned, published = [CATALOGUE[name].label for name in KINDS["sides"]], "CLIP RN50, published:"
    assert texts[1] == [*sorted(tuned, key=[entry.label for entry in CATALOGUE.values()].index), published, "Tip-Adapter"]
    assert texts[0] == ["Zero-shot CLIP", "True gradient (white box)", published, "Zero-shot CLIP"]
    without = accuracy.accuracy_by_kind(RUNS, KINDS, REFERENCES[:0])
    assert not any(published in text.get_text() for text in without.findobj(Text))
    with pytest.raises(ValueError, match="no row of method 'cbtt'"):
        accuracy.accuracy_by_kind(RUNS, {"mine": ["cbtt"]}, REFERENCES)


def test_a_choice_of_the_epoch_is_drawn_as_what_it_adds_on_each_data_set():
    runs = RUNS.assign(looks=RUNS.looks.where(RUNS.dataset != "shapes", 100))
    on_test = "test_accuracy_official_selection"
    runs.loc[runs.dataset == "shapes", on_test] = runs.test_accuracy + runs.seed  # 1, 2 and 3 points
    panels = {ax.get_title(): ax for ax in comparison.selection_gains(runs, 16).axes if ax.axison}
    assert set(panels) == set(DATASETS)
    rows = [text.get_text() for text in panels["digits"].get_yticklabels()]
    assert rows == [CATALOGUE[name].label for name in ("true_gradient", "adapter", "cbbt")]  # Tip-Adapter has no epochs
    for name, means, seeds, looks in (("digits", [-0.5, 1], [1, 1, 1], "6"), ("shapes", [-0.5, 2], [1, 2, 3], "100")):
        drawn = {line.get_marker(): line.get_xdata() for line in panels[name].lines if len(line.get_xdata()) == len(rows)}
        assert [drawn["D"][2], drawn["X"][2]] == pytest.approx(means)
        dots = dots_of(panels[name], comparison.CHOICES[on_test][0])
        assert sorted(x for x, y in dots if round(y) == 2) == pytest.approx(seeds)
        assert [text.get_text() for text in panels[name].texts] == [looks] * len(rows)


def test_a_method_that_asks_no_prompts_is_a_dotted_line():
    ax = accuracy.accuracy_against_queries(CURVES, 16).axes[0]
    last = CURVES[(CURVES.dataset == "digits") & (CURVES.method == "adapter") & (CURVES.shots == 16) & (CURVES.epoch == 6)]
    (dotted,) = [line for line in lines_of(ax, "adapter") if line.get_linestyle() == ":"]
    assert dotted.get_ydata()[0] == pytest.approx(last.test_accuracy.mean())
    assert not [line for line in lines_of(ax, "cbbt") if line.get_linestyle() == ":"]


def test_bars_are_sorted_gains_and_every_seed_is_a_dot():
    ax = comparison.gain_over_zero_shot(RUNS, 16).axes[0]
    widths = [bar.get_width() for bar in ax.patches]
    assert widths[:-1] == sorted(widths[:-1], reverse=True) and widths[-1] == pytest.approx(np.mean(widths[:-1]))
    assert len(dots_of(ax, CATALOGUE["cbbt"].colour)) == 3 * (len(DATASETS) + 1)


def test_gains_of_no_method_are_refused():
    with pytest.raises(ValueError, match="name at least one method to draw"):
        comparison.gain_over_zero_shot(RUNS, 16, [])


def test_every_pair_is_a_dot():
    ax = comparison.paired_differences(RUNS, 16, "cbbt", "adapter").axes[0]
    wide = RUNS[RUNS.shots == 16].pivot(index=["dataset", "seed"], columns="method", values="test_accuracy")
    drawn = [x for x, _ in dots_of(ax, CATALOGUE["cbbt"].colour)]
    pairs = wide.cbbt - wide.adapter
    assert sorted(drawn) == pytest.approx(sorted([*pairs, *pairs.groupby("dataset").mean()]))


def test_intervals_are_those_of_the_table():
    ax = comparison.paired_differences(RUNS, 16, "cbbt", "adapter").axes[0]
    bars = [sorted(line.get_xdata()) for line in ax.lines if len(line.get_xdata()) == 2 and line.get_color() == "black"]
    bars = sum(sorted(bar for bar in bars if bar[0] < bar[1] and bar != [0, 1]), [])  # without the lines across the panel
    table = difference_table(RUNS, "cbbt", "adapter", 16)
    assert bars == pytest.approx(table.sort_values("low")[["low", "high"]].to_numpy().ravel())


def test_a_method_is_compared_with_every_other_but_zero_shot():
    ax = comparison.gain_over_peers(RUNS, 16).axes[0]
    wide = RUNS[RUNS.shots == 16].pivot(index=["dataset", "seed"], columns="method", values="test_accuracy")
    gains = wide.rsub(wide.cbbt, axis=0).groupby("dataset", sort=False).mean()[["true_gradient", "adapter", "tip_adapter"]]
    order = gains.mean().sort_values(ascending=False)
    assert [text.get_text() for text in ax.get_yticklabels()] == [CATALOGUE[name].label for name in order.index]
    symbols = {y: sorted(x for x, row in dots_of(ax, "0.45") if row == y) for y in range(3)}
    assert symbols[0] == pytest.approx(sorted(gains[order.index[0]]))
    means = [np.nanmax(line.get_xdata()) for line in ax.lines if line.get_marker() == "D"]
    assert sorted(means) == pytest.approx(sorted(order))
    with pytest.raises(ValueError, match="no other method shares"):
        comparison.gain_over_peers(RUNS[RUNS.method.isin(["zero_shot", "cbbt"])], 16)


def test_a_panel_holds_six_lines_at_most():
    many = pd.concat([RUNS, *(RUNS[RUNS.method == "cbbt"].assign(method=f"mine_{number}") for number in range(3))])
    with pytest.raises(ValueError, match="at most 6 lines: choose methods from true_gradient, adapter"):
        accuracy.accuracy_against_shots(many)
    assert accuracy.accuracy_against_shots(many, ["cbbt", "mine_1"]).axes


def test_benchmarks_stand_where_they_were_published_and_where_the_kit_ran():
    runs = RUNS[RUNS.dataset == "digits"].assign(dataset="eurosat")
    theirs, ours = benchmarks(CLIP, runs, 16, ["zero_shot", "tip_adapter", "tip_adapter_f", "cbbt"]).axes
    names = [text.get_text() for text in theirs.get_yticklabels()]
    zero_shot = CLIP[CLIP.method == "zero_shot"].set_index("dataset").accuracy
    assert names == list(zero_shot.sort_values().index)
    marks = [(x, names[int(y)]) for each in theirs.collections[1:] for x, y in each.get_offsets()]
    assert len(marks) == 2 * len(names) and {(x, name) for name, x in zero_shot.items()} <= set(marks)
    own = sorted(x for each in ours.collections[1:] for x, _ in each.get_offsets())
    means = runs[runs.shots.isin([0, 16])].groupby("method").test_accuracy.mean()
    assert own == pytest.approx(sorted(means[["zero_shot", "tip_adapter", "cbbt"]]))


def test_zero_shot_and_its_bare_row_are_lines_of_their_own():
    bare = RUNS[RUNS.method == "zero_shot"].assign(method="zero_shot_bare", test_accuracy=40.0)
    ax = accuracy.accuracy_against_shots(pd.concat([RUNS, bare])).axes[0]
    heights = {line.get_linestyle(): line.get_ydata()[0] for line in ax.lines if line.get_linestyle() in ("--", ":")}
    assert heights == {"--": pytest.approx(50.0), ":": 40.0}


def test_wrong_names_and_numbers_are_met_with_the_choices():
    with pytest.raises(ValueError, match="no row of method 'cbtt'; the table has .*cbbt"):
        accuracy.accuracy_against_shots(RUNS, ["cbtt"])
    with pytest.raises(ValueError, match="no row has shots=8; the table has 1, 16"):
        accuracy.accuracy_against_queries(CURVES, 8)
    with pytest.raises(ValueError, match="no curve of 'digit'; the table has digits"):
        accuracy.training_curves(CURVES, "digit", 16)
    with pytest.raises(ValueError, match="shots 1, 16: choose one"):
        accuracy.training_curves(CURVES, "digits")


def test_no_text_of_the_diagram_leaves_the_page_or_meets_another():
    figure = method_diagram()
    figure.draw_without_rendering()
    boxes = [(text.get_text(), text.get_window_extent().shrunk(0.98, 0.8)) for text in figure.axes[0].texts]
    page = figure.bbox
    for index, (text, box) in enumerate(boxes):
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1, text
        assert [other for other, otherbox in boxes[:index] if box.overlaps(otherbox)] == [], text


@pytest.mark.parametrize("venue", VENUES)
def test_a_venue_sets_width_and_font(venue, tmp_path):
    column, page, family, _ = VENUES[venue]
    for name, width in (("paired_differences", column), ("training_curves", page)):
        figure = FIGURES[name](RUNS, CURVES)
        first, _ = save_figure(figure, name, tmp_path / "first", venue)
        second, _ = save_figure(FIGURES[name](RUNS, CURVES), name, tmp_path / "second", venue)
        assert figure.get_figwidth() == pytest.approx(width) and first.read_bytes() == second.read_bytes()
        assert {text.get_fontfamily()[0] for text in figure.findobj(Text)} == {STYLE[f"font.{family}"][0]}


def test_an_unknown_venue_is_refused():
    with pytest.raises(ValueError, match="venue 'nature' is unknown, choose from acl"):
        save_figure(method_diagram(), "diagram", "unused", "nature")


@pytest.mark.parametrize("name, draw", [("speed_text", speed.text_speed), ("speed_scaling", speed.scaling)])
def test_figures_of_speed_are_drawn_from_the_tables_alone(name, draw, tmp_path):
    table = read_table(DATA / f"{name}.csv")
    first, _ = save_figure(draw(table), name, tmp_path / "first")
    second, _ = save_figure(draw(table), name, tmp_path / "second")
    assert first.read_bytes() == second.read_bytes() and draw(table).get_figwidth() == PAGE


@pytest.mark.parametrize("name", sorted(set(FIGURES) - {"method_diagram"}))
def test_names_with_dollars_are_drawn_as_they_stand(name):
    """`$5-$10` would be a formula, `Ba$$in` one that matplotlib cannot read."""
    names = {"dataset": {"digits": "$5-$10", "shapes": "Ba$$in"}, "method": {"adapter": "my_$a_$b"}}
    runs, curves = RUNS.replace(names), CURVES.replace(names)
    figures = {
        "training_curves": lambda: accuracy.training_curves(curves, "$5-$10", 16),
        "accuracy_by_kind": lambda: accuracy.accuracy_by_kind(runs, {"my_$5": ["my_$a_$b", "cbbt"]}, REFERENCES),
        "gain_over_zero_shot": lambda: comparison.gain_over_zero_shot(runs, 16, ("cbbt", "my_$a_$b")),
        "benchmarks": lambda: benchmarks(CLIP, runs.replace({"dataset": {"$5-$10": "eurosat"}}), 16, ["zero_shot", "my_$a_$b"]),
        "paired_differences": lambda: comparison.paired_differences(runs, 16, "cbbt", "my_$a_$b"),
        "differences_by_shots": lambda: comparison.differences_by_shots(runs, "cbbt", "my_$a_$b"),
    }
    figure = figures.get(name, lambda: FIGURES[name](runs, curves))()
    figure.draw_without_rendering()
    named = [text for text in figure.findobj(Text) if any(part in text.get_text() for part in ("$5", "Ba$$in", "my_$"))]
    assert named and not any(text.get_parse_math() for text in named)


class TestFonts:
    """A figure with names in a script that DejaVu Sans lacks."""

    NAME = "数据"

    @pytest.fixture(autouse=True)
    def fonts(self, monkeypatch):
        """The fonts that matplotlib ships, and no others."""
        shipped = [font for font in fontManager.ttflist if "mpl-data" in font.fname]
        monkeypatch.setattr(fontManager, "ttflist", shipped)
        monkeypatch.setitem(STYLE, "savefig.dpi", 40)
        for cached in (style._family_with, style._warn_of_boxes):
            cached.cache_clear()
        yield
        style._family_with.cache_clear()

    def draw(self, tmp_path, venue=""):
        figure = accuracy.training_curves(CURVES.replace({"dataset": {"digits": self.NAME}}), self.NAME, 16)
        return figure, save_figure(figure, "figure", tmp_path, venue)

    def test_without_a_font_there_is_one_warning(self, tmp_path):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.draw(tmp_path)
            self.draw(tmp_path, "acl")
        (line,) = [str(each.message) for each in caught]
        assert line == "no installed font has the CJK characters of some names, which are drawn as boxes: install one"

    @pytest.mark.parametrize("venue", ["", "acl"])
    def test_an_installed_font_is_found(self, venue, tmp_path):
        build_font(tmp_path / "boxes.ttf", "Test CJK", self.NAME)
        fontManager.addfont(tmp_path / "boxes.ttf")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            figure, (pdf, _) = self.draw(tmp_path, venue)
            _, (again, _) = self.draw(tmp_path / "again", venue)
        assert pdf.read_bytes() == again.read_bytes() and b"TestCJK" in pdf.read_bytes()
        others = {tuple(text.get_fontfamily()) for text in figure.findobj(Text) if self.NAME not in text.get_text()}
        assert others == {(STYLE["font.serif"][0] if venue else "sans-serif",)}  # plain names keep their one font


def build_font(path: Path, family: str, characters: str) -> None:
    """A TrueType font in which each of these characters is a square."""
    glyphs = {".notdef": None} | {f"u{ord(letter):04X}": letter for letter in characters}
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0)), pen.lineTo((0, 800)), pen.lineTo((800, 800)), pen.lineTo((800, 0)), pen.closePath()
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(list(glyphs))
    font.setupCharacterMap({ord(letter): name for name, letter in glyphs.items() if letter})
    font.setupGlyf(dict.fromkeys(glyphs, pen.glyph()))
    font.setupHorizontalMetrics(dict.fromkeys(glyphs, (900, 0)))
    font.setupHorizontalHeader(ascent=900, descent=-100)
    font.setupNameTable({"familyName": family, "styleName": "Regular", "fullName": family, "psName": family.replace(" ", "")})
    font.setupOS2()
    font.setupPost()
    font.save(path)
