"""Figures drawn from known arrays."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb

from naevus.evaluation.calibration import reliability_curve
from naevus.evaluation.classification import RankingCurve
from naevus.io.figures import count_figure, curve_figure
from naevus.reports import figures
from naevus.reports.figures import (
    benefit_figure,
    confusion_figure,
    jaccard_figure,
    learning_figure,
    line_of,
    precision_recall_figure,
    reliability_figure,
    risk_coverage_figure,
    roc_figure,
    thinned,
)
from tests.helpers.html_page import contrast

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def lines(figure: Figure) -> dict[str, np.ndarray[Any, Any]]:
    """Return the points of the labelled lines."""
    found = figure.axes[0].get_lines()
    return {str(line.get_label()): np.array(line.get_xydata()) for line in found}


def test_a_confusion_matrix_shows_counts_and_fractions() -> None:
    figure = confusion_figure(np.array([[9, 1], [0, 400]]), ["A", "B"])
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["9\n90 %", "1\n10 %", "0", "400\n100 %"]
    depths = [patch.get_alpha() for patch in figure.axes[0].patches]
    assert depths[0] == pytest.approx(0.07 + 0.93 * 0.9)
    assert depths[2] == pytest.approx(0.07)
    colours = [text.get_color() for text in figure.axes[0].texts]
    assert colours == ["#ffffff", "#000000", "#000000", "#ffffff"]
    assert figure.axes[0].get_ylim() == (2, 0)  # the first class is at the top


def test_confusion_numbers_are_readable_on_light_and_dark_pages() -> None:
    """WCAG AA: black or white on a blue of any depth; a dark page turns black to white."""
    counts = np.zeros((51, 51), int)
    counts[:, 0] = np.arange(51) * 2
    counts[:, 1] = 100 - counts[:, 0]
    pair = confusion_figure(counts, [str(n) for n in range(51)]).axes[0]
    for patch, text in zip(pair.patches, pair.texts, strict=True):
        depth, blue = patch.get_alpha(), np.array(to_rgb(patch.get_facecolor()))
        assert depth is not None
        assert contrast(to_hex(text.get_color()), hexed(depth * blue + (1 - depth))) >= 4.5
        dark = depth * blue + (1 - depth) * np.array(to_rgb("#15171c"))
        assert contrast("#ffffff", hexed(dark)) >= 4.5


def hexed(rgb: np.ndarray[Any, Any]) -> str:
    red, green, blue = rgb.tolist()
    return str(to_hex((red, green, blue)))


def test_a_roc_curve_contains_its_points() -> None:
    truth = np.array([True, False, True, False])
    figure = roc_figure({"MEL": RankingCurve.of(truth, [0.9, 0.8, 0.7, 0.1])}, {"MEL": 0.75})
    synthetic = lines(figure)["MEL 0.750"]
    expected = np.array([[0, 0], [0, 0.5], [0.5, 0.5], [0.5, 1], [1, 1]])
    np.testing.assert_allclose(synthetic, expected)


def test_precision_decreases_with_false_positives() -> None:
    truth = np.array([True, False, True, False])
    figure = precision_recall_figure(
        {"MEL": RankingCurve.of(truth, [0.9, 0.8, 0.7, 0.1])}, {"MEL": 0.5}
    )
    synthetic = lines(figure)["MEL 0.500"]
    np.testing.assert_allclose(synthetic, [[0.5, 1], [0.5, 0.5], [1, 2 / 3], [1, 0.5]])


def test_reliability_shows_frequency_against_probability_with_intervals() -> None:
    stated = np.repeat([0.2, 0.8], 50)
    right = np.concatenate([np.arange(50) < 10, np.arange(50) < 45])
    curve = reliability_curve(stated, right, [f"g{n}" for n in range(100)], bins=2)
    figure = reliability_figure({"as predicted": curve})
    (container,) = figure.axes[0].containers
    synthetic = np.array(container[0].get_xydata())
    np.testing.assert_allclose(synthetic, [[0.2, 0.2], [0.8, 0.9]])
    (bars,) = container[2]
    low, high = bars.get_segments()[1][:, 1]
    assert low < 0.9 < high


def test_risk_is_drawn_over_coverage() -> None:
    curve = pd.DataFrame({"coverage": [0.25, 0.5, 0.75, 1.0], "risk": [0.0, 0.0, 1 / 3, 0.5]})
    synthetic = [
        np.array(line.get_xydata()) for line in risk_coverage_figure(curve).axes[0].get_lines()
    ]
    np.testing.assert_allclose(synthetic[1], curve.to_numpy())
    assert (synthetic[0][:, 1] == 0.5).all()


def test_the_histogram_counts_masks_on_both_sides_of_the_threshold() -> None:
    values = [0.1, 0.6, 0.64, 0.65, 0.9, 0.99]
    bars: list[Any] = list(jaccard_figure(values).axes[0].patches)
    below = sum(bar.get_height() for bar in bars if bar.get_facecolor() == bars[0].get_facecolor())
    assert below == 3
    assert sum(bar.get_height() for bar in bars) == len(values)


def test_learning_curves_have_one_line_per_fold_and_the_epochs_of_the_log() -> None:
    history = pd.DataFrame(
        {"fold": [0, 0, 3, 3], "epoch": [0, 1, 0, 1], "train_loss": [2.0, 1.0, 3.0, None]}
    )
    synthetic = lines(learning_figure(history, "train_loss", "training loss"))
    np.testing.assert_allclose(synthetic["fold 0"], [[0, 2], [1, 1]])
    np.testing.assert_allclose(synthetic["fold 3"], [[0, 3]])


@pytest.mark.parametrize("epochs", [1, 2, 3, 30])
def test_epochs_and_images_are_marked_at_whole_numbers(epochs: int) -> None:
    numbers = list(range(epochs))
    history = pd.DataFrame({"fold": 0, "epoch": numbers, "train_loss": 1.0})
    curves = {"a": (numbers, [1.0] * epochs)}
    counts = pd.DataFrame({"all": [1 + epochs // 10]}, index=["NV"])
    for figure, axis in (
        (learning_figure(history, "train_loss", "loss"), "xaxis"),
        (curve_figure(curves, xlabel="epoch", ylabel="loss"), "xaxis"),
        (count_figure(counts), "xaxis"),
        (jaccard_figure([0.7] * epochs), "yaxis"),
    ):
        ticks = getattr(figure.axes[0], axis).get_majorticklocs()
        assert len(ticks) >= 1
        assert np.array_equal(ticks, np.round(ticks))
        assert all(line.get_marker() == "o" for line in figure.axes[0].get_lines()[:-1])


def test_net_benefit_is_drawn_with_acting_on_all() -> None:
    curve = pd.DataFrame(
        {
            "threshold": [0.1, 0.2], "net_benefit": [0.3, 0.2], "low": [0.25, 0.15],
            "high": [0.35, 0.25], "act_on_all": [0.3, 0.1],
        }
    )  # fmt: skip
    figure = benefit_figure({"melanoma": curve})
    np.testing.assert_allclose(lines(figure)["melanoma"], [[0.1, 0.3], [0.2, 0.2]])
    all_of_them = np.array(figure.axes[0].get_lines()[-1].get_xydata())
    np.testing.assert_allclose(all_of_them[:, 1], [0.3, 0.1])


def test_fifteen_lines_are_all_different() -> None:
    assert len({tuple(line_of(number).values()) for number in range(15)}) == 15


def test_thinning_keeps_both_ends() -> None:
    for count in (1, 5, 399, 400, 401, 10_000):
        rows = thinned(count)
        assert rows[0] == 0
        assert rows[-1] == count - 1
        assert len(rows) <= 802
        assert list(rows) == sorted(set(rows))


def test_the_same_values_give_the_same_figure() -> None:
    synthetic = figures.svg(jaccard_figure([0.2, 0.9]))
    assert synthetic == figures.svg(jaccard_figure([0.2, 0.9]))
    assert figures.pdf(jaccard_figure([0.2])) == figures.pdf(jaccard_figure([0.2]))


def test_inlined_figures_have_distinct_ids_and_the_page_colour() -> None:
    curve = pd.DataFrame({"coverage": [0.5, 1.0], "risk": [0.0, 0.1]})
    synthetic = figures.svg(risk_coverage_figure(curve))
    first, second = figures.inlined(synthetic, "one"), figures.inlined(synthetic, "other")
    ids = [set(re.findall(r'\bid="([^"]+)"', each)) for each in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert figures.INK in synthetic
    assert figures.INK not in first
    assert "currentColor" in first
    assert "<style" not in first
    assert "fraction of wrong predictions" in first  # text is kept as text
    assert "Verdana" in first  # of equal width, if the first font is missing
