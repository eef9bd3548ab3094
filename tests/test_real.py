"""`experiments.real`: which clips are noisiest, and what is kept of their judges."""

import numpy as np
import pandas as pd

from experiments import real
from helpers import audio, store
from helpers.data import corpus

SAMPLE = store.ROOT / "data" / "sample"


def test_noise_fills_the_gaps_between_words(speech):
    rng = np.random.default_rng(0)
    over = [
        real.speech_over_floor(speech + level * rng.standard_normal(len(speech)))
        for level in (0.0, 0.001, 0.01, 0.1)
    ]
    assert over == sorted(over, reverse=True)
    assert over[-1] < 10
    assert np.isfinite(real.speech_over_floor(np.zeros(16_000)))


def test_the_noisiest_come_first_and_are_judged_once(tmp_path, monkeypatch):
    table = corpus.read_corpus(SAMPLE)
    chosen = real.noisiest(table, 3)
    over = [real.speech_over_floor(audio.read(path)) for path in chosen.path]
    assert over == sorted(over)
    spoken = table[(table.split == "test") & table.text.notna()]
    assert over[0] == min(real.speech_over_floor(audio.read(path)) for path in spoken.path)
    monkeypatch.setattr(real, "noisiest", lambda table: chosen)
    monkeypatch.setattr(real, "SYSTEMS", ("noisy", "low-pass"))
    words, opinions = real.judge_real(tmp_path / "real", table, ["PocketSphinx"])
    rows = pd.read_csv(opinions)
    assert rows.groupby("system").utterance.agg(tuple).nunique() == 1
    assert rows.dnsmos_ovrl.between(1, 5).all()
    heard = pd.read_csv(words)
    assert set(heard.system) == {"noisy", "low-pass"}
    before = [path.stat().st_mtime_ns for path in (words, opinions)]
    real.judge_real(tmp_path / "real", table, ["PocketSphinx"])  # nothing is heard again
    assert [path.stat().st_mtime_ns for path in (words, opinions)] == before
