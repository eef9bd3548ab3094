"""Opening sounds, whatever people bring: one `Reader` that gives blocks to the true end.

libsndfile reads most files, PyAV (FFmpeg), where it is installed, the others. libsndfile believes
lengths that some files do not have: it stops at the first of several sounds that stand in one
file, guesses how long an MP3 without a Xing header is, and takes a WAV header at its word that a
crashed recorder never completed. Such a file is shown to it in `Part`s that it reads right.
"""

import contextlib
import dataclasses
import io
import mmap
import os
import re
import struct
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile as sf

from helpers.store import FileError

FFMPEG = {".m4a", ".m4b", ".aac", ".mp4", ".mov", ".mkv", ".webm", ".wma", ".wv", ".amr", ".3gp"}
FFMPEG_START = re.compile(  # MP4, Matroska, ASF, WavPack, AMR, AAC; codecs in WAV, Ogg, AIFF, CAF
    rb"....ftyp|\x1aE\xdf\xa3|0&\xb2u|wvpk|#!AMR|\xff[\xf0\xf1\xf8\xf9]|RIFF|OggS|FORM|caff|fLaC",
    re.DOTALL,
)
INSTALL = "`pip install -r requirements-formats.txt`"
HEADERLESS = {".vox": "VOX_ADPCM", ".gsm": "GSM610"}  # libsndfile's names; 8000 Hz, mono
UNKNOWABLE = {".raw", ".pcm"}  # samples without a header, of any rate and kind
ENDINGS = {f".{name.lower()}" for name in sf.available_formats()} | {".aif", ".opus", ".oga"}
ENDINGS -= {".raw", ".mat4", ".mat5"}  # not what a reader means by the sounds in a folder
ENDINGS |= {".mp2"} | FFMPEG | set(HEADERLESS)
CUT_SHORT = re.compile(r"(?:data|SSND|Data Size) *: (\d+) \(should be (\d+)\)")  # WAV, AIFF, AU
STREAMED = 0x7FFFF000  # bytes; a header of this length or more was written before its data
UNKNOWN = 2**63 - 1  # libsndfile's number of samples, or of bytes, where nothing says it
SLACK_SECONDS = 0.1  # less sound than a header says is taken as it is, with a note
FFMPEG_SLACK_SECONDS = 0.5  # the same where FFmpeg reads: coarse clocks, and video beside the sound


class AudioError(FileError):
    """A sound that cannot be read or written; the message names its file and the remedy."""


class AudioWarning(UserWarning):
    """A sound that is not as its header says, and what was made of it; names its file."""


