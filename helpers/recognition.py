"""Word errors of recognisers on noisy and on denoised speech, in a file that grows part by part.

A part is what one recogniser hears on one condition after one system. Its rows carry a digest of
what decides it, so a run that was stopped goes on, and after a training only the trained model is
heard again. Taught in `06_recognition`.
"""

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from tqdm import tqdm

from helpers import asr, audio, evaluation, gate, noise, protocol
from helpers.evaluation import Condition
from helpers.protocol import Entry
from helpers.quick import size

LONGEST = 15.0  # s; utterances are heard whole, since their transcripts are
UTTERANCES = size(120, 2)  # of the test and *other* speakers
VALIDATION_UTTERANCES = size(40, 2)
MORE_UTTERANCES = size(120, 2)  # of validation, or as many as there are, on TO_SPARE
METHOD = "spectrogram"  # the model that is mixed and gated
GATED = (METHOD, "mix 1")  # its names among the systems, on test and on validation speakers
MIXES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the denoised signal
LIMITS_DB = (10.0, 20.0)  # the most by which a bin is taken down
TO_MIX = (Condition("white", snr_db=0.0), Condition("recorded", 0, 8_000, 0.0))
TO_SPARE = Condition("white", snr_db=20.0)  # on it Whisper lost in the test: what would spare it?
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
MIXED = (  # of them, those on which a mix that was chosen is reported
    Condition("white", snr_db=0.0),
    Condition("inverter", snr_db=0.0),
    Condition("recorded", 0, 8_000, 5.0),
    Condition("recorded", 0, 8_000, 0.0),
    Condition("none"),
)
CHOSEN_MIX = {"Whisper tiny.en": 0.75}  # fewest errors on TO_MIX, validation; PocketSphinx: 1
ORACLE = "oracle PSM"  # what a mask could give, heard where a bar lies near the ceiling
SPECIALIST = "specialist"  # a model trained further, with that noise alone, heard there too
TO_ORACLE = (Condition("inverter", snr_db=0.0), Condition("inverter", snr_db=-5.0))
MAIN = ("noisy", "low-pass", METHOD)
OTHERS = ("waveform", "log-MMSE")  # heard after MAIN
PEERS = ("GTCRN",)
KINDS = ("white", "inverter", "pink", "recorded", "none")  # the order of tables


def choose(table: pd.DataFrame, splits: tuple[str, ...], n_utterances: int) -> pd.DataFrame:
    """Utterances of some splits with transcripts, not above LONGEST; their speakers by turns."""
    spoken = table[table.split.isin(splits) & table.text.notna() & (table.seconds <= LONGEST)]
    turn = spoken.groupby("speaker").cumcount()
    ordered = spoken.assign(turn=turn).sort_values(["turn", "seconds"]).drop(columns="turn")
    return ordered.head(n_utterances).reset_index(drop=True)


@dataclasses.dataclass(frozen=True)
class Part:
    """What one recogniser hears on one condition after one system."""

    recogniser: str
    condition: Condition
    system: str
    entry: Entry

    @property
    def key(self) -> dict:
        """The columns by which its rows are told from those of other parts."""
        key = {"recogniser": self.recogniser, "system": self.system} | vars(self.condition)
        return {name: value for name, value in key.items() if value == value}  # no NaN


def hear(path: Path, utterances: pd.DataFrame, parts: Iterable[Part], files=()) -> pd.DataFrame:
    """Rows of every part: those that the CSV `path` has are kept, the others made and added.

    The file is written anew after each part. Rows of a part that has changed are replaced, rows of
    other parts stay.
    """
    rows = read_rows(path) if path.exists() else pd.DataFrame({"part": []})
    for part in tqdm(list(parts), "parts", disable=None):
        digest = _digest(utterances, part, files)
        if not (rows.part == digest).any():
            new = rows_of(utterances, part, transcribe(utterances, part, files))
            if len(rows):
                rows = rows[~(rows[list(part.key)] == pd.Series(part.key)).all(axis=1)]
            rows = pd.concat([rows, new.assign(part=digest)], ignore_index=True)
            with audio.atomic_path(path, overwrite=True) as temporary:
                rows.to_csv(temporary, index=False, float_format="%.5g")
    return rows


