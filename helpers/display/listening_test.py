"""A small listening test in a notebook or on a page: blind, in seeded order, answers kept as CSV.

The scales are those of ITU-T P.835 (speech signal, background noise, overall), with the clean clip
hidden among the others and a 3.5 kHz low-pass anchor, as in ITU-R BS.1534. A demonstration: a room,
headphones and listeners cannot be shipped. Taught in `appendix/05_listeners`.
"""

import dataclasses
import hashlib
import html
import json
import re
import time
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import ipywidgets as widgets
import numpy as np
import pandas as pd
import scipy.stats
import soundfile as sf
import yaml

from helpers import audio, store
from helpers.denoise import baselines
from helpers.display import listening
from helpers.evaluation import tables

SCALES = {  # P.835, 5 is best; the questions in the order of the standard
    "signal": (
        *("Very distorted", "Fairly distorted", "Somewhat distorted"),
        *("Slightly distorted", "Not distorted"),
    ),
    "background": (
        *("Very intrusive", "Somewhat intrusive", "Noticeable but not intrusive"),
        *("Slightly noticeable", "Not noticeable"),
    ),
    "overall": ("Bad", "Poor", "Fair", "Good", "Excellent"),
}
QUESTIONS = {
    "signal": "Attend to the speech alone. How natural is it, how free of distortion?",
    "background": "Attend to the background alone. How much of it do you notice?",
    "overall": "Attend to the whole. How good would it be to listen to every day?",
}
REFERENCE, ANCHOR = "hidden reference", "3.5 kHz anchor"
PAGE = Path(__file__).with_name("listening_page.html")
TEST = re.compile(r'<script type="application/json" id="test">(.*?)</script>', re.DOTALL)
BIAS_SD, CHANCE_SD = 0.3, 0.7  # of simulated answers: between listeners, between their answers
TASTE_SD = 0.3  # between listeners, of how much they like a system; of `difference_sd` alone
KEPT = 4  # who gives more than half of the hidden references less overall was not listening


@dataclasses.dataclass(frozen=True)
class Trial:
    """One clip through one system: float32 `(samples,)` at 16 kHz, and the clean clip."""

    utterance: str
    system: str
    clip: np.ndarray
    clean: np.ndarray


def make_trials(clips: Mapping[str, Mapping[str, np.ndarray]], seed: int = 0) -> list[Trial]:
    """All clips in a blind order, each utterance with its hidden reference and anchor.

    Give every listener a seed of his own: an order that all share favours whoever comes late.

    `clips`: utterance -> system -> samples, with "clean" among the systems (KeyError without).
    """
    trials = []
    for utterance, versions in clips.items():
        clean = versions["clean"]
        shown = {REFERENCE: clean, ANCHOR: baselines.low_pass(clean, cutoff=3_500)}
        shown |= {name: clip for name, clip in versions.items() if name != "clean"}
        trials += [Trial(utterance, name, clip, clean) for name, clip in shown.items()]
    return [trials[i] for i in np.random.default_rng(seed).permutation(len(trials))]


def id_of(trials: list[Trial]) -> str:
    """A name for a test, which its utterances, systems and scales decide, in whatever order."""
    asked = sorted((trial.utterance, trial.system) for trial in trials)
    return hashlib.sha256(json.dumps([asked, list(SCALES)]).encode()).hexdigest()[:16]


