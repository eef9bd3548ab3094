"""A bench in a notebook: controls, and a picture and players that follow them at once.

Taught in `02_noise`.
"""

import io
from collections.abc import Callable, Mapping

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML, Image
from matplotlib.backends.backend_agg import FigureCanvasAgg

from helpers import audio
from helpers.display import plots


class Picture:
    """Spectrograms of two clips side by side, one colour scale for both, as often as asked for.

    Frames, ticks and labels are drawn once and only the rest anew, so that it follows a slider.
    `n_samples`: of every clip, at 16 kHz; `top_db`: the brightest colour, in dB re a full-scale
    sine.
    """

    def __init__(self, n_samples: int, top_db: float = -25.0):
        figure = plt.Figure(figsize=(11, 2.9), dpi=80, layout="none")
        self.canvas = FigureCanvasAgg(figure)
        self.axes = figure.subplots(1, 2, sharey=True)
        figure.subplots_adjust(left=0.05, right=0.99, wspace=0.08, bottom=0.18, top=0.9)
        self.moving = []
        for ax in self.axes:
            plots.spectrogram(np.zeros(n_samples), ax=ax, top_db=top_db, colorbar=False)
            ax.label_outer()
            edges = [ax.axhline(0, color="w", linestyle="--", linewidth=1) for _ in range(2)]
            self.moving.append([ax.images[0], *edges, ax.set_title(" ")])
            plt.setp(self.moving[-1], animated=True)  # so left out of what is drawn here
        self.canvas.draw()
        self.frame = self.canvas.copy_from_bbox(figure.bbox)

    def __call__(self, clips: Mapping[str, np.ndarray], band: tuple[float, float]) -> Image:
        """A PNG of two clips, title -> float `(n_samples,)`, with the edges of a `band` in Hz.

        Raises ValueError for more or fewer clips than two.
        """
        self.canvas.restore_region(self.frame)
        for ax, artists, (title, clip) in zip(self.axes, self.moving, clips.items(), strict=True):
            picture, low, high, heading = artists
            picture.set_data(plots.spectrogram_db(clip))
            heading.set_text(title)
            for line, edge in ((low, band[0]), (high, band[1])):
                line.set_ydata([edge / 1000] * 2)
                line.set_visible(edge < audio.SAMPLE_RATE / 2)
            for artist in artists:
                ax.draw_artist(artist)
        png = io.BytesIO()
        plt.imsave(png, self.canvas.buffer_rgba(), pil_kwargs={"compress_level": 1})
        return Image(png.getvalue())


def sliders(
    function: Callable[..., tuple[Image, HTML]], controls: Mapping[str, widgets.Widget]
) -> widgets.VBox:
    """Controls above the picture and the players that `function(**values)` gives for them.

    `controls`: argument of `function` -> ipywidget; it is called once at first and again whenever
    a value changes. What it raises stays visible in place of the players until the next change.
    """
    picture, sound = widgets.Image(format="png"), widgets.HTML()

    def update(change=None):
        try:
            image, players = function(**{name: one.value for name, one in controls.items()})
        except ValueError as error:
            sound.value = f"<b>{error}</b>"
            return
        picture.value, sound.value = image.data, players.data

    for control in controls.values():
        control.observe(update, names="value")
    update()
    return widgets.VBox([*controls.values(), picture, sound])
