"""Every system on every condition: tidy rows, the honest table, and the main job `run`.

The whole test protocol, which can be stopped and goes on, is `helpers.protocol`.

Taught in `05_evaluation`.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from tqdm import tqdm

from helpers import audio, baselines, corpus, metrics, noise

LONGEST = 8.0  # s of an utterance that is scored
EXACT_DB = 100.0  # an SI-SDR above is rounding, and shown as infinite
System = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (clean, noisy) -> estimate
FLOOR: dict[str, System] = {  # the rows that no table goes without
    "noisy": lambda clean, noisy: noisy,
    "Butterworth": lambda clean, noisy: baselines.butterworth(noisy),
    "low-pass": lambda clean, noisy: baselines.low_pass(noisy),
}
CEILING: dict[str, System] = {"oracle PSM": baselines.oracle_psm}
METHODS = ("waveform", "spectrogram")
COLUMNS = {  # of a printed table: heading, format
    "si_sdr": ("SI-SDR (dB)", "{:.1f}"),
    "mse": ("MSE (1e-6)", "{:.1f}"),
    "pesq": ("PESQ-WB", "{:.2f}"),
    "estoi": ("ESTOI", "{:.3f}"),
}


@dataclasses.dataclass(frozen=True)
class Condition:
    """A kind of noise in a band (Hz) at an SNR (dB), and the speaker's level (dBFS RMS).

    The kind "none" leaves the input clean; the level is that of the recording by default.
    """

    kind: str = "white"
    low: float = noise.LOW
    high: float = noise.HIGH
    snr_db: float = 0.0
    level_db: float = np.nan

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """From "KIND" or "KIND:LOW-HIGH", for example `pink:2500-7000`; ValueError otherwise."""
        kind, _, band = text.partition(":")
        try:
            low, high = map(float, band.split("-")) if band else (noise.LOW, noise.HIGH)
        except ValueError as error:
            raise ValueError(f"{text!r}: write KIND or KIND:LOW-HIGH, as pink:2500-7000") from error
        return cls(kind, low, high)


def neural(method: str, folder: Path | None = None) -> System:
    """A trained model as a system, the shipped one by default. Raises models.WeightsError."""
    from helpers.denoise import Denoiser  # TensorFlow starts here

    denoiser = Denoiser(method, folder)
    return lambda clean, noisy: denoiser(noisy)


def standard_systems() -> dict[str, System]:
    """The rows of every table: noisy first, both low-pass filters, both methods, the ceiling."""
    return FLOOR | {method: neural(method) for method in METHODS} | CEILING


def systems_in(folder: Path) -> dict[str, System]:
    """The trained models of a folder, each named by its method and the folder.

    To set beside the shipped ones. Raises models.WeightsError where the folder holds none.
    """
    from helpers.models import WeightsError, weights_path

    found = [method for method in METHODS if weights_path(method, folder).exists()]
    if not found:
        raise WeightsError(f"{folder}: no weights; `train METHOD --out {folder}` writes them there")
    return {f"{method} of {folder}": neural(method, folder) for method in found}


def pick(table: pd.DataFrame, split: str, n_utterances: int) -> pd.DataFrame:
    """At most `n_utterances` of a split (0: all), or of each of several, as "test+other".

    Its speakers are taken in turn, so that many are heard. Raises ValueError for a split without
    utterances.
    """
    parts = []
    for name in split.split("+"):
        chosen = table[table.split == name]
        turn = chosen.groupby("speaker").cumcount()
        chosen = chosen.assign(turn=turn).sort_values(["turn", "utterance"]).drop(columns="turn")
        parts.append(chosen.head(n_utterances or len(chosen)))
    utterances = pd.concat(parts, ignore_index=True)
    if utterances.empty:
        raise ValueError(f"no utterance of split {split!r} here; choose from {corpus.SPLITS}")
    return utterances


def make_noisy(utterance: str, clean: np.ndarray, condition: Condition, seed: int, files=()):
    """`(clean, noise, noisy)` of a condition: the same noise for an utterance at every SNR."""
    if not np.isnan(condition.level_db):
        clean = audio.set_level(clean, condition.level_db)
    if condition.kind == "none":
        return clean, np.zeros_like(clean), clean
    name = f"{utterance}/{condition.kind}/{condition.low:g}-{condition.high:g}"
    rng, sr = noise.rng_for(name, seed), audio.SAMPLE_RATE
    added = noise.make(condition.kind, len(clean), sr, rng, condition.low, condition.high, files)
    return noise.mix(clean, added, condition.snr_db)


def clips(
    utterances: pd.DataFrame,
    conditions: list[Condition],
    systems: Mapping[str, System],
    seed=0,
    files=(),
) -> Iterator[tuple[dict, np.ndarray, np.ndarray]]:
    """One `(row, clean, estimate)` for each utterance, condition and system."""
    for one in utterances.itertuples():
        whole = audio.read(one.path)[: int(LONGEST * audio.SAMPLE_RATE)]
        for condition in conditions:
            clean, _, noisy = make_noisy(one.utterance, whole, condition, seed, files)
            row = {"utterance": one.utterance, "speaker": one.speaker, "split": one.split}
            row |= dataclasses.asdict(condition)
            for name, system in systems.items():
                start = time.process_time()
                estimate = system(clean, noisy)
                cpu = (time.process_time() - start) * audio.SAMPLE_RATE / len(clean)
                yield row | {"system": name, "cpu": cpu}, clean, estimate


def evaluate(
    utterances: pd.DataFrame,
    conditions: list[Condition],
    systems: Mapping[str, System],
    seed: int = 0,
    files=(),
    workers: int = 2,
    keep: Callable[[dict, np.ndarray, np.ndarray], None] = lambda row, clean, estimate: None,
    opinions: bool = False,
) -> pd.DataFrame:
    """One row for each utterance, condition and system: what it is, then `metrics.score`.

    Column `cpu`: CPU seconds a second of audio that the system took. The systems run here, the
    metrics in `workers` processes beside it. `keep(row, clean, estimate)` is called here with
    every clip; `opinions` as for `metrics.score`.
    """

    def tasks():
        for clip in clips(utterances, conditions, systems, seed, files):
            keep(*clip)
            yield joblib.delayed(_score)(*clip, opinions)

    rows = joblib.Parallel(n_jobs=workers, return_as="generator")(tasks())
    total = len(utterances) * len(conditions) * len(systems)
    return pd.DataFrame(tqdm(rows, "scoring", total=total, unit="clip", disable=None, leave=False))


def _score(row: dict, clean: np.ndarray, estimate: np.ndarray, opinions: bool) -> dict:
    return row | metrics.score(clean, estimate, opinions=opinions)


def paired(rows: pd.DataFrame, system: str, other: str, metric: str) -> tuple[float, float, float]:
    """Mean of system minus other, clip by clip, and its 95 % interval, which draws speakers."""
    keys = ["utterance", "speaker", "kind", "low", "high", "snr_db", "level_db"]
    rows = rows.assign(level_db=rows.level_db.fillna(0))  # NaN, as recorded, would be dropped
    wide = rows.pivot_table(metric, keys, "system", sort=False)
    values = (wide[system] - wide[other]).dropna()
    speakers = values.index.get_level_values("speaker")
    return float(values.mean()), *metrics.bootstrap(values, speakers)


def bootstrap_ratio(above, below, clusters, n_draws: int = 10_000, seed: int = 0):
    """Sum of `above` over sum of `below`, and its 95 % percentile interval, which draws clusters.

    One value an utterance each, and its cluster (the speaker); (ratio, NaN, NaN) with fewer than
    two clusters. The ratio of two sums, not the mean of ratios.
    """
    _, labels = np.unique(clusters, return_inverse=True)
    sums, sizes = np.bincount(labels, above), np.bincount(labels, below)
    ratio, n = sums.sum() / sizes.sum(), len(sums)
    if n < 2:
        return ratio, np.nan, np.nan
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_draws)
    return ratio, *np.percentile(draws @ sums / (draws @ sizes), [2.5, 97.5])


def table_text(rows: pd.DataFrame, columns: Mapping[str, tuple[str, str]] = COLUMNS) -> str:
    """The table as Markdown: condition, SNR and system, means with 95 % intervals."""
    exact = rows.si_sdr > EXACT_DB
    rows = rows.assign(mse=rows.mse * 1e6, si_sdr=rows.si_sdr.mask(exact, np.inf))
    by = ["kind", "low", "high", "snr_db", "level_db", "system"]
    lines = [
        "| input | SNR (dB) | system | " + " | ".join(head for head, _ in columns.values()) + " |",
        "|---|---|---|" + "---|" * len(columns),
    ]
    for line in metrics.summarise(rows, by, tuple(columns)).to_dict("records"):
        cells = [
            interval_text(line[m], line[f"{m}_low"], line[f"{m}_high"], form)
            for m, (_, form) in columns.items()
        ]
        snr = "" if line["kind"] == "none" else f"{line['snr_db']:g}"
        lines.append(f"| {input_text(line)} | {snr} | {line['system']} | {' | '.join(cells)} |")
    left_out = int((rows.reason != "").sum())
    note = (
        f"; {left_out} clips lack a metric ({', '.join(set(rows.reason) - {''})})"
        if left_out
        else ""
    )
    n, speakers = rows.utterance.nunique(), rows.speaker.nunique()
    lines += [
        "",
        f"Means and 95 % intervals over {n} utterances; the bootstrap draws their {speakers} "
        f"speakers{note}.",
    ]
    return "\n".join(lines)


def interval_table(rows: pd.DataFrame, columns: Mapping[str, tuple[str, str]]) -> pd.DataFrame:
    """One row a system, its means with 95 % intervals as text.

    `columns`: metric -> (heading, format), for example COLUMNS.
    """
    summary = metrics.summarise(rows, ["system"], tuple(columns)).set_index("system")
    cells = {
        head: [interval_text(*line, form) for line in summary[[m, f"{m}_low", f"{m}_high"]].values]
        for m, (head, form) in columns.items()
    }
    return pd.DataFrame(cells, index=summary.index)


def interval_text(mean: float, low: float, high: float, form: str) -> str:
    """A mean with its interval, for example `12.3 [11.9, 12.6]`."""
    text = form.format(mean).replace("inf", "∞")
    return f"{text} [{form.format(low)}, {form.format(high)}]" if np.isfinite(low) else text


def input_text(condition: Mapping) -> str:
    """A condition in words, for example `white 4-8 kHz, speech at -50 dBFS`."""
    text = f"{condition['kind']} {condition['low'] / 1000:g}-{condition['high'] / 1000:g} kHz"
    text = "clean input" if condition["kind"] == "none" else text
    quiet = not np.isnan(condition["level_db"])
    return f"{text}, speech at {condition['level_db']:g} dBFS" if quiet else text


def save_table(rows: pd.DataFrame, path: Path) -> None:
    """Write the rows as `<path>.csv` and the table as `<path>.md`, replacing earlier ones."""
    for suffix, text in (
        (".csv", rows.to_csv(index=False, float_format="%.5g")),
        (".md", table_text(rows) + "\n"),
    ):
        with audio.atomic_path(Path(path).with_suffix(suffix), overwrite=True) as temporary:
            temporary.write_text(text, encoding="utf-8")


def add_scores(method: str, folder: Path | None = None, n_utterances: int = 24) -> None:
    """Score a trained model on validation speakers and write the means into its card."""
    from helpers.models import weights_path

    utterances = pick(corpus.read_corpus(corpus.find_corpus(False)), "validation", n_utterances)
    systems = FLOOR | {method: neural(method, folder)}
    rows = evaluate(utterances, [Condition(snr_db=0.0), Condition(snr_db=10.0)], systems)
    means = rows.groupby(["snr_db", "system"], sort=False)[["si_sdr", "pesq", "estoi"]].mean()
    scores = {
        f"{system}, {snr_db:g} dB": {name: round(value, 3) for name, value in row.items()}
        for (snr_db, system), row in means.iterrows()
    }
    card = weights_path(method, folder).with_suffix(".json")
    scores = {"input": f"white 4-8 kHz, {len(utterances)} validation utterances"} | scores
    content = json.loads(card.read_text()) | {"scores": scores}
    with audio.atomic_path(card, overwrite=True) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def load_rows(path: Path) -> pd.DataFrame:
    """Rows that `save_table` wrote, as `evaluate` gave them."""
    rows = pd.read_csv(path, dtype={"utterance": str, "speaker": str, "reason": str})
    return rows.fillna({"reason": ""})


def run(output: Path, snrs=(0.0, 10.0), n_utterances: int = 12, seed: int = 0) -> str:
    """The main job: noise onto clean speech, both methods, FLAC triples, a figure, the table.

    Uses the test speakers of the corpus that is found. Returns the table as Markdown.
    """
    from helpers import plots

    table = corpus.read_corpus(corpus.find_corpus())
    utterances = pick(table, "test", n_utterances)
    conditions = [Condition(snr_db=snr) for snr in snrs]
    systems = standard_systems()

    def keep(row, clean, estimate):
        stem = f"{row['utterance']}_{row['snr_db']:g}dB"
        if row["system"] in ("noisy", *METHODS):
            audio.write(Path(output) / f"{stem}_{row['system']}.flac", estimate, overwrite=True)
        if row["system"] == "noisy":
            audio.write(Path(output) / f"{stem}_clean.flac", clean, overwrite=True)

    rows = evaluate(utterances, conditions, systems, seed, keep=keep)
    save_table(rows, Path(output) / "table")
    plots.set_style()
    save_comparison(utterances.iloc[0], systems, Path(output), seed)
    return table_text(rows)


def save_comparison(one, systems: Mapping[str, System], folder: Path, seed: int) -> Path:
    """Spectrograms of one utterance, clean, noisy and through every system, as comparison.png."""
    from helpers import plots

    whole = audio.read(one.path)[: int(4 * audio.SAMPLE_RATE)]
    clean, _, noisy = make_noisy(one.utterance, whole, Condition(), seed)
    names = [name for name in systems if name != "Butterworth"]  # it looks like the other filter
    shown = {"clean": clean} | {name: systems[name](clean, noisy) for name in names}
    figure = plots.comparison(shown, band=(noise.LOW, noise.HIGH))
    return plots.save_figure("comparison", figure, folder)
