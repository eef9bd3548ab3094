"""One style, and the figures that more than one notebook draws.

Plotters take `ax=None`, draw on it (or on a new one) and return it; `comparison` and those named
quality_by make a whole figure. Taught in `01_dataset` (spectrograms).
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

from helpers import audio, models, store
from helpers.data import conditions
from helpers.denoise import systems
from helpers.evaluation import tables
from helpers.quick import size

DYNAMIC_RANGE = 80.0  # dB, from the brightest to the darkest colour of a spectrogram
LEVELS, DIFFERENCES = "magma", "RdBu_r"  # colour maps
LABELS = {
    "si_sdr": "SI-SDR (dB)",
    "mse": "Mean squared error",
    "pesq": "PESQ-WB (1.04-4.64)",
    "estoi": "ESTOI (0-1)",
    "level": "Level re clean (dB)",
    "wer": "Word error rate (%)",
    "per": "Phoneme error rate (%)",
}
DIGITS = {"si_sdr": 1, "level": 1, "wer": 1, "per": 1}  # behind the point; else 2


def set_style() -> None:
    """The look of every figure of the course."""
    sns.set_theme(context="notebook", style="ticks", font_scale=0.9)
    plt.rcParams |= {
        "figure.figsize": (9, 3.2),
        "figure.dpi": 96,
        "savefig.dpi": 150,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.constrained_layout.use": True,
        "legend.frameon": False,
    }


def save_figure(name: str, figure=None, folder: Path | None = None) -> Path | None:
    """Save as `figures/<name>.png` (name: `NN_what`), the current figure by default.

    A quick run saves below `output/` instead, so that tests leave the course's figures alone. The
    figures of a checkout that cannot be written are shown all the same: None is returned, and a
    process warns once. Raises store.FileError for a `folder` that cannot be written.
    """
    place = Path(folder or store.ROOT / size("figures", "output/figures"))
    with nullcontext() if folder else store.spared("figures are shown and not saved"):
        path = place / f"{name}.png"
        with store.atomic_path(path, overwrite=True) as temporary:
            (figure or plt.gcf()).savefig(temporary, format="png")
        return path


def waveform(samples, sr=audio.SAMPLE_RATE, ax=None, **style):
    """Samples `(samples,)` over time."""
    ax = ax or plt.subplots()[1]
    ax.plot(np.arange(len(samples)) / sr, samples, linewidth=0.5, **style)
    ax.set(xlabel="Time (s)", ylabel="Amplitude", xlim=(0, len(samples) / sr))
    return ax


def spectrogram_db(samples: np.ndarray) -> np.ndarray:
    """Power of the root-Hann STFT in dB, `(bins, frames)`; a full-scale sine peaks near 0 dB."""
    scale = audio.root_hann(audio.WIN_LENGTH).sum() / 2
    return audio.power_db(np.abs(audio.stft(samples)) ** 2 / scale**2).T


def spectrogram(samples, sr=audio.SAMPLE_RATE, ax=None, top_db=0.0, band=None, colorbar=True):
    """Spectrogram with colours from `top_db` down by DYNAMIC_RANGE, in dB re a full-scale sine.

    `band`: (low, high) in Hz, drawn as labelled lines.
    """
    ax = ax or plt.subplots()[1]
    S_db = spectrogram_db(samples)
    extent = (0, len(samples) / sr, 0, sr / 2000)
    picture = ax.imshow(
        S_db,
        origin="lower",
        aspect="auto",
        extent=extent,
        cmap=LEVELS,
        vmin=top_db - DYNAMIC_RANGE,
        vmax=top_db,
        interpolation="nearest",
        rasterized=True,
    )
    ax.set(xlabel="Time (s)", ylabel="Frequency (kHz)")
    if band:
        mark_band(ax, *band, right=extent[1])
    if colorbar:
        ax.figure.colorbar(picture, ax=ax, label="dB re full-scale sine")
    return ax


def mark_band(ax, low, high, right):
    """Draw the edges of a noise band (Hz) on a spectrogram whose y axis is in kHz."""
    for edge in (low, high):
        if edge < audio.SAMPLE_RATE / 2:
            ax.axhline(edge / 1000, color="w", linestyle="--", linewidth=1)
            ax.annotate(
                f"{edge / 1000:g} kHz",
                (right, edge / 1000),
                xytext=(-3, 3),
                textcoords="offset points",
                color="w",
                ha="right",
                fontsize="small",
                path_effects=[withStroke(linewidth=2, foreground="k")],
            )
    return ax


def comparison(clips: Mapping[str, np.ndarray], sr=audio.SAMPLE_RATE, band=None, columns=3):
    """Spectrograms of named clips side by side, one dB reference and colour scale for all."""
    top_db = max(np.percentile(spectrogram_db(clip), 99.9) for clip in clips.values())
    columns = min(columns, len(clips))
    rows = -(-len(clips) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.6 * columns, 2.8 * rows), sharey=True, squeeze=False
    )
    for ax, (title, clip) in zip(axes.flat, clips.items(), strict=False):
        spectrogram(clip, sr, ax, top_db, band, colorbar=False)
        ax.set_title(title)
        ax.label_outer()
    for ax in axes.flat[len(clips) :]:
        ax.set_visible(False)
    figure.colorbar(axes.flat[0].images[0], ax=axes, label="dB re full-scale sine", pad=0.01)
    return figure


def mask(M: np.ndarray, seconds: float, sr=audio.SAMPLE_RATE, ax=None):
    """Strength of a mask `(frames, bins)`, real or complex: dark removes a bin, bright keeps it.

    `seconds`: how long the clip is. Strengths above 1 look like 1.
    """
    ax = ax or plt.subplots()[1]
    extent = (0, seconds, 0, sr / 2000)
    look = {"origin": "lower", "aspect": "auto", "interpolation": "nearest", "rasterized": True}
    ax.imshow(np.abs(M).T, extent=extent, cmap=LEVELS, vmin=0, vmax=1, **look)
    ax.set(xlabel="Time (s)", ylabel="Frequency (kHz)")
    return ax


def phase(S: np.ndarray, seconds: float, sr=audio.SAMPLE_RATE, ax=None):
    """Phase of a complex STFT `(frames, bins)`, `seconds` long, in radians and cyclic colours."""
    ax = ax or plt.subplots()[1]
    look = {"origin": "lower", "aspect": "auto", "interpolation": "nearest", "rasterized": True}
    look |= {"cmap": "twilight", "vmin": -np.pi, "vmax": np.pi}
    picture = ax.imshow(np.angle(S).T, extent=(0, seconds, 0, sr / 2000), **look)
    ax.set(xlabel="Time (s)", ylabel="Frequency (kHz)")
    ax.figure.colorbar(picture, ax=ax, label="Radians")
    return ax


def pictures(panels: Mapping[str, np.ndarray], seconds: float, top_db: float = -20.0):
    """Named panels side by side: samples `(samples,)` as spectrograms, `(frames, bins)` as masks.

    All are `seconds` long; the spectrograms share one dB reference, `top_db` re a full-scale sine.
    """
    size = (3.6 * len(panels), 2.8)
    figure, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)
    for ax, (title, panel) in zip(axes.flat, panels.items(), strict=True):
        if np.ndim(panel) == 1:
            spectrogram(panel, ax=ax, top_db=top_db, colorbar=False)
        else:
            mask(panel, seconds, ax=ax)
        ax.set_title(title)
        ax.label_outer()
    return figure


def timeline(bars: Sequence[tuple[str, float, float]], ax=None):
    """Labelled bars, each `(label, start, end)` in milliseconds, the first on top."""
    ax = ax or plt.subplots(figsize=(9, 0.5 + 0.5 * len(bars)))[1]
    for row, (label, start, end) in enumerate(bars):
        ax.barh(row, end - start, left=start, height=0.7, color=f"C{row}", alpha=0.5)
        ax.text((start + end) / 2, row, label, ha="center", va="center")
    ax.set(xlabel="Time (ms)", ylim=(len(bars) - 0.5, -0.5), yticks=[])
    return ax


def learning(curves: Mapping[str, list], clips: Mapping[str, np.ndarray], band=None, columns=3):
    """A training so far: its loss over the epochs, then spectrograms of one clip as it came out.

    `curves`: name -> one loss an epoch, the last of which is that of the last epoch; a curve may
    begin later than the others, as that of training, which has none before the first epoch.
    `clips`: title -> `(samples,)`; no more than `columns` panels stand in a row.
    """
    rows, last = -(-(1 + len(clips)) // columns), max(map(len, curves.values()), default=1) - 1
    size = (3.6 * columns, 2.8 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for (name, values), line in zip(curves.items(), ("-o", "--s", ":^", "-.d"), strict=False):
        axes.flat[0].plot(range(last + 1 - len(values), last + 1), values, line, label=name)
    axes.flat[0].set(xlabel="Epoch", ylabel="Loss", title=f"After epoch {last}")
    axes.flat[0].xaxis.get_major_locator().set_params(integer=True)
    axes.flat[0].legend()
    for ax, (title, clip) in zip(axes.flat[1:], clips.items(), strict=False):
        spectrogram(clip, ax=ax, band=band, top_db=-20, colorbar=False)
        ax.set_title(title)
    for ax in axes.flat[1 + len(clips) :]:
        ax.set_visible(False)
    return figure


def dots(summary: pd.DataFrame, by: str, metric: str, ax=None, mark_best: bool = True):
    """Means of a metric with their 95 % intervals, one line a name, the first one on top.

    `summary`: from `tables.summarise`, with the names in the column `by`. The highest mean is
    drawn in another colour and shape, and all are written out, where asked for. Intervals of NaN
    are left out.
    """
    ax = ax or plt.subplots()[1]
    best = summary[metric].to_numpy() == summary[metric].max()
    for chosen, style in ((~best, "o"), (best, "D" if mark_best else "o")):
        color = "tab:orange" if mark_best and style == "D" else "tab:blue"
        part = summary[chosen]
        errors = [part[metric] - part[f"{metric}_low"], part[f"{metric}_high"] - part[metric]]
        ax.errorbar(part[metric], np.flatnonzero(chosen), xerr=errors, fmt=style, color=color)
    for row, value in enumerate(summary[metric] if mark_best else ()):
        style = {"textcoords": "offset points", "ha": "center", "fontsize": "x-small"}
        ax.annotate(f"{value:z.{DIGITS.get(metric, 2)}f}", (value, row), (0, 5), **style)
    ax.set(xlabel=LABELS[metric], ylim=(len(summary) - 0.5, -0.5))
    ax.set_yticks(range(len(summary)), summary[by])
    ax.grid(axis="x", alpha=0.4)
    return ax


def scores(rows: pd.DataFrame, metrics=("si_sdr", "pesq"), by="system", mark_best=True):
    """Means with 95 % intervals of each name in the column `by`, a panel a metric (see `dots`)."""
    height = 1.0 + 0.27 * rows[by].nunique()
    size = {"figsize": (11, height), "sharey": True, "squeeze": False}
    figure, axes = plt.subplots(1, len(metrics), **size)
    for ax, metric in zip(axes.flat, metrics, strict=True):
        dots(tables.summarise(rows, [by], (metric,)), by, metric, ax, mark_best)
    return figure


def differences(rows: pd.DataFrame, system: str, other: str, metrics=("si_sdr", "pesq")):
    """System minus other, clip by clip: means with 95 % intervals, a line a condition.

    `rows`: of a table of results, with the columns of `conditions.COLUMNS`; a panel a metric.
    """
    groups = {}
    for key, group in rows.groupby(list(conditions.COLUMNS), dropna=False):
        row = dict(zip(conditions.COLUMNS, key, strict=True))
        groups[conditions.Condition.of_row(row).title] = group
    size = {"figsize": (11, 1.0 + 0.27 * len(groups)), "sharey": True, "squeeze": False}
    figure, axes = plt.subplots(1, len(metrics), **size)
    for ax, metric in zip(axes.flat, metrics, strict=True):
        found = [
            (title, *tables.paired(one, system, other, metric)) for title, one in groups.items()
        ]
        names = ["input", metric, f"{metric}_low", f"{metric}_high"]
        dots(pd.DataFrame(found, columns=names), "input", metric, ax, mark_best=False)
        ax.axvline(0, color="0.4")
        ax.set_xlabel(f"{LABELS[metric].split(' (')[0]}, difference")
    return figure


def style_of(system: str) -> tuple:
    """Colour, line and marker of a system; those of its table, or grey for another one."""
    row = systems.TABLE.get(system)
    return row.style if row else ("0.35", "-", "o")


def quality_by_snr(summary: pd.DataFrame, metrics=("si_sdr", "pesq", "estoi")):
    """Mean and 95 % interval of each metric over the SNR, a line for each system.

    `summary`: from `tables.summarise` with the columns snr_db and system. ESTOI, of which good
    systems have nearly 1, is drawn by its distance from 1, on a logarithmic scale.
    """
    size = {"figsize": (3.6 * len(metrics), 3.2), "squeeze": False}
    figure, axes = plt.subplots(1, len(metrics), **size)
    for ax, metric in zip(axes.flat, metrics, strict=True):
        _curves(ax, summary, metric)
        ax.set(ylabel=LABELS[metric])
        if metric == "estoi":
            # 1.002, so that 1 has its place
            near_one = (lambda y: -np.log10(np.maximum(1.002 - y, 1e-3)), lambda z: 1.002 - 10**-z)
            ax.set_yscale("function", functions=near_one)
            ax.set_yticks([0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 1])
            ax.set_ylim(summary[f"{metric}_low"].min(), 1)
    return _with_legend(figure)


def _curves(ax, summary: pd.DataFrame, metric: str):
    """Draw a metric of every system over the SNR, with its intervals."""
    for system, group in summary.groupby("system", sort=False):
        color, line, marker = style_of(system)
        group = group.sort_values("snr_db")
        values = group[metric]
        errors = [values - group[f"{metric}_low"], group[f"{metric}_high"] - values]
        style = {"color": color, "linestyle": line, "marker": marker, "label": system}
        ax.errorbar(group.snr_db, values, errors, **style)
    ax.set(xlabel="Input SNR (dB)")
    return ax


def _with_legend(figure):
    """One legend below all panels, of the lines of the first."""
    lines, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=min(6, len(names)))
    return figure


def quality_by_cost(points: pd.DataFrame, metric: str = "pesq"):
    """A metric over CPU seconds a second of audio, and over the size of the network, log axes.

    `points`: one line a system (index) with the columns cpu and megabytes (NaN without a network)
    and the metric. The models of the course stand out.
    """
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.8), sharey=True)
    costs = {"cpu": "CPU seconds a second of audio", "megabytes": "Size of the network (MB)"}
    for ax, (cost, label) in zip(axes, costs.items(), strict=True):
        for system, line in points[[cost, metric]].dropna().iterrows():
            color, _, marker = style_of(system)
            ax.plot(*line, marker, color=color, markersize=9 if system in models.METHODS else 6)
        ax.set(xscale="log", xlabel=label)
        ax.margins(x=0.3, y=0.08)
    axes[0].set_ylabel(LABELS[metric])
    figure.canvas.draw()  # the layout must be final before names can be kept apart
    figure.set_layout_engine("none")
    for ax, cost in zip(axes, costs, strict=True):
        name_points(ax, points[[cost, metric]].dropna())
    return figure


def name_points(ax, points: pd.DataFrame):
    """Write each point's name (index) beside it, where no point and no other name is in the way.

    `points`: columns x and y, in data coordinates of axes whose layout is final. Eight places are
    tried; the last is taken where all are full.
    """
    corners = ax.transData.transform(points.to_numpy())
    taken = [Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in corners]  # pixels
    places = [(7, -4), (-7, -4), (6, 7), (-6, 7), (6, -15), (-6, -15), (6, 18), (6, -26)]  # points
    for system, at in zip(points.index, points.to_numpy(), strict=True):
        weight = "bold" if system in models.METHODS else "normal"
        name = ax.annotate(
            system, at, places[0], textcoords="offset points", fontsize="small", weight=weight
        )
        for offset in places:
            name.xyann = offset
            name.set_ha("left" if offset[0] > 0 else "right")
            box = name.get_window_extent()
            if not any(map(box.overlaps, taken)):
                break
        taken.append(box)
    return ax
