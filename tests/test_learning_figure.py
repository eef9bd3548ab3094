"""`helpers.display.plots`: a training that goes on, a mask as a picture, means with intervals."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from helpers.data import conditions
from helpers.display import plots


def title(ax) -> str:
    """In the middle or, once the course's style is set, on the left."""
    return ax.get_title() or ax.get_title(loc="left")


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    yield
    plt.close("all")


@pytest.mark.parametrize(("n_clips", "rows"), [(0, 1), (2, 1), (3, 2), (5, 2)])
def test_a_panel_for_the_loss_and_one_for_each_clip(n_clips, rows, speech):
    clips = {f"epoch {i}": speech for i in range(n_clips)}
    figure = plots.learning({"training": [0.4], "validation": [0.5, 0.3]}, clips)
    seen = [ax for ax in figure.axes if ax.get_visible()]
    assert len(figure.axes) == 3 * rows
    assert [title(ax) for ax in seen] == ["After epoch 1", *clips]


def test_curves_end_together_at_the_last_epoch():
    figure = plots.learning({"training": [0.4, 0.2], "validation": [0.5, 0.3, 0.1]}, {})
    training, validation = figure.axes[0].lines
    np.testing.assert_array_equal(training.get_xdata(), [1, 2])
    np.testing.assert_array_equal(training.get_ydata(), [0.4, 0.2])
    np.testing.assert_array_equal(validation.get_xdata(), [0, 1, 2])
    assert training.get_linestyle() != validation.get_linestyle()


def test_before_the_first_epoch_there_may_be_no_loss_at_all():
    figure = plots.learning({"training": [], "validation": []}, {})
    assert [len(line.get_xdata()) for line in figure.axes[0].lines] == [0, 0]


@pytest.mark.parametrize("turn", [1, 1j])
def test_a_mask_is_drawn_by_its_strength_where_it_acts(turn):
    M = np.zeros((100, 257), type(turn))
    M[:50] = turn  # the first half is kept
    (picture,) = plots.mask(M, 1.6).images
    assert picture.get_extent() == [0, 1.6, 0, 8]
    assert picture.get_array().shape == (257, 100)
    np.testing.assert_array_equal(picture.get_array()[:, :50], 1)
    np.testing.assert_array_equal(picture.get_array()[:, 50:], 0)
    assert picture.get_clim() == (0, 1)


def test_phases_are_drawn_as_angles():
    S = np.full((10, 257), 2j)
    S[5:] = -3
    (picture,) = plots.phase(S, 0.2).images
    np.testing.assert_allclose(picture.get_array()[:, :5], np.pi / 2)
    np.testing.assert_allclose(picture.get_array()[:, 5:], np.pi)
    assert picture.get_extent() == [0, 0.2, 0, 8]


def test_samples_become_spectrograms_and_masks_stay_masks(speech):
    M = np.ones((7, 161))
    figure = plots.pictures({"before": speech, "mask": M, "after": speech}, 3.0)
    shapes = [ax.images[0].get_array().shape for ax in figure.axes]
    assert shapes == [shapes[0], (161, 7), shapes[0]]
    assert shapes[0] == plots.spectrogram_db(speech).shape
    assert [title(ax) for ax in figure.axes] == ["before", "mask", "after"]
    assert {ax.images[0].get_clim() for ax in figure.axes[::2]} == {(-100, -20)}


def test_bars_lie_where_they_are_told_to_the_first_on_top():
    ax = plots.timeline([("frame", 0, 20), ("next", 10, 30)])
    assert [(bar.get_x(), bar.get_width()) for bar in ax.patches] == [(0, 20), (10, 20)]
    assert [text.get_text() for text in ax.texts] == ["frame", "next"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]


def test_a_panel_for_each_metric_with_the_mean_of_each_name():
    rows = pd.DataFrame({"step": ["a", "a", "b", "b"], "pesq": [1, 2, 3, 4.0], "estoi": [0.5] * 4})
    figure = plots.scores(rows, ("pesq", "estoi"), by="step")
    assert [ax.get_xlabel() for ax in figure.axes] == [plots.LABELS[m] for m in ("pesq", "estoi")]
    others, best = figure.axes[0].containers
    np.testing.assert_array_equal(others.lines[0].get_xydata(), [[1.5, 0]])
    np.testing.assert_array_equal(best.lines[0].get_xydata(), [[3.5, 1]])


@pytest.mark.parametrize(("mark_best", "markers"), [(True, ["o", "D"]), (False, ["o", "o"])])
def test_means_stand_from_top_to_bottom_with_their_intervals(mark_best, markers):
    lines = [("low", 1.0, 0.5, 1.5), ("high", 3.0, 2.0, 3.5), ("alone", 2.0, np.nan, np.nan)]
    summary = pd.DataFrame(lines, columns=["system", "pesq", "pesq_low", "pesq_high"])
    ax = plots.dots(summary, "system", "pesq", mark_best=mark_best)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["low", "high", "alone"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first on top
    others, best = ax.containers
    np.testing.assert_array_equal(others.lines[0].get_xydata(), [[1.0, 0], [2.0, 2]])
    np.testing.assert_array_equal(best.lines[0].get_xydata(), [[3.0, 1]])
    assert [one.lines[0].get_marker() for one in (others, best)] == markers
    assert [text.get_text() for text in ax.texts] == ["1.00", "3.00", "2.00"] * mark_best
    (segment,) = best.lines[2][0].get_segments()
    np.testing.assert_allclose(segment, [[2.0, 1], [3.5, 1]])


def test_differences_are_taken_clip_by_clip_and_condition_by_condition():
    inputs = [conditions.WHITE, conditions.CLEAN]
    lines = [
        one.row | {"utterance": name, "speaker": name, "system": system, "pesq": base + more}
        for one, gain in zip(inputs, (0.5, -0.25), strict=True)
        for name, base in {"a": 1.0, "b": 2.0}.items()
        for system, more in {"ours": gain, "theirs": 0.0}.items()
    ]
    (ax,) = plots.differences(pd.DataFrame(lines), "ours", "theirs", ("pesq",)).axes
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert sorted(names) == sorted(one.title for one in inputs)
    means = {names[int(y)]: x for one in ax.containers for x, y in one.lines[0].get_xydata()}
    assert means == {conditions.WHITE.title: 0.5, conditions.CLEAN.title: -0.25}