class ListeningTest(widgets.VBox):
    """One page a trial: a player, three questions, and *next*; every answer is written at once.

    `path`: the CSV, one line a trial (COLUMNS); an existing file is continued for another
    listener. ValueError is raised where it has answers of `listener` or of another test. Several
    widgets may write to one file.
    """

    COLUMNS = ("test", "listener", "position", "utterance", "system", *SCALES, "seconds")

    def __init__(self, trials: list[Trial], path: Path, listener: str = "me"):
        self.trials, self.path, self.listener = trials, Path(path), listener
        self.gain, self.test, self.answers = one_gain(trials), id_of(trials), []
        self._others()
        self.player, self.title = widgets.HTML(), widgets.HTML()
        self.questions = {
            name: widgets.ToggleButtons(
                options=[(f"{i + 1} {word}", i + 1) for i, word in enumerate(words)],
                value=None,
                description=name,
                style={"button_width": "15em"},
            )
            for name, words in SCALES.items()
        }
        self.next = widgets.Button(description="next", disabled=True, button_style="primary")
        self.next.on_click(self._keep)
        for question in self.questions.values():
            question.observe(self._check, names="value")
        asked = [
            one
            for name, question in self.questions.items()
            for one in (widgets.HTML(QUESTIONS[name]), question)
        ]
        super().__init__([self.title, self.player, *asked, self.next])
        self.add_class("listening-test")
        self.position = 0
        self._show()

    def _show(self):
        if self.position == len(self.trials):
            self.title.value = f"Thank you. {len(self.trials)} answers: <code>{self.path}</code>"
            self.children = [self.title]
            return
        self.title.value = f"Clip {self.position + 1} of {len(self.trials)}: listen, then answer"
        clip = {"": self.trials[self.position].clip}
        self.player.value = listening.players(clip, gain=self.gain).data
        for question in self.questions.values():
            question.value = None
        self.start = time.monotonic()

    def _check(self, change=None):
        self.next.disabled = any(question.value is None for question in self.questions.values())

    def _others(self) -> list[dict]:
        """Answers of the other listeners, as they now stand in the file."""
        if not self.path.exists():
            return []
        kept = read_answers(self.path)
        if set(kept.test) - {"", self.test}:
            raise ValueError(f"{self.path}: answers of another test; choose another file")
        own = kept.listener == self.listener
        if own.sum() > len(self.answers):
            raise ValueError(
                f"{self.path}: listener {self.listener!r} has answered; choose another name"
            )
        return kept[~own].to_dict("records")

    def _keep(self, button=None):
        trial = self.trials[self.position]
        answer = {"test": self.test, "listener": self.listener, "position": self.position + 1}
        answer |= {"utterance": trial.utterance, "system": trial.system}
        answer |= {name: question.value for name, question in self.questions.items()}
        answer |= {"seconds": round(time.monotonic() - self.start, 1)}
        try:
            rows = [*self._others(), *self.answers, answer]
            write_answers(pd.DataFrame(rows, columns=self.COLUMNS), self.path)
        except ValueError as error:  # of a callback nobody would see it
            self.title.value = html.escape(str(error))
            return
        self.answers.append(answer)
        self.position += 1
        self._show()


def one_gain(trials: list[Trial]) -> float:
    """What brings the loudest clip to full scale; one for all, so that levels stay comparable."""
    return listening.PEAK / max(1e-9, *(np.abs(trial.clip).max() for trial in trials))


# --- answers ------------------------------------------------------------------------------------


def read_answers(path: Path | Iterable[Path]) -> pd.DataFrame:
    """Answers of a CSV, of several, or of all in a folder (`*.csv`), one below the other.

    A file without the column `test`, which says of which test it is, gets an empty one. Raises
    ValueError, in one line: for a file that `read_file` refuses, for files of different tests, for
    listeners who are in two files, and for a folder without files.
    """
    if isinstance(path, str | Path):
        paths = sorted(Path(path).glob("*.csv")) if Path(path).is_dir() else [Path(path)]
    else:
        paths = [Path(one) for one in path]
    if not paths:
        raise ValueError(f"{path}: no answers (*.csv)")
    parts = [read_file(one) for one in paths]
    check_files(paths, parts)
    return pd.concat(parts, ignore_index=True)


def check_files(paths: list[Path], parts: list[pd.DataFrame]) -> None:
    """Raise ValueError for answers that do not belong together, as `read_answers`."""
    tests, listeners, twice = {}, {}, []
    for path, part in zip(paths, parts, strict=True):
        tests |= dict.fromkeys(set(part.test) - {""}, path)
        for listener in part.listener.unique():
            if listener in listeners:
                twice.append(f"{listener!r} in {listeners[listener]} and {path}")
            listeners[listener] = path
    if len(tests) > 1:
        named = ", ".join(f"{test} in {path}" for test, path in tests.items())
        raise ValueError(f"answers of different tests: {named}; read each test by itself")
    if twice:
        raise ValueError(f"answers of the same listener: {', '.join(twice)}; leave one file out")


