"""LibriSpeech from OpenSLR and UrbanSound8K from Zenodo: resumed, checked, unpacked, in place.

Sources: https://www.openslr.org/12 (Panayotov et al., ICASSP 2015), its mirrors and its
`md5sum.txt`; https://zenodo.org/records/1203745 (Salamon et al., ACM MM 2014). The archive and
what is unpacked of it lie in `.<dest>.partial` beside the destination, so that the destination
never holds half a subset. Taught in `01_dataset`.
"""

import contextlib
import hashlib
import shutil
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import requests
from tqdm import tqdm

MIRRORS = (
    "https://www.openslr.org/resources/12/",
    "https://us.openslr.org/resources/12/",
    "https://openslr.elda.org/resources/12/",
)


class Home(NamedTuple):
    """Where an archive comes from and belongs."""

    mirrors: tuple[str, ...]
    licence: str
    inside: str  # folder of the archive that holds the subset
    folder: str  # of data/, where code looks for it


LIBRISPEECH = Home(MIRRORS, "CC BY 4.0: with attribution", "LibriSpeech", "LibriSpeech")
HOMES = {
    "UrbanSound8K": Home(
        ("https://zenodo.org/records/1203745/files/",),
        "CC BY-NC: for non-commercial use only, with attribution",
        "",
        "noise",
    )
}
MD5 = {
    "dev-clean": "42e2234ba48799c1f50f24a7926300a1",
    "dev-other": "c8d0bcc9cca99d4f8b62fcc847357931",
    "test-clean": "32fa31d27d2e1cad72775fee3f4849a9",
    "test-other": "fb5a50374b501bb3bac4815ee91d3135",
    "train-clean-100": "2a93770f6d5c6c964bc36631d331a522",
    "train-clean-360": "c0e676e450a7ff2f54aeade5171606fa",
    "train-other-500": "d1a0fd59409feb2c614ce4d30c387708",
    "UrbanSound8K": "9aa69802bbf37fb986f71ec1483a196e",
}
SIZES = {  # bytes of each archive
    "dev-clean": 337_926_286,
    "dev-other": 314_305_928,
    "test-clean": 346_663_984,
    "test-other": 328_757_843,
    "train-clean-100": 6_387_309_499,
    "train-clean-360": 23_049_477_885,
    "train-other-500": 30_593_501_606,
    "UrbanSound8K": 6_023_741_708,
}
SPACE_FACTOR = 2.1  # disk needed / archive: the archive, as much again unpacked, and some air
RETRY_WAITS = (0, 2, 10)  # s, before each round through the mirrors
TIMEOUT = (10, 60)  # s, to connect and between two pieces
CHUNK = 1 << 16  # bytes


class DownloadError(RuntimeError):
    """An archive that could not be had; the message names it and the remedy in one line."""


def download(
    subset: str,
    dest: Path,
    *,
    mirrors: Sequence[str] | None = None,
    checksums: Mapping[str, str] = MD5,
    progress: bool = True,
) -> Path:
    """Put one subset of LibriSpeech, or UrbanSound8K, into `dest`, beside those there.

    subset: one of the names in MD5; dest: `data/LibriSpeech`, or `data/noise` for UrbanSound8K;
    mirrors: URLs of folders that hold `<subset>.tar.gz`, in the order of trial; checksums:
    subset -> MD5; progress: print the licence, and bars. Returns `<dest>/<subset>`, which is left
    alone if it is there already. The same call resumes a broken transfer. Raises DownloadError:
    unknown subset, too little disk, dead mirrors, wrong checksum, archive unsafe to unpack.
    """
    if subset not in MD5:
        raise DownloadError(f"{subset}: unknown; choose from {', '.join(MD5)}")
    dest = Path(dest).expanduser().resolve()
    if (dest / subset).exists():
        if progress:
            print(f"{dest / subset} is already there and was left alone")
        return dest / subset
    if progress:
        print(f"{subset}: licence {home(subset).licence}")
    mirrors = home(subset).mirrors if mirrors is None else mirrors
    work = work_folder(dest)
    try:
        check_disk(subset, work)
        archive = fetch(subset, work, mirrors, checksums[subset], progress)
        unpack(archive, subset, dest, progress)
        archive.unlink()
    except OSError as error:
        raise DownloadError(f"{subset}: {error}; see to that and run it again") from error
    finally:
        with contextlib.suppress(OSError):  # it stays while something in it can be resumed
            work.rmdir()
    return dest / subset


def home(subset: str) -> Home:
    """LibriSpeech's, but for what has another."""
    return HOMES.get(subset, LIBRISPEECH)


def work_folder(dest: Path) -> Path:
    """Where archives lie and are unpacked: on the disk of `dest`, but where no reader looks."""
    return (dest if dest.is_mount() else dest.parent) / f".{dest.name}.partial"


