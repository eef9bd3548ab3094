"""The results as pages: the README's one table, and all tables in `data/results/README.md`.

`python -m experiments report` (`make report`) writes both from the files of `data/results`.
"""

from pathlib import Path

import pandas as pd

from helpers import models
from helpers.data import conditions
from helpers.data.conditions import Condition
from helpers.denoise import systems
from helpers.evaluation import tables, word_errors
from helpers.store import RESULTS, ROOT, atomic_path

README, PAGE = ROOT / "README.md", RESULTS / "README.md"
SHOWN = ("white 4-8 kHz, 0 dB", "pink 2.5-7 kHz, 0 dB", "recorded 3-8 kHz, 0 dB")  # in the README
BEST = "best installed denoiser"
ROWS = {"noisy": "noisy", "low-pass": "low-pass", BEST: BEST, "spectrogram": "this course"}
ROWS |= {"oracle PSM": "oracle mask"}
FORMS = {  # of a difference: heading, format
    "si_sdr": ("SI-SDR (dB)", "{:+.1f}"),
    "pesq": ("PESQ-WB", "{:+.2f}"),
    "estoi": ("ESTOI", "{:+.3f}"),
}
COLUMNS = {name: tables.COLUMNS[name] for name in ("pesq", "estoi")}
COLUMNS = {"si_sdr": ("SI-SDR (dB)", "{:z.1f}")} | COLUMNS  # no "-0.0"
EQUAL = "="  # before a difference whose interval holds zero


def markdown(table: pd.DataFrame, *corners: str) -> str:
    """A table as Markdown, the levels of its index as first columns with these headings."""
    table = table.reset_index(names=list(corners))
    rows = [table.columns, ["---"] * table.shape[1], *table.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in rows)


def best_peer(rows: pd.DataFrame) -> str:
    """The installed denoiser with the best mean SI-SDR."""
    found = rows[rows.system.isin(systems.PEERS)]
    return found.groupby("system").si_sdr.mean().idxmax()


# --- the README ---------------------------------------------------------------------------------


def readme_table(rows: pd.DataFrame) -> str:
    """Five systems on three inputs: SI-SDR and PESQ with their intervals."""
    columns, best = {}, set()
    for title in SHOWN:
        here = conditions.rows_of(rows, conditions.NOISES[title])
        peer = best_peer(here)
        best.add(peer)
        named = here[here.system.isin([*ROWS, peer])]
        found = tables.interval_table(named, COLUMNS).rename(index={peer: BEST})
        heads = [COLUMNS[name][0] for name in ("si_sdr", "pesq")]
        columns[title] = found[heads[0]] + "<br>" + found[heads[1]]
    names = ROWS | {BEST: f"{BEST} ({', '.join(sorted(best))})"}
    return markdown(pd.DataFrame(columns).loc[list(ROWS)].rename(index=names), "SI-SDR (dB), PESQ")


def with_report(readme: str, parts: dict[str, str]) -> str:
    """The README with each part between its marks. Raises ValueError where they are missing."""
    for name, text in parts.items():
        start, end = f"<!-- make report: {name} -->", "<!-- end -->"
        before, found, rest = readme.partition(start)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"{README}: no {start} ... {end}; put the two marks back")
        readme = f"{before}{start}\n{text}\n{end}{after}"
    return readme


def readme_parts() -> dict[str, str]:
    """What the README gets."""
    return {"table": readme_table(tables.load_results())}


# --- the page of results ------------------------------------------------------------------------


def score_table(rows: pd.DataFrame, condition: Condition) -> str:
    """Every system on one condition, with intervals."""
    return markdown(tables.interval_table(conditions.rows_of(rows, condition), COLUMNS), "system")


def difference(rows: pd.DataFrame, system: str, other: str, metric: str) -> str:
    """For example `+1.2 [+0.8, +1.6]`, behind EQUAL where the clips do not tell the two apart."""
    mean, low, high = tables.paired(rows, system, other, metric)
    text = tables.interval_text(mean, low, high, FORMS[metric][1])
    return text if low > 0 or high < 0 else f"{EQUAL} {text}"


def against_rivals(rows: pd.DataFrame, system: str) -> str:
    """A model minus each rival, clip by clip, on every headline noise."""
    lines = {}
    for title, condition in conditions.NOISES.items():
        here = conditions.rows_of(rows, condition)
        best = best_peer(here)
        rivals = {"low-pass": "low-pass", "best cutoff": "oracle low-pass", best: best}
        for rival, name in rivals.items():
            lines[title, rival] = {
                head: difference(here, system, name, metric) for metric, (head, _) in FORMS.items()
            }
    return markdown(pd.DataFrame(lines).T, "input", "minus")


