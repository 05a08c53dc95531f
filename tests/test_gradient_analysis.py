"""The analysis of gradients: its measurements against known answers, its tables, its figures."""

import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from cbbt.gradients import analysis, answers, noise
from cbbt.gradients.directions import DIRECTIONS
from cbbt.gradients.landscape import landscape, losses_along
from cbbt.gradients.theory import expected
from cbbt.results.plots import estimator as pictures
from cbbt.results.plots.gradients import FAMILIES, FIGURES, draw_from_file
from cbbt.runs.estimator_comparison import accuracy_by_estimator

NAMES = ("cat", "sailing boat", "car")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def problem(white_box, generator):
    features = F.normalize(torch.randn(12, white_box.embed_dim, generator=generator), dim=-1)
    labels = torch.arange(12) % len(NAMES)
    return analysis.PromptProblem(white_box, features, labels, NAMES, white_box.token_embeddings("a"))


@pytest.fixture
def choices(problem):
    past = analysis.past_gradients(problem, 2, q=8, batch_size=4, seed=1)
    return analysis.families(problem, ["cat", "dog", "boat", "red", "car", "tree"], 4, past, seed=1)


def means(table, keys, column="cosine"):
    return table.groupby(keys)[column].mean()


def test_the_true_gradient_is_the_slope_of_the_loss(problem):
    rows = torch.tensor([0, 3, 5])
    direction = F.normalize(torch.randn(problem.context.shape, generator=torch.Generator().manual_seed(1)))
    loss, step = problem.loss(rows), 1e-2
    ahead, behind = loss(torch.stack([problem.context + step * direction, problem.context - step * direction]))
    slope = (problem.gradient(rows) * direction).sum()
    assert ((ahead - behind) / (2 * step)).item() == pytest.approx(slope.item(), rel=0.02, abs=1e-5)


def test_batches_differ_between_repeats_and_return_with_the_seed(problem):
    first, again, other = (problem.batch(5, 1, repeat) for repeat in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other) and len(set(first.tolist())) == 5
    assert sorted(problem.batch(99, 1, 0).tolist()) == list(range(12))


def test_agreement_of_known_gradients():
    truth = torch.tensor([[3.0, 4.0]])
    assert analysis.agreement(2 * truth, truth) == pytest.approx({"cosine": 1, "squared_cosine": 1, "norm_ratio": 2})
    assert analysis.agreement(torch.tensor([[-4.0, 3.0]]), truth)["cosine"] == pytest.approx(0, abs=1e-7)


def test_cosines_against_queries_cost_what_they_say_and_repeat(problem, choices):
    before = problem.box.ledger.counts["loss_queries"]
    table = analysis.cosine_by_queries(problem, choices, [1, 8, 32], repeats=2, batch_size=6)
    spent = problem.box.ledger.counts["loss_queries"] - before
    assert spent == len(choices) * 2 * (1 + 33)
    assert len(table) == len(choices) * 2 * 3 and set(table.family) == set(choices)
    history = {"guided": 2 * (8 + 1)}  # asked when the past was
    assert all(rows.queries.tolist() == [q + 1 + history.get(name, 0) for q in rows.q] for name, rows in table.groupby("family"))
    assert set(table.family[table.informed]) == {"subspace, vocabulary", "subspace, random", "guided"}
    again = analysis.cosine_by_queries(problem, choices, [1, 8, 32], repeats=2, batch_size=6)
    pd.testing.assert_frame_equal(table, again)
    # A whole frame (d = 32 here) finds the gradient; a random subspace of 4 of 32 dimensions cannot.
    at_d = means(table[table.q == 32], "family")
    assert at_d["orthogonal"] > 0.99 and at_d["coordinate"] > 0.99 and at_d["subspace, random"] < 0.9


def test_nested_estimates_are_those_of_the_first_directions(problem):
    draw = DIRECTIONS["sphere"]
    few, many = analysis.nested(problem.loss(), problem.context, draw, [4, 16], torch.Generator().manual_seed(2))
    probes, _ = draw(16, problem.dimension, torch.Generator().manual_seed(2))
    alone = analysis.estimate_gradient(problem.loss(), problem.context, directions=probes[:4].view(4, 1, -1))
    torch.testing.assert_close(few.gradient, alone.gradient, rtol=1e-3, atol=1e-5)
    assert few.queries == 5 and many.queries == 17


def test_sphere_estimates_meet_the_theory(problem):
    choices = {"sphere": analysis.plain_family("sphere")}
    table = analysis.cosine_by_queries(problem, choices, [16], repeats=40, batch_size=6)
    for column in ("cosine", "squared_cosine"):
        error = table[column].std() / len(table) ** 0.5
        assert abs(table[column].mean() - table[f"expected_{column}"].mean()) < 4 * error