def spelled(path: Path) -> Path | bytes:
    """A path as soundfile takes it: in bytes, where its name is not UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return os.fsencode(path)
    return path


def audio_files(folder: Path, unreadable: list[Path] | None = None) -> list[Path]:
    """Sorted files below a folder whose endings are those of sounds, readable here or not: those
    of `files_below`.
    """
    return files_below(folder, lambda path: path.suffix.lower() in ENDINGS, unreadable)


def files_below(
    folder: Path, is_wanted: Callable[[Path], bool], unreadable: list[Path] | None = None
) -> list[Path]:
    """Sorted files below a folder.

    Names that begin with a dot are left out, of files and of folders. Links to folders are
    followed, but not to one that holds them. Folders that cannot be read are put into
    `unreadable`; without such a list AudioError is raised.
    """
    found, waiting = [], [(Path(folder), ())]
    while waiting:
        place, above = waiting.pop()
        try:
            here = place.stat()
            entries = list(os.scandir(place))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            if unreadable is None:
                reason = f"cannot be read ({error.strerror})"
                raise AudioError(f"{place}: {reason}; make it readable or move it away") from error
            unreadable.append(place)
            continue
        known = (here.st_dev, here.st_ino)
        if known in above:
            continue
        for entry in entries:
            path = place / entry.name
            if entry.name.startswith("."):
                continue
            if os.path.isdir(path):
                waiting.append((path, (*above, known)))
            elif is_wanted(path) and os.path.isfile(path):
                found.append(path)
    return sorted(found)


class Reader:
    """A sound that is open for reading.

    `samplerate` in Hz, `channels`, `subtype` (how samples are stored, in libsndfile's words:
    "PCM_16"), and `frames`: samples of each channel as far as the file says, None where it does
    not, and the true number once all blocks were read.
    """

    def __init__(self, path: Path, samplerate: int, channels: int, subtype: str):
        self.path, self.samplerate, self.channels = path, samplerate, channels
        self.subtype, self.frames = subtype, None
        self.decode: Callable[[int], Iterator[np.ndarray]] = lambda block_length: iter(())
        self.running = contextlib.ExitStack()  # the decoder at work, closed with the reader

    def blocks(self, block_length: int) -> Iterator[np.ndarray]:
        """All of the sound, from its start: float32 `(n, channels)`, n <= `block_length`, no
        block empty.

        Raises AudioError when the sound is damaged, when less of it is there than the file says,
        when it holds NaN or infinity, or nothing at all.
        """
        self.running.close()
        done = 0
        for block in self.running.enter_context(contextlib.closing(self.decode(block_length))):
            if not np.isfinite(block).all():
                raise AudioError(
                    f"{self.path}: holds NaN or infinite samples; export it again as PCM"
                )
            done += len(block)
            yield block
        if done == 0:
            raise AudioError(f"{self.path}: holds no samples; see whether it plays elsewhere")
        self.frames = done

    def close(self) -> None:
        self.running.close()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *error) -> None:
        self.close()


def open_audio(path: Path) -> Reader:
    """Open a sound file for reading, or say in one line why not.

    Raises AudioError for a missing path, a folder, an empty file, one of a kind that cannot be
    read here, or one of which sound is missing. Warns (AudioWarning) where a header is wrong and
    what is there is read all the same.
    """
    path = Path(path)
    if not path.exists():
        raise AudioError(f"{path}: no such file; check the path")
    if path.is_dir():
        raise AudioError(f"{path}: is a folder, not an audio file; name a file in it")
    if path.stat().st_size == 0:
        raise AudioError(f"{path}: the file is empty; copy or record it again")
    if path.suffix.lower() in UNKNOWABLE:
        raise AudioError(
            f"{path}: samples without a header that says their rate and kind; give it one, if it "
            f"is 16-bit mono at 8000 Hz with `sox -t raw -r 8000 -e signed -b 16 -c 1 "
            f"{path.name} {path.stem}.wav`"
        )
    try:
        with open_part(path, Part()) as source:
            if source.frames == UNKNOWN and source.format == "FLAC":  # its end is an error
                return open_with_ffmpeg(path, "its header gives no length")
            parts = PARTS.get(source.format, whole)(path, source)
    except (sf.LibsndfileError, OSError) as error:
        return open_with_ffmpeg(path, str(getattr(error, "error_string", error)).rstrip("."))
    return open_with_sndfile(path, parts)


def note(path: Path, text: str) -> None:
    """Warn that a file is not as it says."""
    warnings.warn(f"{path}: {text}", AudioWarning, stacklevel=2)


# --- libsndfile ---------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Part:
    """What libsndfile is shown as one file: `head`, and then the bytes `start` to `end` (None: of
    the whole file as it is).

    `frames`: how many samples of each channel it must give; None: as many as libsndfile says.
    `hide`: not to tell libsndfile how many bytes there are, so that it reads to the end rather
    than guess from them how many samples they are.
    """

    start: int = 0
    end: int | None = None
    head: bytes = b""
    frames: int | None = None
    hide: bool = False


class Window(io.RawIOBase):
    """A `Part` of a file, as a file."""

    def __init__(self, path: Path, part: Part):
        self.file, self.part, self.at = open(path, "rb"), part, 0  # noqa: SIM115, closed in close
        self.length = len(part.head) + part.end - part.start

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.length}[whence]
        if self.part.hide and (offset, whence) == (0, io.SEEK_END):
            self.at = UNKNOWN  # so that `tell` does not tell
        return self.at

    def tell(self) -> int:
        return self.at

    def readinto(self, buffer) -> int:
        head, start = self.part.head[self.at : self.at + len(buffer)], self.part.start
        if head:
            buffer[: len(head)] = head
            self.at += len(head)
            return len(head)
        place = start + self.at - len(self.part.head)
        wanted = max(0, min(len(buffer), self.part.end - place))
        self.file.seek(min(place, self.part.end))
        n = self.file.readinto(memoryview(buffer)[:wanted])
        self.at += n
        return n

    def close(self) -> None:
        self.file.close()
        super().close()


@contextlib.contextmanager
def open_part(path: Path, part: Part) -> Iterator[sf.SoundFile]:
    """libsndfile's view of a part. Raises sf.LibsndfileError where it knows no such file."""
    if subtype := HEADERLESS.get(path.suffix.lower()):
        with sf.SoundFile(spelled(path), "r", 8_000, 1, subtype, format="RAW") as source:
            yield source
    elif part.end is None:
        with sf.SoundFile(spelled(path)) as source:
            yield source
    else:
        with Window(path, part) as window, sf.SoundFile(window) as source:
            yield source


