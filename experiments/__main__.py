"""`python -m experiments NAME`: what takes hours and fills `data/results`; all can be resumed.

Modules that need TensorFlow, or packages of the peers' environment, are imported only by the
experiments that need them.
"""

import argparse
import functools
import sys
from pathlib import Path

from helpers.command import new_parser, run_command, tasks_on
from helpers.quick import QUICK
from helpers.store import RESULTS, check_place, shown, with_ending

OUTPUT = Path("output")  # of a run that names no other place
ADVERSARIAL = (
    "yardsticks",
    "equaliser",
    "terms",
    "metric",
    "test",
    "words",
)  # parts of that experiment


def main(argv: list[str] | None = None) -> int:
    """Run one experiment; 0 when all went well, 1 when something failed, 2 for a wrong call."""
    return run_command(parser(), argv)


def parser() -> argparse.ArgumentParser:
    """All experiments and their options."""
    top, experiment = new_parser("python -m experiments", "What takes longer than a chapter.")

    def add_out(sub, *names):
        where = " or ".join(f"output/{name}" for name in names)
        text = f"without ending (default: {where}; what is committed lies in data/results)"
        sub.add_argument("--out", type=out_path, help=text)

    def add_cluster(sub):
        text = "Dask workers, with this project each, that score: HOST:PORT, or local:N for N here"
        sub.add_argument("--cluster", metavar="ADDRESS", help=text)

    sub = experiment("evaluate", evaluate, "The test protocol: every condition, every system.")
    sub.add_argument("--peers", action="store_true", help="the installed denoisers instead")
    add_out(sub, "test", "peers")
    add_cluster(sub)

    sub = experiment("bright", bright, "Recordings that are mostly high, as they come.")
    add_out(sub, "bright")

    sub = experiment("design", design, "A peer's network and ours, trained on the same noise.")
    add_out(sub, "design")

    sub = experiment("speed", speed, "CPU speed of every system, on a machine that rests.")
    sub.add_argument("--peers", action="store_true", help="the installed denoisers instead")
    add_out(sub, "speed")

    sub = experiment("recognise", recognise, "Word errors of recognisers, noisy and denoised.")
    which = sub.add_mutually_exclusive_group()
    which.add_argument("--validation", action="store_true", help="mixes, on validation speakers")
    which.add_argument("--peers", action="store_true", help="an installed denoiser instead")
    which.add_argument(
        "--specialist", type=Path, metavar="FOLDER", help="of weights trained on one kind of noise"
    )
    add_out(sub, "recognition", "recognition_validation", "recognition_peers")
    add_cluster(sub)

    sub = experiment("real", real, "Speech that was noisy from the start, as it is.")
    add_out(sub, "real")

    sub = experiment("phonemes", phonemes, "Phoneme recognisers on clean, noisy and denoised.")
    add_out(sub, "phonemes")

    sub = experiment("ablate", ablate, "Train the steps from a picture to a mask, and score them.")
    add_out(sub, "ablation")

    sub = experiment("ladder", ladder, "Train without clean targets, rung by rung, and score.")
    add_out(sub, "ladder")

    sub = experiment(
        "adapt-domains", adapt_domains, "Adapt to noise of noisy clips only, and score."
    )
    add_out(sub, "adapting")

    sub = experiment("adversarial", adversarial, "Train with discriminators, and score all.")
    sub.add_argument(
        "--parts", nargs="+", choices=ADVERSARIAL, default=ADVERSARIAL, help="(default: all)"
    )
    sub.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        default=[1],
        help="of the trainings with each term (default: 1)",
    )
    add_out(sub, "adversarial")

    sub = experiment("train", train, "Train by a plan of steps, or go on where it was stopped.")
    sub.add_argument("plan", help="a name in experiments/plans, or a .toml file")
    sub.add_argument("--out", type=Path, help="folder for the last weights (default: the plan's)")
    sub.add_argument("--dry-run", action="store_true", help="print the steps and where they are")
    sub.add_argument(
        "--workers",
        metavar="HOST:PORT",
        help="one of several processes on JAX: where the first one listens; auto: as SLURM, "
        "Kubernetes or Open MPI say",
    )
    sub.add_argument("--rank", type=int, metavar="R", help="number of this worker, from 0")
    sub.add_argument("--world", type=int, metavar="N", help="how many workers there are")

    sub = experiment("export", export, "Write the models as files that run without TensorFlow.")
    sub.add_argument("--folder", type=Path, help="of the weights (default: data/models)")

    experiment("report", report, "Write the tables of data/results and of the README.")

    sub = experiment("notebooks", notebooks, "Execute notebooks in full and keep their outputs.")
    sub.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="(default: all)")

    sub = experiment("site", site, "Lay out the pages with sound that `make site` renders.")
    sub.add_argument("chapters", nargs="*", metavar="NN", help="numbers (default: all)")
    sub.add_argument("--jobs", type=int, default=2, metavar="N", help="notebooks at a time")

    experiment("listeners", listeners, "Write the simulated answers of the listening test.")
    return top


def out_path(text: str) -> Path:
    """Where results go, without ending. Raises ArgumentTypeError for the committed ones in a quick
    run."""
    path = with_ending(Path(text), "")
    if QUICK and path.resolve().is_relative_to(RESULTS):
        raise argparse.ArgumentTypeError(
            f"{text}: DENOISER_QUICK is set, and a quick run would replace full results; "
            "unset it or choose another place"
        )
    return path


def corpus_and_noise(out: Path) -> tuple:
    """The table of utterances and the folder of recorded noise; the choice is printed.

    Raises, before all work, PlaceError where `out` cannot be written, and ValueError where its
    table is of other speech or noise, which today's would replace in part.
    """
    from helpers.data import corpus

    check_place(out)
    table = corpus.read_corpus(corpus.find_corpus(verbose=True))
    folder = corpus.find_noise(verbose=True)
    check_rows(with_ending(out, ".csv"), table, folder)
    return table, folder


