"""Word errors of recognisers on noisy and on denoised speech, in parts that are kept.

A part is what one recogniser hears on one condition after one system. It is kept under
`data/cache/recognition` by a digest of what decides it, so a run that was stopped goes on. Taught
in `06_recognition`.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from tqdm import tqdm

from helpers import asr, audio, corpus, evaluation, noise, protocol
from helpers.evaluation import Condition
from helpers.protocol import Entry
from helpers.quick import size

CACHE = corpus.ROOT / "data" / "cache" / "recognition"
LONGEST = 15.0  # s; utterances are heard whole, since their transcripts are
UTTERANCES = size(120, 2)  # of the test and *other* speakers
VALIDATION_UTTERANCES = size(40, 2)
METHOD = "spectrogram"  # the model that is mixed and gated
MIXES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the denoised signal
TO_MIX = (Condition("white", snr_db=0.0), Condition("recorded", 0, 8_000, 0.0))
TO_GATE = (  # only noisy and denoised: is there an SNR above which the input is better left alone?
    Condition("none"),
    Condition("recorded", 0, 8_000, 10.0),
    Condition("white", snr_db=20.0),
)
EVERY = (Condition("white", snr_db=0.0),)
CONDITIONS = (
    *EVERY,
    Condition("recorded", 0, 8_000, 5.0),
    Condition("inverter", snr_db=0.0),
    Condition("none"),
    Condition("white", snr_db=-5.0),
    Condition("recorded", 0, 8_000, 0.0),
    Condition("white", snr_db=-15.0),
    Condition("inverter", snr_db=-5.0),
    Condition("white", snr_db=10.0),
    Condition("white", snr_db=20.0),
    Condition("inverter", snr_db=-15.0),
    Condition("recorded", 0, 8_000, 20.0),
    Condition("pink", 2_500, 7_000, 0.0),
)
MAIN = ("noisy", "low-pass", METHOD)
OTHERS = ("log-MMSE", "waveform")
PEERS = ("GTCRN",)


def choose(table: pd.DataFrame, splits: tuple[str, ...], n_utterances: int) -> pd.DataFrame:
    """Utterances of some splits with transcripts, not above LONGEST; their speakers by turns."""
    spoken = table[table.split.isin(splits) & table.text.notna() & (table.seconds <= LONGEST)]
    turn = spoken.groupby("speaker").cumcount()
    ordered = spoken.assign(turn=turn).sort_values(["turn", "seconds"]).drop(columns="turn")
    return ordered.head(n_utterances).reset_index(drop=True)


def clips(utterances: pd.DataFrame, condition: Condition, system, files=()) -> Iterator:
    """`(utterance, text, estimate)`: whole utterances, the noise of `evaluation.make_noisy`."""
    for one in utterances.itertuples():
        clean, _, noisy = evaluation.make_noisy(
            one.utterance, audio.read(one.path), condition, protocol.SEED, files
        )
        yield one.utterance, one.text, system(clean, noisy)


def transcribe(
    recogniser: str, utterances, condition: Condition, name: str, entry: Entry, files=()
) -> dict[str, str]:
    """Utterance -> what a recogniser hears after a system; kept, and then read from the cache."""
    path = CACHE / f"{_digest(recogniser, utterances, condition, name, entry, files)}.json"
    if not path.exists():
        tasks = (
            joblib.delayed(_hear)(recogniser, utterance, estimate)
            for utterance, _, estimate in clips(utterances, condition, entry.system, files)
        )
        heard = joblib.Parallel(n_jobs=2, return_as="generator")(tasks)
        text = f"{recogniser}, {name}, {protocol.title(condition)}"
        texts = dict(tqdm(heard, text, total=len(utterances), disable=None, leave=False))
        with audio.atomic_path(path) as temporary:
            temporary.write_text(json.dumps(texts))
    return json.loads(path.read_text())


def _hear(recogniser: str, utterance: str, samples: np.ndarray) -> tuple[str, str]:
    return utterance, _loaded(recogniser)(samples, audio.SAMPLE_RATE)


@functools.cache
def _loaded(recogniser: str) -> asr.Recogniser:
    return asr.load(recogniser)  # once in each process


def _digest(recogniser: str, utterances, condition, name: str, entry: Entry, files) -> str:
    """Of what decides a part: recogniser, clips, noise, the system's weights and code."""
    makers = (asr.RECOGNISERS[recogniser], audio, noise, evaluation.make_noisy, entry.made_by)
    recipe = [recogniser, version(asr.PACKAGES[recogniser])] + [
        protocol.code(one) for one in makers
    ]
    recipe += [name, entry.version, repr(condition)]
    recipe += [(one.utterance, one.path.stat().st_size) for one in utterances.itertuples()]
    if condition.kind == "recorded":
        recipe += [(file.parent.name, file.name, file.stat().st_size) for file in files]
    return hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]


