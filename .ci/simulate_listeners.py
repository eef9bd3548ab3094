"""Write the example answers of the listening test, by a stated simulation.

python .ci/simulate_listeners.py

Ten imaginary listeners rate four clips of the bundled sample through three systems; what they
"hear" is DNSMOS of each clip, and `listening_test.simulate_answers` adds their bias and chance.
"""

import pandas as pd

from helpers import audio, corpus, evaluation, listening_test, metrics

OUT = corpus.ROOT / "data" / "listening" / "simulated_answers.csv"
SCALES = {"signal": "dnsmos_sig", "background": "dnsmos_bak", "overall": "dnsmos_ovrl"}

if __name__ == "__main__":
    table = corpus.read_corpus(corpus.ROOT / "data" / "sample")
    systems = evaluation.FLOOR | {"spectrogram": evaluation.neural("spectrogram")}
    del systems["Butterworth"]
    clips = {}
    for one in evaluation.pick(table, "test", 4).itertuples():
        whole = audio.read(one.path)[: 4 * audio.SAMPLE_RATE]
        condition = evaluation.Condition("white", snr_db=0.0)
        clean, _, noisy = evaluation.make_noisy(one.utterance, whole, condition, seed=0)
        outputs = {name: system(clean, noisy) for name, system in systems.items()}
        clips[one.utterance] = {"clean": clean} | outputs
    trials = listening_test.make_trials(clips)
    graded = [{"system": trial.system} | metrics.dnsmos(trial.clip) for trial in trials]
    means = pd.DataFrame(graded).groupby("system").mean()
    opinions = {
        name: {scale: line[metric] for scale, metric in SCALES.items()}
        for name, line in means.iterrows()
    }
    answers = listening_test.simulate_answers(trials, opinions, n_listeners=10, seed=0)
    listening_test.write_answers(answers, OUT)
    print(means.round(2))