def open_with_sndfile(path: Path, parts: list[Part]) -> Reader:
    """A reader of parts, one after another. Raises AudioError as `open_audio` does."""
    first, lengths = None, []
    for part in parts:
        try:
            with open_part(path, part) as source:
                found = (source.samplerate, source.channels, source.subtype)
                lengths.append(source.frames if part.frames is None else part.frames)
                check_length(path, source)
        except sf.LibsndfileError as error:
            seconds = sum(lengths) / first[0] if first else 0
            raise AudioError(
                f"{path}: damaged after {seconds:.1f} s; copy it again from its source"
            ) from error
        first = first or found
        if found[:2] != first[:2]:
            raise other_format(path, first[:2], found[:2], sum(lengths[:-1]))
    if path.suffix.lower() in HEADERLESS:
        note(path, "has no header; read as 8000 Hz, mono")
    reader = Reader(path, *first)
    reader.frames = None if UNKNOWN in lengths else sum(lengths)
    reader.decode = lambda block_length: sndfile_blocks(path, parts, block_length)
    return reader


def other_format(path: Path, first: tuple, second: tuple, frames: int) -> AudioError:
    """The error for a file of parts that differ in rate (Hz) or channels."""
    kinds = ["{} Hz with {} channels".format(*kind) for kind in (first, second)]
    seconds = frames / first[0]
    return AudioError(
        f"{path}: changes after {seconds:.1f} s from {kinds[0]} to {kinds[1]}; cut it in two there"
    )


def check_length(path: Path, source: sf.SoundFile) -> None:
    """Raise AudioError when bytes that a WAV, AIFF or AU promises are missing, warn for a few."""
    if short := CUT_SHORT.search(source.extra_info):
        said, found = map(int, short.groups())
        if found < said < STREAMED:
            there = source.frames / source.samplerate
            missing = there * (said - found) / found if found else np.inf
            if missing > SLACK_SECONDS:
                raise AudioError(
                    f"{path}: truncated, {found} of {said} bytes are there; copy it again from "
                    f"its source, or keep what is there: `sox --ignore-length {path.name} OUT.wav`"
                )
            if missing * source.samplerate >= 1:
                note(path, f"ends {missing:.3f} s before its header says; read as far as it goes")


def sndfile_blocks(path: Path, parts: list[Part], block_length: int) -> Iterator[np.ndarray]:
    """What `Reader.blocks` gives, unchecked but for the length of each part."""
    done = 0
    for part in parts:
        with open_part(path, part) as source:
            first, sr = done, source.samplerate
            while True:
                try:
                    block = source.read(block_length, dtype="float32", always_2d=True)
                except (sf.LibsndfileError, RuntimeError) as error:
                    raise AudioError(
                        f"{path}: damaged after {done / sr:.1f} s; copy it again from its source"
                    ) from error
                if len(block) == 0:
                    break
                done += len(block)
                yield block
            said = source.frames if part.frames is None else part.frames
            missing = (said - (done - first)) / sr if said != UNKNOWN else 0
            if missing > (SLACK_SECONDS if source.format == "MP3" else 0):
                raise AudioError(
                    f"{path}: truncated, {done - first} of {said} samples are there; copy it "
                    "again from its source"
                )
            if missing > 0:
                note(path, f"ends {missing:.3f} s before its header says; read as far as it goes")


# --- parts of a file ----------------------------------------------------------------------------


def whole(path: Path, source: sf.SoundFile) -> list[Part]:
    """The file as it is: one part."""
    return [Part()]


