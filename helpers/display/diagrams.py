"""Box diagrams: the steps of a network, drawn left to right with arrows.

Taught in `03_waveform_autoencoder`.
"""

import itertools
from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

WIDTH, HEIGHT, GAP, ROW = 1.7, 0.8, 0.45, 1.25  # inches: a box, the arrow behind it, a row
WIDEST = 11.0  # inches, of a row; what does not fit goes to the next
FILL, EDGE = "#e8eef7", "tab:blue"


def boxes(steps: Sequence[tuple[str, str]], ax=None):
    """Draw `steps`, a sequence of (title, subtitle), as boxes joined by arrows; gives the axes.

    Every row is drawn from left to right and holds as many boxes as fit into WIDEST inches, or into
    the width of `ax`; an arrow leads from the end of a row to the start of the next. An empty
    subtitle is left out. Raises ValueError where there are no steps.
    """
    if not steps:
        raise ValueError("no steps to draw")
    width = WIDEST
    if ax is not None:
        width = ax.get_window_extent().width / ax.figure.dpi
    n_columns = min(len(steps), max(1, int((width + GAP) / (WIDTH + GAP))))
    n_rows = -(-len(steps) // n_columns)
    size = n_columns * (WIDTH + GAP) - GAP + 0.1, (n_rows - 1) * ROW + HEIGHT + 0.1
    ax = ax or plt.subplots(figsize=size, layout="constrained")[1]
    places = [(i % n_columns * (WIDTH + GAP), -(i // n_columns) * ROW) for i in range(len(steps))]
    for place, (title, subtitle) in zip(places, steps, strict=True):
        draw_box(ax, *place, title, subtitle)
    for start, end in itertools.pairwise(places):
        draw_arrow(ax, start, end)
    ax.set(xlim=(-0.05, size[0] - 0.05), ylim=(HEIGHT + 0.05 - size[1], HEIGHT + 0.05))
    ax.set_aspect("equal")
    ax.axis("off")
    return ax


def draw_box(ax, x: float, y: float, title: str, subtitle: str) -> None:
    """A rounded box whose lower left corner is (x, y), with its two texts, one line each."""
    look = {"boxstyle": "round,pad=0,rounding_size=0.1", "facecolor": FILL, "edgecolor": EDGE}
    ax.add_patch(FancyBboxPatch((x, y), WIDTH, HEIGHT, **look))
    middle = y + HEIGHT / 2
    for text, size, letters, lift, look in (  # more letters than fit are set smaller
        (title, 10.5, 16, 0.1 if subtitle else -0.05, {"weight": "bold"}),
        (subtitle, 9.0, 22, -0.22, {"color": "0.3"}),
    ):
        size *= min(1, letters / max(1, len(text)))
        ax.text(x + WIDTH / 2, middle + lift, text, fontsize=size, ha="center", **look)


def draw_arrow(ax, start: tuple[float, float], end: tuple[float, float]) -> None:
    """From the box at `start` to the box at `end`: straight in a row, bent to the next row."""
    arrow = {"arrowstyle": "-|>", "color": "0.3", "shrinkA": 0, "shrinkB": 0, "mutation_scale": 14}
    middle = HEIGHT / 2
    if start[1] == end[1]:
        path = (start[0] + WIDTH, start[1] + middle), (end[0], end[1] + middle)
    else:
        turn = end[1] + HEIGHT + (ROW - HEIGHT) / 2
        corners = (start[0] + WIDTH / 2, start[1]), (start[0] + WIDTH / 2, turn)
        ax.plot(*zip(*corners, (end[0] + WIDTH / 2, turn), strict=True), color="0.3", linewidth=1.3)
        path = (end[0] + WIDTH / 2, turn), (end[0] + WIDTH / 2, end[1] + HEIGHT)
    ax.annotate("", path[1], path[0], arrowprops=arrow)
