"""The results as pages: the README's one table, and all tables in `data/results/README.md`.

`python -m experiments report` (`make report`) writes both from the files of `data/results`.
"""

import itertools
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from helpers.data import conditions
from helpers.data.conditions import Condition
from helpers.denoise import systems
from helpers.denoise.systems import DEFAULT
from helpers.evaluation import asr, tables, word_errors
from helpers.store import RESULTS, ROOT, atomic_path

README, PAGE = ROOT / "README.md", RESULTS / "README.md"
TEMPLATE = Path(__file__).with_name("results_page.md")  # the words of the page
SHOWN = ("white 4-8 kHz, 0 dB", "pink 2.5-7 kHz, 0 dB", "recorded 3-8 kHz, 0 dB")  # in the README
HEARD = ("white 4-8 kHz, -15 dB", "pink 2.5-7 kHz, 0 dB")  # by recognisers, in the README
BEST = "installed denoiser, best in SI-SDR"
ROWS = {
    "noisy": "noisy",
    "low-pass": "low-pass",
    BEST: BEST,
    DEFAULT: "this course",
}
ROWS |= {"oracle PSM": "oracle (real mask)"}
FORMS = {  # of a difference: heading, format
    "si_sdr": ("SI-SDR (dB)", "{:+.1f}"),
    "pesq": ("PESQ-WB", "{:+.2f}"),
    "estoi": ("ESTOI", "{:+.3f}"),
}
CLOSE_FORMS = {"si_sdr": "{:+.2f}", "pesq": "{:+.3f}", "estoi": "{:+.4f}"}  # of one like another
ANEW = "spectrogram of data/runs/anew"  # as `denoiser score --also` names it
COLUMNS = {name: tables.COLUMNS[name] for name in ("pesq", "estoi")}
COLUMNS = {"si_sdr": ("SI-SDR (dB)", "{:z.1f}")} | COLUMNS  # no "-0.0"
OPEN = "?"  # before a difference whose interval holds zero
LEVEL = "≈"  # before a change of errors within `word_errors.MARGIN`


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
        columns[title] = both_scores(here, [*ROWS, peer]).rename(index={peer: BEST})
    names = ROWS | {BEST: f"{BEST}: {', '.join(sorted(best))}"}
    return markdown(pd.DataFrame(columns).loc[list(ROWS)].rename(index=names), "SI-SDR (dB), PESQ")


def both_scores(rows: pd.DataFrame, names: list[str]) -> pd.Series:
    """SI-SDR and PESQ of some systems on one input, one above the other, with intervals."""
    found = tables.interval_table(rows[rows.system.isin(names)], COLUMNS)
    return found[[COLUMNS[name][0] for name in ("si_sdr", "pesq")]].agg("<br>".join, axis=1)


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


def readme_gain(rows: pd.DataFrame) -> str:
    """What the model gains over the low-pass on the first input, clip by clip."""
    here = conditions.rows_of(rows, conditions.NOISES[SHOWN[0]])
    gains = {
        name: difference_text(tables.difference(here, DEFAULT, "low-pass", name), form)
        for name, (_, form) in FORMS.items()
    }
    return (
        "Clip by clip, on the first input the course is ahead of the low-pass by "
        f"{gains['si_sdr']}\ndB, {gains['pesq']} in PESQ, each by itself. What recognisers mishear:"
    )


def readme_words(heard: pd.DataFrame) -> str:
    """Words wrong by each recogniser of words on HEARD: noisy, low-pass and default."""
    names = {"noisy": "noisy", "low-pass": "low-pass", DEFAULT: ROWS[DEFAULT]}
    here = heard[heard.input.isin(HEARD) & heard.system.isin(names)]
    here = here[here.recogniser.isin(set(asr.PACKAGES) - set(asr.OF_PHONEMES))]
    found = word_errors.error_rates(here, ["input", "recogniser", "system"], "wer")
    found["text"] = tables.interval_column(found, "wer", "{:.0f}")
    wide = found.pivot_table("text", ["recogniser", "system"], "input", "first", sort=False)
    both = wide[list(HEARD)].agg("<br>".join, axis=1).unstack("system", sort=False)
    return markdown(
        both[list(names)].rename(columns=names), f"words wrong, %: {'<br>'.join(HEARD)}"
    )


