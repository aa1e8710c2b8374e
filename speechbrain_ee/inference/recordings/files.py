"""Which recordings are meant, and what they are called in the output.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechbrain_ee.data.audio import AudioReader
from speechbrain_ee.data.clips import Clip
from speechbrain_ee.errors import InputError
from speechbrain_ee.inference.recordings.stream import (
    MEDIA_SUFFIXES,
    STDIN,
    AudioStream,
    SampleStream,
    shown,
)

logger = logging.getLogger(__name__)

# What is taken from folders; a file that is named may be called anything.
SUFFIXES = MEDIA_SUFFIXES | frozenset(
    ".aif .aiff .au .caf .flac .mp3 .nist .oga .ogg .opus .rf64 .sph .snd "
    ".w64 .wav".split()
)


@dataclass(frozen=True)
class Recording:
    """What to transcribe, and its name in the output.

    Arguments
    ---------
    id : str
        The name.
    path : str
        The file; of samples, what messages call them.
    samples : tensor or array
        The samples themselves, where ``held``.
    held : bool
        Whether it is samples in memory and no file.
    """

    id: str
    path: str
    samples: Any = None
    held: bool = False


def open_recording(
    recording: Recording, sample_rate: int, channel: int | None = None
) -> AudioStream | SampleStream:
    """A recording as a stream of samples.

    Arguments
    ---------
    recording : Recording
        A file, a part of one in the notation of
        :mod:`speechbrain_ee.data.clips`, or samples.
    sample_rate : int
        That of the model, in Hz.
    channel : int, optional
        Of a file, from 1; see
        :class:`~speechbrain_ee.inference.recordings.stream.AudioStream`.

    Returns
    -------
    AudioStream or SampleStream

    Raises
    ------
    InputError
        If it cannot be read.
    """
    path = recording.path
    if recording.held:
        return SampleStream(recording.samples, path, sample_rate)
    if Clip.parse(path) is not None:
        return SampleStream(AudioReader(sample_rate)(path), path, sample_rate)
    return AudioStream(path, sample_rate, channel)


def find_recordings(inputs: Sequence[str]) -> list[Recording]:
    """The recordings that files and folders stand for.

    Arguments
    ---------
    inputs : sequence of str
        Files, folders (searched with all below them, hidden ones left out)
        and ``-``. Whether a file can be read is not looked at.

    Returns
    -------
    list of Recording
        In the order given, folders sorted, each file once (a second time is
        warned of). Names are paths within the folder or names of files, without suffix where that is
        enough to tell them apart.

    Raises
    ------
    InputError
        If a folder holds no audio.

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
    names = _names([name for _, name in found.values()], list(found))
    paths = [path for path, _ in found.values()]
    return [Recording(*pair) for pair in zip(names, paths, strict=True)]


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
    """Is it a pipe or a device, on which a run would wait for ever?"""
    special = path.exists() and not path.is_file()
    if special:
        logger.warning(
            "%s: is no plain file and is left out; name it to have it read.",
            shown(path),
        )
    return special


def _names(names: list[Path], keys: list[str]) -> list[str]:
    """The shortest kind of names that tells all apart."""
    plain = [name.with_suffix("").as_posix() for name in names]
    full = [name.as_posix() for name in names]
    for kind in (plain, full):
        if len({*kind}) == len(kind):
            return kind
    return [key.lstrip(os.sep) for key in keys]
