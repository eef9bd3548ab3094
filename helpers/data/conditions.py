"""Test inputs by name: a kind of noise in a band at an SNR, and the noisy clip of each utterance.

The noise of a clip depends on the utterance, the kind, the band and a seed only, so every system
hears the same. Taught in `05_evaluation`.
"""

import dataclasses
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import pandas as pd

from helpers import audio
from helpers.data import noise, scenes

SEED = 0  # of the noise on the test clips
BRIGHT = "bright recordings"  # a kind: recordings as they come, those with much above 4 kHz
BRIGHT_SHARE = 0.3  # of a recording's energy, or more, lies above noise.LOW


@dataclasses.dataclass(frozen=True)
class Condition:
    """A kind of noise in a band (Hz) at an SNR (dB), and the speaker's level (dBFS RMS).

    The kind "none" leaves the input clean; without a level the recording keeps its own. A kind may
    name a scene behind it, as "white + hum" (`scenes`). "recorded" and BRIGHT are mixed by
    category (`by_category`).
    """

    kind: str = "white"
    low: float = noise.LOW
    high: float = noise.HIGH
    snr_db: float = 0.0
    level_db: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """From "KIND" or "KIND:LOW-HIGH", for example `pink:2500-7000`; ValueError otherwise,
        also for an unknown kind.
        """
        kind, _, band = text.partition(":")
        try:
            low, high = map(float, band.split("-")) if band else (noise.LOW, noise.HIGH)
        except ValueError as error:
            raise ValueError(f"{text!r}: write KIND or KIND:LOW-HIGH, as pink:2500-7000") from error
        if kind != "none":
            scenes.check_kind(kind)
        if not 0 <= low < high:
            raise ValueError(f"{text!r}: the band must begin below its end, as pink:2500-7000")
        return cls(kind, low, high)

    @classmethod
    def of_row(cls, row: Mapping) -> Self:
        """The condition of a row of results, whose empty cells are NaN."""
        fields = {name: row[name] for name in COLUMNS}
        return cls(**fields | {"level_db": None if pd.isna(row["level_db"]) else row["level_db"]})

    @property
    def row(self) -> dict:
        """Its columns in a row of results; no level of its own is NaN."""
        return dataclasses.asdict(self) | ({"level_db": np.nan} if self.level_db is None else {})

    @property
    def input(self) -> str:
        """The noise in words, for example `white 4-8 kHz, speech at -50 dBFS`."""
        kind, scene = scenes.split_kind(self.kind)
        if kind == "none":
            text = "clean input"
        else:
            text = f"{kind} {self.low / 1000:g}-{self.high / 1000:g} kHz"
        text += f" + {scene}" if scene else ""
        return text if self.level_db is None else f"{text}, speech at {self.level_db:g} dBFS"

    @property
    def title(self) -> str:
        """The noise and its SNR, for example `white 4-8 kHz, 10 dB`; clean input has no SNR."""
        is_clean = scenes.split_kind(self.kind)[0] == "none"
        return self.input if is_clean else f"{self.input}, {self.snr_db:g} dB"


COLUMNS = tuple(field.name for field in dataclasses.fields(Condition))  # by which rows are told


def named(*conditions: Condition) -> dict[str, Condition]:
    """Conditions by their titles."""
    return {one.title: one for one in conditions}


# --- the test protocol --------------------------------------------------------------------------

NOISES = named(  # every system is scored on these
    Condition("white", snr_db=0.0),
    Condition("white", snr_db=10.0),
    Condition("pink", 2_500, 7_000, 0.0),
    Condition("inverter", snr_db=0.0),
    Condition("recorded", 3_000, 8_000, 0.0),
    Condition("recorded", 0, 8_000, 5.0),
)
WHITE = NOISES["white 4-8 kHz, 0 dB"]  # the one that all is measured with first
QUIET = Condition("white", snr_db=0.0, level_db=-50.0)
CLEAN = Condition("none")
HEADLINE = NOISES | named(QUIET, CLEAN)
SWEEP = named(  # of white noise, on which every system is scored too
    *(Condition("white", snr_db=snr_db) for snr_db in (-5.0, 5.0, 20.0))
)
FOR_ALL = HEADLINE | SWEEP
RECORDINGS = named(  # what people bring: more than noise, and noise from 2 kHz on
    Condition("white + room tone", snr_db=0.0),
    Condition("white + hum", snr_db=0.0),
    Condition("white + rumble", snr_db=0.0),
    Condition("white + offset", snr_db=5.0),
    Condition("white + reverberation", snr_db=0.0),
    Condition("white + telephone", 2_000, 4_000, 5.0),
    Condition("white", 2_000, 8_000, 0.0),
    Condition("pink", 2_000, 8_000, 0.0),
    Condition("beeps", 2_200, 2_400, 0.0),
    Condition("none + music"),
)
BRIGHT_RECORDINGS = named(  # nothing is cut out of their band
    *(Condition(BRIGHT, 0, 8_000, snr_db) for snr_db in (0.0, 5.0, 10.0))
)
SNRS = (-5.0, 0.0, 10.0, 20.0)  # dB, of every kind of noise but white
CONDITIONS = (  # the shipped models, and what stands below and above them, on all of these
    FOR_ALL
    | named(
        *(
            dataclasses.replace(one, snr_db=snr_db)
            for one in NOISES.values()
            for snr_db in SNRS
            if one.kind != "white" and snr_db != one.snr_db
        )
    )
    | named(*(Condition("white", snr_db=0.0, level_db=level_db) for level_db in (-20.0, -35.0)))
    | RECORDINGS
    | BRIGHT_RECORDINGS
)