def test_step_table_shows_plateau_round_off_and_curvature(problem):
    table = noise.cosine_by_epsilon(problem, [1e-7, 3e-3, 100.0], q=32, repeats=4, batch_size=6)
    forward = means(table[table.differences == "forward"], "epsilon")
    assert forward[3e-3] > forward[1e-7] + 0.2 and forward[3e-3] > forward[100.0] + 0.2
    assert table[table.is_default].epsilon.unique().tolist() == [1 / problem.dimension]
    plateau = table[table.epsilon == 3e-3]
    assert (plateau.expected_cosine - plateau.cosine).mean() == pytest.approx(0, abs=4 * plateau.cosine.std() / 8**0.5)


def test_slope_errors_of_a_known_function(generator):
    """L = a·x + |x|²·c/2 + k (b·x)³ has curvature c/2 along every unit direction, and a known third order."""
    b = torch.ones(20, dtype=torch.float64) / 20**0.5
    gradient = torch.arange(20, dtype=torch.float64)

    def loss(points):
        return points @ gradient + 1.5 * points.square().sum(1) + 2 * (points @ b) ** 3

    errors = noise.slope_errors(loss, torch.zeros(20, dtype=torch.float64), gradient, generator, q=4000)
    assert errors.curvature == pytest.approx(1.5, rel=1e-6)
    # (u·b)⁶ has mean 15/(d(d + 2)(d + 4)) on the sphere
    assert errors.third == pytest.approx(2 * (15 / (20 * 22 * 24)) ** 0.5, rel=0.1)
    assert errors.rounding < 1e-10
    assert errors.variance(0.1, "forward") > errors.variance(0.1, "two-sided")


def test_factors_agree_up_to_a_thousand_dimensions(problem):
    table = analysis.norm_by_dimension(problem, [1, 2], q=16, repeats=2, batch_size=6)
    assert sorted(set(table.dimension)) == [32, 64]
    ratio = table.pivot(index=["length", "repeat"], columns="factor", values="norm_ratio")
    assert (ratio.released / ratio.dimension).tolist() == pytest.approx([1.0] * 4, rel=1e-5)


def test_released_factor_beyond_a_thousand_dimensions(generator):
    """The context of the tiny tower stays below 1000 numbers, so the table is made on a linear loss."""

    class Line(analysis.PromptProblem):
        def loss(self, rows=None):
            return lambda contexts: contexts.flatten(1).sum(1)

    line = Line(None, torch.zeros(4, 2), torch.zeros(4), (), torch.zeros(1, 500))
    lines = {length: Line(None, line.features, line.labels, (), line.context.repeat(length, 1)) for length in (1, 4)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analysis, "with_length", lambda problem, length: lines[length])
        table = analysis.norm_by_dimension(line, [1, 4], q=8, repeats=1)
    ratio = table.pivot(index="dimension", columns="factor", values="norm_ratio")
    expected = table.pivot(index="dimension", columns="factor", values="expected_norm_ratio")
    for kind in (ratio, expected):
        assert (kind.released / kind.dimension).tolist() == pytest.approx([1.0, 0.5], rel=1e-5)


def test_equal_budgets_are_equal(problem):
    before = problem.box.ledger.counts["loss_queries"]
    table = noise.cosine_by_budget(problem, [8, 32], [1 / 32], repeats=3, batch_size=6)
    assert problem.box.ledger.counts["loss_queries"] - before == 3 * (1 + 2 * 8) + 3 * (1 + 2 * 32)
    assert set(table.q) == {7, 4, 31, 16}
    most = means(table[table.budget == 32], "differences")
    assert most["forward"] > most["two-sided"]  # small ε: twice the directions win


def test_low_precision_loses_the_gradient_at_small_steps(problem):
    table = noise.cosine_by_precision(problem, [1e-3], q=32, repeats=3, batch_size=6)
    assert set(table.precision) == set(noise.PRECISIONS)
    small = means(table[table.epsilon == 1e-3], "precision")
    assert small["float32"] > small["model in bfloat16"] + 0.2
    assert small["float32"] > small["features in bfloat16"]


def test_served_precision_rounds_what_it_says(problem):
    rows = torch.arange(6)
    point = problem.context[None]
    exact = noise.rounded_loss(problem, rows, "float32")(point)
    torch.testing.assert_close(exact, problem.loss(rows)(point))
    half = noise.rounded_loss(problem, rows, "features in float16")(point)
    assert half.dtype == torch.float32 and 0 < (half - exact).abs().item() < 1e-2


def test_tf32_keeps_ten_bits():
    values = torch.tensor([1.0, 1 + 2**-10, 1 + 2**-12, -(1 + 3 * 2**-12), 3e-30, 0.0])
    expected = torch.tensor([1.0, 1 + 2**-10, 1.0, -(1 + 2**-10), 3e-30, 0.0])
    torch.testing.assert_close(noise.to_tf32(values), expected, rtol=2**-11, atol=0)
    assert noise.to_tf32(values)[:4].tolist() == expected[:4].tolist()