def readme_parts() -> dict[str, str]:
    """What the README gets."""
    rows = tables.load_results()
    heard = word_errors.load_heard(RESULTS / "recognition.csv")
    return {
        "table": readme_table(rows),
        "gain": f"{readme_gain(rows)}\n\n{readme_words(heard)}",
    }


# --- the page of results ------------------------------------------------------------------------


def score_table(rows: pd.DataFrame, condition: Condition) -> str:
    """Every system on one condition, with intervals."""
    return markdown(tables.interval_table(conditions.rows_of(rows, condition), COLUMNS), "system")


def score_tables(rows: pd.DataFrame, inputs: Mapping[str, Condition]) -> str:
    """One `score_table` a condition, under its title."""
    return "\n\n".join(f"### {name}\n\n{score_table(rows, one)}" for name, one in inputs.items())


def difference_text(found: tables.Difference, form: str, survives: bool = False) -> str:
    """For example `**+1.2 [+0.8, +1.6]**`: bold where it survives Holm's correction, behind OPEN
    where the interval holds zero, in brackets where `too_few`.
    """
    text = tables.interval_text(*found[:3], form)
    if not is_clear(found):
        return f"{OPEN} {text}"
    if too_few(found):
        return f"({text})"
    return f"**{text}**" if survives else text


def is_clear(found: tables.Difference | pd.Series) -> bool:
    """Whether the interval lies on one side of zero."""
    return bool(found.low > 0 or found.high < 0)


def too_few(found: tables.Difference | pd.Series) -> bool:
    """Whether it does, yet of five speakers or categories, or fewer, which cannot reach 5 %."""
    return is_clear(found) and found.p >= tables.least_p(range(5))


def verdict_table(
    found: Mapping[tuple | str, Mapping[str, tables.Difference]],
    forms: Mapping[str, str],
    *corners: str,
) -> str:
    """Differences (row -> column -> value) as Markdown, and how many there are and survive.

    `forms`: column -> format. `corners`: headings of the parts of a row's name.
    """
    cells = [(row, name, one) for row, line in found.items() for name, one in line.items()]
    survive = tables.holm([one.p for *_, one in cells])
    texts: dict = {row: {} for row in found}
    for (row, name, one), holds in zip(cells, survive, strict=True):
        texts[row][name] = difference_text(one, forms[name], holds)
    apart = sum(is_clear(one) and not too_few(one) for *_, one in cells)
    few = sum(too_few(one) for *_, one in cells)
    note = (
        f"{len(cells)} comparisons: {apart} told apart one by one, {survive.sum()} of them in all "
        f"together (bold); {few} in brackets."
    )
    return f"{markdown(pd.DataFrame(texts).T, *corners)}\n\n{note}"


def differences(
    rows: pd.DataFrame, system: str, rivals: Mapping[str, str], measures=tuple(FORMS)
) -> dict[str, dict]:
    """A system minus each rival (name in the table -> system) on one input, in these measures."""
    return {
        rival: {FORMS[m][0]: tables.difference(rows, system, name, m) for m in measures}
        for rival, name in rivals.items()
    }


def differences_table(
    rows: pd.DataFrame, system: str, inputs: Mapping[str, Condition], rivals_of
) -> str:
    """`verdict_table` of a system on some inputs, minus `rivals_of(rows of the input)`."""
    lines = {}
    for title, condition in inputs.items():
        here = conditions.rows_of(rows, condition)
        found = differences(here, system, rivals_of(here))
        lines |= {(title, rival): line for rival, line in found.items()}
    return verdict_table(lines, dict(FORMS.values()), "input", "minus")


def rivals_of(rows: pd.DataFrame) -> dict[str, str]:
    """The low-pass, the best cutoff and the best peer on an input."""
    best = best_peer(rows)
    return {"low-pass": "low-pass", "best cutoff": "oracle low-pass", best: best}


def against_rivals(rows: pd.DataFrame, system: str) -> str:
    """A model minus each rival, clip by clip, on every headline noise."""
    return differences_table(rows, system, conditions.NOISES, rivals_of)


