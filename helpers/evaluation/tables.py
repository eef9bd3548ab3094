"""Rows of scores to means with intervals: the bootstrap, paired differences, printed tables.

One row is one clip through one system under one condition. Taught in `05_evaluation`.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from helpers import store
from helpers.data import conditions
from helpers.data.conditions import Condition
from helpers.denoise import systems
from helpers.evaluation import metrics

EXACT_DB = 100.0  # an SI-SDR above is rounding, and shown as infinite
COLUMNS = {  # of a printed table: heading, format
    "si_sdr": ("SI-SDR (dB)", "{:.1f}"),
    "mse": ("MSE (1e-6)", "{:.1f}"),
    "pesq": ("PESQ-WB", "{:.2f}"),
    "estoi": ("ESTOI", "{:.3f}"),
}


# --- intervals ----------------------------------------------------------------------------------


def draws_of_ratio(above, below, *factors, n_draws: int = 10_000, seed: int = 0):
    """Sum of `above` over sum of `below`, and as many of its draws: `(ratio, float (n_draws,))`.

    One value an utterance each. `factors`: labels an utterance each, of what is drawn with
    replacement: the speaker, since clips of one talker are alike (B. Efron and R. Tibshirani, 1993;
    M. Bisani and H. Ney, ICASSP 2004, for word errors), and the source of the noise, if that was
    drawn too. Two factors are drawn apart from each other, and a clip counts as often as the
    product of the two says (A. Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1,
    2007). A factor of one label is left out. The draws are None without two speakers, or with an
    infinite value.
    """
    codes = [np.unique(np.asarray(labels), return_inverse=True)[1] for labels in factors]
    n_labels = [codes[0].max() + 1, codes[1].max() + 1 if len(codes) > 1 else 1]
    place = codes[0] * n_labels[1] + (codes[1] if len(codes) > 1 else 0)
    sums, sizes = (
        np.bincount(place, v, np.prod(n_labels)).reshape(n_labels) for v in (above, below)
    )
    ratio = sums.sum() / sizes.sum()
    if n_labels[0] < 2 or not np.isfinite(sums).all():
        return ratio, None
    rng = np.random.default_rng(seed)
    times, others = (rng.multinomial(n, np.full(n, 1 / n), size=n_draws) for n in n_labels)
    with np.errstate(invalid="ignore"):  # a draw may hold no clip
        draws = ((times @ sums) * others).sum(axis=1) / ((times @ sizes) * others).sum(axis=1)
    return ratio, draws[np.isfinite(draws)]


def bootstrap_ratio(above, below, *factors, n_draws: int = 10_000, seed: int = 0):
    """Sum of `above` over sum of `below`, and its 95 % percentile interval: (ratio, low, high).

    By `draws_of_ratio`; without draws the interval is NaN.
    """
    ratio, draws = draws_of_ratio(above, below, *factors, n_draws=n_draws, seed=seed)
    return (ratio, np.nan, np.nan) if draws is None else (ratio, *np.percentile(draws, [2.5, 97.5]))


def p_value(draws: np.ndarray | None, *factors) -> float:
    """Two-sided p of a difference of 0, from its draws: twice the smaller share on either side.

    Draws of exactly 0 count half. `factors`: the labels that were drawn, as for `draws_of_ratio`.
    Never below what the number of draws, or the `least_p` of a factor, can tell. NaN without draws.
    """
    if draws is None:
        return np.nan
    below = (np.mean(draws < 0) + np.mean(draws <= 0)) / 2
    return float(max(2 * min(below, 1 - below), 2 / len(draws), *map(least_p, factors)))


def least_p(labels) -> float:
    """The least two-sided p that n different labels can give: as if all their signs agreed.

    2 ** (1 - n): five speakers cannot reach .05, nor can five sources of noise. 0 for one label,
    which is not drawn.
    """
    n = len(np.unique(np.asarray(labels)))
    return 2.0 ** (1 - n) if n > 1 else 0.0


def holm(p_values) -> np.ndarray:
    """Which of several differences are told apart at 5 % in all together, bool `(n,)`.

    The smallest p is held against 5 % / n, the next one against 5 % / (n - 1), until one fails
    (S. Holm, Scandinavian Journal of Statistics 6, 1979). NaN never is.
    """
    p_values = np.nan_to_num(np.asarray(p_values, float), nan=1.0)
    order = np.argsort(p_values, kind="stable")
    passed = p_values[order] <= 0.05 / np.arange(len(p_values), 0, -1)
    told = np.zeros(len(p_values), bool)
    told[order] = np.logical_and.accumulate(passed)
    return told


def bootstrap(
    values: np.ndarray, clusters=None, sources=None, n_draws: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the mean, in the values' unit, by `bootstrap_ratio`: (low, high).

    Draws utterances, or, with `clusters` (one label a value), whole clusters, and with `sources`
    these too. NaN values are left out; (NaN, NaN) when fewer than two are left, or a value is
    infinite.
    """
    values = np.asarray(values, float)
    heard = ~np.isnan(values)
    if not heard.any():
        return np.nan, np.nan
    factors = [np.arange(len(values)) if clusters is None else np.asarray(clusters)]
    factors += [] if sources is None else [np.asarray(sources)]
    labels = [factor[heard] for factor in factors]
    ones = np.ones(heard.sum())
    return bootstrap_ratio(values[heard], ones, *labels, n_draws=n_draws, seed=seed)[1:]


