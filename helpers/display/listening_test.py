"""A small listening test in a notebook: blind, in seeded order, answers kept as CSV.

The scales are those of ITU-T P.835 (speech signal, background noise, overall), with the clean clip
hidden among the others and a 3.5 kHz low-pass anchor, as in ITU-R BS.1534. A demonstration: a room,
headphones and listeners cannot be shipped. Taught in `appendix/05_listeners`.
"""

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import pandas as pd
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


def read_answers(path: Path) -> pd.DataFrame:
    """Answers that `write_answers` wrote. Raises ValueError for a file without its columns."""
    answers = pd.read_csv(path, dtype={"listener": str, "utterance": str})
    if missing := set(ListeningTest.COLUMNS) - set(answers):
        raise ValueError(f"{path}: no column {', '.join(sorted(missing))}; not a listening test")
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
    scale -> 1..5) + a listener's bias (normal, sd 0.3) + chance (normal, sd 0.7), rounded, 1 to 5.
    """
    rng, rows = np.random.default_rng(seed), []
    for i in range(n_listeners):
        bias = rng.normal(0, 0.3)
        for position, j in enumerate(rng.permutation(len(trials)), start=1):
            trial = trials[j]
            ratings = {
                scale: int(np.clip(np.rint(mean + bias + rng.normal(0, 0.7)), 1, 5))
                for scale, mean in opinions[trial.system].items()
            }
            row = {"listener": f"simulated-{i + 1:02d}", "position": position}
            row |= {"utterance": trial.utterance, "system": trial.system, **ratings}
            rows.append(row | {"seconds": round(rng.uniform(6, 20), 1)})
    return pd.DataFrame(rows, columns=ListeningTest.COLUMNS)


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
            write_wav(folder / name, gain * trial.clean)
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
        write_wav(folder / name, gain * trial.clip)
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


def write_wav(path: Path, samples: np.ndarray) -> None:
    """Write 16-bit WAV, which every browser plays, replacing an earlier one."""
    with store.atomic_path(path, overwrite=True) as temporary:
        sf.write(temporary, samples, audio.SAMPLE_RATE, subtype="PCM_16")
