"""Where the audio of an utterance is, and whether it can be used.

The column ``wav`` of a manifest usually names a whole file. A part of a file
is written behind its name, so that a manifest keeps its columns and whoever
does not know the notation fails instead of hearing the whole file:

``talk.sph?samples=160000+48000``
    48000 samples from sample 160000, counted from 0.
``train-000007.tar?bytes=1536+34021&crc32=9ae0daaf``
    A sound file of 34021 bytes inside another file, and its checksum.

Durations and faults come from headers, since decoding 960 hours only to look
for faults would take hours. A file is decoded only where its header cannot
tell: float samples may be infinite or not a number, and a FLAC file that ends
too early still announces its full length.

Authors
 * The speechbrain-ee contributors 2026
"""

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import soundfile
from tqdm import tqdm

SAMPLES, BYTES = "samples", "bytes"
PIPE = "pipe:"  # of a URL: a shell command that writes the file
NOTATION = re.compile(
    r"(?s)(?P<path>.+)\?(?P<unit>samples|bytes)="
    r"(?P<start>\d+)\+(?P<length>\d+)(?:&crc32=(?P<crc32>[0-9a-f]{8}))?"
)


@dataclass(frozen=True)
class Clip:
    """A part of a file.

    Arguments
    ---------
    path : str
        The file; of a shard also a URL.
    unit : str
        What start and length count, ``samples`` or ``bytes``.
    start : int
        Where the part begins, from 0.
    length : int
        How long it is.
    crc32 : str or None
        Checksum of bytes, eight hexadecimal digits.

    Example
    -------
    >>> clip = Clip.parse("talk.sph?samples=160000+48000")
    >>> clip.start, str(clip)
    (160000, 'talk.sph?samples=160000+48000')
    >>> Clip.parse("whole.flac") is None
    True
    """

    path: str
    unit: str
    start: int
    length: int
    crc32: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Clip | None":
        """Read the notation."""
        found = NOTATION.fullmatch(text)
        if found is None:
            return None
        start, length = int(found["start"]), int(found["length"])
        path, unit = found["path"], found["unit"]
        return cls(path, unit, start, length, found["crc32"])

    def __str__(self) -> str:
        """The notation."""
        checksum = f"&crc32={self.crc32}" if self.crc32 else ""
        span = f"{self.unit}={self.start}+{self.length}"
        return f"{self.path}?{span}{checksum}"


def file_of(wav: str) -> str:
    """The file that a cell of the column ``wav`` names, or names a part of."""
    clip = Clip.parse(wav)
    return wav if clip is None else clip.path


def is_remote(url: str) -> bool:
    """Whether a file has to be fetched before it can be read."""
    return url.startswith(PIPE) or "://" in url


# ---- Faults --------------------------------------------------------------

UNREADABLE_AUDIO = "unreadable audio"
EMPTY_AUDIO = "empty audio"
NOT_FINITE = "samples not finite"
BEYOND_THE_END = "beyond the end of the recording"
TOO_FAST = "too short for its transcript"
TOO_SHORT = "shorter than min_duration_s"
TOO_LONG = "longer than max_duration_s"

# Fluent reading has about 15 characters per second and the fastest readers
# stay below 25; above 35 the words cannot belong to the recording, and CTC
# with frames of 40 ms (25 per second) could hardly align them.
MAX_CHARACTERS_PER_S = 35.0

FLOAT_SUBTYPES = ("FLOAT", "DOUBLE")
BLOCK_FRAMES = 1 << 20
PROGRESS_AFTER_S = 5.0
# Reading headers waits for the disk, more so over a network.
READERS = 8


@dataclass(frozen=True)
class AudioFacts:
    """Length of a recording in seconds, or why it cannot be used."""

    duration_s: float
    fault: str | None = None


def check_audio(path: str | os.PathLike[str]) -> AudioFacts:
    """Read a recording's length and look for faults.

    Any sample rate and any number of channels is fine: the data pipeline
    resamples and mixes.
    """
    clip = Clip.parse(os.fspath(path))
    try:
        if clip is None and os.path.getsize(path) == 0:
            return AudioFacts(0.0, EMPTY_AUDIO)
        name = os.fspath(path) if clip is None else clip.path
        # As bytes: soundfile takes no name that is not valid Unicode.
        with soundfile.SoundFile(os.fsencode(name)) as audio:
            frames = audio.frames if clip is None else clip.length
            if frames == 0:
                return AudioFacts(0.0, EMPTY_AUDIO)
            fault = _fault(audio, clip)
            return AudioFacts(frames / audio.samplerate, fault)
    except (OSError, soundfile.SoundFileError):
        return AudioFacts(0.0, UNREADABLE_AUDIO)


def _fault(audio: soundfile.SoundFile, clip: Clip | None) -> str | None:
    """What is wrong with a recording; of a part, by the header alone."""
    if clip is not None:
        beyond = clip.start + clip.length > audio.frames
        return BEYOND_THE_END if beyond else None
    if audio.format == "FLAC":
        audio.seek(audio.frames - 1)
        return None if len(audio.read(1)) == 1 else UNREADABLE_AUDIO
    if audio.subtype in FLOAT_SUBTYPES:
        blocks = audio.blocks(BLOCK_FRAMES)
        if not all(np.isfinite(block).all() for block in blocks):
            return NOT_FINITE
    return None


def check_all(paths: Sequence[str], title: str) -> list[AudioFacts]:
    """:func:`check_audio` for many files at once, in their order."""
    pool = ThreadPoolExecutor(READERS)
    try:
        facts = pool.map(check_audio, paths)
        return list(
            tqdm(facts, title, len(paths), unit="file", delay=PROGRESS_AFTER_S)
        )
    finally:
        # An interrupt must not wait for a hundred thousand open tasks.
        pool.shutdown(cancel_futures=True)


def reason_to_skip(
    words: str,
    audio: AudioFacts,
    min_duration_s: float = 0.0,
    max_duration_s: float | None = None,
) -> str | None:
    """Why a recording cannot be used with these words."""
    if audio.fault is not None:
        return audio.fault
    if len(words) > MAX_CHARACTERS_PER_S * audio.duration_s:
        return TOO_FAST
    if audio.duration_s < min_duration_s:
        return TOO_SHORT
    if max_duration_s is not None and audio.duration_s > max_duration_s:
        return TOO_LONG
    return None
