"""Recordings as a stream of blocks at the model's sample rate.

Whatever soundfile reads, however long it is, comes out as mono blocks; never
more than a block is in memory. What cannot be streamed (a pipe) is first
copied to a temporary file, because most formats need to seek.

Authors
 * The speechbrain-ee contributors 2026
"""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import soundfile

from speechbrain_ee.data.audio_check import FLOAT_SUBTYPES
from speechbrain_ee.errors import InputError
from speechbrain_ee.inference.recordings.resampling import BlockResampler

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


class AudioStream:
    """A recording, opened: iterate for its samples, ask for its faults.

    Arguments
    ---------
    path : str or Path
        An audio file, a pipe, or ``-`` for standard input.
    sample_rate : int
        Sample rate that the model expects, in Hz.

    Raises
    ------
    InputError
        On opening, if it is missing, unreadable, not audio or empty; while
        iterating, if samples are not finite or none can be decoded.

    Example
    -------
    >>> path = getfixture("tmp_path") / "stereo.flac"
    >>> soundfile.write(path, np.zeros((44100, 2)), 44100)
    >>> with AudioStream(path, 16000) as audio:
    ...     print(audio.announced_s, sum(len(block) for block in audio))
    1.0 16000
    """

    def __init__(self, path: str | Path, sample_rate: int):
        self.name = "standard input" if str(path) == STDIN else str(path)
        self.sample_rate = sample_rate
        self.fault: str | None = None
        self._copy: BinaryIO | None = None
        try:
            self._audio = self._open(str(path))
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
        """Blocks of samples, float32, mono, at ``sample_rate``.

        A recording that breaks off gives what can be decoded of it; then
        ``fault`` says what is missing.
        """
        resampler = BlockResampler(self._audio.samplerate, self.sample_rate)
        for block in self._mono():
            block = resampler.push(block)
            if len(block):
                yield block
        rest = resampler.finish()
        if len(rest):
            yield rest

    def __enter__(self) -> "AudioStream":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a temporary copy is gone with it."""
        for each in (getattr(self, "_audio", None), self._copy):
            if each is not None:
                each.close()

    def _open(self, path: str) -> soundfile.SoundFile:
        try:
            audio = soundfile.SoundFile(self._seekable(path))
        except OSError as error:
            raise InputError(
                f"{self.name}: cannot be opened ({error.strerror}); check "
                "the path and the right to read it."
            ) from None
        except (TypeError, soundfile.SoundFileError):
            # TypeError: soundfile asks for the format of a name in .raw.
            # libsndfile's own reasons mislead, an MP3 "does not exist".
            raise InputError(
                f"{self.name}: is no audio in a known format, or damaged; "
                "repair it, or convert it to WAV or FLAC."
            ) from None
        self._audio = audio
        if audio.frames == 0:
            raise InputError(f"{self.name}: holds no audio; leave it out.")
        lowest, highest = RATES_HZ
        if not lowest <= audio.samplerate <= highest:
            raise InputError(
                f"{self.name}: its header says {audio.samplerate} Hz, which "
                f"is no sample rate of a recording ({lowest} to {highest} "
                "Hz); repair or convert it."
            )
        return audio

    def _seekable(self, path: str) -> str | BinaryIO:
        """The path of a plain file, or a copy of what a pipe says."""
        if path == STDIN:
            if sys.stdin.isatty():
                raise InputError(
                    "-: standard input is the keyboard; send a recording "
                    "through a pipe, or name a file."
                )
            return self._copied(sys.stdin.buffer)
        if Path(path).is_fifo():
            with open(path, "rb") as pipe:
                return self._copied(pipe)
        with open(path, "rb"):
            return path  # the system's own reason where it cannot be opened

    def _copied(self, source: BinaryIO) -> BinaryIO:
        self._copy = tempfile.TemporaryFile()
        shutil.copyfileobj(source, self._copy, BLOCK_SAMPLES)
        self._copy.seek(0)
        return self._copy

    def _mono(self) -> Iterator[np.ndarray]:
        """Blocks as the file has them, channels averaged."""
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
            read += len(block)
            yield block.mean(axis=1, dtype=np.float32)
        self._judge_end(read, broken)

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
        if broken and self.announced_s is None:
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
        with ExitStack() as opened:
            file = self._copy
            if file is None:
                file = opened.enter_context(open(self.name, "rb"))
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - OGG_PAGE_BYTES, 0))
            header = file.read().rpartition(b"OggS")[2]
        return len(header) > 1 and bool(header[1] & 4)