def read_rows(path: Path) -> pd.DataFrame:
    """The rows of `hear`; a recogniser that heard nothing heard ""."""
    texts = dict.fromkeys(("utterance", "speaker", "heard", "version"), str)
    return pd.read_csv(path, dtype=texts).fillna({"heard": "", "version": ""})


def clips(utterances: pd.DataFrame, part: Part, files=()) -> Iterator[tuple]:
    """`(utterance, estimate, change)`: whole utterances, the noise of the test protocol.

    `change`: what the model did, {"estimated_db", "low_share"}, by which the gate decides; of
    systems that are not gated {}.
    """
    for one in utterances.itertuples():
        clean, _, noisy = evaluation.make_noisy(
            one.utterance, audio.read(one.path), part.condition, protocol.SEED, files
        )
        estimate = part.entry.system(clean, noisy)
        yield one.utterance, estimate, change_of(noisy, estimate) if part.system in GATED else {}


def change_of(noisy: np.ndarray, denoised: np.ndarray) -> dict:
    """What a denoiser did to a clip `(samples,)`: its columns "estimated_db" and "low_share"."""
    change = gate.Change()
    change.add(noisy[:, None], denoised[:, None])
    return {"estimated_db": change.snr_db, "low_share": change.low_share}


def transcribe(utterances: pd.DataFrame, part: Part, files=()) -> dict[str, tuple[str, dict]]:
    """Utterance -> what the recogniser hears, and the `change` of `clips`."""
    tasks = (
        joblib.delayed(_hear)(part.recogniser, *clip) for clip in clips(utterances, part, files)
    )
    heard = joblib.Parallel(n_jobs=2, return_as="generator")(tasks)
    text = f"{part.recogniser}, {part.system}, {protocol.title(part.condition)}"
    return dict(tqdm(heard, text, total=len(utterances), disable=None, leave=False))


def _hear(recogniser: str, utterance: str, samples: np.ndarray, change: dict):
    return utterance, (_loaded(recogniser)(samples, audio.SAMPLE_RATE), change)


@functools.cache
def _loaded(recogniser: str) -> asr.Recogniser:
    return asr.load(recogniser)  # once in each process


def _digest(utterances: pd.DataFrame, part: Part, files) -> str:
    """Of what decides a part: recogniser, clips, noise, the system's weights and code."""
    name, entry = part.recogniser, part.entry
    makers = (asr.RECOGNISERS[name], audio, noise, evaluation.make_noisy, entry.made_by)
    recipe = [name, version(asr.PACKAGES[name])] + [protocol.code(one) for one in makers]
    recipe += [part.system, entry.version, repr(part.condition)]
    recipe += [(one.utterance, one.path.stat().st_size) for one in utterances.itertuples()]
    if part.condition.kind == "recorded":
        recipe += [(file.parent.name, file.name, file.stat().st_size) for file in files]
    return hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]


def rows_of(utterances: pd.DataFrame, part: Part, texts: dict) -> pd.DataFrame:
    """Errors in words and letters, a row an utterance."""
    rows = []
    for one in utterances.itertuples():
        heard, change = texts[one.utterance]
        reference, heard = asr.normalise(one.text), asr.normalise(heard)
        row = {"utterance": one.utterance, "speaker": one.speaker, "split": one.split}
        row |= vars(part.condition) | {"system": part.system, "recogniser": part.recogniser}
        row |= asr.count_errors(reference, heard) | asr.count_letter_errors(reference, heard)
        row |= change | {"version": part.entry.version[:12], "heard": heard}
        rows.append(row)
    return pd.DataFrame(rows)