def on_recordings(rows: pd.DataFrame) -> str:
    """The default minus the input, the low-pass and the model alone on what people bring."""
    rivals = {"input": "noisy", "low-pass": "low-pass", "model alone": "spectrogram"}
    return differences_table(rows, DEFAULT, conditions.RECORDINGS, lambda _: rivals)


def on_bright(rows: pd.DataFrame) -> str:
    """The default minus the input and the low-pass on bright recordings; where peers were heard the
    default and the model alone minus the best of them.
    """
    lines = {}
    for title, condition in conditions.BRIGHT_RECORDINGS.items():
        here = conditions.rows_of(rows, condition)
        rivals = {"input": "noisy", "low-pass": "low-pass"}
        peers = {best_peer(here): best_peer(here)} if here.system.isin(systems.PEERS).any() else {}
        for system, those in ((DEFAULT, rivals | peers), ("spectrogram", peers)):
            found = differences(here, system, those)
            lines |= {(title, system, rival): line for rival, line in found.items()}
    return verdict_table(lines, dict(FORMS.values()), "input", "system", "minus")


def by_source(rows: pd.DataFrame) -> str:
    """The default's gain in SI-SDR on recorded noise for each category of recordings.

    Not bold: a category is a few recordings, and only speakers are drawn.
    """
    texts = {}
    inputs = {t: c for t, c in conditions.NOISES.items() if c.kind in conditions.RECORDED}
    inputs |= {t: c for t, c in conditions.BRIGHT_RECORDINGS.items() if c.snr_db == 5.0}
    rivals = {"input": "noisy", "low-pass": "low-pass", "GTCRN": "GTCRN"}
    for title, condition in inputs.items():
        here = conditions.rows_of(rows, condition)
        for source, part in here.groupby("source"):
            found = differences(part, DEFAULT, rivals, ("si_sdr",))
            name = (title, source, part.utterance.nunique(), part.speaker.nunique())
            texts[name] = {
                f"minus {rival}": difference_text(one["SI-SDR (dB)"], FORMS["si_sdr"][1])
                for rival, one in found.items()
            }
    return markdown(pd.DataFrame(texts).T, "input", "category", "clips", "speakers")


def by_known_source() -> str:
    """The same for bright recordings of categories that training or choices heard, at 5 dB."""
    rows, texts = tables.load_rows(RESULTS / "bright.csv"), {}
    pairs = {
        "default minus input": (DEFAULT, "noisy"),
        "default minus low-pass": (DEFAULT, "low-pass"),
        "model alone minus low-pass": ("spectrogram", "low-pass"),
    }
    by_category = rows[rows.snr_db == 5].groupby(["source", "share", "heard_in"])
    for (source, share, split), part in by_category:
        name = (source, f"{100 * share:.0f} %", split, part.utterance.nunique())
        texts[name] = {
            title: difference_text(tables.difference(part, *pair, "si_sdr"), FORMS["si_sdr"][1])
            for title, pair in pairs.items()
        }
    return markdown(pd.DataFrame(texts).T, "category", "above 4 kHz", "heard in", "clips")


def design_tables(rows: pd.DataFrame) -> dict[str, str]:
    """What the noise of the training gives, what the network, and what more hours of it."""
    trained = tables.load_rows(RESULTS / "design.csv")
    rows = pd.concat([rows, trained])
    peer, ours = trained.system.unique()
    names = ["noisy", "low-pass", "DTLN", peer, ours, "spectrogram", "oracle PSM"]
    columns, lines = {}, {}
    for title, condition in conditions.NOISES.items():
        here = conditions.rows_of(rows, condition)
        columns[title] = both_scores(here, names)
        for system, rival in ((peer, "DTLN"), (ours, peer), ("spectrogram", ours)):
            lines[title, system, rival] = differences(here, system, {rival: rival})[rival]
    return {
        "design": markdown(pd.DataFrame(columns).loc[names], "SI-SDR (dB), PESQ"),
        "against_design": verdict_table(lines, dict(FORMS.values()), "input", "system", "minus"),
    }


