"""Recordings: which ones are meant, and each as a stream of samples.

Whatever soundfile reads, however long it is, comes out as mono blocks at the
model's sample rate; never more than a block is in memory. What cannot be
streamed (a pipe) is first copied to a temporary file, because most formats
need to seek. What soundfile does not read (the sound of a video, say) is
decoded into one by PyAV or by ffmpeg, where one of them is installed.

Utterances to measure on are read whole, before anything is timed, so that a
slow disk is not taken for a slow model.

Axes: B utterances of a batch, S samples, C channels.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
import torch
from torch import Tensor
from torchaudio.transforms import Resample

from speechbrain_ee.data.audio import AudioReader, mixed_down
from speechbrain_ee.data.manifests import (
    FLOAT_SUBTYPES,
    Clip,
    check_rows,
    read_manifest,
)
from speechbrain_ee.data.words import TranscriptCheck
from speechbrain_ee.errors import InputError, one_line

logger = logging.getLogger(__name__)

STDIN = "-"
BLOCK_SAMPLES = 1 << 18  # over all channels: 1 MiB as float32
RATES_HZ = (1000, 768_000)  # outside, a header is broken rather than unusual

# libsndfile's largest number of frames stands for "not known": a FLAC file
# that was written to a pipe. Its end shows as a failure to seek.
UNKNOWN_FRAMES = 1 << 62
BAD_SEEK = 39
# Programs that write WAV to a pipe announce the largest size they can.
STREAMED_BYTES = 0x7FFFF000
# Header, table of 255 segments, 255 bytes each.
OGG_PAGE_BYTES = 27 + 255 + 255 * 255
SIZE_MISMATCH = re.compile(r": (\d+) \(should be (\d+)\)")
WAV_HEADER_BYTES = 1 << 16  # no chunk in front of the sound is longer

# What is taken for a recording that soundfile may not read, by its name.
MEDIA_SUFFIXES = frozenset(
    ".3g2 .3gp .aac .ac3 .amr .ape .asf .avi .awb .flv .m4a .m4b .m4v .mka "
    ".mkv .mov .mp2 .mp4 .mpeg .mpg .mpga .tta .webm .wma .wmv .wv".split()
)
# Nothing that names other files or addresses: playlists, lists of parts.
DEMUXERS = (
    "aac,ac3,amr,amrnb,amrwb,ape,asf,avi,eac3,flv,matroska,webm,mov,mp4,m4a,"
    "3gp,3g2,mj2,mp3,mpeg,tta,wav,wv"
)
DECODERS = (
    "install speechbrain-ee with its extra `media` (PyAV), or ffmpeg; or "
    "convert it to WAV or FLAC."
)
NO_AUDIO = (
    "is no audio in a known format, or damaged; repair it, or convert it to "
    "WAV or FLAC."
)
MEDIA_TOLERANCE_S = 1.0  # containers round, encoders add and take a little
# What samples of a type are divided by, and what is zero in it.
INTEGERS = {
    torch.uint8: (128, 128),
    torch.int16: (1 << 15, 0),
    torch.int32: (1 << 31, 0),
}
# What is taken from folders; a file that is named may be called anything.
SUFFIXES = MEDIA_SUFFIXES | frozenset(
    ".aif .aiff .au .caf .flac .mp3 .nist .oga .ogg .opus .rf64 .sph .snd "
    ".w64 .wav".split()
)
# Both sides of the ratio of two sample rates stay below this: 48000 -> 16000
# is 3 : 1 and 44100 -> 16000 is 441 : 160. A rate like 47999 would need
# filters of gigabytes; it is taken for its neighbour, 0.1 s off in an hour.
MAX_TERM = 2000


def shown(name: str | Path) -> str:
    """A file's name for messages and outputs: on one line, valid Unicode.

    Bytes that are not UTF-8, line breaks and other control characters are
    written as escapes.

    Example
    -------
    >>> print(shown("a\\nb.wav"), shown(os.fsdecode(b"n\\xff.wav")))
    a\\nb.wav n\\xff.wav
    """
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(
        each.encode("unicode_escape").decode("ascii")
        if unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp")
        else each
        for each in text
    )


@dataclass(frozen=True)
class Recording:
    """What to transcribe, and its name in the output."""

    id: str
    path: str  # of samples in memory, what messages call them
    samples: Any = None
    held: bool = False  # whether it is samples in memory and no file


def find_recordings(inputs: Sequence[str]) -> list[Recording]:
    """The recordings that files, folders and ``-`` stand for.

    In the order given, each file once; folders are searched with all below
    them, hidden ones left out. Names are paths within the folder or names of
    files, without suffix where that is enough to tell them apart. Whether a
    file can be read is not looked at.
    """
    found: dict[str, tuple[str, Path]] = {}
    for path, name in _named(inputs):
        key = STDIN if path == STDIN else os.path.realpath(path)
        if key in found:
            logger.warning(
                "%s: the same recording as %s; it is transcribed once.",
                shown(path),
                shown(found[key][0]),
            )
        found.setdefault(key, (path, name))
    paths = [path for path, _ in found.values()]
    names = [name for _, name in found.values()]
    # The shortest kind of names that tells all apart.
    kinds = (
        [name.with_suffix("").as_posix() for name in names],
        [name.as_posix() for name in names],
        [key.lstrip(os.sep) for key in found],
    )
    ids = next(kind for kind in kinds if len({*kind}) == len(kind))
    return [Recording(*pair) for pair in zip(ids, paths)]


def _named(inputs: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Every file that is meant, and its name."""
    for each in inputs:
        if each == STDIN:
            yield STDIN, Path("stdin")
        elif os.path.isdir(each):
            for path in audio_below(each):
                yield str(path), path.relative_to(each)
        else:
            yield each, Path(Path(each).name)