def read_file(path: Path) -> pd.DataFrame:
    """The answers of one CSV.

    Raises ValueError, in one line, for a file that is not UTF-8 or no table, without a column or
    without rows, with an empty cell, with grades other than 1 to 5, or with two answers to one
    trial.
    """
    texts = dict.fromkeys(("test", "listener", "utterance", "system"), str)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the first
            answers = pd.read_csv(  # a listener may be called NA
                path, dtype=texts, keep_default_na=False, index_col=False
            )
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8; save it as CSV UTF-8") from error
    except (ValueError, pd.errors.ParserWarning) as error:
        cause = " ".join(str(error).split())
        raise ValueError(f"{path}: no table ({cause}); ask for the file once more") from error
    if "test" not in answers:
        answers.insert(0, "test", "")
    check_answers(path, answers)
    return answers


def check_answers(path: Path, answers: pd.DataFrame) -> None:
    """Raise ValueError for answers that are none of a listening test, as `read_file`."""
    columns = list(ListeningTest.COLUMNS)
    if missing := set(columns) - set(answers):
        raise ValueError(
            f"{path}: no column {', '.join(sorted(missing))}; not a listening test, or its cells "
            "are not parted by commas"
        )
    if answers.empty:
        raise ValueError(f"{path}: no answers; leave the file out")
    if (answers[columns[1:]] == "").any(axis=None):
        raise ValueError(f"{path}: a row with an empty cell; ask for the file once more")
    if not answers[list(SCALES)].isin(range(1, 6)).all(axis=None):
        raise ValueError(f"{path}: grades other than 1 to 5")
    keys = ["listener", "utterance", "system"]
    again = answers[answers.duplicated(keys)]
    if len(again):
        trial = ", ".join(again[keys].iloc[0])
        raise ValueError(f"{path}: answered twice: {trial}; keep one of the rows")