def rows_of(rows: pd.DataFrame, condition: Condition) -> pd.DataFrame:
    """The rows of one condition."""
    wanted = dataclasses.asdict(condition)
    level_db = wanted.pop("level_db")
    chosen = (rows[list(wanted)] == pd.Series(wanted)).all(axis=1)
    return rows[chosen & (rows.level_db.isna() if level_db is None else rows.level_db == level_db)]


def possible(conditions, files) -> list[Condition]:
    """The conditions, without those of recordings where there are none of that kind."""
    return [one for one in conditions if one.kind not in RECORDED or recordings_of(one, files)]


# --- recordings by category ---------------------------------------------------------------------

RECORDED = ("recorded", BRIGHT)  # kinds


class Share(NamedTuple):
    """The utterances that get noise of one category: its name ("" where noise is not recorded),
    rows of a corpus, the condition by which `make_noisy` mixes them, and the recordings.
    """

    source: str
    utterances: pd.DataFrame
    condition: Condition
    files: tuple[Path, ...]


def recordings_of(condition: Condition, files) -> tuple[Path, ...]:
    """Those recordings that a kind takes: all, or of BRIGHT those of BRIGHT_SHARE."""
    if condition.kind == BRIGHT:
        return tuple(path for path in files if noise.share_above(path) >= BRIGHT_SHARE)
    return tuple(files)


def by_category(utterances: pd.DataFrame, condition: Condition, files=()) -> Iterator[Share]:
    """Recorded noise with each category as often as the others, however many files it has.

    The category, which is a file's folder, is drawn by the utterance's name, so every system hears
    the same. Gives one `Share` a category, without any where there are no recordings; one of all
    utterances where the kind is not recorded.
    """
    if condition.kind not in RECORDED:
        yield Share("", utterances, condition, tuple(files))
        return
    folders = sorted({path.parent for path in recordings_of(condition, files)})
    mixed = dataclasses.replace(condition, kind="recorded")
    drawn = utterances.utterance.map(lambda name: zlib.crc32(f"{name}/category".encode()))
    for i, folder in enumerate(folders):
        inside = tuple(p for p in recordings_of(condition, files) if p.parent == folder)
        chosen = utterances[drawn % len(folders) == i].reset_index(drop=True)
        if len(chosen):
            yield Share(folder.name, chosen, mixed, inside)


# --- noisy clips --------------------------------------------------------------------------------


def make_noisy(utterance: str, clean: np.ndarray, condition: Condition, seed: int, files=()):
    """`(clean, noise, noisy)` of a condition: the same noise for an utterance at every SNR.

    `noise` is all that is not speech: the background of a scene too.
    """
    if condition.level_db is not None:
        clean = audio.set_level(clean, condition.level_db)
    if condition.kind == "none":
        return clean, np.zeros_like(clean), clean
    name = f"{utterance}/{condition.kind}/{condition.low:g}-{condition.high:g}"
    rng, sr = noise.rng_for(name, seed), audio.SAMPLE_RATE
    kind, scene = scenes.split_kind(condition.kind)
    if not scene:
        added = noise.make(kind, len(clean), sr, rng, condition.low, condition.high, files)
        return noise.mix(clean, added, condition.snr_db)
    clean, background = scenes.SCENES[scene](np.float64(clean), sr, rng)
    if kind == "none":
        return noise.add(clean, background)
    added = noise.make(kind, len(clean), sr, rng, condition.low, condition.high, files)
    return noise.add(clean, background + scenes.at_snr(clean, added, condition.snr_db))
