"""Put the tables and the verdict of `data/results` into the README (`make report`).

`python -m experiments report`.
"""

from pathlib import Path

import pandas as pd

from helpers import models
from helpers.data import conditions
from helpers.denoise import systems
from helpers.evaluation import tables, word_errors
from helpers.store import RESULTS, ROOT

README = ROOT / "README.md"
ZERO, TEN = conditions.WHITE, conditions.NOISES["white 4-8 kHz, 10 dB"]
LEFT_OUT = systems.names("classical", "oracle")  # of the table; chapter 05 shows them
FORMS = {"si_sdr": ("SI-SDR", "{:+.1f}", " dB"), "pesq": ("PESQ", "{:+.2f}", "")}
FORMS |= {"estoi": ("ESTOI", "{:+.3f}", "")}


def table(rows: pd.DataFrame) -> str:
    """White noise at 0 dB, every system but LEFT_OUT; at 10 dB the same."""
    rows = rows[~rows.system.isin(LEFT_OUT)]
    both = pd.concat([conditions.rows_of(rows, ZERO), conditions.rows_of(rows, TEN)])
    return tables.table_text(both, {name: tables.COLUMNS[name] for name in FORMS})


def difference(rows: pd.DataFrame, system: str, other: str, metric: str) -> str:
    """For example `SI-SDR +1.2 [+0.8, +1.6] dB`."""
    name, form, unit = FORMS[metric]
    mean, low, high = tables.paired(rows, system, other, metric)
    told = "" if low > 0 or high < 0 else " (not told apart)"
    return f"{name} {tables.interval_text(mean, low, high, form)}{unit}{told}"


def verdict(rows: pd.DataFrame) -> str:
    """Paired differences and the clean input, one line each."""
    lines = []
    for title, condition in conditions.NOISES.items():
        here = conditions.rows_of(rows, condition)
        best = here[here.system.isin(systems.PEERS)].groupby("system").si_sdr.mean().idxmax()
        rivals = {"low-pass": "low-pass", "best cutoff": "oracle low-pass", best: best}
        lines.append(f"- **{title}**")
        for rival, name in rivals.items():
            parts = [difference(here, "spectrogram", name, metric) for metric in FORMS]
            lines.append(f"  - against {rival}: {', '.join(parts)}")
        parts = [difference(here, "waveform", "low-pass", metric) for metric in FORMS]
        lines.append(f"  - the waveform model against low-pass: {', '.join(parts)}")
    clean = conditions.rows_of(rows, conditions.CLEAN)
    for system in models.METHODS:
        mean = clean[clean.system == system][list(FORMS)].mean()
        lines.append(
            f"- **clean input** through the {system} model: SI-SDR {mean.si_sdr:.1f} dB, "
            f"PESQ {mean.pesq:.2f}, ESTOI {mean.estoi:.3f}"
        )
    return "\n".join(lines)


def recognisers(rows: pd.DataFrame) -> str:
    """Word error rates before and after the command line's default, and the paired difference."""
    rows = word_errors.with_default(rows)
    wer = word_errors.error_rates(rows, ["recogniser", "input", "system"])
    wer = wer.set_index(["recogniser", "input", "system"]).wer
    change = word_errors.change_of_errors(rows, "default", "noisy", ["recogniser", "input"])
    change = change.set_index(["recogniser", "input"])
    names = rows.recogniser.unique()
    lines = ["| input | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for title in rows.input.unique():
        cells = []
        for name in names:
            before, after = wer[name, title, "noisy"], wer[name, title, "default"]
            line = change.loc[(name, title)]
            points = tables.interval_text(line.difference, line.low, line.high, "{:+.1f}")
            left = line.difference == line.low == line.high == 0
            outcome = ", left alone" if left else f" → {after:.0f} % ({points})"
            cells.append(f"{before:.0f} %{outcome}")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


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
    rows = tables.load_results()
    heard = word_errors.load_heard(RESULTS / "recognition.csv")
    return {"table": table(rows), "verdict": verdict(rows), "recognisers": recognisers(heard)}


def write_report() -> Path:
    """Write the parts into the README and give its path."""
    README.write_text(with_report(README.read_text(), readme_parts()))
    return README