def audio_below(
    folder: str | Path, suffixes: frozenset[str] = SUFFIXES
) -> list[Path]:
    """Audio files of a folder by their suffixes, hidden ones left out."""
    found = []
    for parent, folders, files in os.walk(folder, onerror=_left_out):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for path in (Path(parent, name) for name in files):
            if path.suffix.lower() not in suffixes or path.name[0] == ".":
                continue
            # On a pipe or a device a run would wait forever.
            if path.exists() and not path.is_file():
                logger.warning(
                    "%s: is not a regular file and is left out; name it to "
                    "have it read.",
                    shown(path),
                )
                continue
            found.append(path)
    if not found:
        raise InputError(
            f"{shown(folder)}: holds no audio; files with the suffixes "
            f"{' '.join(sorted(suffixes))} are taken from folders."
        )
    return sorted(found)


def _left_out(error: OSError) -> None:
    logger.warning(
        "%s: cannot be searched (%s); what is in it is left out.",
        shown(error.filename),
        error.strerror,
    )


def as_wave(samples: Any, name: str, sample_rate: int) -> torch.Tensor:
    """Samples as a model hears them: shape (samples,), float32.

    Taken are one channel of shape (samples,), (1, samples) or (samples, 1):
    numbers between -1 and 1, or integers of 8 (unsigned), 16 or 32 bits.
    Name and rate are for messages.

    Example
    -------
    >>> as_wave(np.array([[-32768, 16384]], np.int16), "audio", 16000)
    tensor([-1.0000,  0.5000])
    """
    try:
        wave = torch.as_tensor(samples)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            f"{name}: a {type(samples).__name__}; give a file, or samples as "
            "a tensor or an array, or a list of these."
        ) from None
    if wave.dim() == 2 and 1 in wave.shape:
        wave = wave.flatten()
    if wave.dim() != 1 or not len(wave):
        raise InputError(
            f"{name}: samples of shape {tuple(wave.shape)}; give one "
            "channel of at least one sample, shape (samples,), at "
            f"{sample_rate} Hz."
        )
    if wave.dtype in INTEGERS:
        full, zero = INTEGERS[wave.dtype]
        return ((wave.double() - zero) / full).float()
    if not wave.is_floating_point():
        raise InputError(
            f"{name}: samples of type {wave.dtype}; give floating-point "
            "numbers between -1 and 1, or 16-bit integers."
        )
    wave = wave.detach().float()
    if not torch.isfinite(wave).all():
        raise InputError(
            f"{name}: some samples are not finite (NaN or infinite); "
            "repair the recording, or leave it out."
        )
    return wave


