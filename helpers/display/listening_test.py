"""A small listening test in a notebook or on a page: blind, in seeded order, answers kept as CSV.

The scales are those of ITU-T P.835 (speech signal, background noise, overall), with the clean clip
hidden among the others and a 3.5 kHz low-pass anchor, as in ITU-R BS.1534. A demonstration: a room,
headphones and listeners cannot be shipped. Taught in `appendix/05_listeners`.
"""

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

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
REFERENCE, ANCHOR = "hidden reference", "3.5 kHz anchor"
PAGE = Path(__file__).with_name("listening_page.html")
BIAS_SD, CHANCE_SD = 0.3, 0.7  # of simulated answers: between listeners, between their answers
TASTE_SD = 0.3  # between listeners, of how much they like a system; of `listeners_needed` alone
KEPT = 4  # a listener who gives the hidden reference less overall, mostly, was not listening


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


class ListeningTest(widgets.VBox):
    """One page a trial: a player, three questions, and *next*; every answer is written at once.

    `path`: the CSV, one line a trial (COLUMNS); an existing file is continued
    for another listener, and ValueError raised if `listener` is in it already.
    """

    COLUMNS = ("listener", "position", "utterance", "system", *SCALES, "seconds")

    def __init__(self, trials: list[Trial], path: Path, listener: str = "me"):
        self.trials, self.path, self.listener = trials, Path(path), listener
        self.gain = one_gain(trials)
        self.answers = read_answers(path).to_dict("records") if self.path.exists() else []
        if listener in {answer["listener"] for answer in self.answers}:
            raise ValueError(f"{path}: listener {listener!r} has answered; choose another name")
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
        super().__init__([self.title, self.player, *self.questions.values(), self.next])
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

    def _keep(self, button=None):
        trial = self.trials[self.position]
        answer = {"listener": self.listener, "position": self.position + 1}
        answer |= {"utterance": trial.utterance, "system": trial.system}
        answer |= {name: question.value for name, question in self.questions.items()}
        self.answers.append(answer | {"seconds": round(time.monotonic() - self.start, 1)})
        write_answers(pd.DataFrame(self.answers, columns=self.COLUMNS), self.path)
        self.position += 1
        self._show()


def one_gain(trials: list[Trial]) -> float:
    """What brings the loudest clip to full scale; one for all, so that levels stay comparable."""
    return listening.PEAK / max(1e-9, *(np.abs(trial.clip).max() for trial in trials))


def read_answers(path: Path | Iterable[Path]) -> pd.DataFrame:
    """Answers of a CSV, of several, or of all in a folder (`*.csv`), one below the other.

    Raises ValueError, in one line, for a file without its columns or with grades other than 1 to 5,
    for listeners who are in two files, and for a folder without files.
    """
    if isinstance(path, str | Path):
        paths = sorted(Path(path).glob("*.csv")) if Path(path).is_dir() else [Path(path)]
    else:
        paths = [Path(one) for one in path]
    if not paths:
        raise ValueError(f"{path}: no answers (*.csv)")
    tables_read, file_of, twice = [], {}, []
    for one in paths:
        answers = read_file(one)
        for listener in answers.listener.unique():
            if listener in file_of:
                twice.append(f"{listener!r} in {file_of[listener]} and {one}")
            file_of[listener] = one
        tables_read.append(answers)
    if twice:
        raise ValueError(f"answers of the same listener: {', '.join(twice)}; leave one file out")
    return pd.concat(tables_read, ignore_index=True)


def read_file(path: Path) -> pd.DataFrame:
    """The answers of one CSV. Raises ValueError as `read_answers`."""
    texts = dict.fromkeys(("listener", "utterance", "system"), str)
    answers = pd.read_csv(path, dtype=texts, keep_default_na=False)  # a listener may be called NA
    if missing := set(ListeningTest.COLUMNS) - set(answers):
        raise ValueError(f"{path}: no column {', '.join(sorted(missing))}; not a listening test")
    if not answers[list(SCALES)].isin(range(1, 6)).all(axis=None):
        raise ValueError(f"{path}: grades other than 1 to 5")
    return answers