def wav_parts(path: Path, source: sf.SoundFile) -> list[Part]:
    """A WAV (RIFF, RF64): as it is, or with its length put right where more sound is there.

    A recorder that crashed, or that wrote to a pipe, leaves a length of 0 or of some earlier
    moment. Raises AudioError for more than the 4 GiB that the header of a WAV can say.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        place, data, said = wav_data(file, size)
        if not data:
            return [Part()]
        if source.subtype.startswith("MPEG"):
            return mpeg_parts(path, source, data, data + min(said, size - data))
        there = size - data
        if said < there and is_sound(file, data + said, first=said == 0):
            if there >= 2**32 and place == data - 4:
                raise AudioError(
                    f"{path}: over 4 GiB, more than its header can say; write it again with "
                    f"`sox --ignore-length {path.name} OUT.flac`"
                )
            file.seek(0)
            head = bytearray(file.read(data))
            kind = "<I" if place == data - 4 else "<Q"
            struct.pack_into(
                kind.replace("<", ">" if head[:4] == b"RIFX" else "<"), head, place, there
            )
            note(path, f"its header says {said} bytes of sound, {there} are there and read")
            return [Part(data, size, bytes(head))]
    return [Part()]


def wav_data(file, size: int) -> tuple[int, int, int]:
    """Where a WAV says how many bytes of sound it has, where they begin, and how many it says.

    Zeros where there is no such chunk.
    """
    order = ">" if file.read(12)[:4] == b"RIFX" else "<"
    place, long = 12, (0, 0)
    while place + 8 <= size:
        file.seek(place)
        name, length = struct.unpack(f"{order}4sI", file.read(8))
        if name == b"ds64":  # of RF64: the lengths in 64 bits (EBU Tech 3306)
            long = place + 16, struct.unpack("<8xQ", file.read(16))[0]
        if name == b"data":
            at_long = length == 2**32 - 1 and long[0]
            return (long[0], place + 8, long[1]) if at_long else (place + 4, place + 8, length)
        place += 8 + length + length % 2
    return 0, 0, 0


def is_sound(file, place: int, first: bool) -> bool:
    """Whether what follows the end that a WAV names is sound: neither chunks, tags nor padding.

    `first`: nothing came before it.
    """
    file.seek(place + (0 if first else place % 2))
    rest = file.read(1 << 20)
    tag = re.match(rb"(TAG|ID3|APETAGEX|[A-Za-z_][A-Za-z0-9_ ]{3})", rest)
    if len(rest) < 8 or (not first and not rest.strip(b"\0")):
        return False
    if not tag or tag[0] in (b"TAG", b"ID3"):
        return not tag
    return int.from_bytes(rest[4:8], "little") > file.seek(0, io.SEEK_END) - place


def ogg_parts(path: Path, source: sf.SoundFile) -> list[Part]:
    """Each of the streams that stand one after another in an Ogg file (*chained*, RFC 3533)."""
    starts, in_header = [], False
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        place = data.find(b"OggS")
        while 0 <= place <= len(data) - 27:
            begins = bool(data[place + 5] & 2)
            if begins and not in_header:
                starts.append(place)
            in_header = begins
            table = data[place + 27 : place + 27 + data[place + 26]]
            place = data.find(b"OggS", place + 27 + len(table) + sum(table))
        ends = [*starts[1:], len(data)]
    parts = [Part(start, end) for start, end in zip(starts, ends, strict=True)]
    return parts if len(parts) > 1 else [Part()]


# MPEG audio, ISO/IEC 11172-3 and 13818-3. Layers I, II, III, of MPEG-1 and of MPEG-2 and 2.5.
BIT_RATES = {  # kbit/s, by index 1 to 14
    (1, 1): range(32, 449, 32),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
BIT_RATES[2, 3] = BIT_RATES[2, 2]
FEWEST_FRAMES = 4  # of a sound; fewer, under 0.1 s, are an encoder's miscount


@dataclasses.dataclass(frozen=True)
class MpegFrame:
    """One frame of MPEG audio: its length in bytes, its samples, their rate in Hz, and whether it
    is mono."""

    length: int
    samples: int
    sr: int
    mono: bool
    version: int  # 1, or 2 for MPEG-2 and 2.5

    @classmethod
    def at(cls, data, place: int) -> "MpegFrame | None":
        """The frame whose header stands at a place, None if none does."""
        head = data[place : place + 4]
        if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE0:
            return None
        slower = {3: 1, 2: 2, 0: 4}.get(head[1] >> 3 & 3)  # MPEG-1, 2, 2.5: share of the rate
        layer, rate, sr = 4 - (head[1] >> 1 & 3), head[2] >> 4, head[2] >> 2 & 3
        if not slower or layer == 4 or not 1 <= rate <= 14 or sr == 3:
            return None
        bits = 1_000 * BIT_RATES[min(slower, 2), layer][rate - 1]
        sr = (44_100, 48_000, 32_000)[sr] // slower
        samples = 384 if layer == 1 else 576 if layer == 3 and slower > 1 else 1_152
        unit = 4 if layer == 1 else 1  # bytes
        length = (samples // 8 * bits // sr // unit + (head[2] >> 1 & 1)) * unit
        return cls(length, samples, sr, head[3] >> 6 == 3, min(slower, 2))

    def is_like(self, other: "MpegFrame | None") -> bool:
        """Whether two can be frames of one sound."""
        facts = (self.samples, self.sr, self.mono)
        return other is not None and facts == (other.samples, other.sr, other.mono)


def mpeg_frames(data, start: int, end: int) -> Iterator[tuple[int, MpegFrame]]:
    """Every frame of MPEG audio between two places in a file, and where it stands.

    What is no frame, such as a tag, is passed over. Behind such, a frame counts where another one
    of its kind follows it.
    """
    place, last = start, None
    while place < end:
        if data[place : place + 3] == b"ID3" and place + 10 <= end:  # an ID3v2 tag
            a, b, c, d = data[place + 6 : place + 10]
            place, last = place + 10 + (a << 21 | b << 14 | c << 7 | d), None
            continue
        one = MpegFrame.at(data, place)
        after = place + one.length if one else 0
        if one and after <= end and (one.is_like(last) or one.is_like(MpegFrame.at(data, after))):
            yield place, one
            place, last = after, one
            continue
        place, last = data.find(b"\xff", place + 1, end), None
        if place < 0:
            return


def xing_frames(data, place: int, one: MpegFrame) -> int | None:
    """How many frames a Xing or LAME header in the frame at a place says that follow it.

    0 where it does not say, None where the frame is sound.
    """
    sides = {(1, False): 32, (1, True): 17, (2, False): 17, (2, True): 9}  # bytes before it
    checked = 0 if data[place + 1] & 1 else 2  # bytes of a checksum
    tag = place + 4 + checked + sides[one.version, one.mono]
    if data[tag : tag + 4] not in (b"Xing", b"Info"):
        return None
    flags, n_frames = struct.unpack(">II", data[tag + 4 : tag + 12])
    return n_frames if flags & 1 else 0


def mpeg_parts(path: Path, source: sf.SoundFile, start: int = 0, end: int = 0) -> list[Part]:
    """Each of the sounds that stand one after another in an MP3 or MP2 file, counted by frames.

    A new one begins at a Xing header, where as many frames have passed as the last one said, and
    where the rate changes. The file is taken as it is where it has one right Xing header.
    `start`, `end`: of the frames in a WAV.
    """
    sounds = []  # [start, frames that are there, frames that Xing says (0: it does not), a frame]
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        end = end or len(data)
        for place, one in mpeg_frames(data, start, end):
            xing = xing_frames(data, place, one)
            is_full = sounds and sounds[-1][1] == sounds[-1][2] > 0
            if xing is not None or not sounds or is_full or not one.is_like(sounds[-1][3]):
                sounds.append([place, 0, xing or 0, one])
            sounds[-1][1] += xing is None
    sounds = [one for one in sounds if one[1] >= FEWEST_FRAMES]
    if not sounds or (len(sounds) == 1 and sounds[0][2] and not start):
        return [Part()]
    ends = [*(one[0] for one in sounds[1:]), end]
    return [
        Part(a, b) if xing else Part(a, b, frames=there * one.samples, hide=True)
        for (a, there, xing, one), b in zip(sounds, ends, strict=True)
    ]


PARTS = {"WAV": wav_parts, "WAVEX": wav_parts, "RF64": wav_parts, "OGG": ogg_parts}
PARTS |= {"MP3": mpeg_parts}


# --- FFmpeg -------------------------------------------------------------------------------------


def __getattr__(name: str):
    """`av`, PyAV of requirements-formats.txt, or None; imported when it is first asked for."""
    if name != "av":
        raise AttributeError(name)
    try:
        import av
    except ImportError:
        av = None
    globals()["av"] = av
    return av


def pyav():
    """The module `av`, None where it is not installed."""
    return sys.modules[__name__].av


def ffmpeg_errors() -> tuple:
    """What PyAV raises."""
    return (pyav().error.FFmpegError,) if pyav() else ()


def open_with_ffmpeg(path: Path, reason: str) -> Reader:
    """A reader of what libsndfile does not know, by PyAV. Raises AudioError, with libsndfile's
    reason, where PyAV is missing or does not know it either.
    """
    with open(path, "rb") as file:
        known = path.suffix.lower() in FFMPEG or FFMPEG_START.match(file.read(12))
    if pyav() is None and known:
        raise AudioError(
            f"{path}: not readable without PyAV ({reason}); {INSTALL}, or convert it to WAV or FLAC"
        )
    try:
        if reader := ffmpeg_reader(path) if pyav() else None:
            return reader
        if known:
            raise AudioError(f"{path}: holds no sound; leave it out")
    except ffmpeg_errors() as error:
        reason = error.strerror if known else reason
    raise AudioError(f"{path}: not readable as audio ({reason}); convert it to WAV or FLAC first")


def open_ffmpeg(path: Path):
    """PyAV's view of a file; titles that are not UTF-8 do no harm."""
    return pyav().open(str(path), metadata_errors="replace")


