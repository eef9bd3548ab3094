"""Players for notebooks: rows of labelled clips at their true relative loudness.

Taught in `01_dataset`.
"""

from collections.abc import Mapping

import numpy as np
from IPython.display import HTML, Audio

from helpers import audio

LONGEST = 4.0  # s; a longer clip would make the notebook large
PEAK = 0.9  # of full scale, for the loudest clip of a row


def players(
    clips: Mapping[str, np.ndarray], sr=audio.SAMPLE_RATE, start: float = 0.0, gain=None
) -> HTML:
    """A row of labelled players, one gain for all, from `start` for LONGEST seconds at most.

    `gain`: by default what brings the loudest clip to PEAK. With a gain of your own, which rows of
    players can share, peaks beyond full scale are cut.

    A player that normalised each clip for itself would hide what the course is about: how loud
    noise and speech are against each other.
    """
    first = int(start * sr)
    cuts = {name: clip[first : first + int(LONGEST * sr)] for name, clip in clips.items()}
    gain = gain or PEAK / max(1e-9, *(np.abs(cut).max() for cut in cuts.values()))
    cells = [
        f"<td style='text-align:left'><b>{name}</b><br>"
        f"{Audio(np.clip(cut * gain, -1, 1), rate=sr, normalize=False)._repr_html_()}</td>"
        for name, cut in cuts.items()
    ]
    return HTML(f"<table><tr>{''.join(cells)}</tr></table>")