def summarise(rows: pd.DataFrame, by: list[str], measures=metrics.METRICS) -> pd.DataFrame:
    """Mean and interval of each measure for each group, in the order of first appearance.

    The intervals draw speakers, not utterances, and sources of noise, where the rows name them.
    Columns: `by`, n, then `<measure>`, `<measure>_low`, `<measure>_high`, and `left_out`, the
    number of clips with a reason.
    """
    summary = []
    for group_key, group in rows.groupby(by, sort=False, dropna=False):
        line = dict(zip(by, group_key, strict=True)) | {"n": len(group)}
        for measure in measures:
            low, high = bootstrap(group[measure], group.get("speaker"), sources_of(group))
            line |= {measure: group[measure].mean(), f"{measure}_low": low, f"{measure}_high": high}
        reasons = group.get("reason", pd.Series("", group.index))
        summary.append(line | {"left_out": int((reasons != "").sum())})
    return pd.DataFrame(summary)


class Difference(NamedTuple):
    """A mean difference, its 95 % interval, and the two-sided p of no difference."""

    mean: float
    low: float
    high: float
    p: float


def difference(rows: pd.DataFrame, system: str, other: str, metric: str) -> Difference:
    """System minus other, clip by clip; speakers are drawn, and sources of noise where named."""
    keys = ["utterance", "speaker", *conditions.COLUMNS, "source"]
    rows = rows.assign(level_db=rows.level_db.fillna(0), source=sources_of(rows))
    wide = rows.pivot_table(metric, keys, "system", sort=False)  # which would drop a NaN
    values = (wide[system] - wide[other]).dropna().reset_index(name="value")
    factors = values.speaker, values.source
    mean, draws = draws_of_ratio(values.value, np.ones(len(values)), *factors)
    low, high = (np.nan, np.nan) if draws is None else np.percentile(draws, [2.5, 97.5])
    return Difference(float(mean), low, high, p_value(draws, *factors))


def paired(rows: pd.DataFrame, system: str, other: str, metric: str) -> tuple[float, float, float]:
    """Mean and 95 % interval of `difference`."""
    return difference(rows, system, other, metric)[:3]


def sources_of(rows: pd.DataFrame) -> pd.Series:
    """The column `source`; empty where noise has none, or the rows have no such column."""
    return rows.get("source", pd.Series("", rows.index)).fillna("")


# --- intervals as text --------------------------------------------------------------------------


def interval_text(mean: float, low: float, high: float, form: str) -> str:
    """A mean with its interval, for example `12.3 [11.9, 12.6]`."""
    text = form.format(mean).replace("inf", "∞")
    return f"{text} [{form.format(low)}, {form.format(high)}]" if np.isfinite(low) else text