class SampleStream(AbstractContextManager):
    """Samples in memory, used like an :class:`AudioStream`."""

    fault: str | None = None

    def __init__(self, wave: Tensor, sample_rate: int):
        self._wave = wave.cpu().numpy()
        self.announced_s = len(self._wave) / sample_rate

    def __iter__(self) -> Iterator[np.ndarray]:
        yield self._wave

    def __exit__(self, *error: object) -> None:
        pass


class AudioStream(AbstractContextManager):
    """A file, a pipe or ``-`` (standard input) as blocks of samples.

    Iterate for float32 mono blocks at ``sample_rate`` (Hz). ``channel``, from
    1, is the one that is heard; by default all are averaged, and where they
    cancel each other the loudest is taken, with a warning. A recording that
    breaks off gives what can be decoded of it; then ``fault`` says what is
    missing.
    """

    def __init__(
        self, path: str | Path, sample_rate: int, channel: int | None = None
    ):
        self.path = str(path)
        self.name = "standard input" if self.path == STDIN else shown(path)
        self.sample_rate = sample_rate
        self.channel = channel
        self.fault: str | None = None
        self._broken: str | None = None  # why decoding ended, if too early
        self._warned = False
        with ExitStack() as files:
            self._files = files
            self._file = files.enter_context(self._source())
            self._audio = files.enter_context(self._open())
            self._check()
            self._files = files.pop_all()

    @property
    def announced_s(self) -> float | None:
        """Duration that the header announces in seconds, if it does."""
        if self._audio.frames >= UNKNOWN_FRAMES:
            return None
        return self._audio.frames / self._audio.samplerate

    def __iter__(self) -> Iterator[np.ndarray]:
        return resampled(self._mono(), self._audio.samplerate, self.sample_rate)

    def __exit__(self, *error: object) -> None:
        self._files.close()

    def _source(self) -> BinaryIO:
        """A plain file, or a copy of what a pipe says."""
        if self.path == STDIN:
            if sys.stdin.isatty():
                raise InputError(
                    "-: standard input is the keyboard; send a recording "
                    "through a pipe, or name a file."
                )
            return _copied(sys.stdin.buffer)
        try:
            file = open(self.path, "rb")
            if not Path(self.path).is_fifo():
                return file
            with file:
                return _copied(file)
        except OSError as error:
            reason = (
                f"cannot be opened ({error.strerror}); check the path and "
                "the right to read it."
            )
            if os.path.isdir(self.path):
                reason = (
                    "is a folder (Is a directory); give its files, or give "
                    "it to the command `transcribe`."
                )
            raise InputError(f"{self.name}: {reason}") from None

    def _open(self) -> soundfile.SoundFile:
        try:
            audio = _sound(self._file)
        except (TypeError, soundfile.SoundFileError):
            # TypeError: soundfile asks for the format of a name in .raw.
            self._file = self._files.enter_context(self._decoded())
            try:
                audio = _sound(self._file)
            except soundfile.SoundFileError:
                raise InputError(f"{self.name}: {NO_AUDIO}") from None
        return audio if audio.frames else self._unsized(audio)

    def _check(self) -> None:
        audio = self._audio
        if audio.frames == 0:
            raise InputError(f"{self.name}: holds no audio; leave it out.")
        lowest, highest = RATES_HZ
        if not lowest <= audio.samplerate <= highest:
            raise InputError(
                f"{self.name}: its header says {audio.samplerate} Hz, which "
                f"is not a recording's sample rate ({lowest} to {highest} "
                "Hz); repair or convert it."
            )
        if self.channel is not None and self.channel > audio.channels:
            raise InputError(
                f"{self.name}: has {audio.channels} channel(s), and channel "
                f"{self.channel} is wanted; choose another, or none for the "
                "average of all."
            )

    def _decoded(self) -> BinaryIO:
        """The sound that another decoder finds in a file."""
        with_av = find_spec("av") is not None
        if not with_av and shutil.which("ffmpeg") is None:
            if Path(self.path).suffix.lower() in MEDIA_SUFFIXES:
                raise InputError(
                    f"{self.name}: is in a format that needs another "
                    f"decoder; {DECODERS}"
                )
            # libsndfile's own reasons mislead, an MP3 "does not exist".
            raise InputError(f"{self.name}: {NO_AUDIO}")
        target = tempfile.TemporaryFile()
        self._file.seek(0)
        decode = _decode_with_av if with_av else _decode_with_ffmpeg
        self._broken = decode(self._file, target)
        return target

    def _unsized(self, audio: soundfile.SoundFile) -> soundfile.SoundFile:
        """A WAV whose sizes were never filled in, read to its end.

        Programs that write to a pipe may leave 0 in the header. An empty WAV
        has 0 for the sound, too; there the size of the whole is right.
        """
        number = self._file.fileno()
        header = os.pread(number, WAV_HEADER_BYTES, 0)
        place = 12
        while header[place : place + 4] not in (b"data", b""):
            place += 8 + _size(header, place + 4)
            place += place % 2
        begins = place + 8
        if (
            audio.format not in ("WAV", "WAVEX")
            or _size(header, place + 4)
            or begins >= os.fstat(number).st_size
            or _size(header, 4) + 8 > begins
        ):
            return audio
        self._file.seek(0)
        self._file = self._files.enter_context(_copied(self._file))
        for at in (4, place + 4):
            os.pwrite(self._file.fileno(), b"\xff" * 4, at)
        return _sound(self._file)

    def _mono(self) -> Iterator[np.ndarray]:
        """Blocks of one channel, at the file's own rate."""
        audio, rate = self._audio, self._audio.samplerate
        is_float = audio.subtype in FLOAT_SUBTYPES
        frames = max(BLOCK_SAMPLES // audio.channels, 1)
        read, goes_on, broken = 0, True, False
        while goes_on:
            # Where decoding fails soundfile does not say how far it came: the
            # rest of the block still is what it was before.
            block_SC = np.full((frames, audio.channels), np.nan, np.float32)
            try:
                block_SC = audio.read(out=block_SC)
                goes_on = len(block_SC) == frames
            except soundfile.LibsndfileError as error:
                missing = np.append(np.isnan(block_SC).any(axis=1), True)
                block_SC = block_SC[: missing.argmax()]
                goes_on = False
                broken = self.announced_s is not None or error.code != BAD_SEEK
            if is_float and not np.isfinite(block_SC).all():
                place = read + np.isfinite(block_SC).all(axis=1).argmin()
                raise InputError(
                    f"{self.name}: holds samples that are not finite, the "
                    f"first at {place / rate:.2f} s; repair it."
                )
            if len(block_SC):
                yield self._one_channel(block_SC, read / rate)
            read += len(block_SC)
        self._judge_end(read, broken)

    def _one_channel(self, block_SC: np.ndarray, at_s: float) -> np.ndarray:
        if self.channel is not None:
            return np.ascontiguousarray(block_SC[:, self.channel - 1])
        mono, taken = mixed_down(block_SC)
        if taken is not None and not self._warned:
            self._warned = True
            logger.warning(
                "%s: from %.2f s on its channels cancel each other "
                "(antiphase), so channel %d is taken there; --channel chooses "
                "one for the whole recording.",
                self.name,
                at_s,
                taken,
            )
        return mono

    def _judge_end(self, read: int, broken: bool) -> None:
        """Set ``fault`` if more was announced than there is."""
        rate = self._audio.samplerate
        if read == 0:
            raise InputError(
                f"{self.name}: no sample of it can be decoded; repair it."
            )
        read_s, announced_s = read / rate, self.announced_s or 0.0
        for said, there in SIZE_MISMATCH.findall(self._audio.extra_info):
            if int(there) < int(said) < STREAMED_BYTES and int(there):
                part_s = read_s * int(said) / int(there)
                announced_s = max(announced_s, part_s)
        if self._broken is not None:
            self.fault = f"breaks off after {read_s:.2f} s ({self._broken})"
        elif broken and self.announced_s is None:
            self.fault = f"cannot be decoded beyond {read_s:.2f} s"
        elif broken or read < announced_s * rate - 1:
            self.fault = (
                f"breaks off: {announced_s:.2f} s announced, {read_s:.2f} "
                "s decoded"
            )
        elif self._audio.format == "OGG" and not self._has_last_page():
            self.fault = f"breaks off after {read_s:.2f} s"

    def _has_last_page(self) -> bool:
        """Is the last page of an Ogg file marked as the last? (RFC 3533)"""
        number = self._file.fileno()
        begin = max(os.fstat(number).st_size - OGG_PAGE_BYTES, 0)
        tail = os.pread(number, OGG_PAGE_BYTES, begin)
        header = tail.rpartition(b"OggS")[2]
        return len(header) > 1 and bool(header[1] & 4)


def _size(header: bytes, at: int) -> int:
    """A size in the header of a WAV."""
    return int.from_bytes(header[at : at + 4], "little")


def _copied(source: BinaryIO) -> BinaryIO:
    """What is left of a file, in a temporary one."""
    copy = tempfile.TemporaryFile()
    shutil.copyfileobj(source, copy, BLOCK_SAMPLES)
    copy.seek(0)
    return copy


def _sound(file: BinaryIO) -> soundfile.SoundFile:
    """Open a file by its name, a temporary one by its number."""
    if isinstance(file.name, str):
        # As bytes: soundfile takes no name that is not valid Unicode.
        return soundfile.SoundFile(os.fsencode(file.name))
    file.seek(0)
    return soundfile.SoundFile(file.fileno(), closefd=False)


def open_recording(
    recording: Recording, sample_rate: int, channel: int | None = None
) -> AudioStream | SampleStream:
    """A file, a part of one (:mod:`speechbrain_ee.data.manifests`) or samples in
    memory as a stream of samples.
    """
    path = recording.path
    if recording.held:
        wave = as_wave(recording.samples, path, sample_rate)
        return SampleStream(wave, sample_rate)
    if Clip.parse(path) is not None:
        return SampleStream(AudioReader(sample_rate)(path), sample_rate)
    return AudioStream(path, sample_rate, channel)


def _decode_with_av(source: BinaryIO, target: BinaryIO) -> str | None:
    """Decode with PyAV into 16 bits; returns why it ended, if too early."""
    import av

    options = {"format_whitelist": DEMUXERS, "protocol_whitelist": "file"}
    packed = av.AudioResampler(format="s16")
    audio = None
    announced_s, decoded_s = 0.0, 0.0
    try:
        with av.open(source, options=options) as container:
            if not container.streams.audio:
                return None
            sound = container.streams.audio[0]
            if sound.duration is not None:
                announced_s = float(sound.duration * sound.time_base)
            elif len(container.streams) == 1 and container.duration:
                announced_s = container.duration / av.time_base
            for frame in container.decode(sound):
                for part in packed.resample(frame):
                    samples = part.to_ndarray().reshape(part.samples, -1)
                    rate, channels = part.sample_rate, samples.shape[1]
                    if audio is None:  # W64 has no limit of 4 GB
                        form = {"subtype": "PCM_16", "format": "W64"}
                        audio = soundfile.SoundFile(
                            target, "w", rate, channels, **form
                        )
                    audio.write(samples)
                    decoded_s += len(samples) / rate
    except av.FFmpegError as error:
        return one_line(error)
    finally:
        if audio is not None:
            audio.close()
    if decoded_s < announced_s - MEDIA_TOLERANCE_S:
        return f"{announced_s:.2f} s announced"
    return None


def _decode_with_ffmpeg(source: BinaryIO, target: BinaryIO) -> str | None:
    """Decode with ffmpeg into 16 bits; returns why it ended, if too early."""
    number = source.fileno()  # no name that ffmpeg could take for an option
    found = subprocess.run(
        ["ffmpeg", "-nostdin", "-v", "error", "-xerror"]
        + ["-format_whitelist", DEMUXERS, "-protocol_whitelist", "file"]
        + ["-i", f"file:/dev/fd/{number}", "-map", "0:a:0"]
        + ["-c:a", "pcm_s16le", "-f", "wav", "pipe:1"],
        stdin=subprocess.DEVNULL,
        stdout=target,
        stderr=subprocess.PIPE,
        pass_fds=[number],
    )
    if not found.returncode:
        return None
    return " ".join(found.stderr.decode("utf-8", "replace").split())[:200]


def resampled(
    blocks: Iterable[np.ndarray], old_hz: int, new_hz: int
) -> Iterator[np.ndarray]:
    """Resample a stream; equal to resampling the whole of it at once.

    The filter of :class:`torchaudio.transforms.Resample` reaches ``width``
    old samples to either side. Every block is therefore resampled with that
    much of its neighbours, which is cut off again.
    """
    old, new = _ratio(old_hz, new_hz)
    if old == new:
        yield from blocks
        return
    resample = Resample(old, new)
    # Units are `old` samples, so that the grid stays the same.
    context = math.ceil(resample.width / old)
    done = 0  # units at the buffer's head that are context only
    buffer = np.zeros(0, dtype=np.float32)
    for block in blocks:
        buffer = np.concatenate([buffer, block])
        units = len(buffer) // old
        certain = units - context
        if certain > done:
            out = resample(torch.from_numpy(buffer[: units * old])).numpy()
            yield out[done * new : certain * new]
            kept_from = max(certain - context, 0)
            buffer = buffer[kept_from * old :]
            done = certain - kept_from
    if len(buffer):
        rest = resample(torch.from_numpy(buffer)).numpy()[done * new :]
        if len(rest):
            yield rest


def _ratio(old_hz: int, new_hz: int) -> tuple[int, int]:
    """The ratio of two rates in terms that a filter bank can afford."""
    ratio = Fraction(old_hz, new_hz)
    if max(ratio.numerator, ratio.denominator) > MAX_TERM:
        larger = max(ratio, 1 / ratio)
        larger = larger.limit_denominator(int(MAX_TERM / larger) or 1)
        ratio = larger if ratio > 1 else 1 / larger
    return ratio.numerator, ratio.denominator


# ---- Utterances to measure on --------------------------------------------


@dataclass(frozen=True)
class Spoken:
    """An utterance."""

    id: str
    wav_S: Tensor
    ref: str | None = None  # what was said, if that is known


@dataclass(frozen=True)
class Batch:
    """Utterances of like length, padded."""

    rows: tuple[int, ...]  # places of the utterances in the data
    wavs_BS: Tensor
    wav_lens_B: Tensor  # relative to the longest


def read_spoken(
    data: str | Path,
    sample_rate: int,
    limit: int | None = None,
    tokenizer: Any = None,
) -> tuple[Spoken, ...]:
    """Read a manifest, of which only the column ``wav`` is needed, or all
    audio files of a folder.

    With a limit so many utterances, evenly spread over the data; with the
    tokenizer of a model references are written as it writes them.
    """
    try:
        rows = _rows(Path(data))
    except InputError as error:
        raise InputError(f"--data {error}") from None
    if limit is not None and limit < len(rows):
        rows = [rows[i * len(rows) // limit] for i in range(limit)]
    if tokenizer is not None:
        check = TranscriptCheck(str(data), tokenizer)
        rows = [(*row, ref and check(ref)) for *row, ref in rows]
        check.log()
    reader = AudioReader(sample_rate)
    return tuple(Spoken(id, reader(path), ref) for id, path, ref in rows)


def _rows(data: Path) -> list[tuple[str, str, str | None]]:
    """Name, file and words of every utterance."""
    if data.is_dir():
        formats = soundfile.available_formats()
        known = frozenset(f".{name.lower()}" for name in (*formats, "opus"))
        paths = audio_below(data, known)
        return [(str(p.relative_to(data)), str(p), None) for p in paths]
    rows = read_manifest(data, needed=("wav",))
    check_rows(data, rows)
    return [(name, row["wav"], row.get("wrd")) for name, row in rows.items()]


def batches_of(spoken: Sequence[Spoken], size: int) -> tuple[Batch, ...]:
    """Batches of ``size`` utterances, longest first.

    Example
    -------
    >>> data = [Spoken(str(n), torch.zeros(n)) for n in (4, 9, 8)]
    >>> [(b.rows, b.wav_lens_B.tolist()) for b in batches_of(data, 2)]
    [((1, 2), [1.0, 0.8888888955116272]), ((0,), [1.0])]
    """
    order = sorted(range(len(spoken)), key=lambda i: -len(spoken[i].wav_S))
    batches = []
    for first in range(0, len(order), size):
        rows = tuple(order[first : first + size])
        waves = [spoken[row].wav_S for row in rows]
        wavs_BS = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
        lengths_B = torch.tensor([len(wave) for wave in waves])
        batches.append(Batch(rows, wavs_BS, lengths_B / len(wavs_BS[0])))
    return tuple(batches)