def check_rows(path: Path, table, noise_folder: Path | None) -> None:
    """Raise ValueError where a table has utterances, or recorded noise, that are not found here."""
    if not path.exists():
        return
    import pandas as pd

    rows = pd.read_csv(path, dtype=str)
    names = set(rows.get("utterance", ())) - set(table.utterance)
    is_recorded = rows.get("kind", pd.Series(dtype=str)).str.contains("recorded", na=False)
    if names or (is_recorded.any() and noise_folder is None):
        what = "speech" if names else "recorded noise"
        raise ValueError(
            f"{path}: was made of {what} that is not here; name another place, for example "
            f"`--out {shown(OUTPUT / path.stem)}`, or bring the data (data/README.md)"
        )


def evaluate(args) -> None:
    from experiments.evaluate import evaluate_all
    from helpers.evaluation import tables

    out = args.out or OUTPUT / ("peers" if args.peers else "test")
    path = with_ending(out, ".csv")
    with tasks_on(args.cluster):
        tables.save_or_keep(evaluate_all(path, *corpus_and_noise(out), args.peers), out)
    print(f"{out}.csv, {out}.md")


def bright(args) -> None:
    from experiments.bright import score_bright
    from helpers.evaluation import tables

    out = args.out or OUTPUT / "bright"
    rows = score_bright(with_ending(out, ".csv"), *corpus_and_noise(out))
    print(tables.save_rows(rows, out))


def design(args) -> None:
    from experiments.design import compare_designs
    from helpers.evaluation import tables

    out = args.out or OUTPUT / "design"
    rows = compare_designs(with_ending(out, ".csv"), *corpus_and_noise(out))
    print(tables.save_rows(rows, out))


def speed(args) -> None:
    from experiments.evaluate import speeds

    out = args.out or OUTPUT / "speed"
    table, _ = corpus_and_noise(out)
    print(speeds(with_ending(out, ".csv"), table, args.peers).to_string(index=False))


def recognise(args) -> None:
    from experiments.recognise import IN_SHORT, hear_test, hear_validation
    from helpers.evaluation import asr

    name = "recognition" + "_validation" * args.validation + "_peers" * args.peers
    path = with_ending(args.out or OUTPUT / name, ".csv")
    table, recordings = corpus_and_noise(path)
    besides = IN_SHORT if args.validation or args.specialist else ()
    names, missing = asr.installed(besides=asr.OF_PHONEMES if args.peers else besides)
    print(*missing, sep="\n", end="\n" if missing else "")
    with tasks_on(args.cluster):
        if args.validation:
            hear_validation(path, table, recordings, names)
        else:
            hear_test(path, table, recordings, names, args.peers, args.specialist)
    print(path)


def real(args) -> None:
    from experiments.real import judge_real
    from helpers.evaluation import asr

    out = args.out or OUTPUT / "real"
    table, _ = corpus_and_noise(out)
    names, missing = asr.installed()
    print(*missing, sep="\n", end="\n" if missing else "")
    print(*judge_real(out, table, names), sep="\n")


def phonemes(args) -> None:
    from experiments.phonemes import compare_phonemes
    from helpers.evaluation import tables

    out = args.out or OUTPUT / "phonemes"
    rows, curves = compare_phonemes(*corpus_and_noise(out))
    print(tables.save_rows(rows, out))
    print(tables.save_rows(curves, out.with_name(f"{out.name}_curves")))


def ablate(args) -> None:
    from experiments.ablate import ablate_all
    from helpers.evaluation import tables

    out = args.out or OUTPUT / "ablation"
    print(tables.save_rows(ablate_all(*corpus_and_noise(out)), out))


def ladder(args) -> None:
    from experiments.ladder import climb
    from helpers.evaluation import tables

    out = args.out or OUTPUT / "ladder"
    print(tables.save_rows(climb(corpus_and_noise(out)[0]), out))


def adapt_domains(args) -> None:
    from experiments.remix import adapt_domains

    out = args.out or OUTPUT / "adapting"
    adapt_domains(out, *corpus_and_noise(out))
    print(f"{out}.csv, {out}_curves.csv")


def adversarial(args) -> None:
    from experiments.adversarial import compare_all

    out = args.out or OUTPUT / "adversarial"
    compare_all(out, *corpus_and_noise(out), args.parts, args.seeds)
    print(f"{out}.csv, {out}_curves.csv")


def train(args) -> int:
    verbose = 1 if sys.stdout.isatty() else 2  # a bar, or a line an epoch in a log file
    from experiments.worker import run_and_tell

    if args.workers and not args.dry_run:
        from helpers.models import workers

        work = functools.partial(run_and_tell, args.plan, args.out, verbose)
        return workers.run(work, args.workers, args.rank, args.world)
    if not args.dry_run:
        return run_and_tell(args.plan, args.out, verbose)
    from experiments.train import describe, read_plan

    print(*describe(read_plan(args.plan, args.out)), sep="\n")
    return 0


def export(args) -> None:
    from experiments.export import export_all

    print(*map(shown, export_all(args.folder)), sep="\n")


def report(args) -> None:
    from experiments.report import write_report

    print(*map(shown, write_report()), sep="\n")


def notebooks(args) -> None:
    from experiments.execute_notebooks import execute_notebooks

    execute_notebooks(args.notebooks)


def site(args) -> None:
    from experiments.site import build

    build(args.chapters, args.jobs)


def listeners(args) -> None:
    from experiments.simulate_listeners import simulate_listeners

    print(simulate_listeners())


if __name__ == "__main__":
    sys.exit(main())