# --- on validation speakers: how much to mix, when to leave alone -----------------------------


def mixed(entry: Entry, mix: float) -> Entry:
    """A system whose output is mixed back with the noisy input, `mix` times denoised."""

    def system(clean, noisy):
        return np.float32(mix * entry.system(clean, noisy) + (1 - mix) * noisy)

    return dataclasses.replace(entry, system=system) if mix else Entry(lambda clean, noisy: noisy)


def limited(entry: Entry, limit_db: float) -> Entry:
    """A system that takes no bin of the STFT down by more than `limit_db`; some noise stays.

    A bin below that is the input's, turned down by `limit_db`: the maximum attenuation, or
    spectral floor, of M. Berouti, R. Schwartz and J. Makhoul (ICASSP 1979).
    """

    def system(clean, noisy):
        floor = 10 ** (-limit_db / 20) * audio.stft(noisy)
        S = audio.stft(entry.system(clean, noisy))
        return audio.istft(np.where(np.abs(S) < np.abs(floor), floor, S), len(noisy))

    return dataclasses.replace(entry, system=system)


def validate(path: Path, table: pd.DataFrame, noise_folder: Path | None) -> pd.DataFrame:
    """Every recogniser on validation speech, by `hear`: systems "mix 0.25", "limit 10 dB", ...

    MIXES and LIMITS_DB on TO_MIX and, with MORE_UTTERANCES, on TO_SPARE; the input and the model
    on TO_GATE; MIXES on WHOLE_BAND.
    """
    files = tuple(noise.recorded_files(noise_folder, "validation"))
    entry, names = protocol.course_entries()[METHOD], recognisers()
    mixes = {f"mix {mix:g}": mixed(entry, mix) for mix in MIXES}
    ends = {name: mixes[name] for name in ("mix 0", "mix 1")}
    every = mixes | {f"limit {limit:g} dB": limited(entry, limit) for limit in LIMITS_DB}

    def heard(conditions, systems, n_utterances):
        utterances = choose(table, ("validation",), n_utterances)
        cells = itertools.product(possible(conditions, files), names, systems.items())
        parts = [Part(recogniser, condition, *system) for condition, recogniser, system in cells]
        return hear(path, utterances, parts, files)

    heard(TO_MIX, every, VALIDATION_UTTERANCES)
    heard(TO_GATE, ends, VALIDATION_UTTERANCES)
    heard(WHOLE_BAND, mixes, VALIDATION_UTTERANCES)
    return heard((TO_SPARE,), every, MORE_UTTERANCES)


def possible(conditions, files) -> list[Condition]:
    """The conditions, without recorded noise where there is none."""
    return [one for one in conditions if one.kind != "recorded" or files]


def recognisers() -> list[str]:
    """Those of PACKAGES that are installed; the others are named with the remedy."""
    found = []
    for name in asr.PACKAGES:
        try:
            _loaded(name)
            found.append(name)
        except asr.RecogniserError as error:
            print(error)
    return found


# --- on test speakers -------------------------------------------------------------------------


def run(
    path: Path,
    table: pd.DataFrame,
    noise_folder: Path | None,
    with_peers: bool = False,
    specialist: Path | None = None,
) -> pd.DataFrame:
    """Word errors on the test and *other* speakers, by `hear`, on CONDITIONS.

    MAIN, then on MIXED the mix of CHOSEN_MIX, on TO_ORACLE the ORACLE, then OTHERS. `with_peers`:
    PEERS instead, whose environment must be the one that runs. `specialist`: the model of this
    folder instead, on TO_ORACLE. Recognisers that are not installed are left out, and named.
    Raises models.WeightsError where that folder holds no weights.
    """
    utterances = choose(table, ("test", "other"), UTTERANCES)
    files = tuple(noise.recorded_files(noise_folder, "test"))
    entries = protocol.peer_entries() if with_peers else protocol.course_entries()
    names = recognisers()

    def every(systems, conditions=CONDITIONS):
        cells = itertools.product(names, possible(conditions, files), systems)
        return [Part(name, condition, system, entries[system]) for name, condition, system in cells]

    if with_peers:
        return hear(path, utterances, every(PEERS), files)
    if specialist:
        entries[SPECIALIST] = protocol.trained(METHOD, specialist)
        return hear(path, utterances, every((SPECIALIST,), TO_ORACLE), files)
    mixes = [
        Part(name, condition, f"mix {mix:g}", mixed(entries[METHOD], mix))
        for (name, mix), condition in itertools.product(CHOSEN_MIX.items(), possible(MIXED, files))
        if name in names
    ]
    parts = [*every(MAIN), *mixes, *every((ORACLE,), TO_ORACLE), *every(OTHERS)]
    return hear(path, utterances, parts, files)


