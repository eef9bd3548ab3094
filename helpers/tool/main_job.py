"""The main job: noise onto clean speech, both methods, clips, a figure and a table (`make run`)."""

from collections.abc import Mapping
from pathlib import Path

from helpers import audio
from helpers.data import conditions, corpus, noise
from helpers.data.conditions import Condition
from helpers.denoise import systems
from helpers.display import plots
from helpers.evaluation import scoring, tables


def run_main_job(output: Path, snrs=(0.0, 10.0), n_utterances: int = 12, seed: int = 0) -> str:
    """Write FLAC triples, `comparison.png` and the table below `output`; gives the table's text.

    Uses the test speakers of the corpus that is found.
    """
    table = corpus.read_corpus(corpus.find_corpus(verbose=True))
    utterances = corpus.pick(table, "test", n_utterances)
    inputs = [Condition(snr_db=snr_db) for snr_db in snrs]
    heard = systems.standard_systems()

    def keep(row, clean, estimate):
        stem = f"{row['utterance']}_{row['snr_db']:g}dB"
        if row["system"] in ("noisy", *systems.names("ours", "tool")):
            audio.write(Path(output) / f"{stem}_{row['system']}.flac", estimate, overwrite=True)
        if row["system"] == "noisy":
            audio.write(Path(output) / f"{stem}_clean.flac", clean, overwrite=True)

    rows = scoring.evaluate(utterances, inputs, heard, seed, keep=keep)
    tables.save_or_keep(rows, Path(output) / "table")
    plots.set_style()
    save_comparison(utterances.iloc[0], heard, Path(output), seed)
    return tables.table_text(rows)


def save_comparison(one, heard: Mapping, folder: Path, seed: int) -> Path:
    """Spectrograms of one utterance, clean, noisy and through every system, as comparison.png."""
    whole = audio.read(one.path)[: int(4 * audio.SAMPLE_RATE)]
    clean, _, noisy = conditions.make_noisy(one.utterance, whole, Condition(), seed)
    names = [name for name in heard if name != "Butterworth"]  # it looks like the other filter
    shown = {name: systems.apply(heard[name], clean, noisy) for name in names}
    figure = plots.comparison({"clean": clean} | shown, band=(noise.LOW, noise.HIGH))
    return plots.save_figure("comparison", figure, folder)
