"""Put the tables and the verdict of `data/results` into the README (`make report`).

python .ci/report.py
"""

from pathlib import Path

import pandas as pd

from helpers import evaluation, peers, protocol, recognition

ROOT = Path(__file__).resolve().parents[1]
README, RESULTS = ROOT / "README.md", ROOT / "data" / "results"
ZERO, TEN = protocol.HEADLINE[:2]  # white noise at 0 and 10 dB
LEFT_OUT = protocol.CLASSICAL | protocol.ORACLES  # of the table; chapter 05 shows them
FORMS = {"si_sdr": ("SI-SDR", "{:+.1f}", " dB"), "pesq": ("PESQ", "{:+.2f}", "")}
FORMS |= {"estoi": ("ESTOI", "{:+.3f}", "")}


def table(rows: pd.DataFrame) -> str:
    """White noise at 0 dB, every system but LEFT_OUT; at 10 dB the same."""
    rows = rows[~rows.system.isin(LEFT_OUT)]
    both = pd.concat([protocol.of(rows, ZERO), protocol.of(rows, TEN)])
    return evaluation.table_text(both, {name: evaluation.COLUMNS[name] for name in FORMS})


def difference(rows: pd.DataFrame, system: str, other: str, metric: str) -> str:
    """For example `SI-SDR +1.2 [+0.8, +1.6] dB`."""
    name, form, unit = FORMS[metric]
    mean, low, high = evaluation.paired(rows, system, other, metric)
    told = "" if low > 0 or high < 0 else " (not told apart)"
    return f"{name} {evaluation.interval_text(mean, low, high, form)}{unit}{told}"


def verdict(rows: pd.DataFrame) -> str:
    """Paired differences and the clean input, one line each."""
    lines = []
    for condition in protocol.HEADLINE[:6]:
        here = protocol.of(rows, condition)
        best = here[here.system.isin(peers.PACKAGES)].groupby("system").si_sdr.mean().idxmax()
        rivals = {"low-pass": "low-pass", "best cutoff": "oracle low-pass", best: best}
        lines.append(f"- **{protocol.title(condition)}**")
        for rival, name in rivals.items():
            parts = [difference(here, "spectrogram", name, metric) for metric in FORMS]
            lines.append(f"  - against {rival}: {', '.join(parts)}")
        parts = [difference(here, "waveform", "low-pass", metric) for metric in FORMS]
        lines.append(f"  - the waveform model against low-pass: {', '.join(parts)}")
    clean = protocol.of(rows, protocol.HEADLINE[7])
    for system in ("waveform", "spectrogram"):
        mean = clean[clean.system == system][list(FORMS)].mean()
        lines.append(
            f"- **clean input** through the {system} model: SI-SDR {mean.si_sdr:.1f} dB, "
            f"PESQ {mean.pesq:.2f}, ESTOI {mean.estoi:.3f}"
        )
    return "\n".join(lines)


def recognisers(rows: pd.DataFrame) -> str:
    """Word error rates before and after the command line's default, and the paired difference."""
    rows = recognition.with_default(rows)
    wer = recognition.summarise(rows, ["recogniser", "input", "system"])
    wer = wer.set_index(["recogniser", "input", "system"]).wer
    change = recognition.paired(rows, "default", "noisy", ["recogniser", "input"])
    change = change.set_index(["recogniser", "input"])
    names = rows.recogniser.unique()
    lines = ["| input | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for title in rows.input.unique():
        cells = []
        for name in names:
            before, after = wer[name, title, "noisy"], wer[name, title, "default"]
            line = change.loc[(name, title)]
            points = evaluation.interval_text(line.difference, line.low, line.high, "{:+.1f}")
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


def parts() -> dict[str, str]:
    """What the README gets."""
    rows, heard = protocol.load(RESULTS), recognition.load(RESULTS / "recognition.csv")
    return {"table": table(rows), "verdict": verdict(rows), "recognisers": recognisers(heard)}


if __name__ == "__main__":
    README.write_text(with_report(README.read_text(), parts()))
    print(f"{README.name}: tables and verdict of {RESULTS.relative_to(ROOT)}")
