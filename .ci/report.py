"""Put the headline table of `data/results` into the README (`make report`).

python .ci/report.py
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README, TABLE = ROOT / "README.md", ROOT / "data" / "results" / "test_white.md"
START, END = "<!-- make report: table -->", "<!-- end -->"


def headline(text: str) -> str:
    """The rows at 0 and 10 dB of the table of white noise, and its heading."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return "\n".join(lines[:2] + [s for s in lines[2:] if s.split("|")[2].strip() in ("0", "10")])


def with_report(readme: str, table: str) -> str:
    """The README with the table between its marks. Raises ValueError where they are missing."""
    before, found, rest = readme.partition(START)
    _, closed, after = rest.partition(END)
    if not found or not closed:
        raise ValueError(f"{README}: no {START} ... {END}; put the two marks back")
    return f"{before}{START}\n{headline(table)}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(with_report(README.read_text(), TABLE.read_text()))
    print(f"{README.name}: the table of {TABLE.relative_to(ROOT)}")