def ffmpeg_reader(path: Path) -> Reader | None:
    """A reader by PyAV, None for a file without sound. Raises one of `ffmpeg_errors`."""
    with open_ffmpeg(path) as container:
        tracks = container.streams.audio
        first = next(container.decode(tracks[0]), None) if tracks else None
        if first is None:  # what is decoded tells best how the sound is stored
            return None
        if len(tracks) > 1:
            note(path, f"holds {len(tracks)} tracks of sound; the first is read")
        deep = tracks[0].codec_context.codec.lossless and first.format.bytes > 2
        is_float = first.format.name.startswith(("flt", "dbl"))
        subtype = "PCM_16" if not deep else "FLOAT" if is_float else "PCM_24"
        reader = Reader(path, first.sample_rate, first.layout.nb_channels, subtype)
        seconds = promised_seconds(container)
    reader.frames = round(seconds * reader.samplerate) or None
    reader.decode = lambda block_length: ffmpeg_blocks(reader, seconds, block_length)
    return reader


def promised_seconds(container) -> float:
    """The length of its sound that a file says, 0.0 where it says none, or FFmpeg guesses it."""
    stream, name = container.streams.audio[0], container.format.name
    if any(kind in name for kind in ("mov", "asf", "wv")) and stream.duration:
        return float(stream.duration * stream.time_base)
    if "matroska" in name and len(container.streams) == 1 and container.duration:
        return container.duration / pyav().time_base
    return 0.0


