"""Word errors of recognisers: how they are counted, what was heard, rates with intervals.

A row is one utterance, heard by one recogniser on one condition after one system. Taught in
`06_recognition`; the whole experiment is `python -m experiments recognise`.
"""

import functools
from collections.abc import Iterator
from pathlib import Path

import jiwer
import joblib
import numpy as np
import pandas as pd
from tqdm import tqdm

from helpers import audio, command
from helpers.data import conditions, corpus
from helpers.data.conditions import Condition
from helpers.denoise import systems
from helpers.denoise.systems import Oracle, System
from helpers.evaluation import asr, tables

LONGEST = 15.0  # s; utterances are heard whole, since their transcripts are
METHOD = "spectrogram"  # the model that is mixed
TO_MIX = (Condition("white", snr_db=0.0), Condition("recorded", 0, 8_000, 0.0))
TO_SPARE = Condition("white", snr_db=20.0)  # faint: is it better left alone?
CHOSEN_MIX = {"Whisper tiny.en": 0.5}  # fewest errors on TO_MIX, validation; PocketSphinx: 1
ORACLE = "oracle PSM"  # what a mask could give, heard where a bar lies near the ceiling
SPECIALIST = "specialist"  # a model trained further, with that noise alone, heard there too
MARGIN = 1.0  # points: what a change of errors may be where it is "level"
KINDS = ("white", "inverter", "pink", "recorded", "none")


# --- counting -----------------------------------------------------------------------------------


@functools.cache
def _normaliser():
    from whisper_normalizer.english import EnglishTextNormalizer

    return EnglishTextNormalizer()


def normalise(text: str) -> str:
    """Text as it is compared: Whisper's English normaliser (Radford et al., 2022, appendix C).

    Small letters, no punctuation, American spelling, numbers as digits, "I'll" as "I will": what
    is a matter of writing counts as no error.
    """
    return _normaliser()(text)


def count_errors(reference: str, heard: str) -> dict[str, int]:
    """Substitutions, deletions, insertions (Levenshtein, by `jiwer`) and the reference's words.

    Both texts are split at spaces and compared as they are: `normalise` them first. Raises
    ValueError for a reference without words.
    """
    if not reference.split():
        raise ValueError("the reference has no words")
    found = jiwer.process_words(reference, heard)
    counts = {name: getattr(found, name) for name in ("substitutions", "deletions", "insertions")}
    return counts | {"errors": sum(counts.values()), "words": len(reference.split())}


def count_letter_errors(reference: str, heard: str) -> dict[str, int]:
    """Wrong letters, spaces among them, and the reference's letters."""
    found = jiwer.process_characters(reference, heard)
    errors = found.substitutions + found.deletions + found.insertions
    return {"letter_errors": errors, "letters": len(reference)}


# --- hearing ------------------------------------------------------------------------------------


def choose(table: pd.DataFrame, splits: tuple[str, ...], n_utterances: int) -> pd.DataFrame:
    """Utterances of some splits with transcripts, not above LONGEST; their speakers by turns."""
    spoken = table[table.split.isin(splits) & table.text.notna() & (table.seconds <= LONGEST)]
    return corpus.by_turns(spoken, "seconds").head(n_utterances).reset_index(drop=True)


def hear(
    recogniser: str,
    utterances: pd.DataFrame,
    condition: Condition,
    name: str,
    system: System | Oracle,
    files=(),
) -> pd.DataFrame:
    """What a recogniser hears after a system of this name: errors in words and letters, a row an
    utterance, and `heard`, the text. Two processes hear. Raises asr.RecogniserError.
    """
    tasks = (
        joblib.delayed(_hear)(recogniser, *clip)
        for clip in denoised_clips(utterances, condition, system, files)
    )
    heard = command.in_workers(tasks, 2)
    text = f"{recogniser}, {name}, {condition.title}"
    heard = dict(tqdm(heard, text, total=len(utterances), disable=None, leave=False))
    rows = []
    for one in utterances.itertuples():
        reference, text = normalise(one.text), normalise(heard[one.utterance])
        row = {"utterance": one.utterance, "speaker": one.speaker, "split": one.split}
        row |= condition.row | {"system": name, "recogniser": recogniser}
        row |= count_errors(reference, text) | count_letter_errors(reference, text)
        rows.append(row | {"heard": text})
    return pd.DataFrame(rows)


def hear_phonemes(
    recogniser: str,
    utterances: pd.DataFrame,
    condition: Condition,
    name: str,
    system: System | Oracle,
    files=(),
) -> pd.DataFrame:
    """As `hear`, of a recogniser whose text is phonemes: `words` and errors count phonemes.

    Phonemes of the reference are those of `phonemes.pronounce`. Letters are not counted.
    """
    from helpers.evaluation.phonemes import pronounce  # needs Keras, which peers lack

    clips = denoised_clips(utterances, condition, system, files)
    heard = dict(
        command.in_workers((joblib.delayed(_hear)(recogniser, *clip) for clip in clips), 2)
    )
    rows = []
    for one in utterances.itertuples():
        row = {"utterance": one.utterance, "speaker": one.speaker, "split": one.split}
        row |= condition.row | {"system": name, "recogniser": recogniser}
        row |= count_errors(" ".join(pronounce(one.text)), heard[one.utterance])
        rows.append(row | {"heard": heard[one.utterance]})
    return pd.DataFrame(rows)


