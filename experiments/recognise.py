"""Word errors of recognisers on noisy and on denoised speech, in a file that grows part by part.

A part is what one recogniser hears on one condition after one system (`kept_rows`), so a run that
was stopped goes on, and after a training only the trained model is heard again. Read in
`06_recognition`.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from experiments import evaluate
from experiments.evaluate import Entry
from experiments.kept import facts_of_clips, facts_of_spread, kept_rows
from helpers import audio, store
from helpers.data import conditions, noise
from helpers.data.conditions import Condition
from helpers.denoise.systems import DEFAULT
from helpers.evaluation import asr, word_errors
from helpers.evaluation.word_errors import (
    CHOSEN_MIX,
    METHOD,
    ORACLE,
    SPECIALIST,
    TO_MIX,
    TO_SPARE,
    choose,
)
from helpers.quick import size

UTTERANCES = size(120, 2)  # of the test and *other* speakers
VALIDATION_UTTERANCES = size(40, 2)
MORE_UTTERANCES = size(120, 2)  # of validation, or as many as there are, on TO_SPARE
MIXES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the denoised signal
LIMITS_DB = (10.0, 20.0)  # the most by which a bin is taken down
LIMIT_WIN, LIMIT_HOP = 512, 256  # samples, the frames of these bins
WHOLE_BAND = (  # left alone by default: would a mix do better?
    Condition("recorded", 0, 8_000, 10.0),
    Condition("recorded", 0, 8_000, 20.0),
)
TO_GATE = (  # only noisy and denoised: what is better left alone?
    Condition("none"),
    Condition("recorded", 3_000, 8_000, 20.0),
    Condition("pink", 2_500, 7_000, 20.0),
)
CONDITIONS = (  # those first for which most is expected of the models
    Condition("white", snr_db=0.0),
    Condition("inverter", snr_db=0.0),
    Condition("white", snr_db=-5.0),
    Condition("inverter", snr_db=-5.0),
    Condition("white", snr_db=-15.0),
    Condition("inverter", snr_db=-15.0),
    Condition("recorded", 0, 8_000, 5.0),
    Condition("none"),
    Condition("recorded", 0, 8_000, 0.0),
    Condition("white", snr_db=10.0),
    Condition("white", snr_db=20.0),
    Condition("recorded", 0, 8_000, 20.0),
    Condition("pink", 2_500, 7_000, 0.0),
    Condition("recorded", 3_000, 8_000, 0.0),
)
# noise over the whole band, where the model alone may do more
OVER_ALL = tuple(one for one in CONDITIONS if one.kind == "recorded" and one.low == 0)
MIXED = (  # of CONDITIONS those on which a mix that was chosen is reported
    Condition("white", snr_db=0.0),
    Condition("recorded", 0, 8_000, 5.0),
)
RECORDINGS = (
    Condition("white + room tone", snr_db=0.0),
    Condition("white + hum", snr_db=0.0),
    Condition("pink", 2_000, 8_000, 0.0),
)
TO_ORACLE = (Condition("inverter", snr_db=0.0), Condition("inverter", snr_db=-5.0))
MAIN = ("noisy", "low-pass", DEFAULT)  # heard on everything; METHOD too on OVER_ALL
OTHERS = ("waveform", "log-MMSE")  # heard on TO_OTHERS
PEERS = ("GTCRN",)  # heard there too, by all recognisers of words
TO_OTHERS = (Condition("white", snr_db=0.0), Condition("pink", 2_500, 7_000, 0.0))
WITH_OTHERS = ("PocketSphinx",)  # recognisers, whom noise costs most, that hear these, and ORACLE
INPUTS = {  # of recognisers that do not hear all of CONDITIONS and RECORDINGS
    "hama (phonemes)": (Condition("pink", 2_500, 7_000, 0.0), Condition("none")),
}
IN_SHORT = ("Whisper base", "hama (phonemes)")  # recognisers that take hours: no validation, no mix


@dataclasses.dataclass(frozen=True)
class Part:
    """What one recogniser hears on one condition after one system."""

    recogniser: str
    condition: Condition
    system: str
    entry: Entry

    @property
    def columns(self) -> dict:
        """The columns by which its rows are told from those of other parts."""
        return {"recogniser": self.recogniser, "system": self.system} | self.condition.row

    @property
    def hear(self) -> Callable[..., pd.DataFrame]:
        """What hears, and counts words or phonemes."""
        of_phonemes = self.recogniser in asr.OF_PHONEMES
        return word_errors.hear_phonemes if of_phonemes else word_errors.hear

    def facts(self, utterances: pd.DataFrame, files) -> dict:
        """What decides its rows: recogniser, system, clips, noise."""
        packages = asr.PACKAGES | asr.OTHER_PACKAGES
        hearing = (asr.RECOGNISERS[self.recogniser], self.hear)
        told = (audio.read, conditions.make_noisy)
        return {
            "recogniser": [self.recogniser, version(packages[self.recogniser])],
            "hearing": store.code(*hearing, told=told),
            "said": list(utterances.text),
            "system": [self.system, self.entry.version, self.entry.code],
            "clips": facts_of_clips(utterances),
            "noisy": facts_of_spread(self.condition, conditions.SEED, files),
        } | asr.facts_of_choice(self.recogniser)

    def rows(self, utterances: pd.DataFrame, files) -> pd.DataFrame:
        """What it hears: the rows of `word_errors.hear`, `source`, and `version` of the system."""

        def hear(share: conditions.Share) -> pd.DataFrame:
            clips, system = share.utterances, self.entry.system
            return self.hear(
                self.recogniser, clips, share.condition, self.system, system, share.files
            )

        heard = evaluate.spread(utterances, self.condition, files, hear)
        return heard.assign(version=self.entry.version[:12])


def hear_all(path: Path, utterances: pd.DataFrame, parts: Iterable[Part], files=()) -> pd.DataFrame:
    """Rows of every part: those that the CSV `path` has are kept, the others made and added."""
    rows = pd.DataFrame()
    for part in tqdm(list(parts), "parts", disable=None):
        make = functools.partial(part.rows, utterances, files)
        rows = kept_rows(path, part.columns, part.facts(utterances, files), make)
    return rows


# --- on validation speakers: how much to mix, when to leave alone -----------------------------


def mixed(entry: Entry, mix: float) -> Entry:
    """A system whose output is mixed back with the noisy input, `mix` times denoised."""

    def system(noisy):
        return np.float32(mix * entry.system(noisy) + (1 - mix) * noisy)

    if not mix:
        return evaluate.simple("noisy")
    code = store.code(mixed, told=(evaluate.simple, Entry))
    return dataclasses.replace(entry, system=system, code=f"{entry.code} {code}")


def limited(entry: Entry, limit_db: float) -> Entry:
    """A system that takes no bin of the STFT down by more than `limit_db`; some noise stays.

    A bin below that is the input's, turned down by `limit_db`: the maximum attenuation, or
    spectral floor, of M. Berouti, R. Schwartz and J. Makhoul (ICASSP 1979).
    """

    def system(noisy):
        floor = 10 ** (-limit_db / 20) * audio.stft(noisy, LIMIT_WIN, LIMIT_HOP)
        S = audio.stft(entry.system(noisy), LIMIT_WIN, LIMIT_HOP)
        return audio.istft(np.where(np.abs(S) < np.abs(floor), floor, S), len(noisy), LIMIT_HOP)

    code = store.code(limited, told=(Entry,))
    return dataclasses.replace(entry, system=system, code=f"{entry.code} {code}")


def hear_validation(
    path: Path, table: pd.DataFrame, noise_folder: Path | None, names: Sequence[str]
) -> pd.DataFrame:
    """Recognisers on validation speech, by `hear_all`: systems "mix 0.25", "limit 10 dB", ...

    MIXES and LIMITS_DB on TO_MIX and, with MORE_UTTERANCES, on TO_SPARE; the input and the model
    on TO_GATE; MIXES on WHOLE_BAND. `names`: of the recognisers; those IN_SHORT hear nothing.
    """
    names = [name for name in names if name not in IN_SHORT]
    files = tuple(noise.recorded_files(noise_folder, "validation"))
    entry = evaluate.trained(METHOD)
    mixes = {f"mix {mix:g}": mixed(entry, mix) for mix in MIXES}
    ends = {name: mixes[name] for name in ("mix 0", "mix 1")}
    every = mixes | {f"limit {limit:g} dB": limited(entry, limit) for limit in LIMITS_DB}

    def heard(inputs, those, n_utterances):
        utterances = choose(table, ("validation",), n_utterances)
        cells = itertools.product(conditions.possible(inputs, files), names, those.items())
        parts = [Part(recogniser, condition, *named) for condition, recogniser, named in cells]
        return hear_all(path, utterances, parts, files)

    heard(TO_MIX, every, VALIDATION_UTTERANCES)
    heard(TO_GATE, ends, VALIDATION_UTTERANCES)
    heard(WHOLE_BAND, mixes, VALIDATION_UTTERANCES)
    return heard((TO_SPARE,), every, MORE_UTTERANCES)


# --- on test speakers -------------------------------------------------------------------------


def hear_test(
    path: Path,
    table: pd.DataFrame,
    noise_folder: Path | None,
    names: Sequence[str],
    with_peers: bool = False,
    specialist: Path | None = None,
) -> pd.DataFrame:
    """Word errors on the test and *other* speakers, by `hear_all`.

    MAIN on CONDITIONS and RECORDINGS, or on INPUTS; METHOD on those of them that are OVER_ALL. The
    mix of CHOSEN_MIX on MIXED; WITH_OTHERS on TO_ORACLE the ORACLE, on TO_OTHERS OTHERS.
    `names`: of the recognisers. `with_peers`: PEERS on TO_OTHERS instead, by those of words; their
    environment must be the one that runs. `specialist`: the model of this folder instead, on
    TO_ORACLE. Raises models.WeightsError where that folder holds no weights.
    """
    with_others = [name for name in names if name in WITH_OTHERS]
    utterances = choose(table, ("test", "other"), UTTERANCES)
    files = tuple(noise.recorded_files(noise_folder, "test"))
    entries = evaluate.peer_entries() if with_peers else evaluate.course_entries()

    def every(those, inputs, names):
        cells = itertools.product(names, conditions.possible(inputs, files), those)
        return [Part(name, condition, system, entries[system]) for name, condition, system in cells]

    if with_peers:
        of_words = [name for name in names if name not in asr.OF_PHONEMES]
        return hear_all(path, utterances, every(PEERS, TO_OTHERS, of_words), files)
    if specialist:
        entries[SPECIALIST] = evaluate.trained(METHOD, specialist)
        parts = every((SPECIALIST,), TO_ORACLE, with_others)
        return hear_all(path, utterances, parts, files)
    parts = []
    for name in names:
        inputs = INPUTS.get(name, CONDITIONS + RECORDINGS)
        parts += every(MAIN, inputs, [name])
        parts += every((METHOD,), [one for one in inputs if one in OVER_ALL], [name])
        if mix := CHOSEN_MIX.get(name):
            entries[f"mix {mix:g}"] = mixed(entries[METHOD], mix)
            parts += every((f"mix {mix:g}",), MIXED, [name])
    parts += every((ORACLE,), TO_ORACLE, with_others)
    parts += every(OTHERS, TO_OTHERS, with_others)
    return hear_all(path, utterances, parts, files)
