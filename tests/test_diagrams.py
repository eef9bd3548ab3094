"""Box diagrams: every step in its box, every arrow from one to the next, nothing outside."""

import itertools

import matplotlib.pyplot as plt
import pytest
from matplotlib.patches import FancyBboxPatch

from helpers.display import diagrams

STEPS = [("frames", "10 ms"), ("encoder", "162 filters"), ("mask", "0 to 1"), ("decoder", "")]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def places(ax) -> list[tuple[float, float]]:
    """Lower left corners of the boxes, in the order of drawing."""
    found = [patch for patch in ax.patches if isinstance(patch, FancyBboxPatch)]
    return [(box.get_x(), box.get_y()) for box in found]


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts if text.get_text()]


def arrows(ax) -> list[tuple]:
    return [(note.xyann, note.xy) for note in ax.texts if getattr(note, "arrow_patch", None)]


def test_boxes_are_drawn_left_to_right_with_their_texts():
    ax = diagrams.boxes(STEPS)
    corners = places(ax)
    assert len(corners) == 4
    assert len({y for _, y in corners}) == 1
    assert all(b[0] > a[0] + diagrams.WIDTH for a, b in itertools.pairwise(corners))
    assert texts(ax) == ["frames", "10 ms", "encoder", "162 filters", "mask", "0 to 1", "decoder"]


def test_arrows_join_the_edges_of_neighbours():
    ax = diagrams.boxes(STEPS)
    corners = places(ax)
    assert len(arrows(ax)) == 3
    for (start, end), (a, b) in zip(arrows(ax), itertools.pairwise(corners), strict=True):
        assert start == pytest.approx((a[0] + diagrams.WIDTH, a[1] + diagrams.HEIGHT / 2))
        assert end == pytest.approx((b[0], b[1] + diagrams.HEIGHT / 2))


def test_a_long_row_is_wrapped_and_stays_within_the_axes():
    ax = diagrams.boxes([(f"step {i}", "") for i in range(12)])
    corners = places(ax)
    rows = sorted({y for _, y in corners}, reverse=True)
    assert len(rows) == 3
    assert [corner[1] for corner in corners] == sorted((y for _, y in corners), reverse=True)
    assert corners[0][0] == corners[5][0] == corners[10][0]
    assert len(arrows(ax)) == 11
    for x, y in corners:
        assert ax.get_xlim()[0] <= x <= ax.get_xlim()[1] - diagrams.WIDTH
        assert ax.get_ylim()[0] <= y <= ax.get_ylim()[1] - diagrams.HEIGHT
    assert ax.figure.get_size_inches()[0] <= diagrams.WIDEST + 0.2


@pytest.mark.parametrize(("inches", "n_rows"), [(11, 1), (5, 2), (1, 4)])
def test_given_axes_are_used_and_decide_where_a_row_ends(inches, n_rows):
    _, ax = plt.subplots(figsize=(inches, 3))
    ax.set_position([0, 0, 1, 1])
    assert diagrams.boxes(STEPS, ax) is ax
    assert len({y for _, y in places(ax)}) == n_rows


def test_also_long_texts_fit_into_their_box():
    ax = diagrams.boxes(
        [("running means", "one for each of 0.2 s and 2 s"), ("overlap-add of frames", "80")]
    )
    figure = ax.figure
    figure.canvas.draw()
    box = ax.patches[0].get_window_extent()
    for text in ax.texts:
        if text.get_text():
            assert text.get_window_extent().width < box.width


def test_no_steps_are_an_error():
    with pytest.raises(ValueError, match="no steps"):
        diagrams.boxes([])
