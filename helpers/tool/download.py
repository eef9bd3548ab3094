"""LibriSpeech from OpenSLR and UrbanSound8K from Zenodo: resumed, checked, unpacked, in place.

Sources: https://www.openslr.org/12 (Panayotov et al., ICASSP 2015), its mirrors and its
`md5sum.txt`; https://zenodo.org/records/1203745 (Salamon et al., ACM MM 2014). The archive and
what is unpacked of it lie in `.<dest>.partial` beside the destination, so that the destination
never holds half a subset. Taught in `01_dataset`.
"""

import contextlib
import hashlib
import os
import shutil
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import requests
from tqdm import tqdm

from helpers import store

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
    unknown subset, too little disk, dead mirrors, wrong checksum, archive unsafe to unpack; and
    store.FileError where another process fetches it, which may take hours to wait for.
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
    mirrors, work = home(subset).mirrors if mirrors is None else mirrors, work_folder(dest)
    try:
        check_disk(subset, work)
        with store.alone(work / subset):
            if not (dest / subset).exists():  # another process may just have finished it
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
    """The subset's archive in `work`, complete and with the right MD5. Raises DownloadError."""
    archive = work / f"{subset}.tar.gz"
    part = archive.with_name(f"{archive.name}.part")
    if archive.exists():
        archive.replace(part)
    if size_of(part) >= SIZES[subset] and md5_of(part) != md5:
        part.unlink()
    if not part.exists() or size_of(part) < SIZES[subset]:
        transfer(part, SIZES[subset], md5, mirrors, progress)
    return part.replace(archive)


def transfer(part: Path, size: int, md5: str, mirrors: Sequence[str], progress: bool) -> None:
    """Bring the whole of an archive, `size` bytes, into `part`, from whichever mirrors are up.

    When one fails, the next continues the same `part`; after the last comes a wait and the first
    again. If the whole has another MD5, what the last mirror added is cut off again, and the next
    continues what was there before. That is thrown away only when no mirror can complete it. A
    mirror that sent all of it, and wrong, is asked no more. Raises DownloadError when all failed.
    """
    name, mirrors, failure = part.name.removesuffix(".part"), list(mirrors), "no mirror to ask"
    doubted = set()  # mirrors with which the part that is here is not the archive
    for wait in RETRY_WAITS:
        time.sleep(wait)
        for mirror in [one for one in mirrors if one not in doubted]:
            before = size_of(part)
            try:
                resume(f"{mirror.rstrip('/')}/{name}", part, size, progress)
                if (got := md5_of(part)) == md5:
                    return
                failure = f"{mirror}: wrong checksum, MD5 expected {md5}, got {got}"
                os.truncate(part, before)
                doubted.add(mirror) if before else mirrors.remove(mirror)
            except requests.RequestException as error:
                failure = f"{mirror}: {error}"
            if progress:
                tqdm.write(f"{failure}; trying elsewhere")
        if not size_of(part) or (doubted and doubted.issuperset(mirrors)):
            part.unlink(missing_ok=True)
            doubted.clear()
    raise DownloadError(
        f"{name}: no mirror sent all of it (last, {failure}); run the download again to go on from "
        f"{size_of(part) / 1e6:.1f} MB{f', or remove {part} first' if doubted else ''}"
    )


def size_of(path: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def md5_of(path: Path) -> str:
    """MD5 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def resume(url: str, part: Path, size: int, progress: bool) -> None:
    """Append to `part` what it lacks of `url`, an archive of `size` bytes (RFC 9110, 14.2).

    Of a server that ignores Range, and sends all of it again, what is there already is skipped.
    Raises requests.RequestException when the server refuses, announces or sends something else
    than the rest of this archive, or the connection breaks: only then is a part of it kept.
    """
    have = size_of(part)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        response.raise_for_status()
        skip = have - check_answer(response, have, size)
        bar = tqdm(total=size, initial=have, unit="B", unit_scale=True, disable=not progress)
        bar.set_description(part.stem)
        with part.open("ab") as file, bar:
            for chunk in response.iter_content(CHUNK):
                new = chunk[skip:][: size - file.tell()]
                skip -= min(skip, len(chunk))
                bar.update(file.write(new))
                if file.tell() == size:
                    return
    os.truncate(part, have)
    raise requests.RequestException("it ended too early")


def check_answer(response: requests.Response, have: int, size: int) -> int:
    """The byte of an archive of `size` bytes that an answer begins with: `have`, or 0.

    Raises requests.RequestException for an answer that is no such archive by its own account.
    """
    told = response.headers
    is_part = response.status_code == requests.codes.partial_content
    first = have if is_part else 0
    if is_part and not told.get("Content-Range", "").startswith(f"bytes {first}-{size - 1}/"):
        raise requests.RequestException(f"it sent the range {told.get('Content-Range')!r}")
    if (length := told.get("Content-Length", str(size - first))) != str(size - first):
        raise requests.RequestException(f"it has {length} bytes, not {size - first}")
    if told.get("Content-Encoding", "identity") != "identity":
        raise requests.RequestException(f"it sent an encoding, {told['Content-Encoding']}")
    if "html" in told.get("Content-Type", ""):
        raise requests.RequestException("it sent a page")
    return first


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
