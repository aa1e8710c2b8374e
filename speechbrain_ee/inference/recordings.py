"""Recordings: which ones are meant, and each as a stream of samples.

Whatever soundfile reads, however long it is, comes out as mono blocks at the
model's sample rate; never more than a block is in memory. What cannot be
streamed (a pipe) is first copied to a temporary file, because most formats
need to seek. What soundfile does not read (the sound of a video, say) is
decoded into one by PyAV or by ffmpeg, where one of them is installed.

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
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
import torch
from torchaudio.transforms import Resample

from speechbrain_ee.data.audio import AudioReader, mixed_down
from speechbrain_ee.data.manifests import FLOAT_SUBTYPES, Clip
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

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> for name in ("b.wav", "a.flac", "notes.md"):
    ...     (folder / name).touch()
    >>> [recording.id for recording in find_recordings([str(folder)])]
    ['a', 'b']
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
            for path in _audio_below(each):
                yield str(path), path.relative_to(each)
        else:
            yield each, Path(Path(each).name)


def _audio_below(folder: str) -> list[Path]:
    found = []
    for parent, folders, files in os.walk(folder, onerror=_left_out):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        found += [
            Path(parent, name)
            for name in files
            if Path(name).suffix.lower() in SUFFIXES
            and not name.startswith(".")
            and not _is_special(Path(parent, name))
        ]
    if not found:
        raise InputError(
            f"{shown(folder)}: holds no audio; files with the suffixes "
            f"{' '.join(sorted(SUFFIXES))} are taken from folders."
        )
    return sorted(found)


def _left_out(error: OSError) -> None:
    logger.warning(
        "%s: cannot be searched (%s); what is in it is left out.",
        shown(error.filename),
        error.strerror,
    )


def _is_special(path: Path) -> bool:
    """Is it a pipe or a device, on which a run would wait forever?"""
    special = path.exists() and not path.is_file()
    if special:
        logger.warning(
            "%s: is not a regular file and is left out; name it to have it "
            "read.",
            shown(path),
        )
    return special


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

    def __init__(self, samples: Any, name: str, sample_rate: int):
        self._wave = as_wave(samples, name, sample_rate).cpu().numpy()
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

    Example
    -------
    >>> path = getfixture("tmp_path") / "stereo.flac"
    >>> soundfile.write(path, np.zeros((44100, 2)), 44100)
    >>> with AudioStream(path, 16000) as audio:
    ...     print(audio.announced_s, sum(len(block) for block in audio))
    1.0 16000
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
        # What soundfile reads where it does not read the file itself.
        self._copy: BinaryIO | None = None
        try:
            self._audio = self._open()
        except BaseException:
            self.close()
            raise

    @property
    def announced_s(self) -> float | None:
        """Duration that the header announces in seconds, if it does."""
        if self._audio.frames >= UNKNOWN_FRAMES:
            return None
        return self._audio.frames / self._audio.samplerate

    def __iter__(self) -> Iterator[np.ndarray]:
        resampler = BlockResampler(self._audio.samplerate, self.sample_rate)
        for block in self._mono():
            block = resampler.push(block)
            if len(block):
                yield block
        rest = resampler.finish()
        if len(rest):
            yield rest

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a temporary copy is gone with it."""
        for each in (getattr(self, "_audio", None), self._copy):
            if each is not None:
                each.close()

    def _open(self) -> soundfile.SoundFile:
        try:
            source = self._seekable()
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
        try:
            audio = soundfile.SoundFile(source)
        except (TypeError, soundfile.SoundFileError):
            # TypeError: soundfile asks for the format of a name in .raw.
            audio = self._decoded()
        self._audio = audio
        if audio.frames == 0:
            audio = self._audio = self._unsized() or audio
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
        return audio

    def _seekable(self) -> bytes | BinaryIO:
        """The path of a plain file, or a copy of what a pipe says."""
        if self.path == STDIN:
            if sys.stdin.isatty():
                raise InputError(
                    "-: standard input is the keyboard; send a recording "
                    "through a pipe, or name a file."
                )
            return self._copied(sys.stdin.buffer)
        # The system's own reason where it cannot be opened.
        with open(self.path, "rb") as file:
            if Path(self.path).is_fifo():
                return self._copied(file)
        # As bytes: soundfile takes no name that is not valid Unicode.
        return os.fsencode(self.path)

    def _copied(self, source: BinaryIO) -> BinaryIO:
        self._copy = tempfile.TemporaryFile()
        shutil.copyfileobj(source, self._copy, BLOCK_SAMPLES)
        self._copy.seek(0)
        return self._copy

    def _raw(self) -> AbstractContextManager[BinaryIO]:
        """The bytes of the file, or of its copy."""
        if self._copy is None:
            return open(self.path, "rb")
        return nullcontext(self._copy)

    def _decoded(self) -> soundfile.SoundFile:
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
        try:
            with self._raw() as source:
                source.seek(0)
                decode = _decode_with_av if with_av else _decode_with_ffmpeg
                self._broken = decode(source, target)
            target.seek(0)
            audio = soundfile.SoundFile(target)
        except soundfile.SoundFileError:
            target.close()
            raise InputError(f"{self.name}: {NO_AUDIO}") from None
        if self._copy is not None:
            self._copy.close()
        self._copy = target
        return audio

    def _unsized(self) -> soundfile.SoundFile | None:
        """A WAV whose sizes were never filled in, read to its end.

        Programs that write to a pipe may leave 0 in the header. An empty WAV
        has 0 for the sound, too; there the size of the whole is right.
        """
        if self._audio.format not in ("WAV", "WAVEX"):
            return None
        with self._raw() as file:
            file.seek(0)
            header = file.read(WAV_HEADER_BYTES)
            size = file.seek(0, os.SEEK_END)
            place = 12
            while header[place : place + 4] not in (b"data", b""):
                length = header[place + 4 : place + 8]
                place += 8 + int.from_bytes(length, "little")
                place += place % 2
            sizes = (header[4:8], header[place + 4 : place + 8])
            whole, sound = (int.from_bytes(each, "little") for each in sizes)
            begins = place + 8
            if sound or begins >= size or whole + 8 > begins:
                return None
            if self._copy is None:
                file.seek(0)
                self._copied(file)
        self._audio.close()
        for at in (4, place + 4):
            self._copy.seek(at)
            self._copy.write(b"\xff" * 4)
        self._copy.seek(0)
        return soundfile.SoundFile(self._copy)

    def _mono(self) -> Iterator[np.ndarray]:
        """Blocks of one channel, at the file's own rate."""
        audio = self._audio
        is_float = audio.subtype in FLOAT_SUBTYPES
        frames = max(BLOCK_SAMPLES // audio.channels, 1)
        read = 0
        goes_on = True
        while goes_on:
            block, goes_on, broken = self._next(frames)
            if not len(block):
                break
            if is_float and not np.isfinite(block).all():
                at_s = read + np.argmin(np.isfinite(block).all(axis=1))
                raise InputError(
                    f"{self.name}: holds samples that are not finite, the "
                    f"first at {at_s / audio.samplerate:.2f} s; repair it."
                )
            mono = self._one_channel(block, read / audio.samplerate)
            read += len(block)
            yield mono
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

    def _next(self, frames: int) -> tuple[np.ndarray, bool, bool]:
        """The next block, whether more follows, whether decoding failed."""
        # Where decoding fails soundfile does not say how far it came: the
        # rest of the block still is what it was before.
        block = np.full((frames, self._audio.channels), np.nan, np.float32)
        try:
            block = self._audio.read(out=block)
            return block, len(block) == frames, False
        except soundfile.LibsndfileError as error:
            missing = np.isnan(block).any(axis=1)
            decoded = int(missing.argmax()) if missing.any() else frames
            at_end = self.announced_s is None and error.code == BAD_SEEK
            return block[:decoded], False, not at_end

    def _judge_end(self, read: int, broken: bool) -> None:
        """Set ``fault`` if more was announced than there is."""
        rate = self._audio.samplerate
        if read == 0:
            raise InputError(
                f"{self.name}: no sample of it can be decoded; repair it."
            )
        announced_s = self.announced_s or 0.0
        for said, there in SIZE_MISMATCH.findall(self._audio.extra_info):
            if int(there) < int(said) < STREAMED_BYTES and int(there):
                part_s = read / rate * int(said) / int(there)
                announced_s = max(announced_s, part_s)
        if self._broken is not None:
            self.fault = (
                f"breaks off after {read / rate:.2f} s ({self._broken})"
            )
        elif broken and self.announced_s is None:
            self.fault = f"cannot be decoded beyond {read / rate:.2f} s"
        elif broken or read < announced_s * rate - 1:
            self.fault = (
                f"breaks off: {announced_s:.2f} s announced, {read / rate:.2f} "
                "s decoded"
            )
        elif self._audio.format == "OGG" and not self._has_last_page():
            self.fault = f"breaks off after {read / rate:.2f} s"

    def _has_last_page(self) -> bool:
        """Is the last page of an Ogg file marked as the last? (RFC 3533)"""
        with self._raw() as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - OGG_PAGE_BYTES, 0))
            header = file.read().rpartition(b"OggS")[2]
        return len(header) > 1 and bool(header[1] & 4)