def ffmpeg_blocks(reader: Reader, seconds: float, block_length: int) -> Iterator[np.ndarray]:
    """What `Reader.blocks` gives, unchecked but for its length: at least `seconds` if they are
    known, less FFMPEG_SLACK_SECONDS."""
    path, sr, done, waiting = reader.path, reader.samplerate, 0, []
    try:
        for piece in ffmpeg_pieces(reader):
            waiting.append(piece)
            while (n := sum(map(len, waiting))) >= block_length:
                joined = np.concatenate(waiting)
                yield joined[:block_length]
                waiting, done = [joined[block_length:]], done + block_length
    except ffmpeg_errors() as error:
        raise AudioError(
            f"{path}: damaged after {done / sr:.1f} s ({error.strerror}); copy it again from its "
            "source"
        ) from error
    if n := sum(map(len, waiting)):
        yield np.concatenate(waiting)
    if (done + n) / sr < seconds - FFMPEG_SLACK_SECONDS:
        raise AudioError(
            f"{path}: truncated, {(done + n) / sr:.1f} of {seconds:.1f} s are there; copy it again "
            "from its source"
        )


def ffmpeg_pieces(reader: Reader) -> Iterator[np.ndarray]:
    """Float32 `(n, channels)`, of the lengths that the codec gives."""
    kind = (reader.samplerate, reader.channels)
    with open_ffmpeg(reader.path) as container:
        convert = pyav().AudioResampler(format="fltp")
        done = 0
        for frame in container.decode(container.streams.audio[0]):
            now = (frame.sample_rate, frame.layout.nb_channels)
            if now != kind:
                raise other_format(reader.path, kind, now, done)
            for piece in convert.resample(frame):
                done += piece.samples
                yield piece.to_ndarray().T
        for piece in convert.resample(None):
            yield piece.to_ndarray().T