def check_disk(subset: str, work: Path) -> None:
    """Raise DownloadError, before anything is sent, if the disk cannot hold the subset."""
    have = sum(path.stat().st_size for path in work.glob(f"{subset}.tar.gz*"))
    need = SPACE_FACTOR * SIZES[subset] - have
    free = shutil.disk_usage(next(p for p in (work, *work.parents) if p.exists())).free
    if free < need:
        raise DownloadError(
            f"{subset}: {need / 1e9:.1f} GB needed for the archive and its contents, "
            f"{free / 1e9:.1f} GB free in {work.parent}; make room or choose another folder"
        )


def fetch(subset: str, work: Path, mirrors: Sequence[str], md5: str, progress: bool) -> Path:
    """The subset's archive in `work`, complete and with the right MD5.

    Raises DownloadError after deleting an archive whose MD5 is wrong.
    """
    archive = work / f"{subset}.tar.gz"
    work.mkdir(parents=True, exist_ok=True)
    if not archive.exists():
        part = archive.with_name(f"{archive.name}.part")
        transfer(archive.name, part, mirrors, progress)
        part.replace(archive)
    with archive.open("rb") as file:
        got = hashlib.file_digest(file, "md5").hexdigest()
    if got != md5:
        archive.unlink()
        raise DownloadError(
            f"{archive.name}: wrong checksum, MD5 expected {md5}, got {got}; "
            "the archive was deleted, run the download again"
        )
    return archive


def transfer(name: str, part: Path, mirrors: Sequence[str], progress: bool) -> None:
    """Bring the whole of `name` into `part`, from whichever mirrors are up.

    When one fails, the next continues the same `part`; after the last comes a wait and the
    first again. Raises DownloadError when all rounds failed.
    """
    failure = "there is no mirror to ask"
    for wait in RETRY_WAITS:
        time.sleep(wait)
        for mirror in mirrors:
            try:
                return resume(f"{mirror.rstrip('/')}/{name}", part, progress)
            except requests.RequestException as error:
                failure = f"{mirror}: {error}"
                if progress:
                    tqdm.write(f"{failure}; trying elsewhere")
    have = part.stat().st_size if part.exists() else 0
    raise DownloadError(
        f"{name}: no mirror sent all of it (last, {failure}); "
        f"run it again to go on from {have / 1e6:.1f} MB"
    )


def resume(url: str, part: Path, progress: bool) -> None:
    """Append to `part` what it lacks of `url` (HTTP Range, RFC 9110, 14.2).

    A server that ignores Range sends all of it again, and `part` starts anew. Raises
    requests.RequestException when the server refuses or the connection breaks.
    """
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing is left to send
        response.raise_for_status()
        start = have if response.status_code == requests.codes.partial_content else 0
        total = start + int(response.headers.get("Content-Length", 0))
        bar = tqdm(total=total, initial=start, unit="B", unit_scale=True, disable=not progress)
        bar.set_description(part.stem)
        with part.open("ab" if start else "wb") as file, bar:
            for chunk in response.iter_content(CHUNK):
                bar.update(file.write(chunk))


def unpack(archive: Path, subset: str, dest: Path, progress: bool) -> None:
    """Unpack beside `dest`, then move into it: files that all subsets share, then the subset.

    Raises DownloadError after deleting an archive that lacks the subset, or that has a member
    which would land outside.
    """
    folder = archive.with_name(f"{subset}.unpacked")
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    try:
        with tarfile.open(archive) as tar:
            tar.extraction_filter = getattr(tarfile, "data_filter", None)  # from Python 3.11.4 on
            members = members_inside(tar, folder)
            members = tqdm(members, desc=f"unpack {subset}", unit=" files", disable=not progress)
            tar.extractall(folder, members)
        top = folder / home(subset).inside
        if not (top / subset).is_dir():
            raise tarfile.ReadError(f"there is no {(top / subset).relative_to(folder)} in it")
        install(top, subset, dest)
    except tarfile.TarError as error:
        archive.unlink()
        raise DownloadError(
            f"{archive.name}: not unpacked ({error}); the archive was deleted, distrust its mirror"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def members_inside(tar: tarfile.TarFile, folder: Path) -> Iterator[tarfile.TarInfo]:
    """The files and folders of an archive, as the "data" filter of PEP 706 lets them pass.

    Python before 3.11.4 has no such filter. Raises tarfile.ReadError at a member that would land
    outside `folder`, or is a link or a device.
    """
    for member in tar:
        lands = (folder / member.name).resolve()
        if not lands.is_relative_to(folder.resolve()) or not (member.isfile() or member.isdir()):
            raise tarfile.ReadError(f"{member.name} may land outside")
        yield member


def install(folder: Path, subset: str, dest: Path) -> None:
    """Move `<folder>/<subset>` into `dest` in one step, after the text files missing there."""
    dest.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.iterdir()):
        if path.is_file() and not (dest / path.name).exists():
            path.rename(dest / path.name)
    (folder / subset).rename(dest / subset)