def trained_anew() -> dict:
    """The spectrogram model trained anew minus the shipped one, on clips of validation speakers."""
    rows = tables.load_rows(RESULTS / "anew.csv")
    inputs = [Condition.of_row(row).input for row in rows.to_dict("records")]
    lines = {
        title: {FORMS[m][0]: tables.difference(part, ANEW, "spectrogram", m) for m in CLOSE_FORMS}
        for title, part in [*rows.groupby(inputs, sort=False), ("all", rows)]
    }
    forms = {FORMS[m][0]: form for m, form in CLOSE_FORMS.items()}
    return {
        "anew": verdict_table(lines, forms, "trained anew minus shipped"),
        "anew_clips": rows.utterance.nunique(),
    }


def clean_input(rows: pd.DataFrame) -> str:
    """What the models and the default do to speech without noise."""
    here = conditions.rows_of(rows, conditions.CLEAN)
    here = here[here.system.isin(systems.names("ours", "tool"))]
    return markdown(tables.interval_table(here, COLUMNS), "clean input through")


def word_error_table(rows: pd.DataFrame, name: str) -> str:
    """Error rates of a recogniser on each input, and what the default changes, in points.

    A second table tells that change for the test and the *other* speakers apart. OPEN or LEVEL
    stands before a change whose verdict is open or level; bold and brackets as in
    `difference_text`.
    """
    rows = rows[rows.recogniser == name]
    wer = word_errors.error_rates(rows, ["input", "system"], "wer")
    wide = wer.pivot_table("wer", "input", "system", sort=False)[["noisy", "low-pass", DEFAULT]]
    wide = wide.dropna()  # inputs that it heard behind all three
    changes = {other: changes_of(rows, other) for other in ("noisy", "low-pass")}
    both = pd.concat(changes)
    both["text"] = change_texts(both, tables.holm(both.p))
    texts = wide.map("{:.0f} %".format)
    for other in changes:
        texts[f"default minus {other}"] = both.text[other]
    apart = pd.DataFrame(index=wide.index)
    for other, split in itertools.product(changes, ("test", "other")):
        changed = changes_of(rows[rows.split == split], other)
        apart[f"minus {other}, {split}"] = change_texts(changed)
    note = verdict_note(both)
    return f"{markdown(texts, 'input')}\n\n{note}\n\n{markdown(apart, 'default')}"


def changes_of(rows: pd.DataFrame, other: str) -> pd.DataFrame:
    """`word_errors.change_of_errors` of the default minus another system, by input."""
    return word_errors.change_of_errors(rows, DEFAULT, other, ["input"]).set_index("input")


def change_texts(changes: pd.DataFrame, survive=()) -> pd.Series:
    """Changes with their intervals and marks; `survive`: which ones are bold, or none."""
    text = tables.interval_column(changes, "difference", "{:+.1f}")
    few = changes.apply(too_few, axis=1)
    marks = changes.verdict.map({"open": f"{OPEN} ", "level": f"{LEVEL} "}).fillna("")
    text = (marks + text).mask(few, "(" + text + ")")
    return text.mask(survive, "**" + text + "**") if len(survive) else text


def verdict_note(changes: pd.DataFrame) -> str:
    """How many comparisons there are, and what they say."""
    n = changes.verdict.value_counts()
    said = [f"{n.get(word, 0)} {word}" for word in ("fewer", "more", "level", "open")]
    survive = tables.holm(changes.p).sum()
    text = f"{len(changes)} comparisons: {', '.join(said)}"
    return f"{text}; {survive} told apart in all together (bold)."


def words_of_peers(heard: pd.DataFrame) -> str:
    """Words wrong behind an installed denoiser, beside the main systems on the same inputs."""
    peers = word_errors.load_heard(RESULTS / "recognition_peers.csv")
    here = pd.concat([heard, peers])
    here = here[here.input.isin(peers.input) & here.recogniser.isin(peers.recogniser)]
    by = ["recogniser", "input"]
    wer = word_errors.error_rates(here, [*by, "system"], "wer")
    wer["text"] = tables.interval_column(wer, "wer", "{:.0f}")
    peer, *_ = peers.system.unique()
    wide = wer.pivot_table("text", by, "system", "first", sort=False)
    change = word_errors.change_of_errors(here, DEFAULT, peer, by).set_index(by)
    wide[f"default minus {peer}"] = change_texts(change, tables.holm(change.p))
    names = ["noisy", "low-pass", peer, DEFAULT, f"default minus {peer}"]
    return f"{markdown(wide[names], *by)}\n\n{verdict_note(change)}"