def test_the_reference_is_double_and_tf32_rounds_products_alone(problem):
    rows, point = torch.arange(6), problem.context[None].double()
    double = noise.rounded_loss(problem, rows, "model in float64")(point)
    single = noise.rounded_loss(problem, rows, "float32")(point)
    tf32 = noise.rounded_loss(problem, rows, "products in TF32")(point)
    assert double.dtype == torch.float64
    assert 0 < (double - single).abs().item() < 1e-5 < (double - tf32).abs().item() < 1e-1
    table = noise.cosine_by_precision(problem, [1e-6], q=32, repeats=3, batch_size=6)
    tiny = means(table[table.epsilon == 1e-6], "precision")
    usual = means(table[table.is_default], "precision")
    assert tiny["model in float64"] == pytest.approx(usual["model in float64"], abs=0.02)
    assert tiny["float32"] < tiny["model in float64"] - 0.1


@pytest.mark.parametrize("family, squared_cosine", [("orthogonal", 1 / 2), ("sphere", 1 / 3)])
def test_at_half_the_dimension_frames_see_half_and_independent_directions_a_third(problem, family, squared_cosine):
    choices, q = {family: analysis.plain_family(family)}, problem.dimension // 2
    measured = analysis.cosine_by_queries(problem, choices, [q], repeats=60, batch_size=6).squared_cosine
    error = measured.std() / len(measured) ** 0.5
    exact = expected(q, problem.dimension, family).squared_cosine  # of a linear loss
    assert exact == pytest.approx(squared_cosine, abs=0.02)
    assert abs(measured.mean() - exact) < 4 * error + 0.01  # and the curvature over one step


def test_errors_of_batch_and_estimator_add_up(problem):
    table = noise.error_by_batch(problem, [4, 12], [8, 64], repeats=30)
    whole = table[table.batch_size == 12]
    assert whole.batch_error.max() < 1e-8 < table[table.batch_size == 4].batch_error.min()
    gap = table.total_error - table.batch_error - table.estimator_error
    for _, rows in gap.groupby([table.batch_size, table.q]):
        assert abs(rows.mean()) < 4 * rows.std() / len(rows) ** 0.5 + 1e-9
    off = table.estimator_error - table.expected_estimator_error
    for _, rows in off.groupby([table.batch_size, table.q]):
        assert abs(rows.mean()) < 4 * rows.std() / len(rows) ** 0.5


def test_steps_have_their_length_and_several_directions_their_mean():
    """On L = |x|² from (0, 1), for which both are known."""
    ways = {"up": torch.tensor([[0.0, 5.0]]), "both sides": torch.tensor([[3.0, 0.0], [0.0, -0.1]])}
    table = losses_along(lambda points: points.square().sum(dim=1), torch.tensor([0.0, 1.0]), ways, [-1.0, 0.0, 2.0])
    assert table.index.tolist() == [-1, 0, 2]
    assert table["up"].tolist() == pytest.approx([0, 1, 9])
    assert table["both sides"].tolist() == pytest.approx([(2 + 4) / 2, 1, (5 + 1) / 2])


def test_families_are_compared_on_the_same_batches_at_every_step(problem):
    table = noise.cosine_by_family(problem, ["sphere", "orthogonal"], [1e-3, 100.0], q=32, repeats=2, batch_size=6)
    assert list(table.groupby(["family", "epsilon"]).size()) == [2] * 4
    cosines = means(table, ["family", "epsilon"])
    assert cosines["orthogonal", 1e-3] > 0.99 > cosines["sphere", 1e-3] > cosines["sphere", 100.0]


def test_pictures_of_the_plane_show_each_slope_and_the_mean_of_each_cloud():
    u = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    plane = torch.cartesian_prod(torch.linspace(-1, 1, 5), torch.linspace(-1, 1, 5))
    arrows = {"true gradient": u[0], "estimate": u[1]}
    figure = pictures.slopes_in_the_plane(plane, plane.sum(dim=1), torch.zeros(2), u, torch.tensor([1.0, 1.0, -2.0]), arrows)
    left, right = figure.axes
    assert [tuple(text.xy) for text in right.texts] == [(1, 0), (0, 1), (0, 2), (1, 0), (0, 1)]
    assert [text.get_text() for text in right.get_legend().texts] == [*arrows, "slope times direction"]
    clouds = {q: torch.tensor([[0.0, 1.0], [2.0, 3.0]]) for q in (2, 8)}
    for axis, q in zip(pictures.clouds_of_estimates(clouds, torch.tensor([1.0, 1.0])).axes, clouds, strict=True):
        truth, mean = axis.lines
        assert (axis.get_title(), truth.get_xydata().tolist(), mean.get_xydata().tolist()) == (f"q = {q}", [[1, 1]], [[1, 2]])


