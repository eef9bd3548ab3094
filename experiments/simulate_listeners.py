"""Write the example answers of the listening test, by a stated simulation.

`python -m experiments listeners`

Ten imaginary listeners, four clips of the bundled sample. What they think of each system is
assumed, not measured: OPINIONS, to which `listening_test.simulate_answers` adds bias and chance.
The low-pass and the spectrogram model are assumed equal, so that the example favours neither. The
tenth listener does not listen: he gives 3 to everything.
"""

import numpy as np
import pandas as pd

from helpers.data import corpus
from helpers.display import listening_test
from helpers.display.listening_test import ANCHOR, REFERENCE
from helpers.store import ROOT

OUT = ROOT / "data" / "listening" / "simulated_answers.csv"
OPINIONS = {  # signal, background, overall
    REFERENCE: (4.7, 4.7, 4.6),
    "spectrogram": (3.9, 4.2, 3.6),
    "low-pass": (3.9, 4.2, 3.6),
    ANCHOR: (2.9, 4.4, 2.8),
    "noisy": (3.8, 1.5, 2.0),
}


def simulate_listeners() -> pd.DataFrame:
    """Write the answers to OUT and give their analysis."""
    table = corpus.read_corpus(ROOT / "data" / "sample")
    names = list(corpus.pick(table, "test", 4).utterance)
    silence = np.zeros(160, np.float32)  # nobody listens
    trials = [listening_test.Trial(u, s, silence, silence) for u in names for s in OPINIONS]
    opinions = {
        system: dict(zip(listening_test.SCALES, means, strict=True))
        for system, means in OPINIONS.items()
    }
    answers = listening_test.simulate_answers(trials, opinions, n_listeners=10, seed=0)
    answers.loc[answers.listener == "simulated-10", list(listening_test.SCALES)] = 3
    listening_test.write_answers(answers, OUT)
    return listening_test.analyse(answers)[["system", *listening_test.SCALES]].round(2)