def phoneme_table(rows: pd.DataFrame) -> str:
    """Phoneme error rates of recognisers trained on one kind of audio and tried on each."""
    found = word_errors.error_rates(rows, ["trained_on", "tried_on"], "per")
    found["text"] = tables.interval_column(found, "per", "{:.1f}")
    wide = found.pivot_table("text", "trained_on", "tried_on", aggfunc="first", sort=False)
    return markdown(wide, "trained on, tried on")


def real_tables() -> dict[str, str]:
    """Noisy recordings without a clean version: words wrong, and what DNSMOS hears."""
    words = word_errors.read_heard(RESULTS / "real_words.csv")
    wer = word_errors.error_rates(words, ["recogniser", "system"], "wer")
    wer["text"] = tables.interval_column(wer, "wer", "{:.1f}")
    wide = wer.pivot_table("text", "system", "recogniser", aggfunc="first", sort=False)
    opinions = tables.load_rows(RESULTS / "real_opinions.csv")
    heads = {"sig": "DNSMOS, speech", "bak": "background", "ovrl": "overall"}
    columns = {f"dnsmos_{name}": (head, "{:.2f}") for name, head in heads.items()}
    return {
        "n_real": words.utterance.nunique(),
        "real_speakers": words.speaker.nunique(),
        "real_words": markdown(wide, "words wrong, %"),
        "real_opinions": markdown(tables.interval_table(opinions, columns), "system"),
    }


def speed_table() -> str:
    """How many times faster than real time each system is on one core."""
    found = pd.read_csv(RESULTS / "speed.csv", index_col="system").sort_values("cpu")
    times = (1 / found.cpu).map("{:,.0f}".format).to_frame("times real time")
    return markdown(times.drop(index="noisy"), "system")


def results_page() -> str:
    """All tables, each with what it says in a line or two."""
    rows = tables.load_results()
    heard = word_errors.load_heard(RESULTS / "recognition.csv")
    phonemes = pd.read_csv(RESULTS / "phonemes.csv", dtype={"speaker": str})
    words = "\n\n".join(
        f"### {name}\n\n{word_error_table(heard, name)}" for name in heard.recogniser.unique()
    )
    return TEMPLATE.read_text(encoding="utf-8").format(
        n=rows.utterance.nunique(),
        speakers=rows.speaker.nunique(),
        open=OPEN,
        scores=score_tables(rows, conditions.NOISES),
        against_spectrogram=against_rivals(rows, "spectrogram"),
        against_waveform=against_rivals(rows, "waveform"),
        clean=clean_input(rows),
        recordings=on_recordings(rows),
        recordings_scores=score_tables(rows, conditions.RECORDINGS),
        bright_share=f"{100 * conditions.BRIGHT_SHARE:.0f} %",
        bright=on_bright(rows),
        bright_scores=score_tables(rows, conditions.BRIGHT_RECORDINGS),
        sources=by_source(rows),
        known_sources=by_known_source(),
        **design_tables(rows),
        **trained_anew(),
        **real_tables(),
        n_heard=heard.utterance.nunique(),
        n_talkers=heard.speaker.nunique(),
        n_other=heard.speaker[heard.split == "other"].nunique(),
        words=words,
        words_peers=words_of_peers(heard),
        margin=word_errors.MARGIN,
        level=LEVEL,
        phonemes=phoneme_table(phonemes),
        n_phonemes=phonemes.utterance.nunique(),
        phoneme_speakers=phonemes.speaker.nunique(),
        speed=speed_table(),
    )


def write_report() -> tuple[Path, Path]:
    """Write the README's table and the page of results; gives their paths."""
    texts = {README: with_report(README.read_text(), readme_parts()), PAGE: results_page()}
    for path, text in texts.items():
        with atomic_path(path, overwrite=True) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return tuple(texts)