def with_default(
    rows: pd.DataFrame,
    gate_db: float = gate.GATE_DB,
    low_share: float = gate.LOW_SHARE,
    noisy: str = "noisy",
    denoised: str = METHOD,
) -> pd.DataFrame:
    """The rows, and those of `default`, the model behind the command line's gate.

    Of each utterance those of the system `noisy` where the gate leaves it alone (by the columns of
    `clips`), else those of `denoised`.
    """
    keys = ["recogniser", "input", "utterance"]
    before, after = (rows[rows.system == name].set_index(keys) for name in (noisy, denoised))
    before = before.reindex(after.index)
    left = (after.estimated_db > gate_db) | (after.low_share > low_share)
    default = pd.concat([after[~left], before[left]]).reset_index().assign(system="default")
    return pd.concat([rows, default], ignore_index=True)


# --- tables -----------------------------------------------------------------------------------


def load(path: Path) -> pd.DataFrame:
    """Rows of `run` or `validate`, by noise, band and SNR, with `input`, that in words."""
    rows = read_rows(path).sort_values(["low", "snr_db"], kind="stable")
    rows = rows.sort_values("kind", key=lambda kinds: kinds.map(KINDS.index), kind="stable")
    inputs = rows[["kind", "low", "high", "snr_db", "level_db"]]
    titles = [protocol.title(Condition(*one)) for one in inputs.itertuples(index=False)]
    return rows.assign(input=titles)


def summarise(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Word error rate of each group in per cent, with a 95 % interval that draws speakers.

    Columns: `by`, n (utterances), wer, wer_low, wer_high, and the substitutions, deletions and
    insertions that it is made of, in per cent of the words.
    """
    lines = []
    for key, group in rows.groupby(by, sort=False):
        rate = asr.error_rate(group.errors, group.words, group.speaker)
        line = dict(zip(by, key, strict=True)) | {"n": len(group)}
        line |= dict(zip(("wer", "wer_low", "wer_high"), 100 * np.array(rate), strict=True))
        for kind in ("substitutions", "deletions", "insertions"):
            line[kind] = 100 * group[kind].sum() / group.words.sum()
        lines.append(line)
    return pd.DataFrame(lines)


def paired(rows: pd.DataFrame, system: str, other: str, by: list[str]) -> pd.DataFrame:
    """Word error rate of `system` minus that of `other` on the same clips, in points.

    Columns: `by`, difference, low, high (95 %, draws speakers), and `relative`: per cent of the
    errors of `other`.
    """
    lines, index = [], ["utterance", "speaker", "words"]
    for key, group in rows.groupby(by, sort=False):
        wide = group.pivot_table("errors", index, "system", sort=False)
        if {system, other} <= set(wide):
            wide, change = wide.reset_index(), (wide[system] - wide[other]).to_numpy()
            rate = asr.error_rate(change, wide.words, wide.speaker)
            line = dict(zip(by, key, strict=True))
            line |= dict(zip(("difference", "low", "high"), 100 * np.array(rate), strict=True))
            lines.append(line | {"relative": 100 * change.sum() / wide[other].sum()})
    return pd.DataFrame(lines)
