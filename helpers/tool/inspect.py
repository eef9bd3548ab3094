"""What noise is in these recordings, and what would the default do about it? `denoiser inspect`.

Nothing is written but, on demand, a figure for each file.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from helpers import audio, store
from helpers.denoise.account import HZ, Account
from helpers.tool import files

NOWHERE = Path(os.devnull)  # the folder of figures that are not drawn


def plan(source: Path, plots: Path | None) -> list[tuple[Path, Path]]:
    """Pairs (file, its figure) for a file or all sounds below a folder, as `files.plan_outputs`.

    Raises AudioError for a missing path, an unreadable file or a folder without audio.
    """
    if source.is_dir():
        found = files.sounds_below(source, NOWHERE)
    else:
        audio.open_audio(source).close()
        found, source = [source], source.parent
    place = plots or NOWHERE
    return [(file, place / f"{file.relative_to(source)}.png") for file in found]


def inspect_file(denoiser, source: Path, target: Path) -> dict:
    """Denoise a file without keeping what comes out: {"seconds", "sr", "account"}.

    Its spectra are drawn into `target`, a PNG, unless that lies NOWHERE. `denoiser`: a
    `helpers.denoise.stream.Denoiser` by frequency. Raises FileError.
    """
    with audio.open_audio(source) as reader:
        stream = denoiser.stream(reader.channels)
        for _ in files.denoised_blocks(stream, reader):
            pass
        found = {"seconds": reader.frames / reader.samplerate, "sr": reader.samplerate}
    if NOWHERE not in target.parents:
        draw(stream.account, source.name, target)
    return found | {"account": stream.account}


def lines(done: Iterable[tuple[Path, Path, dict]]) -> list[str]:
    """A table: file, length, rate, the band of the noise and the SNR in it, what would be done."""
    cells = [("file", "s", "Hz", "noise, kHz", "SNR there, dB", "the default")]
    for file, _, found in done:
        account = found["account"]
        low, high = account.band
        cells.append(
            (
                store.shown(file),
                f"{found['seconds']:.1f}",
                f"{found['sr']:g}",
                "-" if account.is_faint else f"{low / 1000:.1f}-{high / 1000:.1f}",
                "-" if account.is_faint else f"{account.snr_db:.0f}",
                account.words(),
            )
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]


def draw(account: Account, name: str, target: Path) -> None:
    """The long-term spectra of the input, of what the model hears as noise, and of what goes."""
    from matplotlib.figure import Figure  # a second, which only figures need

    figure = Figure(figsize=(8, 3.5), layout="constrained")
    ax = figure.subplots()
    labels = ("the input", "noise that the model hears", "removed by default")
    styles = (("0.3", "-"), ("tab:orange", ":"), ("tab:blue", "--"))
    top = account.power.max() or 1.0
    for power, label, (color, line) in zip(account.power, labels, styles, strict=True):
        power_db = 10 * np.log10(power / top + 1e-10)
        ax.plot(HZ / 1000, power_db, line, color=color, label=label, lw=1)
    ax.set(xlabel="Frequency (kHz)", ylabel="Power (dB re the highest)", ylim=(-90, 3))
    ax.set_title(f"{name}: {account.words()}", loc="left", fontsize="medium")
    ax.legend()
    with store.atomic_path(target, overwrite=True) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