def write_answers(answers: pd.DataFrame, path: Path) -> None:
    """Write the answers, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with store.atomic_path(path, overwrite=True) as temporary:
        answers.to_csv(temporary, index=False)


def analyse(answers: pd.DataFrame) -> pd.DataFrame:
    """Mean opinion of each system on each scale with a 95 % interval that draws listeners.

    Columns as of `tables.summarise`. Listeners who mostly gave the hidden reference less than
    KEPT overall are left out (`left_out` counts them), in the spirit of BS.1534-3, section 4.1.2.
    """
    hidden = answers[answers.system == REFERENCE].groupby("listener").overall
    deaf = set(hidden.median().index[hidden.median() < KEPT])
    kept = answers[~answers.listener.isin(deaf)]
    kept = kept.assign(reason="", speaker=kept.listener)
    summary = tables.summarise(kept, ["system"], tuple(SCALES))
    return summary.assign(left_out=len(deaf)).sort_values("overall", ascending=False)


def simulate_answers(
    trials: list[Trial], opinions: Mapping[str, Mapping[str, float]], n_listeners: int, seed: int
) -> pd.DataFrame:
    """Answers of imaginary listeners, so that the analysis can be tried without real ones.

    A stated simulation: rating = opinion of the system on that scale (`opinions`: system ->
    scale -> 1..5) + a listener's bias (normal, sd BIAS_SD) + chance (normal, sd CHANCE_SD),
    rounded, 1 to 5.
    """
    rng, rows = np.random.default_rng(seed), []
    for i in range(n_listeners):
        bias = rng.normal(0, BIAS_SD)
        for position, j in enumerate(rng.permutation(len(trials)), start=1):
            trial = trials[j]
            ratings = {
                scale: int(np.clip(np.rint(mean + bias + rng.normal(0, CHANCE_SD)), 1, 5))
                for scale, mean in opinions[trial.system].items()
            }
            row = {"listener": f"simulated-{i + 1:02d}", "position": position}
            row |= {"utterance": trial.utterance, "system": trial.system, **ratings}
            rows.append(row | {"seconds": round(rng.uniform(6, 20), 1)})
    return pd.DataFrame(rows, columns=ListeningTest.COLUMNS)


def listeners_needed(
    difference: float, n_clips: int = 4, power: float = 0.8, seed: int = 0, most: int = 500
) -> float:
    """How many listeners tell two systems apart that differ by `difference` on a scale of 1 to 5.

    By simulation of 1,000 studies: a grade is the mean of the system (around 3.5) + the listener's
    bias (sd BIAS_SD) + how he likes this system (sd TASTE_SD) + chance (sd CHANCE_SD), rounded, 1
    to 5. All are assumed, not measured. Each listener hears `n_clips` clips of both systems; told
    apart is a paired t-test over listeners at 5 %. NaN where `most` listeners are too few.
    """
    rng, n_studies = np.random.default_rng(seed), 1_000
    bias = rng.normal(0, BIAS_SD, (n_studies, most, 1))
    means = []
    for opinion in (3.5 - difference / 2, 3.5 + difference / 2):
        taste = rng.normal(0, TASTE_SD, (n_studies, most, 1))
        chance = rng.normal(0, CHANCE_SD, (n_studies, most, n_clips))
        means.append(np.clip(np.rint(opinion + bias + taste + chance), 1, 5).mean(axis=-1))
    found = means[1] - means[0]  # (studies, listeners)
    n = np.arange(1, most + 1)[1:]  # the first n listeners of each study
    mean, square = (np.cumsum(x, axis=1)[:, 1:] / n for x in (found, found**2))
    error = np.sqrt(np.maximum(square - mean**2, 1e-12) / (n - 1))
    told_apart = (np.abs(mean) / error > scipy.stats.t.ppf(0.975, n - 1)).mean(axis=0)
    enough = np.flatnonzero(told_apart >= power)
    return float(n[enough[0]]) if len(enough) else np.nan


def power_table(differences=(0.2, 0.3, 0.5), n_clips=(1, 4, 8), seed: int = 0) -> pd.DataFrame:
    """`listeners_needed` with 80 % power: a row a difference, a column a number of clips."""
    rows = [[listeners_needed(d, clips, seed=seed) for clips in n_clips] for d in differences]
    columns = [f"{clips} clip{'s' * (clips > 1)}" for clips in n_clips]
    return pd.DataFrame(rows, pd.Index(differences, name="difference"), columns)


def export_page(folder: Path, clips: Mapping[str, Mapping[str, np.ndarray]], seed: int = 0) -> Path:
    """Write a listening test as a folder: `index.html` and FLAC clips. Returns the page's path.

    It asks as `ListeningTest`, with an order for each listener that his name decides, and gives
    each his answers as the CSV that `read_answers` takes. It opens from disk or from any static
    host and asks no other for anything. The files' names do not tell the systems; the source of
    the page does. `clips` and the KeyError as of `make_trials`. A folder that goes public may hold
    the bundled sample, or other speech only where its licence allows it and is named beside it.
    """
    folder, trials, entries, digest = Path(folder), make_trials(clips, seed), [], hashlib.sha256()
    gain = one_gain(trials)
    for old in folder.glob("clip_*.flac"):  # of an earlier test
        old.unlink()
    for i, trial in enumerate(trials, start=1):
        file = f"clip_{i:03d}.flac"
        write_sound(folder / file, gain * trial.clip)
        digest.update((folder / file).read_bytes())
        entries.append({"file": file, "utterance": trial.utterance, "system": trial.system})
    digest.update(json.dumps(entries).encode())
    test = {"id": digest.hexdigest()[:16], "columns": ListeningTest.COLUMNS, "scales": SCALES}
    text = json.dumps(test | {"clips": entries}).replace("<", "\\u003c")  # of no tag
    path = folder / "index.html"
    with store.atomic_path(path, overwrite=True) as temporary:
        page = PAGE.read_text(encoding="utf-8").replace("/*TEST*/", text)
        temporary.write_text(page, encoding="utf-8")
    return path


def export_webmushra(trials: list[Trial], folder: Path) -> Path:
    """Write WAV files and a configuration for webMUSHRA (Schoeffler et al., 2018).

    One MUSHRA page an utterance, the clean clip as the open reference; webMUSHRA hides another
    copy of it among the stimuli by itself. Returns the path of the YAML, to be opened as
    `?config=<name>` after the folder was copied into webMUSHRA's `configs`.
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