def clean_input(rows: pd.DataFrame) -> str:
    """What the models do to speech without noise."""
    here = conditions.rows_of(rows, conditions.CLEAN)
    here = here[here.system.isin(models.METHODS)]
    return markdown(tables.interval_table(here, COLUMNS), "clean input through")


def word_error_table(rows: pd.DataFrame) -> str:
    """Word error rates before and after the command line's default, and the paired difference."""
    rows = word_errors.with_default(rows)
    wer = word_errors.error_rates(rows, ["recogniser", "input", "system"])
    wer = wer.set_index(["recogniser", "input", "system"]).wer
    change = word_errors.change_of_errors(rows, "default", "noisy", ["recogniser", "input"])
    change = change.set_index(["recogniser", "input"])
    points = tables.interval_column(change, "difference", "{:+.1f}")
    cells = {}
    for name, title in change.index:
        line, before = change.loc[(name, title)], wer[name, title, "noisy"]
        if line.difference == line.low == line.high == 0:
            text = f"{before:.0f} %, left alone"
        else:
            after = wer[name, title, "default"]
            text = f"{before:.0f} % → {after:.0f} % ({points[name, title]})"
        cells.setdefault(name, {})[title] = text
    return markdown(pd.DataFrame(cells), "input")


def phoneme_table() -> str:
    """Phoneme error rates of recognisers trained on one kind of audio and tried on each."""
    rows = pd.read_csv(RESULTS / "phonemes.csv", dtype={"speaker": str})
    found = word_errors.error_rates(rows, ["trained_on", "tried_on"], "per")
    found["text"] = tables.interval_column(found, "per", "{:.1f}")
    wide = found.pivot_table("text", "trained_on", "tried_on", aggfunc="first", sort=False)
    return markdown(wide, "trained on, tried on")


def speed_table() -> str:
    """How many times faster than real time each system is on one core."""
    found = pd.read_csv(RESULTS / "speed.csv", index_col="system").sort_values("cpu")
    times = (1 / found.cpu).map("{:,.0f}".format).to_frame("times real time")
    return markdown(times.drop(index="noisy"), "system")


def results_page() -> str:
    """All tables, each with what it says in a line or two."""
    rows = tables.load_results()
    heard = word_errors.load_heard(RESULTS / "recognition.csv")
    n, speakers = rows.utterance.nunique(), rows.speaker.nunique()
    scores = "\n\n".join(
        f"### {title}\n\n{score_table(rows, one)}" for title, one in conditions.NOISES.items()
    )
    return f"""# Results

Made by `make report` from the files beside this page. [How each file is made, and how long it
takes](../../experiments/README.md).

{n} utterances of {speakers} speakers whom training never heard, from a slice of LibriSpeech; new
draws of noise; recordings of sources that training never heard. *Inverter* is an electrical noise
that training never hears; a relative, a chopper, is in it. Means with 95 % intervals; the bootstrap
draws speakers.

- SI-SDR: how far the output is from the clean clip, in dB. PESQ (1.04 to 4.64): what listeners
  would say. ESTOI (0 to 1): what they would understand. Higher is better.
- *Butterworth* and *low-pass* cut at 3.9 kHz, the second sharply. *Oracles* know the clean clip.
- Installed denoisers run at their defaults ([settings](../../experiments/peers.py)). They are made
  for the noises of everyday life, not for this one.

## Every system

{scores}

## The spectrogram model minus its rivals

Clip by clip. *Best cutoff* is a low-pass whose cutoff was chosen for each clip with the clean clip
at hand. {EQUAL} marks what these clips do not tell apart.

{against_rivals(rows, "spectrogram")}

## The waveform model minus its rivals

{against_rivals(rows, "waveform")}

## Clean input

{clean_input(rows)}

## Speech recognisers

Word errors of {heard.utterance.nunique()} utterances: as they are → behind the command line's
default, and the difference in points. *Left alone*: the default hands such an input through.

{word_error_table(heard)}

## Training a recogniser instead

A small phoneme recogniser, trained on one kind of audio and tried on each: phoneme error rate in
per cent.

{phoneme_table()}

## Speed

On one core, all in one run.

{speed_table()}
"""


def write_report() -> tuple[Path, Path]:
    """Write the README's table and the page of results; gives their paths."""
    texts = {README: with_report(README.read_text(), readme_parts()), PAGE: results_page()}
    for path, text in texts.items():
        with atomic_path(path, overwrite=True) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return tuple(texts)
