"""The command line: `python -m helpers <command>`, also installed as `denoiser`.

Modules that need TensorFlow are imported only by the commands that need it.
"""

import argparse
import contextlib
import dataclasses
import functools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from helpers import models
from helpers.command import n_cores, new_parser, run_command, sigterm_like_ctrl_c, stop_code

METHODS = {name: name for name in models.METHODS} | {"a": "waveform", "s": "spectrogram"}
EXPERIMENTS = ("evaluate", "speed", "recognise", "phonemes", "ablate")  # their home is experiments/


def main(argv: list[str] | None = None) -> int:
    """Run one command and give its exit code; `experiments` takes this process over for its own."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in EXPERIMENTS:
        os.execv(sys.executable, [sys.executable, "-m", "experiments", *argv])
    return run_command(parser(), argv)


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top, command = new_parser("denoiser", "Take noise out of speech.")

    sub = command("run", run, "The main job: noise, both methods, clips, figure and table.")
    sub.add_argument("--output", type=Path, default=Path("output"), help="folder (default: output)")
    sub.add_argument("--snr", type=snr, nargs="+", default=[0.0, 10.0], help="dB (default: 0 10)")
    sub.add_argument("--utterances", type=int, default=12, help="how many (default: 12)")
    sub.add_argument("--seed", type=natural, default=0)

    sub = command("denoise", denoise, "Denoise a file, or a folder with all below it, to FLAC.")
    add_in_out(sub, pipe="; - for a pipe (WAV)")
    add_method(sub, "low-pass")
    sub.add_argument("--cutoff", type=cutoff, metavar="HZ", help="of the low-pass (default: 3900)")
    sub.add_argument("--weights", type=Path, help="folder of weights (default: data/models)")
    sub.add_argument("--mix", type=share, default=1.0, help="share denoised, 0-1 (default: 1)")
    sub.add_argument(
        "--whole-band",
        action="store_true",
        help="let the model remove whatever it takes for noise, low noise too; by default noise is "
        "reduced at the frequencies where it is, above 1.5 kHz, and the rest passes as it came",
    )
    sub.add_argument(
        "--jobs", type=positive, metavar="N", help="files at a time (default: one a core)"
    )
    add_cluster(sub)
    sub.add_argument("--gate", help=argparse.SUPPRESS)  # of earlier versions
    sub.add_argument("--low-share", help=argparse.SUPPRESS)
    sub.add_argument("--by-frequency", action="store_true", help=argparse.SUPPRESS)

    sub = command("inspect", inspect, "Say what noise is in recordings and what denoise would do.")
    sub.add_argument("source", type=Path, metavar="IN", help="file or folder")
    sub.add_argument("--plot", type=Path, metavar="FOLDER", help="draw the spectra of each file")

    sub = command(
        "add-noise", add_noise, "Write a noisy copy of a file or folder, with a manifest."
    )
    add_in_out(sub)
    sub.add_argument("--kind", default="white", help="noise kind, or recorded (default: white)")
    sub.add_argument("--low", type=float, default=4000.0, help="Hz (default: 4000)")
    sub.add_argument("--high", type=float, default=8000.0, help="Hz (default: 8000)")
    sub.add_argument("--snr", type=snr, default=0.0, help="dB over the whole clip (default: 0)")
    sub.add_argument("--active", action="store_true", help="the SNR over active speech instead")
    sub.add_argument("--seed", type=natural, default=0)
    sub.add_argument("--noise", type=Path, help="folder of recordings for --kind recorded")
    add_cluster(sub)

    sub = command("train", train, "Train a method, or go on with a training that was stopped.")
    sub.add_argument("method", choices=METHODS, metavar="{waveform,spectrogram}")
    sub.add_argument("--cycles", type=int, nargs="+", help="epochs (default: 24 6, waveform 18 4)")
    sub.add_argument("--optimizer", choices=("Adam", "Muon"), default="Adam")
    sub.add_argument(
        "--si-sdr-weight",
        type=float,
        default=0.1,
        metavar="W",
        help="of SI-SDR, in units of 10 dB, in the loss (default: 0.1)",
    )
    sub.add_argument(
        "--level-weight",
        type=float,
        default=0.0,
        metavar="W",
        help="of the error of the output's level, in dB, in the loss (default: 0)",
    )
    sub.add_argument("--batch-size", type=positive, default=16, metavar="N", help="(default: 16)")
    sub.add_argument("--start", type=Path, help="folder of trained weights to go on from")
    sub.add_argument(
        "--start-share",
        type=share,
        default=0.0,
        metavar="SHARE",
        help="of those weights in a mean with the trained ones, which is kept (default: 0)",
    )
    sub.add_argument(
        "--noise",
        default="",
        metavar="KIND",
        help="train on this kind alone, a specialist (recorded: your recordings; default: all)",
    )
    sub.add_argument("--seed", type=natural, default=1)
    sub.add_argument("--out", type=Path, help="folder for the weights (default: data/models)")

    sub = command(
        "adapt", adapt, "Adapt a model to a folder of noisy recordings, or go on with it."
    )
    sub.add_argument("source", type=Path, metavar="NOISY_FOLDER", help="a minute or more in all")
    sub.add_argument(
        "--start", type=Path, default=models.FOLDER, help="folder of weights (default: data/models)"
    )
    sub.add_argument("--out", type=Path, required=True, help="folder for the adapted weights")
    sub.add_argument("--minutes", type=minutes, default=30.0, help="about so long (default: 30)")
    sub.add_argument(
        "--steps", type=positive, metavar="N", help="so many steps instead, in fifties"
    )
    sub.add_argument("--method", choices=METHODS, default="spectrogram", metavar="METHOD")
    sub.add_argument("--seed", type=natural, default=1)

    sub = command("score", score, "Score noisy, low-pass, both methods and an oracle.")
    sub.add_argument("--split", default="validation", help="or test, other, test+other")
    sub.add_argument(
        "--noise",
        nargs="+",
        default=["white"],
        metavar="KIND[:LOW-HIGH]",
        help="kinds of noise, or none for clean input (default: white, 4000-8000 Hz)",
    )
    sub.add_argument("--snr", type=snr, nargs="+", default=[0.0, 10.0], help="dB (default: 0 10)")
    sub.add_argument("--level", type=float, help="of the speech, dBFS RMS")
    sub.add_argument("--utterances", type=int, default=24, help="of each split; 0: all")
    sub.add_argument(
        "--also", type=Path, nargs="+", default=[], help="folders of other weights, scored as well"
    )
    sub.add_argument("--seed", type=natural, default=0)
    sub.add_argument("--out", type=Path, default=Path("output/score"), help="without ending")

    sub = command("live", live, "Denoise a microphone while it is heard, until Ctrl-C.")
    sub.add_argument("--list", action="store_true", help="show the sound devices and end")
    sub.add_argument("--in", dest="input", metavar="DEVICE", help="number or part of a name")
    sub.add_argument("--out", dest="output", metavar="DEVICE", help="number or part of a name")
    add_method(sub)
    sub.add_argument("--mix", type=share, default=1.0, help="share denoised, 0-1 (default: 1)")
    sub.add_argument(
        "--whole-band", action="store_true", help="as of denoise; waits 30 ms less, too"
    )
    sub.add_argument("--record", type=Path, metavar="FOLDER", help="keep before and after as FLAC")

    sub = command("page", page, "Denoise in the browser: serve the page of web/ on this machine.")
    sub.add_argument("--port", type=port, default=0, help="(default: any that is free)")

    sub = command("download", download, "Fetch LibriSpeech subsets or UrbanSound8K into data/.")
    sub.add_argument("subsets", nargs="+", metavar="SUBSET", help="dev-clean, ..., UrbanSound8K")
    return top


def number(kind: type, fits: Callable[[float], bool], says: str) -> Callable[[str], float]:
    """A converter of texts to numbers that raises ArgumentTypeError for one that does not fit."""

    def convert(text: str):
        with contextlib.suppress(ValueError):
            if fits(kind(text)):
                return kind(text)
        raise argparse.ArgumentTypeError(f"{text}: choose {says}")

    return convert


share = number(float, lambda x: 0 <= x <= 1, "a share from 0 to 1")
snr = number(float, lambda x: -100 <= x <= 100, "dB from -100 to 100")
natural = number(int, lambda x: x >= 0, "a whole number, 0 or more")
cutoff = number(float, lambda x: 100 <= x <= 7_900, "Hz from 100 to 7900")
positive = number(int, lambda x: x >= 1, "a whole number, 1 or more")
minutes = number(float, lambda x: 1 <= x <= 100_000, "minutes, 1 or more")
port = number(int, lambda x: 0 <= x <= 65_535, "a port from 0 to 65535")


def add_in_out(sub: argparse.ArgumentParser, pipe: str = "") -> None:
    """The arguments of commands that turn files into files; `pipe` is said of both."""
    sub.add_argument("source", type=Path, metavar="IN", help=f"file or folder{pipe}")
    sub.add_argument("target", type=Path, metavar="OUT", help=f"file or folder{pipe}")
    sub.add_argument("--overwrite", action="store_true", help="replace existing outputs")


def add_cluster(sub: argparse.ArgumentParser) -> None:
    """Who shares the work on many files."""
    sub.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="let the workers of a Dask scheduler do it, HOST:PORT; local:N starts N here",
    )


def add_method(sub: argparse.ArgumentParser, *others: str) -> None:
    """The choice of a method, with short forms of the models."""
    sub.add_argument(
        "--method",
        choices=[*METHODS, *others],
        default="spectrogram",
        metavar=f"{{{','.join([*models.METHODS, *others])}}}",
        help="or a, s for short (default: spectrogram)",
    )


def run(args) -> int:
    from helpers.tool.main_job import run_main_job

    start = time.perf_counter()
    print(run_main_job(args.output, args.snr, args.utterances, args.seed))
    print(f"\nClips, table and figure: {args.output}/ ({time.perf_counter() - start:.0f} s)")
    return 0


def denoise(args) -> int:
    from helpers.tool import files

    with sigterm_like_ctrl_c(), files.pipes_as_files(args.source, args.target) as (source, target):
        pairs = files.plan_outputs(source, target)  # before the model is loaded
        tell_of_old_options(args)
        replaces = args.overwrite or bool(args.cluster)  # where a task may run twice
        work = files.FileDenoiser(maker(args), replaces)
        denoiser = work.denoiser
        start = time.perf_counter()
        is_there = files.is_there if source.is_dir() else files.is_in_the_way
        jobs = (args.jobs or n_cores()) if denoiser.is_light else 1  # Keras has threads of its own
        is_there = None if args.overwrite else is_there
        report = files.for_each_file(pairs, work, is_there, jobs, connector(args))
        seconds = time.perf_counter() - start
        with contextlib.redirect_stdout(sys.stderr if args.target == files.PIPE else sys.stdout):
            tell(report, denoiser, seconds)
            return complain(report)


def connector(args) -> Callable | None:
    """A function that finds or starts the cluster that is asked for, if one is."""
    if not args.cluster:
        return None
    from helpers.tool.cluster import Cluster

    return functools.partial(Cluster, args.cluster)


def maker(args) -> Callable:
    """A function that makes what `denoise` is asked to use: a model, or the low-pass."""
    if args.method == "low-pass":
        from helpers.denoise.filtering import CUTOFF, LowPass

        return functools.partial(LowPass, args.cutoff or CUTOFF, args.mix)
    from helpers.denoise.stream import Denoiser

    if args.cutoff:
        print("note: --cutoff is for --method low-pass and does nothing here", file=sys.stderr)
    settings = METHODS[args.method], args.weights, args.mix, not args.whole_band
    return functools.partial(Denoiser, *settings)


def tell_of_old_options(args) -> None:
    """Say once that an option of earlier versions does nothing any more."""
    if args.gate is not None or args.low_share is not None or args.by_frequency:
        print(
            "note: --gate, --low-share and --by-frequency are no longer needed: each frequency is "
            "judged for itself (--whole-band leaves the model to itself)",
            file=sys.stderr,
        )


def tell(report: dict, denoiser, seconds: float) -> None:
    """Print what was done to each file, and in how many seconds."""
    for file, _, result in report["done"]:
        print(f"{file}: {result['words']}")
    results = [result for *_, result in report["done"]]
    if results:
        print(
            f"{len(results)} done, {sum(result['seconds'] for result in results):.1f} s of audio "
            f"in {seconds:.1f} s with the {denoiser.method} method"
        )
    tell_there(report)
    if any(result["sr"] > 16_000 and not result["left"] for result in results):
        print("note: what the input held above 8 kHz is gone; the models work at 16 kHz")
    if clipped := sum(result["clipped"] for result in results):
        print(f"note: {clipped} samples beyond full scale were clipped")


def tell_there(report: dict) -> None:
    """Print how many outputs were there before."""
    if n := len(report["there"]):
        print(f"note: {n} were there already (--overwrite makes them again)")


def complain(report: dict) -> int:
    """Print what failed, one line a file; the exit code: 1 if anything did, or of the signal."""
    for _, message in report["failed"]:
        print(f"error: {message}", file=sys.stderr)
    n_failed, n_done = len(report["failed"]), len(report["done"]) + len(report["there"])
    if n_failed and n_done + n_failed > 1:
        print(f"{n_failed} failed, {n_done} done", file=sys.stderr)
    if report["stopped"] is not None:
        print("interrupted; the same call goes on from here", file=sys.stderr)
        return stop_code(report["stopped"])
    return 1 if n_failed else 0


def inspect(args) -> int:
    from helpers.tool import files

    with sigterm_like_ctrl_c():
        from helpers.tool.inspect import inspect_file, lines, plan

        pairs = plan(args.source, args.plot)
        from helpers.denoise.stream import Denoiser

        denoiser = Denoiser("spectrogram", by_frequency=True)
        report = files.for_each_file(
            pairs, lambda file, figure: inspect_file(denoiser, file, figure)
        )
        print(*lines(report["done"]), sep="\n")
        return complain(report)


def add_noise(args) -> int:
    from helpers.tool.add_noise import add_noise_to_files

    with sigterm_like_ctrl_c():
        report = add_noise_to_files(
            args.source,
            args.target,
            kind=args.kind,
            band=(args.low, args.high),
            snr_db=args.snr,
            seed=args.seed,
            over_active=args.active,
            noise_folder=args.noise,
            overwrite=args.overwrite,
            connect=connector(args),
        )
        if report["done"] or report["there"]:
            print(f"{len(report['done'])} done, manifest {report['manifest']}")
        tell_there(report)
        return complain(report)


def train(args) -> int:
    from helpers import backend
    from helpers.evaluation import scoring
    from helpers.models import training

    method = METHODS[args.method]
    plan = training.Plan(
        method,
        tuple(args.cycles or models.module(method).CYCLES),
        batch_size=args.batch_size,
        optimizer=args.optimizer,
        learning_rate=training.LEARNING_RATES[args.optimizer],
        si_sdr_weight=args.si_sdr_weight,
        level_weight=args.level_weight,
        start=str(args.start or ""),
        start_share=args.start_share,
        noise=args.noise,
        seed=args.seed,
    )
    verbose = 1 if sys.stdout.isatty() else 2  # a bar, or a line an epoch in a log file
    path = training.export(plan, training.train(plan, verbose=verbose), args.out)
    if backend.tf:
        scoring.add_scores(method, args.out)
    else:
        print("not scored, which needs TensorFlow: `python -m helpers score`")
    print(f"weights and card: {path}, {path.with_suffix('.json')}")
    return 0


def adapt(args) -> int:
    begun = time.monotonic()
    from helpers.tool import adapt

    settings = {"minutes": args.minutes, "steps": args.steps or 0, "seed": args.seed}
    plan = adapt.Adaptation(METHODS[args.method], str(args.start), **settings)
    print(adapt.adapt(args.source, args.out, plan, begun))
    return 0


def score(args) -> int:
    from helpers import store

    store.check_place(args.out)  # before TensorFlow's seconds, and hours of scoring
    from helpers.data import corpus, noise
    from helpers.data.conditions import Condition
    from helpers.denoise import systems
    from helpers.evaluation import scoring, tables

    table = corpus.read_corpus(corpus.find_corpus(verbose=True))
    utterances = corpus.pick(table, args.split, args.utterances)
    bands = [Condition.parse(text) for text in args.noise]
    conditions = [
        dataclasses.replace(band, snr_db=snr, level_db=args.level)
        for band in bands
        for snr in (args.snr if band.kind != "none" else args.snr[:1])
    ]
    files = ()
    if any(band.kind == "recorded" for band in bands):
        split = args.split.partition("+")[0]
        split = "test" if split == "other" else split  # recordings have no such split
        files = tuple(noise.recorded_files(corpus.find_noise(verbose=True), split))
    heard = systems.standard_systems()
    for folder in args.also:
        heard |= systems.systems_in(folder)
    rows = scoring.evaluate(utterances, conditions, heard, args.seed, files)
    print(tables.table_text(rows))
    tables.save_or_keep(rows, args.out)
    print(f"\n{store.with_ending(args.out, '.csv')}, {store.with_ending(args.out, '.md')}")
    return 0


def live(args) -> int:
    from helpers.tool import live

    sd = live.sound_module()
    if args.list:
        print(live.list_devices(sd))
        return 0
    devices = live.as_device(args.input), live.as_device(args.output)
    live.device_rate(sd, devices)  # before the model is read
    from helpers.denoise.stream import Denoiser

    with sigterm_like_ctrl_c():
        denoiser = Denoiser(METHODS[args.method], None, args.mix, not args.whole_band)
        live.run(denoiser, devices, args.record, sd)
    return 0


def page(args) -> int:
    from helpers.tool.page import serve

    serve(args.port)
    return 0


def download(args) -> int:
    from helpers.store import ROOT
    from helpers.tool.download import download as fetch
    from helpers.tool.download import home

    for subset in args.subsets:
        print(fetch(subset, ROOT / "data" / home(subset).folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
