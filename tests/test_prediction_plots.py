"""Pictures of predictions, on made-up arrays."""

import warnings

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from cbbt.results.plots.predictions import (
    RIGHT,
    WRONG,
    calibration_pair,
    confusion_pair,
    feature_map,
    moves_in_the_plane,
    prediction_grid,
)
from cbbt.results.plots.style import PAGE, save_figure

from .test_plots import clipped_texts, overlapping_texts

NAMES = ["annual crop", "$5 forest", "herbaceous vegetation"]
RNG = np.random.default_rng(4)
IMAGES = RNG.random((7, 16, 16, 3))
ROWS = pd.DataFrame({"truth": [NAMES[k % 3] for k in range(7)], "before": NAMES[0], "p_before": 0.4}).assign(
    after=lambda rows: rows.truth, p_after=0.9
)
BEFORE, AFTER = np.array([[8, 2, 0], [5, 5, 0], [1, 0, 3]]), np.array([[9, 1, 0], [1, 9, 0], [0, 0, 4]])
LABELS = np.arange(30) % 3
FEATURES = np.eye(3, 8)[LABELS] * 4 + RNG.normal(size=(30, 8))
TEXTS = np.eye(3, 8)
BINS = pd.DataFrame({"confidence": [40.0, 90.0], "accuracy": [30.0, 95.0], "count": [10, 30]})
FIGURES = {
    "prediction_grid": lambda: prediction_grid(IMAGES, ROWS),
    "confusion_pair": lambda: confusion_pair(BEFORE, AFTER, NAMES),
    "feature_map": lambda: feature_map(
        {"before": FEATURES, "after": 2 * FEATURES}, {"before": TEXTS, "after": TEXTS}, LABELS, NAMES
    ),
    "calibration_pair": lambda: calibration_pair(BINS, BINS.assign(accuracy=BINS.confidence)),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_drawn_again_is_the_same_file_page_wide_with_names_as_they_stand(name, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, _ = save_figure(FIGURES[name](), name, tmp_path / "first")
        second, _ = save_figure(FIGURES[name](), name, tmp_path / "second")
        figure = FIGURES[name]()
        figure.draw_without_rendering()
    assert overlapping_texts(figure) == [] and clipped_texts(figure) == []
    assert first.read_bytes() == second.read_bytes() and figure.get_figwidth() == PAGE
    assert not any(text.get_parse_math() for text in figure.findobj(Text) if "$5" in text.get_text())


def test_answers_say_whether_they_are_right():
    figure = prediction_grid(IMAGES, ROWS)
    assert [ax.get_title() for ax in figure.axes] == list(ROWS.truth)
    before, after = figure.axes[1].texts
    assert before.get_text().split() == ["✗", "before:", "annual", "crop,", "0.40"] and before.get_color() == WRONG
    assert after.get_text().split() == ["✓", "after:", "$5", "forest,", "0.90"] and after.get_color() == RIGHT
    with pytest.raises(ValueError, match="got 7 images and 6 rows"):
        prediction_grid(IMAGES, ROWS[:6])


def test_cells_are_percent_of_a_true_class():
    before, after, _ = confusion_pair(BEFORE, AFTER, NAMES).axes
    assert [text.get_text() for text in before.texts] == ["80", "20", "0", "50", "50", "0", "25", "0", "75"]
    assert (before.get_title(), after.get_title()) == ("before: 66.7 % right", "after: 91.7 % right")
    empty = confusion_pair(np.diag([5, 0, 2]), AFTER, NAMES).axes[0]  # no image of the second class
    assert "nan" not in {text.get_text() for text in empty.texts}
    with pytest.raises(ValueError, match=r"must be 3 × 3, got \(3, 3\) and \(2, 2\)"):
        confusion_pair(BEFORE, AFTER[:2, :2], NAMES)


def test_panels_of_features_share_their_components():
    before, after = feature_map({"a": FEATURES, "b": FEATURES}, {"a": TEXTS, "b": TEXTS}, LABELS, NAMES).axes
    (one,), (other,) = before.collections, after.collections
    assert np.allclose(one.get_offsets(), other.get_offsets()) and len(one.get_offsets()) == len(LABELS)
    assert len(before.lines) == len(NAMES)
    centred = FEATURES - FEATURES.mean(axis=0)
    assert np.ptp(one.get_offsets()[:, 0]) == pytest.approx(np.ptp(centred @ np.linalg.svd(centred)[2][0]))
    with pytest.raises(ValueError, match="at most 6 classes, got 7"):
        feature_map({"a": FEATURES}, {"a": TEXTS}, LABELS, [str(number) for number in range(7)])


def test_arrows_lead_from_before_to_after_and_have_the_names_of_classes():
    before, after = np.zeros((3, 2)), np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])
    for axis, title in zip(
        moves_in_the_plane({"text": (before, after), "image": (after, before)}, NAMES).axes, ("text", "image")
    ):
        (arrows,) = axis.collections
        sign = 1 if title == "text" else -1
        assert np.array_equal(np.transpose([arrows.U, arrows.V]), sign * after) and axis.get_title() == title
        assert [text.get_text() for text in axis.texts] == NAMES


def test_the_error_of_calibration_is_that_of_the_bins():
    before, after = FIGURES["calibration_pair"]().axes
    assert (before.get_title(), after.get_title()) == ("before: ECE 6.2 %", "after: ECE 0.0 %")  # (10 · 10 + 30 · 5) / 40
    with pytest.raises(ValueError, match="the bins after hold no image"):
        calibration_pair(BINS, BINS[:0])
