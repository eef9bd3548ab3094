"""What a process does of a training plan, alone or as one of several.

A module of its own, and light: the processes of `train --workers` read it before they find each
other, and Keras must not have begun by then.
"""

from pathlib import Path

from helpers.store import shown


def run_and_tell(plan: str, out: Path | None, verbose: int) -> int:
    """Run a plan, or this worker's share of it, and say where its weights are."""
    from experiments.train import run_plan
    from helpers.models import workers

    path = run_plan(plan, out, verbose)
    if not workers.rank():
        print(f"weights and card: {shown(path)}")
    return 0