def write_answers(answers: pd.DataFrame, path: Path) -> None:
    """Write the answers, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with store.atomic_path(path, overwrite=True) as temporary:
        answers.to_csv(temporary, index=False)


# --- analysis -----------------------------------------------------------------------------------


def attentive(answers: pd.DataFrame) -> pd.DataFrame:
    """The answers of those who listened, in the spirit of BS.1534-3, section 4.1.2.

    Left out is who gave more than half of the hidden references less than KEPT overall. Raises
    ValueError without answers and where nobody is left.
    """
    if answers.empty:
        raise ValueError("no answers")
    hidden = answers[answers.system == REFERENCE]
    missed = (hidden.overall < KEPT).groupby(hidden.listener).mean()
    kept = answers[~answers.listener.isin(missed.index[missed > 0.5])]
    if kept.empty:
        n = answers.listener.nunique()
        raise ValueError(
            f"nobody is left: all {n} mostly gave the hidden reference less than {KEPT}"
        )
    return kept


def analyse(answers: pd.DataFrame) -> pd.DataFrame:
    """Mean opinion of each system on each scale with a 95 % interval that draws listeners.

    Columns as of `tables.summarise`; `left_out` counts the listeners whom `attentive` leaves out.
    Raises ValueError as `attentive`.
    """
    kept = attentive(answers)
    n_left_out = answers.listener.nunique() - kept.listener.nunique()
    kept = kept.assign(reason="", speaker=kept.listener)
    summary = tables.summarise(kept, ["system"], tuple(SCALES))
    return summary.assign(left_out=n_left_out).sort_values("overall", ascending=False)


class Comparison(NamedTuple):
    """A mean difference in grades, its 95 % interval, and the two-sided p of no difference.

    `sd`: standard deviation of the difference over the `n` listeners.
    """

    mean: float
    low: float
    high: float
    p: float
    sd: float
    n: int


def compare(answers: pd.DataFrame, system: str, other: str, scale: str = "overall") -> Comparison:
    """System minus other on one scale: a paired t-test over those listeners who were `attentive`.

    A listener's difference is the mean over the clips that he graded in both. The test speaks of
    other listeners, but of these clips only. Raises ValueError as `attentive`, for a system that
    nobody graded, and for fewer than two listeners.
    """
    grades = attentive(answers).pivot(
        index=["listener", "utterance"], columns="system", values=scale
    )
    if missing := {system, other} - set(grades):
        raise ValueError(f"no answers on {', '.join(sorted(missing))}")
    differences = (grades[system] - grades[other]).dropna().groupby("listener").mean()
    n, mean, sd = len(differences), differences.mean(), differences.std()
    if n < 2:
        raise ValueError(f"{system} and {other}: graded by {n} listeners, and a test needs two")
    error = max(sd / np.sqrt(n), 1e-12)  # all may agree
    half = error * scipy.stats.t.ppf(0.975, n - 1)
    p = 2 * scipy.stats.t.sf(abs(mean) / error, n - 1)
    return Comparison(*map(float, (mean, mean - half, mean + half, p, sd)), n)


def simulate_answers(
    trials: list[Trial], opinions: Mapping[str, Mapping[str, float]], n_listeners: int, seed: int
) -> pd.DataFrame:
    """Answers of imaginary listeners, so that the analysis can be tried without real ones.

    A stated simulation: rating = opinion of the system on that scale (`opinions`: system ->
    scale -> 1..5) + a listener's bias (normal, sd BIAS_SD) + chance (normal, sd CHANCE_SD),
    rounded, 1 to 5.
    """
    rng, test, rows = np.random.default_rng(seed), id_of(trials), []
    for i in range(n_listeners):
        bias = rng.normal(0, BIAS_SD)
        for position, j in enumerate(rng.permutation(len(trials)), start=1):
            trial = trials[j]
            ratings = {
                scale: int(np.clip(np.rint(mean + bias + rng.normal(0, CHANCE_SD)), 1, 5))
                for scale, mean in opinions[trial.system].items()
            }
            row = {"test": test, "listener": f"simulated-{i + 1:02d}", "position": position}
            row |= {"utterance": trial.utterance, "system": trial.system, **ratings}
            rows.append(row | {"seconds": round(rng.uniform(6, 20), 1)})
    return pd.DataFrame(rows, columns=ListeningTest.COLUMNS)


# --- how many listeners -------------------------------------------------------------------------


def difference_sd(n_clips: int, taste: float = TASTE_SD, chance: float = CHANCE_SD) -> float:
    """Standard deviation over listeners of the difference of two systems, if all were as assumed.

    Of each system the mean of `n_clips` grades: how this listener likes it (sd `taste`), chance
    (sd `chance`) and the rounding of each grade (variance 1/12). A listener's bias is in both and
    cancels. `compare` gives the one of real answers.
    """
    return float(np.sqrt(2 * (taste**2 + (chance**2 + 1 / 12) / n_clips)))


def listeners_needed(difference: float, sd: float, power: float = 0.8, most: int = 500) -> float:
    """How many listeners find a difference of two systems, by a paired t-test at 5 %.

    `difference`: on a scale of 1 to 5; `sd`: of it, over listeners. The test finds it the right way
    round with probability `power`, by the noncentral t. NaN where `most` listeners are too few.
    """
    n = np.arange(2, most + 1)
    edge = scipy.stats.t.ppf(0.975, n - 1)
    found = scipy.stats.nct.sf(edge, n - 1, abs(difference) / sd * np.sqrt(n))
    enough = np.flatnonzero(found >= power)
    return float(n[enough[0]]) if len(enough) else np.nan


def power_table(sds: Mapping[str, float], differences=(0.2, 0.3, 0.5)) -> pd.DataFrame:
    """`listeners_needed` with 80 % power: a row a difference, a column a spread of `sds`."""
    needed = {name: [listeners_needed(d, sd) for d in differences] for name, sd in sds.items()}
    return pd.DataFrame(needed, pd.Index(differences, name="difference"))


# --- tests to give away -------------------------------------------------------------------------


def export_page(folder: Path, clips: Mapping[str, Mapping[str, np.ndarray]], seed: int = 0) -> Path:
    """Write a listening test as a folder: `index.html` and FLAC clips. Returns the page's path.

    It asks as `ListeningTest`, with an order for each listener that his name decides, and gives
    each his answers as the CSV that `read_answers` takes. It opens from disk or from any static
    host and asks no other for anything. The files' names do not tell the systems; the source of
    the page does. The test's id depends on the sounds too. `clips` and the KeyError as of
    `make_trials`. An earlier test in the folder is replaced; ValueError for other files of these
    names. A folder that goes public may hold the bundled sample, or other speech only where its
    licence allows it and is named beside it.
    """
    path, trials = Path(folder) / "index.html", make_trials(clips, seed)
    files, gain = [f"clip_{i + 1:03d}.flac" for i in range(len(trials))], one_gain(trials)
    remove_clips(path, files)
    entries, digest = [], hashlib.sha256()
    for file, trial in zip(files, trials, strict=True):
        write_sound(path.with_name(file), gain * trial.clip)
        digest.update(path.with_name(file).read_bytes())
        entries.append({"file": file, "utterance": trial.utterance, "system": trial.system})
    digest.update(json.dumps(entries).encode())
    test = {"id": digest.hexdigest()[:16], "columns": ListeningTest.COLUMNS, "scales": SCALES}
    test |= {"questions": QUESTIONS, "clips": entries}
    text = json.dumps(test).replace("<", "\\u003c")  # of no tag
    with store.atomic_path(path, overwrite=True) as temporary:
        page = PAGE.read_text(encoding="utf-8").replace("/*TEST*/", text)
        temporary.write_text(page, encoding="utf-8")
    return path


def remove_clips(path: Path, files: list[str]) -> None:
    """Delete the clips that an earlier page of `export_page` names, and nothing else.

    Raises ValueError, before all else, where `path` is another page, or where `files` are there
    that it does not name.
    """
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    found = TEST.search(text)
    old = [Path(clip["file"]).name for clip in json.loads(found[1])["clips"]] if found else []
    known = {path.name, *old} if found else set()
    for other in map(path.with_name, (path.name, *files)):
        if other.exists() and other.name not in known:
            raise ValueError(f"{other}: not of a listening test; choose another folder")
    for name in old:
        path.with_name(name).unlink(missing_ok=True)


def export_webmushra(trials: list[Trial], folder: Path) -> Path:
    """Write WAV files and a configuration for webMUSHRA (Schoeffler et al., 2018).

    One MUSHRA page an utterance, the clean clip as the open reference; webMUSHRA hides another
    copy of it among the stimuli by itself. Returns the path of the YAML, to be opened as
    `?config=<folder>/<name>` after the folder was copied into webMUSHRA's `configs`.
    """
    folder, pages, gain = Path(folder), {}, one_gain(trials)
    for trial in trials:
        if trial.utterance not in pages:
            name = f"{trial.utterance}_reference.wav"
            write_sound(folder / name, gain * trial.clean)
            pages[trial.utterance] = {
                "type": "mushra",
                "id": trial.utterance,
                "name": trial.utterance,
                "content": "How close is each clip to the reference?",
                "showWaveform": False,
                "enableLooping": True,
                "reference": f"configs/{folder.name}/{name}",
                "createAnchor35": False,
                "createAnchor70": False,
                "stimuli": {},
            }
        if trial.system == REFERENCE:
            continue
        stimuli = pages[trial.utterance]["stimuli"]
        name = f"{trial.utterance}_C{len(stimuli) + 1}.wav"
        write_sound(folder / name, gain * trial.clip)
        stimuli[f"C{len(stimuli) + 1} {trial.system}"] = f"configs/{folder.name}/{name}"
    finish = {"type": "finish", "name": "Thank you", "content": "", "writeResults": True}
    config = {
        "testname": "Speech denoising",
        "testId": "speech_denoising",
        "bufferSize": 2048,
        "stopOnErrors": True,
        "showButtonPreviousPage": True,
        "remoteService": "service/write.php",
        "pages": [["random", *pages.values()], finish],
    }
    path = folder / "speech_denoising.yaml"
    with store.atomic_path(path, overwrite=True) as temporary:
        temporary.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path


def write_sound(path: Path, samples: np.ndarray) -> None:
    """Write 16-bit WAV or FLAC, which every browser plays, replacing an earlier one."""
    with store.atomic_path(path, overwrite=True) as temporary:
        sf.write(temporary, samples, audio.SAMPLE_RATE, subtype="PCM_16")
