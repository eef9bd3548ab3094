"""The notebooks once more, on the bundled sample alone and with their sound, for the site.

The voices of LibriSpeech and most recordings of noise are not ours to publish, the bundled sample's
synthetic voices are. So the notebooks run in a copy of the course that has the sample and nothing
else, whatever corpus lies on this machine. Nothing of the course itself is written.
"""

import hashlib
import inspect
import json
import os
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbclient
import nbformat

from helpers.quick import QUICK
from helpers.store import ROOT

PARTS = ("helpers", "notebooks", "web", "data/sample", "data/models", "data/results")
PARTS += ("data/listening", "experiments/plans")
PRELUDE, GRID = "site-prelude", "site-grid"  # ids of the cells that are added
BENCH = re.compile(r"^bench\.sliders\((\w+), ", re.MULTILINE)
SETTINGS = {  # of the bench, all of them together; what a page without a kernel can show
    "kind": ["white", "pink", "whine", "inverter"],
    "low": [4_000, 2_500],
    "snr_db": [0, 10, -10],
    "denoiser": ["spectrogram", "waveform", "low-pass", "none"],
}
FIXED = {"high": 8_000, "seed": 1}


def describe(figure) -> str:
    """What a figure shows, in words, for readers who do not see it: panels, axes, what is drawn."""
    parts = []
    for ax in figure.axes:
        if hasattr(ax, "_colorbar"):
            continue
        title = ax.get_title() or ax.get_title("left")
        axes = " over ".join(name for name in (ax.get_ylabel(), ax.get_xlabel()) if name)
        texts = ax.get_legend().get_texts() if ax.get_legend() else ax.texts
        texts = texts or [*ax.get_yticklabels(), *ax.get_xticklabels()]
        names = [text.get_text() for text in texts]
        names = [name for name in names if any(letter.isalpha() for letter in name)][:24]
        told = [title, axes, f"with {', '.join(names)}" if names else ""]
        parts.append(", ".join(" ".join(one.split()) for one in told if one))
    parts = [part for part in parts if part] or ["a drawing"]
    told = [f"{len(parts)} panels"] if len(parts) > 1 else []
    return "; ".join([*filter(None, [figure.get_suptitle()]), *told, *parts])


def prelude() -> str:
    """The code of a cell that lets each figure describe itself as its plain text."""
    return (
        f"{inspect.getsource(describe)}\n\n%matplotlib inline\n"  # it clears such printers
        "import matplotlib.pyplot as plt\nfrom matplotlib.figure import Figure\n"
        "plt.figure()\nplt.close()\n"
        "get_ipython().display_formatter.formatters['text/plain'].for_type(\n"
        "    Figure, lambda figure, printer, cycle: printer.text(describe(figure)))\n"
    )


def grid(function: str) -> str:
    """The code of a cell that calls the bench's function with all SETTINGS, one display each."""
    return (
        f"import itertools\n\nfor values in itertools.product(*{list(SETTINGS.values())!r}):\n"
        f"    one = dict(zip({list(SETTINGS)!r}, values))\n"
        f"    picture, sound = {function}(**one, **{FIXED!r})\n"
        "    display(picture, metadata={'bench': one})\n"
        "    display(sound, metadata={'bench': one})\n"
    )


def copy_course(place: Path) -> None:
    """A copy of what the notebooks need, the sample for a corpus, and no recorded noise."""
    shutil.rmtree(place, ignore_errors=True)
    for part in PARTS:
        ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
        shutil.copytree(ROOT / part, place / part, ignore=ignored)


def digest(place: Path, notebook: nbformat.NotebookNode) -> str:
    """Sixteen hex digits that name all that decides the outputs of a notebook in this copy."""
    cells = (cell.source for cell in notebook.cells if cell.cell_type == "code")
    facts = hashlib.sha256("\0".join([str(QUICK), *cells]).encode())
    files = (path for part in PARTS if part != "notebooks" for path in (place / part).rglob("*"))
    for path in sorted(path for path in files if path.suffix not in (".md", ".pyc")):
        if path.is_file():
            facts.update(str(path.relative_to(place)).encode() + path.read_bytes())
    return facts.hexdigest()[:16]


def with_added_cells(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with the prelude in front and, where it has a bench, the grid at its end."""
    source = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    notebook.cells.insert(0, nbformat.v4.new_code_cell(prelude(), id=PRELUDE))
    if found := BENCH.search(source):
        notebook.cells.append(nbformat.v4.new_code_cell(grid(found[1]), id=GRID))
    return notebook


def run(path: Path, place: Path, kept: Path) -> nbformat.NotebookNode:
    """One notebook executed in the copy `place`, or as it was kept when nothing has changed.

    Its outputs have the sound; figures describe themselves in `text/plain`; behind the bench stand
    the displays of all SETTINGS. Raises nbclient's CellExecutionError where a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    if not re.search(r"image/png|run this cell|widget-view", path.read_text("utf-8")):
        return notebook  # its outputs are words: nothing to hear or to describe
    notebook = with_added_cells(notebook)
    name = "-".join(path.relative_to(ROOT / "notebooks").with_suffix("").parts)
    file = kept / f"{name}-{digest(place, notebook)}.ipynb"
    if file.exists():
        return nbformat.read(file, as_version=4)
    start = time.perf_counter()
    folder = place / path.relative_to(ROOT).parent
    client = nbclient.NotebookClient(
        notebook,
        timeout=1800,
        startup_timeout=120,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env=environment(place))
    for old in kept.glob(f"{name}-{16 * '?'}.ipynb"):
        old.unlink()
    kept.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(notebook), "utf-8")
    print(f"{name} on the sample: {time.perf_counter() - start:.0f} s", flush=True)
    return notebook


def environment(place: Path) -> dict[str, str]:
    """Of a kernel that imports the copy's helpers and finds no data but the copy's."""
    kept = {k: v for k, v in os.environ.items() if k not in ("DENOISER_CORPUS", "DENOISER_NOISE")}
    return kept | {"PYTHONPATH": str(place)}


def run_all(paths: list[Path], folder: Path, jobs: int = 2) -> dict[Path, nbformat.NotebookNode]:
    """Notebook file -> what it gave on the sample, `jobs` at a time; kept below `folder`."""
    place = folder / "course"
    copy_course(place)
    kept = folder / ("quick" if QUICK else "full")
    with ThreadPoolExecutor(jobs) as pool:
        return dict(zip(paths, pool.map(lambda path: run(path, place, kept), paths), strict=True))
