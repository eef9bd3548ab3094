"""The command line as a user meets it: what it writes, what it says, how it exits."""

import dataclasses
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc

import joblib
import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from conftest import assert_all_end, heed_signals, keep, needs_proc, processes_of, riff, save_model

from experiments.__main__ import main as experiments_main
from helpers import audio, command, models, reading, store
from helpers.__main__ import EXPERIMENTS, main, parser
from helpers.data import corpus
from helpers.evaluation import tables


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A folder of untrained weights of both methods, which pass everything."""
    folder = tmp_path_factory.mktemp("weights")
    for method in ("waveform", "spectrogram"):
        save_model(method, folder, keep)
    return folder


@pytest.fixture
def tree(tmp_path, speech):
    """A folder with two good files in different places, a transcript, and one bad file."""
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    sf.write(folder / "a.wav", speech, 16_000)
    sf.write(folder / "deep" / "b.flac", np.stack([speech[:20_000]] * 2, axis=1), 44_100)
    (folder / "deep" / "a.trans.txt").write_text("A HELLO\n")
    (folder / "bad.wav").write_text("not audio")
    return folder


def outputs(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("package", ["helpers", "experiments"])
def test_help_needs_no_tensorflow(package):
    script = f"import sys, {package}.__main__ as cli; cli.parser()"
    script += "; print('tensorflow' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=1)
    assert result.stdout.strip() == "False"


(COMMAND,) = (one for one in parser()._actions if one.dest == "command")


@pytest.mark.parametrize("command", COMMAND.choices)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([command, "--help"])
    assert exit_.value.code == 0
    assert "usage: denoiser " + command in capsys.readouterr().out


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_explains_itself(name):
    call = [sys.executable, "-m", "helpers", name]
    told = subprocess.run([*call, "--help"], capture_output=True, text=True, check=True).stdout
    assert told.startswith(f"usage: python -m experiments {name}")
    assert subprocess.run([*call, "--nonsense"], capture_output=True, check=False).returncode == 2


@pytest.mark.parametrize("method", ["waveform", "spectrogram", "a", "s"])
def test_denoise_one_file(tmp_path, tree, weights, method, capsys):
    target = tmp_path / "out.flac"
    options = ["--method", method, "--weights", str(weights)]
    assert main(["denoise", str(tree / "a.wav"), str(target), *options]) == 0
    name = {"a": "waveform", "s": "spectrogram"}.get(method, method)
    out = capsys.readouterr().out
    assert "\n1 done, 3.0 s of audio in" in out
    assert f"with the {name} method\n" in out
    np.testing.assert_allclose(sf.read(target)[0], sf.read(tree / "a.wav")[0], atol=1e-4)


def test_denoise_folder_goes_on_after_a_bad_file(tmp_path, tree, weights, capsys):
    target = tmp_path / "out"
    options = ["--weights", str(weights), "--whole-band"]
    assert main(["denoise", str(tree), str(target), *options]) == 1
    assert outputs(target) == ["a.flac", "deep/b.flac"]
    captured = capsys.readouterr()
    errors = captured.err.strip().splitlines()
    assert errors[-2].startswith(f"error: {tree / 'bad.wav'}: not readable as audio")
    assert errors[-1] == "1 failed, 2 done"


@pytest.mark.parametrize("command", ["denoise", "add-noise"])
def test_without_pyav_a_folder_names_what_phones_record(
    tmp_path, tree, weights, command, monkeypatch, capsys
):
    monkeypatch.setattr(reading, "av", None)
    (tree / "bad.wav").unlink()
    (tree / "memo.m4a").write_bytes(b"\0\0\0\x1cftypM4A " + bytes(1_000))
    options = ["--weights", str(weights)] if command == "denoise" else []
    assert main([command, str(tree), str(tmp_path / "out"), *options]) == 1
    errors = capsys.readouterr().err.strip().splitlines()
    assert errors[-2].startswith(f"error: {tree / 'memo.m4a'}: not readable without PyAV")
    assert "; `pip install -r requirements-formats.txt`" in errors[-2]
    assert errors[-1] == "1 failed, 2 done"


@pytest.mark.parametrize("command", ["denoise", "add-noise"])
def test_a_wrong_header_is_noted_in_one_line_once(tmp_path, weights, command, capsys):
    source = tmp_path / "a.wav"
    riff(source, 0)
    options = ["--weights", str(weights)] if command == "denoise" else []
    assert main([command, str(source), str(tmp_path / "out.flac"), *options]) == 0
    note = f"note: {source}: its header says 0 bytes of sound, 64000 are there and read\n"
    assert capsys.readouterr().err == note
    assert sf.info(tmp_path / "out.flac").frames == 32_000


def test_denoise_says_what_was_done_to_each_file(tmp_path, tree, weights, capsys):
    call = ["denoise", str(tree / "a.wav"), "--weights", str(weights)]  # these remove nothing
    left = ", left as it is"
    for name, options in (("a", []), ("b", ["--method", "waveform"]), ("c", ["--whole-band"])):
        words = f"{tree / 'a.wav'}: no noise found above 1.5 kHz{left * (name != 'c')}\n"
        assert main([*call, str(tmp_path / f"{name}.flac"), *options]) == 0
        captured = capsys.readouterr()
        assert captured.out.startswith(words)
        assert captured.err == ""
    with pytest.raises(SystemExit) as caught:
        main([*call, str(tmp_path / "o.flac"), "--mix", "2"])
    assert caught.value.code == 2
    assert "--mix: 2: choose a share from 0 to 1" in capsys.readouterr().err
    assert not (tmp_path / "o.flac").exists()


@pytest.mark.parametrize("method", ["waveform", "spectrogram"])
def test_mix_is_the_share_of_what_the_network_gives(tmp_path, noisy, method, capsys):
    sf.write(tmp_path / "a.wav", noisy, 16_000)
    call = ["denoise", str(tmp_path / "a.wav"), "--method", method, "--whole-band", "--mix"]
    none, half, whole = (
        audio.read(denoised_by([*call, mix], tmp_path / f"{mix}.flac")) for mix in ("0", ".5", "1")
    )
    np.testing.assert_allclose(none, noisy, atol=2**-14)
    assert np.abs(whole - noisy).max() > 0.05
    np.testing.assert_allclose(half, (noisy + whole) / 2, atol=2**-14)


def denoised_by(call, target):
    assert main([*call[:2], str(target), *call[2:]]) == 0
    return target


@pytest.mark.parametrize("old", [["--gate", "inf"], ["--low-share", "1"], ["--by-frequency"]])
def test_options_of_earlier_versions_are_taken_with_a_note(tmp_path, tree, weights, old, capsys):
    call = ["denoise", str(tree / "a.wav"), str(tmp_path / "a.flac"), "--weights", str(weights)]
    assert main([*call, *old]) == 0
    note = "note: --gate, --low-share and --by-frequency are no longer needed: each frequency is"
    assert capsys.readouterr().err.startswith(note)


def test_real_noise_over_hum_is_reduced_and_the_hum_stays(tmp_path, speech, capsys):
    t = np.arange(len(speech)) / audio.SAMPLE_RATE
    hiss = np.random.default_rng(0).standard_normal(len(speech))
    hiss = audio.band_limit(hiss, audio.SAMPLE_RATE, 4_000, 8_000)
    loud = np.std(speech)
    hum = loud * np.sin(2 * np.pi * 50 * t)
    audio.write(tmp_path / "a.wav", np.float32(speech + loud * hiss / np.std(hiss) + hum))
    assert main(["denoise", str(tmp_path / "a.wav"), str(tmp_path / "b.flac")]) == 0
    assert "noise above 4.0 kHz reduced; hum at 50 Hz left as it is" in capsys.readouterr().out
    before, after = (audio.read(tmp_path / name) for name in ("a.wav", "b.flac"))
    low, high = (
        [np.std(audio.band_limit(x, audio.SAMPLE_RATE, *band)) for x in (before, after)]
        for band in ((45, 55), (4_500, 7_900))
    )
    assert low[1] == pytest.approx(low[0], rel=0.01)
    assert high[1] < 0.3 * high[0]


@pytest.mark.parametrize("gate", [[], ["--whole-band"]], ids=["on", "off"])
def test_memory_does_not_grow_with_the_file(tmp_path, speech, weights, gate):
    """Two minutes more are 7.7 MB as one float32 array; not even half of that may be added."""
    peaks = []
    for minutes in (1, 3):
        source, target = tmp_path / f"{minutes}.flac", tmp_path / f"{minutes}-out.flac"
        audio.write(source, np.resize(speech, minutes * 60 * audio.SAMPLE_RATE))
        tracemalloc.start()  # counts what NumPy and Python hold
        assert main(["denoise", str(source), str(target), "--weights", str(weights), *gate]) == 0
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert sf.info(target).duration == 60 * minutes
    assert peaks[1] - peaks[0] < 3e6


def test_denoise_does_not_overwrite_unless_told(tmp_path, tree, weights, capsys):
    target = tmp_path / "out.flac"
    target.write_text("precious")
    call = ["denoise", str(tree / "a.wav"), str(target), "--weights", str(weights)]
    assert main(call) == 1
    assert target.read_text() == "precious"
    assert f"error: {target}: exists already" in capsys.readouterr().err
    assert main([*call, "--overwrite"]) == 0
    assert sf.info(target).frames == 48_000


def test_a_folder_does_not_fit_into_a_file(tmp_path, tree, capsys):
    target = tmp_path / "out.flac"
    target.write_text("precious")
    for name in ("denoise", "add-noise"):
        assert main([name, str(tree), str(target), "--overwrite"]) == 1
        assert f"error: {target}: is a file, but {tree} is a folder" in capsys.readouterr().err
    assert target.read_text() == "precious"


@pytest.mark.parametrize("source", ["bad.wav", "."], ids=["a file", "a folder"])
def test_with_debug_the_error_itself_is_raised(tmp_path, tree, weights, source, monkeypatch):
    monkeypatch.setenv("DENOISER_DEBUG", "1")
    call = ["denoise", str(tree / source), str(tmp_path / "out"), "--weights", str(weights)]
    with pytest.raises(audio.AudioError, match=r"bad\.wav: not readable as audio"):
        main(call)


@pytest.mark.parametrize("source", ["missing.wav", "bad.wav"])
def test_wrong_input_is_one_line_and_exit_1(tmp_path, tree, source, capsys):
    assert main(["denoise", str(tree / source), str(tmp_path / "out.flac")]) == 1
    err = capsys.readouterr().err.strip()
    assert err.startswith(f"error: {tree / source}: ")
    assert "\n" not in err
    assert not (tmp_path / "out.flac").exists()


def test_missing_and_wrong_weights(tmp_path, tree, weights, capsys):
    call = ["denoise", str(tree / "a.wav"), str(tmp_path / "o.flac"), "--weights", str(tmp_path)]
    assert main(call) == 1
    assert f"experiments train spectrogram --out {tmp_path}`" in capsys.readouterr().err
    for name in ("spectrogram.keras", "spectrogram.json"):
        (tmp_path / name).write_bytes((weights / name).read_bytes())
    (tmp_path / "spectrogram.keras").write_bytes(b"other weights")
    assert main(call) == 1
    assert "not the weights that its card describes" in capsys.readouterr().err
    assert not (tmp_path / "o.flac").exists()


@pytest.mark.parametrize("method", ["waveform", "spectrogram"])
def test_shipped_weights_load(method):
    model = models.load(method)
    assert 200_000 <= model.count_params() <= {"waveform": 800_000, "spectrogram": 500_000}[method]
    assert models.weights_path(method).stat().st_size < 5_000_000


# --- add-noise --------------------------------------------------------------------------------


def test_add_noise_writes_the_tree_and_a_manifest(tmp_path, tree, capsys):
    (tree / "bad.wav").unlink()
    target = tmp_path / "noisy"
    options = ["--kind", "pink", "--low", "2500", "--high", "7000", "--snr", "5", "--seed", "3"]
    assert main(["add-noise", str(tree), str(target), *options]) == 0
    assert outputs(target) == ["a.flac", "deep/b.flac", "manifest.csv"]
    manifest = pd.read_csv(target / "manifest.csv")
    assert manifest.file.tolist() == ["a.wav", "deep/b.flac"]
    expected = {"kind": "pink", "low": 2500, "high": 7000, "snr_db": 5, "seed": 3}
    assert all((manifest[name] == value).all() for name, value in expected.items())
    for row in manifest.itertuples():
        clean, noisy = sf.read(tree / row.file)[0] * row.scale, sf.read(target / row.noisy)[0]
        assert 20 * np.log10(np.std(clean) / np.std(noisy - clean)) == pytest.approx(5, abs=0.01)


def test_add_noise_is_the_same_again_from_its_manifest(tmp_path, tree, capsys):
    (tree / "bad.wav").unlink()
    main(["add-noise", str(tree), str(tmp_path / "one"), "--kind", "electrical", "--seed", "7"])
    (tree / "another.wav").write_bytes((tree / "a.wav").read_bytes())  # must change nothing
    row = pd.read_csv(tmp_path / "one" / "manifest.csv").iloc[0]
    again = [f"--{name}={row[name]}" for name in ("kind", "low", "high", "seed")]
    main(["add-noise", str(tree), str(tmp_path / "two"), *again, f"--snr={row.snr_db}"])
    for name in ("a.flac", "deep/b.flac"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    different = (tmp_path / "two" / "another.flac").read_bytes()
    assert different != (tmp_path / "two" / "a.flac").read_bytes()


def test_add_noise_goes_on_after_a_bad_file(tmp_path, tree, capsys):
    sf.write(tree / "silent.wav", np.zeros(16_000), 16_000)
    assert main(["add-noise", str(tree), str(tmp_path / "noisy")]) == 1
    assert outputs(tmp_path / "noisy") == ["a.flac", "deep/b.flac", "manifest.csv"]
    err = capsys.readouterr().err
    assert f"{tree / 'silent.wav'}: no SNR can be set" in err
    assert "2 failed, 2 done" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--kind", "purple"], "unknown noise kind 'purple'"),
        (["--low", "7000", "--high", "5000"], "band 7000-5000 Hz"),
        (["--kind", "recorded", "--noise", "nowhere"], "no recorded noise"),
    ],
)
def test_add_noise_refuses_nonsense(tmp_path, tree, options, message, capsys):
    assert main(["add-noise", str(tree / "a.wav"), str(tmp_path / "n.flac"), *options]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "n.flac").exists()


# --- download -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subset", "folder"), [("dev-clean", "LibriSpeech"), ("UrbanSound8K", "noise")]
)
def test_what_is_fetched_goes_where_it_is_looked_for(subset, folder, monkeypatch, capsys):
    """With the transfer itself replaced: it is tested in test_download.py."""
    from helpers.tool import download

    monkeypatch.setattr(download, "download", lambda name, place: place / name)
    assert main(["download", subset]) == 0
    assert capsys.readouterr().out == f"{store.ROOT / 'data' / folder / subset}\n"


# --- run, score and train -------------------------------------------------------------------------


def test_run_is_the_main_job(tmp_path, monkeypatch, capsys):
    """On the bundled sample, with the shipped weights: both methods must earn their place."""
    monkeypatch.setenv("DENOISER_CORPUS", "data/sample")
    assert main(["run", "--output", str(tmp_path), "--utterances", "2", "--snr", "0"]) == 0
    assert capsys.readouterr().out.startswith("Corpus: data/sample (the bundled sample")
    rows = pd.read_csv(tmp_path / "table.csv")
    assert len(rows) == 2 * 7
    names = {p.stem.split("_")[-1] for p in tmp_path.glob("*.flac")}
    assert names == {"clean", "noisy", "waveform", "spectrogram", "default"}
    assert len(list(tmp_path.glob("*.flac"))) == 10
    assert (tmp_path / "comparison.png").stat().st_size > 10_000
    assert "| white 4-8 kHz | 0 | low-pass |" in (tmp_path / "table.md").read_text()
    mean = rows.groupby("system").si_sdr.mean()
    assert mean["noisy"] == pytest.approx(0, abs=0.01)
    assert mean["spectrogram"] > 12
    assert mean["waveform"] > 10
    for path in tmp_path.glob("*_clean.flac"):
        assert len(audio.read(path)) == len(audio.read(str(path).replace("clean", "noisy")))


def test_score_makes_a_table_of_chosen_conditions(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DENOISER_CORPUS", "data/sample")
    call = ["score", "--split", "test", "--utterances", "1", "--out", str(tmp_path / "rows")]
    assert main([*call, "--noise", "pink:2500-7000", "none", "--snr", "0", "5"]) == 0
    rows = tables.load_rows(tmp_path / "rows.csv")
    assert rows.groupby(["kind", "snr_db"]).size().to_dict() == {
        ("none", 0.0): 7,
        ("pink", 0.0): 7,
        ("pink", 5.0): 7,
    }
    out = capsys.readouterr().out
    assert out.startswith("Corpus: data/sample (the bundled sample")
    assert (tmp_path / "rows.md").read_text().strip() in out


def named_for(split, name):
    """A name of a folder of recordings that goes to a split."""
    names = (f"{name}{i}" for i in range(100))
    return next(one for one in names if corpus.hash_split(one) == split)


def test_score_of_other_speakers_is_in_the_recordings_of_the_test(
    tmp_path, monkeypatch, noisy, capsys
):
    from helpers.evaluation import scoring

    speaker = store.ROOT / "data" / "sample" / "sample-clean" / "9001"
    shutil.copytree(speaker, tmp_path / "speech" / "dev-other" / "9001")
    for split in ("train", "test"):
        audio.write(tmp_path / "noise" / named_for(split, "rain") / "a.flac", noisy)
    monkeypatch.setenv("DENOISER_CORPUS", str(tmp_path / "speech"))
    monkeypatch.setenv("DENOISER_NOISE", str(tmp_path / "noise"))
    given, whole = [], scoring.evaluate
    monkeypatch.setattr(scoring, "evaluate", lambda *all_: given.append(all_[-1]) or whole(*all_))
    call = ["score", "--split", "other", "--utterances", "1", "--out", str(tmp_path / "rows")]
    assert main([*call, "--noise", "recorded:3000-8000", "--snr", "0", "--level", "-30"]) == 0
    assert given == [(tmp_path / "noise" / named_for("test", "rain") / "a.flac",)]
    rows = tables.load_rows(tmp_path / "rows.csv")
    assert len(rows) == 7
    told = {"split": "other", "kind": "recorded", "low": 3_000, "snr_db": 0, "level_db": -30}
    assert all((rows[name] == value).all() for name, value in told.items())
    assert rows.si_sdr[rows.system == "noisy"].item() == pytest.approx(0, abs=0.1)


def test_score_sets_other_weights_beside_the_shipped(tmp_path, monkeypatch, weights, capsys):
    monkeypatch.setenv("DENOISER_CORPUS", "data/sample")
    call = ["score", "--split", "test", "--utterances", "1", "--noise", "none", "--snr", "0"]
    call += ["--out", str(tmp_path / "rows"), "--also"]
    assert main([*call, str(weights)]) == 0
    si_sdr = tables.load_rows(tmp_path / "rows.csv").set_index("system").si_sdr
    assert len(si_sdr) == 9
    for method in models.METHODS:  # these weights change nothing
        assert si_sdr[f"{method} of {weights}"] > si_sdr[method]
    assert main([*call, str(tmp_path)]) == 1
    assert f"error: {tmp_path}: no weights" in capsys.readouterr().err


@pytest.mark.parametrize("call", [["score"], ["evaluate"], ["phonemes"], ["recognise"]])
def test_a_place_without_room_is_known_before_the_work(tmp_path, monkeypatch, call, capsys):
    monkeypatch.setenv("DENOISER_CORPUS", "data/sample")
    (tmp_path / "file").touch()
    program = main if call == ["score"] else experiments_main
    assert program([*call, "--out", str(tmp_path / "file" / "rows")]) == 1
    out, err = capsys.readouterr()
    assert out == ""  # not even the corpus was looked for
    assert err.startswith(f"error: {tmp_path / 'file'}: cannot be written (")
    assert err.endswith("; choose another folder\n")


def test_a_table_that_finds_its_place_gone_is_printed_and_kept(tmp_path, monkeypatch, capsys):
    from helpers.evaluation import scoring

    def work(*args, **kwargs):
        rows = evaluate(*args, **kwargs)
        (tmp_path / "out").rmdir()
        (tmp_path / "out").touch()
        return rows

    evaluate = scoring.evaluate
    monkeypatch.setenv("DENOISER_CORPUS", "data/sample")
    monkeypatch.setattr(scoring, "evaluate", work)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    call = ["score", "--split", "test", "--utterances", "1", "--noise", "none", "--snr", "0"]
    assert main([*call, "--out", str(tmp_path / "out" / "rows")]) == 1
    out, err = capsys.readouterr()
    assert "| clean input |" in out
    (kept,) = tmp_path.glob("denoiser-*/rows.csv")
    assert err.endswith(f"; the table lies in {kept} and .md, move it\n")
    assert len(tables.load_rows(kept)) == 7
    assert kept.with_suffix(".md").read_text().strip() in out


def test_train_writes_weights_and_a_card_with_scores(tmp_path, monkeypatch, capsys):
    """With the training itself replaced: it is tested in test_models.py."""
    from helpers.models import training

    monkeypatch.setenv("DENOISER_CORPUS", "data/sample")
    monkeypatch.setattr(training, "train", lambda plan, verbose: models.build(plan.method))
    monkeypatch.setattr(store, "RUNS", tmp_path / "runs")
    plan = training.Plan("waveform", (3, 2), seed=7)
    plan.run_dir.mkdir(parents=True)
    history = "epoch,loss,seconds,val_loss\n0,0.5,30,0.6\n"
    (plan.run_dir / "history.csv").write_text(history)
    call = ["train", "a", "--cycles", "3", "2", "--seed", "7", "--out", str(tmp_path)]
    assert main(call) == 0
    assert models.load("waveform", tmp_path).count_params() > 200_000
    card = json.loads((tmp_path / "waveform.json").read_text())
    assert card["plan"] == dataclasses.asdict(plan) | {"cycles": [3, 2]}
    assert card["minutes"] == 0.5
    assert (tmp_path / "waveform.history.csv").read_text() == history
    assert card["scores"]["waveform, 10 dB"]["si_sdr"] == pytest.approx(10, abs=0.01)
    assert card["scores"]["low-pass, 0 dB"]["si_sdr"] > 5


@pytest.mark.parametrize("cycles", [["0"], ["-3"], ["2", "0"]])
def test_a_training_without_epochs_replaces_nothing(tmp_path, monkeypatch, cycles, capsys):
    monkeypatch.setattr(store, "RUNS", tmp_path / "runs")
    (tmp_path / "spectrogram.keras").write_bytes(b"precious")
    assert main(["train", "s", "--out", str(tmp_path), "--cycles", *cycles]) == 1
    error = f"error: cycles {' '.join(cycles)}: give each an epoch or more"
    assert capsys.readouterr().err.splitlines() == [error]
    assert [path.name for path in tmp_path.iterdir()] == ["spectrogram.keras"]
    assert (tmp_path / "spectrogram.keras").read_bytes() == b"precious"


@pytest.fixture
def new_corpus(tmp_path):
    """The bundled sample, cut a little shorter each time: nothing of it can be kept already."""
    folder = shutil.copytree(store.ROOT / "data" / "sample", tmp_path / "corpus")
    shorter = 1 + int.from_bytes(os.urandom(2))
    for path in folder.rglob("*.flac"):
        samples, sr = sf.read(path)
        sf.write(path, samples[: len(samples) - shorter // 8], sr)
    return folder


@pytest.fixture
def at_work(tmp_path, new_corpus):
    """A function: start a command of several processes, wait for them all, give the first one."""
    started = []

    def start(*call):
        given = {"DENOISER_QUICK": "1", "DENOISER_CORPUS": str(new_corpus)}
        with open(tmp_path / "out", "w") as out, open(tmp_path / "err", "w") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", *call],
                env=os.environ | given,
                start_new_session=True,  # whose number tells its processes from all others
                preexec_fn=heed_signals,
                stdout=out,
                stderr=err,
            )
        started.append(process)
        deadline = time.monotonic() + 120
        while len(processes_of(process.pid)) < 1 + 2 + 1:  # two workers, and who cleans up
            assert process.poll() is None, (tmp_path / "err").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return process

    yield start
    for process in started:
        for pid in processes_of(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()


COMMANDS = {
    "evaluate": ("helpers", "evaluate"),
    "score": ("helpers", "score", "--split", "test", "--utterances", "6"),
    "run": ("helpers", "run", "--utterances", "6"),
}


@needs_proc
@pytest.mark.parametrize(
    ("name", "number"),
    [(name, signal.SIGTERM) for name in COMMANDS] + [("score", signal.SIGHUP)],
)
def test_a_signal_ends_a_command_with_all_its_processes(tmp_path, at_work, name, number):
    out = "--output" if name == "run" else "--out"
    process = at_work(*COMMANDS[name], out, str(tmp_path / "rows"))
    process.send_signal(number)
    assert process.wait(20) == 128 + number
    assert_all_end(process.pid, 5)
    assert "Traceback" not in (tmp_path / "err").read_text()
    assert not list(tmp_path.rglob(".*"))  # nothing half-written


@needs_proc
def test_workers_notice_that_their_parent_was_killed(tmp_path, at_work):
    process = at_work(*COMMANDS["score"], "--out", str(tmp_path / "rows"))
    process.kill()
    process.wait(20)
    assert_all_end(process.pid, 10)


def test_workers_end_with_a_command_and_come_back_for_the_next():
    def numbers():
        return list(command.in_workers((joblib.delayed(abs)(-i) for i in range(4)), 2))

    assert numbers() == [0, 1, 2, 3]
    workers = multiprocessing.active_children()
    assert workers
    with pytest.raises(KeyboardInterrupt), command.ended_in_order():
        raise KeyboardInterrupt
    assert not any(one.is_alive() for one in workers)
    assert numbers() == [0, 1, 2, 3]


@pytest.mark.parametrize("fate", ["passed on", "swallowed", "exchanged"])
def test_a_signal_is_not_lost_in_what_it_interrupts(monkeypatch, fate):
    monkeypatch.setattr(command, "end_soon", soon := [].append)
    before = signal.getsignal(signal.SIGTERM)

    def interrupted():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except SystemExit:
            if fate == "passed on":
                raise
            if fate == "exchanged":
                raise RuntimeError("cannot join thread before it is started") from None

    with pytest.raises(SystemExit, match="143"), command.ended_in_order():
        interrupted()
    assert soon.__self__ == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_is_ignored_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
    try:
        with command.ended_in_order():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


STUBBORN = """
import os, signal, time
from helpers import command
command.GRACE_SECONDS = 0.5
with command.ended_in_order():
    while True:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        except SystemExit:
            pass
"""


def test_a_process_that_swallows_the_signal_ends_all_the_same():
    done = subprocess.run([sys.executable, "-c", STUBBORN], timeout=30, check=False)
    assert done.returncode == 143


def test_ctrl_c_ends_an_experiment_with_130(tmp_path, new_corpus):
    """It takes over the process of the command line."""
    call = [sys.executable, "-m", "helpers", "evaluate", "--out", str(tmp_path / "rows")]
    settings = {"DENOISER_QUICK": "1", "DENOISER_CORPUS": str(new_corpus), "PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    ways = {"start_new_session": True, "preexec_fn": heed_signals}
    process = subprocess.Popen(call, env=os.environ | settings, **ways, **pipes)
    assert process.stdout.readline().startswith("Corpus: ")  # it is at work
    os.killpg(process.pid, signal.SIGINT)
    assert "Traceback" not in process.communicate()[1]
    assert process.returncode == 130