def denoised_clips(
    utterances: pd.DataFrame, condition: Condition, system: System | Oracle, files=()
) -> Iterator[tuple[str, np.ndarray]]:
    """`(utterance, estimate)`: whole utterances, the noise of the test protocol."""
    for one in utterances.itertuples():
        whole = audio.read(one.path)
        clean, _, noisy = conditions.make_noisy(
            one.utterance, whole, condition, conditions.SEED, files
        )
        yield one.utterance, systems.apply(system, clean, noisy)


def _hear(recogniser: str, utterance: str, samples: np.ndarray) -> tuple[str, str]:
    return utterance, asr.load_recogniser(recogniser)(samples, audio.SAMPLE_RATE)


# --- rows ---------------------------------------------------------------------------------------


def read_heard(path: Path) -> pd.DataFrame:
    """The rows of a file of results; a recogniser that heard nothing heard ""."""
    texts = ("utterance", "speaker", "heard", "version", "part", "source")
    rows = pd.read_csv(path, dtype=dict.fromkeys(texts, str))
    return rows.fillna({"heard": "", "version": "", "source": ""})


def load_heard(path: Path) -> pd.DataFrame:
    """Rows of `read_heard` by noise, band and SNR, with `input`, that in words."""
    rows = read_heard(path).sort_values(["low", "snr_db"], kind="stable")
    order = {kind: place for place, kind in enumerate(KINDS)}  # kinds of one's own come last
    rows = rows.sort_values("kind", key=lambda kinds: kinds.map(order), kind="stable")
    lines = rows[list(conditions.COLUMNS)].to_dict("records")
    return rows.assign(input=[Condition.of_row(line).title for line in lines])


# --- rates --------------------------------------------------------------------------------------


def error_rates(rows: pd.DataFrame, by: list[str], name: str = "wer") -> pd.DataFrame:
    """Error rate of each group in per cent, with a 95 % interval.

    It draws speakers, and sources of noise where the rows name them.

    All errors over all words. Columns: `by`, n (utterances), `name`, `<name>_low`, `<name>_high`,
    and the substitutions, deletions and insertions that it is made of, in per cent of the words.
    Of rows that count phonemes it is a phoneme error rate: `name` "per".
    """
    lines = []
    for key, group in rows.groupby(by, sort=False):
        factors = group.speaker, tables.sources_of(group)
        rate = tables.bootstrap_ratio(group.errors, group.words, *factors)
        line = dict(zip(by, key, strict=True)) | {"n": len(group)}
        names = (name, f"{name}_low", f"{name}_high")
        line |= dict(zip(names, 100 * np.array(rate), strict=True))
        for kind in ("substitutions", "deletions", "insertions"):
            line[kind] = 100 * group[kind].sum() / group.words.sum()
        lines.append(line)
    return pd.DataFrame(lines)


def change_of_errors(rows: pd.DataFrame, system: str, other: str, by: list[str]) -> pd.DataFrame:
    """Error rate of `system` minus that of `other` on the same clips, in points.

    Columns: `by`, difference, low, high (95 %; speakers and sources are drawn), low_90, high_90,
    `p` (two-sided, `tables.p_value`), `verdict` ("open" of fewer than six speakers, or sources of
    noise that are drawn, whatever the interval), and `relative`: per cent of the errors of `other`.
    """
    lines, index = [], ["utterance", "speaker", "words", "source"]
    rows = rows.assign(source=tables.sources_of(rows))
    for key, group in rows.groupby(by, sort=False):
        wide = group.pivot_table("errors", index, "system", sort=False)
        if {system, other} <= set(wide):
            wide = wide.dropna(subset=[system, other])
            wide, change = wide.reset_index(), (wide[system] - wide[other]).to_numpy()
            line = dict(zip(by, key, strict=True)) | _change(change, wide.words, wide)
            lines.append(line | {"relative": 100 * change.sum() / wide[other].sum()})
    return pd.DataFrame(lines)


def _change(change: np.ndarray, words: pd.Series, clips: pd.DataFrame) -> dict:
    """A line of `change_of_errors`: the difference, its intervals, p and verdict."""
    ratio, draws = tables.draws_of_ratio(change, words, clips.speaker, clips.source)
    names = ("low", "low_90", "high_90", "high")
    line = {"difference": 100 * ratio} | dict.fromkeys((*names, "p"), np.nan)
    if draws is not None:
        line |= dict(zip(names, 100 * np.percentile(draws, [2.5, 5, 95, 97.5]), strict=True))
        line["p"] = tables.p_value(draws, clips.speaker, clips.source)
    told = max(tables.least_p(clips.speaker), tables.least_p(clips.source)) <= 0.05
    return line | {"verdict": verdict(*(line[name] for name in names)) if told else "open"}


def verdict(low: float, low_90: float, high_90: float, high: float) -> str:
    """What intervals of a change of errors say: "fewer", "more", "level" or "open".

    Fewer or more: the 95 % interval lies on one side of 0. Level: the 90 % interval lies within
    MARGIN, two one-sided tests at 5 % (D. Schuirmann, J. Pharmacokinet. Biopharm. 15, 1987).
    What is fewer or more may be so by less than MARGIN.
    """
    if high < 0:
        return "fewer"
    if low > 0:
        return "more"
    return "level" if low_90 >= -MARGIN and high_90 <= MARGIN else "open"
