"""The list of the files that were made, with all that makes them again; it survives a stop.

Taught in `02_noise`.
"""

import csv
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from helpers import store
from helpers.store import FileError

SETTING = ("kind", "low", "high", "snr_db", "over_active", "seed", "recordings")
COLUMNS = ("file", "noisy", "scale", "sha256", *SETTING)


class Manifest:
    """A CSV with a row for each file, which is there as soon as its file is.

    `setting`: the values of SETTING, of all files of this call. Several processes may add to one
    manifest. Raises FileError for a file of this name that is no manifest, and, unless `overwrite`,
    for one that lists files of another setting.
    """

    def __init__(self, path: Path, setting: dict, overwrite: bool = False):
        self.path = path
        self.setting = {name: str(setting[name]) for name in SETTING}
        self.rows = {}
        if path.exists():
            self.finish()
            self.rows = self._read()
        for row in () if overwrite else self.rows.values():
            for name, value in self.setting.items():
                if row[name] != value:
                    raise FileError(
                        f"{path}: lists files of {name} {row[name]}, not {value}; "
                        "choose another OUT or pass --overwrite"
                    )

    def has(self, noisy: str, output: Path) -> bool:
        """Whether a file is there as it is listed. Raises FileError for one that was changed."""
        if noisy not in self.rows or not os.path.exists(output):
            return False
        if file_hash(output) != self.rows[noisy]["sha256"]:
            raise FileError(
                f"{output}: not the file that {self.path.name} lists; "
                "move it away or pass --overwrite"
            )
        return True

    def add(self, row: dict) -> None:
        """List one more file: `file`, `noisy` (its path from here), `scale`, `sha256`."""
        with store.alone(self.path, wait=True):
            new = not self.path.exists()
            with open(self.path, "a", newline="", encoding="utf-8") as stream:
                self._write(stream, [row | self.setting], header=new)

    def finish(self) -> None:
        """Put the rows in order, the last of each file; those whose files are gone leave."""
        if not self.path.exists():
            return
        with store.alone(self.path, wait=True):
            rows = {k: row for k, row in self._read().items() if self._place(k).exists()}
            if not rows:
                self.path.unlink()
                return
            with (
                store.atomic_path(self.path, overwrite=True) as temporary,
                open(temporary, "w", newline="", encoding="utf-8") as stream,
            ):
                self._write(stream, (rows[name] for name in sorted(rows)), header=True)

    def _write(self, stream, rows: Iterator[dict], header: bool) -> None:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)

    def _read(self) -> dict[str, dict]:
        """The rows that are whole, by the names of their files."""
        if not self.path.exists():
            return {}
        try:
            with open(self.path, newline="", encoding="utf-8") as stream:
                table = csv.DictReader(stream)
                if not {"file", "noisy", "sha256"} <= set(table.fieldnames or ()):
                    raise ValueError("other columns")
                rows = [{name: row.get(name, "") for name in COLUMNS} for row in table]
        except (ValueError, csv.Error) as error:
            raise FileError(f"{self.path}: no manifest of add-noise; move it away") from error
        return {row["noisy"]: row for row in rows if None not in row.values()}

    def _place(self, noisy: str) -> Path:
        """Where a listed file lies."""
        literal = self.path.parent / noisy
        return literal if literal.exists() else self.path.parent / unprintable(noisy)


def printable(path: Path) -> str:
    """A path as text, with \\\\xe9 and the like for bytes that are not UTF-8."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def unprintable(text: str) -> str:
    """The path of which `printable` made a text."""
    return os.fsdecode(
        re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), text.encode())
    )


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
