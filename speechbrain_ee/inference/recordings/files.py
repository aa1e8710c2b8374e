"""Which recordings are meant, and what they are called in the output.

Authors
 * The speechbrain-ee contributors 2026
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from speechbrain_ee.errors import InputError
from speechbrain_ee.inference.recordings.stream import STDIN

# What is taken from folders; a file that is named may be called anything.
SUFFIXES = frozenset(
    ".aif .aiff .au .caf .flac .mp3 .nist .oga .ogg .opus .rf64 .sph .snd "
    ".w64 .wav".split()
)


@dataclass(frozen=True)
class Recording:
    """A file to transcribe, and its name in the output."""

    id: str
    path: str


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
        In the order given, folders sorted, each file once. Names are paths
        within the folder or names of files, without suffix where that is
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
    for each in inputs:
        if each == STDIN:
            found.setdefault(STDIN, (STDIN, Path("stdin")))
        elif os.path.isdir(each):
            for path in _audio_below(each):
                key = os.path.realpath(path)
                found.setdefault(key, (str(path), path.relative_to(each)))
        else:
            key = os.path.realpath(each)
            found.setdefault(key, (each, Path(Path(each).name)))
    names = _names([name for _, name in found.values()], list(found))
    paths = [path for path, _ in found.values()]
    return [Recording(*pair) for pair in zip(names, paths, strict=True)]


def _audio_below(folder: str) -> list[Path]:
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        found += [
            Path(parent, name)
            for name in files
            if Path(name).suffix.lower() in SUFFIXES
            and not name.startswith(".")
        ]
    if not found:
        raise InputError(
            f"{folder}: holds no audio; files with the suffixes "
            f"{' '.join(sorted(SUFFIXES))} are taken from folders."
        )
    return sorted(found)


def _names(names: list[Path], keys: list[str]) -> list[str]:
    """The shortest kind of names that tells all apart."""
    plain = [name.with_suffix("").as_posix() for name in names]
    full = [name.as_posix() for name in names]
    for kind in (plain, full):
        if len({*kind}) == len(kind):
            return kind
    return [key.lstrip(os.sep) for key in keys]