def test_pictures_of_cosines_have_their_theory_and_the_papers_step(problem):
    rows = [(q, q / 10 + off, expected(q, 32).cosine) for q in (1, 4) for off in (-0.1, 0.1)]
    (axis,) = pictures.cosine_over_theory(pd.DataFrame(rows, columns=["q", "cosine", "theory"]), 32).axes
    lines = {line.get_label(): line for line in axis.lines}
    measured, theory, root = (lines[text.get_text()] for text in axis.get_legend().texts)
    assert measured.get_ydata().tolist() == pytest.approx([0.1, 0.4]) and "sd of 2" in measured.get_label()
    assert theory.get_ydata().tolist() == [expected(q, 32).cosine for q in (1, 4)]
    assert root.get_ydata().tolist() == pytest.approx([(1 / 32) ** 0.5, (4 / 35) ** 0.5])
    walked = pd.DataFrame({"true gradient": [1.0, 0.5], "random": [1.0, 0.9]}, index=[0.0, 1.0])
    (axis,) = pictures.losses_along(walked).axes
    assert [text.get_text() for text in axis.get_legend().texts] == list(walked)
    table = noise.cosine_by_family(problem, ["sphere", "coordinate"], [0.01, 0.1], q=4, repeats=2, batch_size=6)
    (axis,) = pictures.cosine_by_family(table, 1 / 32).axes
    assert [text.get_text() for text in axis.get_legend().texts] == ["sphere", "coordinate"]
    assert [1 / 32, 1 / 32] in [list(line.get_xdata()) for line in axis.lines]


def test_landscape_touches_its_tangent(problem):
    table = landscape(problem, q=16, reach=0.01, points=3, batch_size=6)
    middle = table[table.distance == 0]
    assert len(middle) == 3 and middle.loss.tolist() == pytest.approx(middle.linear.tolist(), abs=1e-5)
    true = table[table.direction == "true gradient"].set_index("distance")
    assert true.loss.iloc[2] > true.loss.iloc[0]
    assert (true.loss - true.linear).abs().max() < 0.2 * (true.loss.iloc[2] - true.loss.iloc[0])


def test_vocabulary_words_are_known_to_their_tokenizer():
    words = analysis.vocabulary_words("mini")
    assert "seven" in words and len(words) == len(set(words))
    clip = analysis.vocabulary_words("RN50", most=100)
    assert len(clip) == 100 and "the" in clip


def test_tables_appear_whole_and_draw(problem, choices, tmp_path):
    tables = {
        "gradient_cosine": analysis.cosine_by_queries(problem, choices, [1, 4], 2, 6),
        "gradient_dimension": analysis.norm_by_dimension(problem, [1, 2], 4, 2, 6),
        "gradient_landscape": landscape(problem, 4, points=5, batch_size=6),
        "gradient_epsilon": noise.cosine_by_epsilon(problem, [1e-3], 4, 2, 6),
        "gradient_budget": noise.cosine_by_budget(problem, [4, 8], [0.01, 0.1], 2, 6),
        "gradient_precision": noise.cosine_by_precision(problem, [1e-3], 4, 2, 6),
        "gradient_batch": noise.error_by_batch(problem, [4, 8], [4, 8], 2),
        "gradient_answers": answers.local_model_error(problem, [2, 4], [0.01, 0.1, 1.0], 2),
        "gradient_answers_descent": answers.descents(problem, problem, [1, 2], q=4, memories=(4,), steps=2, estimate_steps=6),
        "gradient_training": accuracy_by_estimator(
            {"dataset": "digits", "shots": 1, "q": 2, "epochs": 2}, [1], cache=tmp_path / "features"
        ),
    }
    assert set(tables) == set(FIGURES)
    training = tables["gradient_training"]
    assert {*DIRECTIONS, "guided", "sphere, two-sided"} <= set(training.estimator)
    assert training.groupby("estimator").class_prompts.max().nunique() == 1  # equal budgets
    for name, table in tables.items():
        figure = draw_from_file(name, table, tmp_path / "tables", tmp_path / "figures")
        assert len(pd.read_csv(tmp_path / "tables" / f"{name}.csv")) == len(table)
        assert {path.suffix for path in (tmp_path / "figures").glob(f"{name}.*")} == {".pdf", ".png"}
        drawn = [axis for axis in figure.axes if axis.lines or axis.patches]
        assert drawn and figure.axes[-1].get_xlabel()
        assert figure.axes[0].get_ylabel() or name == "gradient_training"  # whose rows have names
    assert not list(tmp_path.rglob("*.partial")) and set(choices) <= set().union(*FAMILIES.values())