def rows_of(
    recogniser: str, utterances: pd.DataFrame, condition: Condition, system: str, texts: dict
) -> pd.DataFrame:
    """Errors in words and letters, a row an utterance."""
    rows = []
    for one in utterances.itertuples():
        reference, heard = asr.normalise(one.text), asr.normalise(texts[one.utterance])
        row = {"utterance": one.utterance, "speaker": one.speaker, "split": one.split}
        row |= vars(condition) | {"system": system, "recogniser": recogniser}
        row |= asr.count_errors(reference, heard) | asr.count_letter_errors(reference, heard)
        rows.append(row)
    return pd.DataFrame(rows)


# --- on validation speakers: how much to mix, when to leave alone -----------------------------


def mixed(entry: Entry, mix: float) -> Entry:
    """A system whose output is mixed back with the noisy input, `mix` times denoised."""

    def system(clean, noisy):
        return np.float32(mix * entry.system(clean, noisy) + (1 - mix) * noisy)

    return dataclasses.replace(entry, system=system) if mix else Entry(lambda clean, noisy: noisy)


def validate(table: pd.DataFrame, noise_folder: Path | None) -> pd.DataFrame:
    """Every recogniser on MIXES of validation speech, with the SNR that the gate estimates.

    `estimated_db`: energy that the model keeps over energy that it removes, of each utterance.
    """
    utterances = choose(table, ("validation",), VALIDATION_UTTERANCES)
    files = tuple(noise.recorded_files(noise_folder, "validation"))
    entry, parts = protocol.course_entries()[METHOD], []
    for condition in tqdm(TO_MIX + TO_GATE, "conditions", disable=None):
        if condition.kind == "recorded" and not files:
            continue
        estimated = estimated_snr(utterances, condition, entry, files)
        mixes = MIXES if protocol.is_among(condition, TO_MIX) else (0.0, 1.0)
        for recogniser, mix in itertools.product(recognisers(), mixes):
            one = mixed(entry, mix)
            texts = transcribe(recogniser, utterances, condition, f"mix {mix:g}", one, files)
            rows = rows_of(recogniser, utterances, condition, METHOD, texts)
            parts.append(rows.assign(mix=mix, estimated_db=rows.utterance.map(estimated)))
    return pd.concat(parts, ignore_index=True)


def estimated_snr(utterances, condition: Condition, entry: Entry, files=()) -> dict[str, float]:
    """Utterance -> the SNR in dB by which the gate decides."""
    result = {}
    for one in utterances.itertuples():
        clean, _, noisy = evaluation.make_noisy(
            one.utterance, audio.read(one.path), condition, protocol.SEED, files
        )
        kept = entry.system(clean, noisy)
        result[one.utterance] = 10 * np.log10(np.sum(kept**2) / np.sum((noisy - kept) ** 2))
    return result


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


def run(table: pd.DataFrame, noise_folder: Path | None, with_peers: bool = False) -> pd.DataFrame:
    """Word errors on the test and *other* speakers, or finish a run that was stopped.

    On CONDITIONS: MAIN, and `default`, the spectrogram model behind the command line's gate. On
    the first of them, EVERY, also OTHERS. `with_peers`: PEERS instead, whose environment must be
    the one that runs. Recognisers that are not installed are left out, and named.
    """
    utterances = choose(table, ("test", "other"), UTTERANCES)
    files = tuple(noise.recorded_files(noise_folder, "test"))
    conditions = [one for one in CONDITIONS if one.kind != "recorded" or files]
    entries = protocol.peer_entries() if with_peers else protocol.course_entries()
    parts, names = [], recognisers()
    for condition in tqdm(conditions, "conditions", disable=None):
        systems = PEERS if with_peers else MAIN
        if not with_peers:
            systems += OTHERS if protocol.is_among(condition, EVERY) else ()
            estimated = estimated_snr(utterances, condition, entries[METHOD], files)
        for recogniser in names:
            heard = {
                name: transcribe(recogniser, utterances, condition, name, entries[name], files)
                for name in systems
            }
            if not with_peers:
                heard["default"] = gated(heard["noisy"], heard[METHOD], estimated)
            parts += [rows_of(recogniser, utterances, condition, *one) for one in heard.items()]
    versions = {name: entry.version[:12] for name, entry in entries.items()}
    rows = pd.concat(parts, ignore_index=True)
    return rows.assign(version=rows.system.replace("default", METHOD).map(versions))


def gated(noisy: dict, denoised: dict, estimated: dict, gate_db: float | None = None) -> dict:
    """What is heard behind the gate: of each utterance, the text of the input or of the output."""
    if gate_db is None:
        from helpers.denoise import GATE_DB as gate_db
    return {
        name: noisy[name] if estimated[name] > gate_db else text for name, text in denoised.items()
    }


# --- tables -----------------------------------------------------------------------------------


def load(path: Path) -> pd.DataFrame:
    """Rows of `run` or `validate` from a CSV, with `input`, the condition in words."""
    rows = pd.read_csv(path, dtype={"utterance": str, "speaker": str})
    inputs = rows[["kind", "low", "high", "snr_db", "level_db"]]
    titles = {one: protocol.title(Condition(*one)) for one in set(inputs.itertuples(index=False))}
    return rows.assign(input=[titles[one] for one in inputs.itertuples(index=False)])


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