def open_recording(
    recording: Recording, sample_rate: int, channel: int | None = None
) -> AudioStream | SampleStream:
    """A file, a part of one (:mod:`speechbrain_ee.data.manifests`) or samples in
    memory as a stream of samples.
    """
    path = recording.path
    if recording.held:
        return SampleStream(recording.samples, path, sample_rate)
    if Clip.parse(path) is not None:
        return SampleStream(AudioReader(sample_rate)(path), path, sample_rate)
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


class BlockResampler:
    """Resample a stream; equal to resampling the whole of it at once.

    The filter of :class:`torchaudio.transforms.Resample` reaches ``width``
    old samples to either side. Every block is therefore resampled with that
    much of its neighbours, which is cut off again.

    Example
    -------
    >>> resampler = BlockResampler(48000, 16000)
    >>> blocks = [resampler.push(np.zeros(1000, np.float32)) for _ in range(3)]
    >>> sum(map(len, blocks)) + len(resampler.finish())
    1000
    """

    def __init__(self, old_hz: int, new_hz: int):
        self.old, self.new = _ratio(old_hz, new_hz)
        self._resample = Resample(self.old, self.new)
        # Context in units of `old` samples, so that the grid stays the same.
        reach = 0 if self.old == self.new else self._resample.width
        self._context = math.ceil(reach / self.old)
        self._buffer = np.zeros(0, dtype=np.float32)
        self._done = 0  # units at the buffer's head that are context only

    def push(self, block: np.ndarray) -> np.ndarray:
        """Take the next samples, give those that are now certain."""
        if self.old == self.new:
            return block
        self._buffer = np.concatenate([self._buffer, block])
        units = len(self._buffer) // self.old
        certain = units - self._context
        if certain <= self._done:
            return self._buffer[:0]
        out = self._run(self._buffer[: units * self.old])
        out = out[self._done * self.new : certain * self.new]
        kept_from = max(certain - self._context, 0)
        self._buffer = self._buffer[kept_from * self.old :]
        self._done = certain - kept_from
        return out

    def finish(self) -> np.ndarray:
        """Give what is left when no more samples come."""
        if self.old == self.new or not len(self._buffer):
            return self._buffer[:0]
        rest = self._run(self._buffer)[self._done * self.new :]
        self._buffer = self._buffer[:0]
        return rest

    def _run(self, samples: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return self._resample(torch.from_numpy(samples)).numpy()


def _ratio(old_hz: int, new_hz: int) -> tuple[int, int]:
    """The ratio of two rates in terms that a filter bank can afford."""
    ratio = Fraction(old_hz, new_hz)
    if max(ratio.numerator, ratio.denominator) > MAX_TERM:
        larger = max(ratio, 1 / ratio)
        larger = larger.limit_denominator(int(MAX_TERM / larger) or 1)
        ratio = larger if ratio > 1 else 1 / larger
    return ratio.numerator, ratio.denominator
