"""Rows of scores to means with intervals: the bootstrap, paired differences, printed tables.

One row is one clip through one system under one condition. Taught in `05_evaluation`.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path

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


def bootstrap_ratio(above, below, clusters, n_draws: int = 10_000, seed: int = 0):
    """Sum of `above` over sum of `below`, and its 95 % percentile interval: (ratio, low, high).

    One value an utterance each, and its cluster: the speaker, since clips of one talker are alike.
    Whole clusters are drawn (B. Efron and R. Tibshirani, 1993; M. Bisani and H. Ney, ICASSP 2004,
    for word errors). Without two clusters, or with an infinite value, the interval is NaN.
    """
    ratio, draws = draws_of_ratio(above, below, clusters, n_draws, seed)
    return ratio, *((np.nan, np.nan) if draws is None else np.percentile(draws, [2.5, 97.5]))


def draws_of_ratio(above, below, clusters, n_draws: int = 10_000, seed: int = 0):
    """The ratio of `bootstrap_ratio`, and those of its draws, float64 `(n_draws,)`, or None."""
    _, labels = np.unique(clusters, return_inverse=True)
    sums, sizes = np.bincount(labels, above), np.bincount(labels, below)
    ratio, n = sums.sum() / sizes.sum(), len(sums)
    if n < 2 or not np.isfinite(sums).all():
        return ratio, None
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_draws)
    return ratio, draws @ sums / (draws @ sizes)


def p_value(draws: np.ndarray, n_clusters: int) -> float:
    """Two-sided p of no difference: twice the share of bootstrap draws on the rarer side of 0.

    A draw of 0 counts half. It is not below one draw's share, nor below `2 ** (1 - n_clusters)`:
    all clusters on one side are as rare as that where both sides are as likely (the sign test).
    """
    below = np.mean(draws < 0) + np.mean(draws == 0) / 2
    return float(
        np.clip(2 * min(below, 1 - below), max(1 / len(draws), 2.0 ** (1 - n_clusters)), 1)
    )


def bootstrap(
    values: np.ndarray, clusters=None, n_draws: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the mean, in the values' unit, by `bootstrap_ratio`: (low, high).

    Draws utterances, or, with `clusters` (one label a value), whole clusters. NaN values are left
    out; (NaN, NaN) when fewer than two are left, or a value is infinite.
    """
    values = np.asarray(values, float)
    heard = ~np.isnan(values)
    if not heard.any():
        return np.nan, np.nan
    labels = np.arange(len(values)) if clusters is None else np.asarray(clusters)
    ones = np.ones(heard.sum())
    return bootstrap_ratio(values[heard], ones, labels[heard], n_draws, seed)[1:]


def summarise(rows: pd.DataFrame, by: list[str], measures=metrics.METRICS) -> pd.DataFrame:
    """Mean and interval of each measure for each group, in the order of first appearance.

    The intervals draw speakers, not utterances, where the rows name them.
    Columns: `by`, n, then `<measure>`, `<measure>_low`, `<measure>_high`, and `left_out`, the
    number of clips with a reason.
    """
    summary = []
    for group_key, group in rows.groupby(by, sort=False, dropna=False):
        line = dict(zip(by, group_key, strict=True)) | {"n": len(group)}
        for measure in measures:
            low, high = bootstrap(group[measure], group.get("speaker"))
            line |= {measure: group[measure].mean(), f"{measure}_low": low, f"{measure}_high": high}
        reasons = group.get("reason", pd.Series("", group.index))
        summary.append(line | {"left_out": int((reasons != "").sum())})
    return pd.DataFrame(summary)


def paired(rows: pd.DataFrame, system: str, other: str, metric: str) -> tuple[float, float, float]:
    """Mean of system minus other, clip by clip, and its 95 % interval, which draws speakers."""
    keys = ["utterance", "speaker", *conditions.COLUMNS]
    rows = rows.assign(level_db=rows.level_db.fillna(0))  # NaN, as recorded, would be dropped
    wide = rows.pivot_table(metric, keys, "system", sort=False)
    values = (wide[system] - wide[other]).dropna()
    speakers = values.index.get_level_values("speaker")
    return float(values.mean()), *bootstrap(values, speakers)


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
        f"speakers{note}.",
    ]
    return "\n".join(lines)


# --- files --------------------------------------------------------------------------------------


def save_table(rows: pd.DataFrame, path: Path) -> None:
    """Write the rows as `<path>.csv` and the table as `<path>.md`, replacing earlier ones."""
    save_rows(rows, path)
    with store.atomic_path(Path(path).with_suffix(".md"), overwrite=True) as temporary:
        temporary.write_text(table_text(rows) + "\n", encoding="utf-8")


def save_or_keep(rows: pd.DataFrame, path: Path) -> None:
    """As `save_table`; where that fails, in a new temporary folder, which the error names.

    For rows that took hours. Raises store.FileError where it failed.
    """
    try:
        save_table(rows, path)
    except (store.FileError, OSError) as error:
        spare = Path(tempfile.mkdtemp(prefix="denoiser-")) / Path(path).name
        save_table(rows, spare)
        why = f"{path}: not written ({error})"
        raise store.FileError(f"{why}; the table lies in {spare}.csv and .md, move it") from error


def save_rows(rows: pd.DataFrame, path: Path) -> Path:
    """Write rows as `<path>.csv`, whole or not at all, replacing earlier ones; gives its path."""
    path = Path(path).with_suffix(".csv")
    with store.atomic_path(path, overwrite=True) as temporary:
        rows.to_csv(temporary, index=False, float_format="%.5g")
    return path


def load_rows(path: Path) -> pd.DataFrame:
    """Rows that `save_table` wrote, to five digits."""
    texts = ("utterance", "speaker", "reason", "version", "part")
    return pd.read_csv(path, dtype=dict.fromkeys(texts, str)).fillna({"reason": ""})


def load_results(folder: Path = store.RESULTS) -> pd.DataFrame:
    """All rows of the test protocol, of `test.csv` and `peers.csv`, systems in table order."""
    rows = pd.concat([load_rows(folder / f"{name}.csv") for name in ("test", "peers")])
    order = list(systems.TABLE).index
    return rows.sort_values("system", key=lambda names: names.map(order), kind="stable")