def interval_column(found: pd.DataFrame, measure: str, form: str) -> pd.Series:
    """A column of a summary with its interval as text, on the index of `found`.

    The interval stands in `<measure>_low` and `<measure>_high`, or in `low` and `high`.
    """
    own = f"{measure}_low" in found
    ends = [f"{measure}_{end}" if own else end for end in ("low", "high")]
    columns = found[[measure, *ends]].to_numpy()
    return pd.Series([interval_text(*line, form) for line in columns], found.index, dtype=object)


def interval_table(rows: pd.DataFrame, columns: Mapping[str, tuple[str, str]]) -> pd.DataFrame:
    """One row a system, its means with 95 % intervals as text.

    `columns`: metric -> (heading, format), for example COLUMNS.
    """
    summary = summarise(rows, ["system"], tuple(columns)).set_index("system")
    cells = {head: interval_column(summary, m, form) for m, (head, form) in columns.items()}
    return pd.DataFrame(cells, index=summary.index)


def table_text(rows: pd.DataFrame, columns: Mapping[str, tuple[str, str]] = COLUMNS) -> str:
    """The table as Markdown: condition, SNR and system, means with 95 % intervals."""
    exact = rows.si_sdr > EXACT_DB
    rows = rows.assign(mse=rows.mse * 1e6, si_sdr=rows.si_sdr.mask(exact, np.inf))
    summary = summarise(rows, [*conditions.COLUMNS, "system"], tuple(columns))
    inputs = [Condition.of_row(line) for line in summary.to_dict("records")]
    texts = {
        "input": [one.input for one in inputs],
        "SNR (dB)": ["" if one.kind == "none" else f"{one.snr_db:g}" for one in inputs],
        "system": summary.system,
    }
    texts |= {head: interval_column(summary, m, form) for m, (head, form) in columns.items()}
    lines = [f"| {' | '.join(texts)} |", "|---|---|---|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(cells)} |" for cells in zip(*texts.values(), strict=True)]
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
        f"speakers, and the categories of recorded noise{note}.",
    ]
    return "\n".join(lines)


# --- files --------------------------------------------------------------------------------------


def save_table(rows: pd.DataFrame, path: Path) -> None:
    """Write the rows as `<path>.csv` and the table as `<path>.md`, replacing earlier ones."""
    save_rows(rows, path)
    with store.atomic_path(store.with_ending(path, ".md"), overwrite=True) as temporary:
        temporary.write_text(table_text(rows) + "\n", encoding="utf-8")


def save_or_keep(rows: pd.DataFrame, path: Path) -> None:
    """As `save_table`; where that fails, in a new temporary folder, which the error names.

    For rows that took hours. Raises store.FileError where it failed.
    """
    try:
        save_table(rows, path)
    except (store.FileError, OSError) as error:
        spare = Path(tempfile.mkdtemp(prefix="denoiser-")) / store.with_ending(path, "").name
        save_table(rows, spare)
        why = f"{path}: not written ({error})"
        raise store.FileError(f"{why}; the table lies in {spare}.csv and .md, move it") from error


def save_rows(rows: pd.DataFrame, path: Path) -> Path:
    """Write rows as `<path>.csv`, whole or not at all, replacing earlier ones; gives its path."""
    path = store.with_ending(path, ".csv")
    with store.atomic_path(path, overwrite=True) as temporary:
        rows.to_csv(temporary, index=False, float_format="%.5g")
    return path


def load_rows(path: Path) -> pd.DataFrame:
    """Rows that `save_table` wrote, to five digits."""
    texts = ("utterance", "speaker", "reason", "version", "part", "source")
    rows = pd.read_csv(path, dtype=dict.fromkeys(texts, str))
    return rows.fillna({"reason": "", "source": ""})


def load_results(folder: Path = store.RESULTS) -> pd.DataFrame:
    """All rows of the test protocol, of `test.csv` and `peers.csv`, systems in table order."""
    rows = pd.concat([load_rows(folder / f"{name}.csv") for name in ("test", "peers")])
    order = list(systems.TABLE).index
    return rows.sort_values("system", key=lambda names: names.map(order), kind="stable")
