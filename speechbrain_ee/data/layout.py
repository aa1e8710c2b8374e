"""The LibriSpeech layout on disk: which files a split has, who says what.

A split is a folder
``<data_folder>/<split>/<speaker>/<chapter>/<speaker>-<chapter>-NNNN.flac``
(or ``.wav``, ``.ogg``, ``.opus``), with one ``<speaker>-<chapter>.trans.txt``
per chapter whose lines are an utterance id and its words. Nothing here opens
an audio file; what cannot be paired is returned with its reason.

Authors
 * The speechbrain-ee contributors 2026
"""

import os
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from speechbrain_ee.data.words import normalised
from speechbrain_ee.errors import InputError

AUDIO_SUFFIXES = (".flac", ".ogg", ".opus", ".wav")
TRANSCRIPT_SUFFIX = ".trans.txt"
LAYOUT = (
    "<data_folder>/<split>/<speaker>/<chapter>/ with "
    "<speaker>-<chapter>-NNNN.flac (or .wav, .ogg, .opus) and "
    "<speaker>-<chapter>.trans.txt"
)

MISSING_TRANSCRIPT = "missing transcript"
MISSING_AUDIO = "missing audio"
EMPTY_TRANSCRIPT = "empty transcript"
DUPLICATE_ID = "duplicate id"


@dataclass(frozen=True)
class Utterance:
    """One recording that has a transcript; its speaker, or "" if unknown."""

    utterance_id: str
    speaker: str
    path: str
    words: str


@dataclass(frozen=True)
class Skipped:
    """One id that cannot be used: its file and the reason."""

    utterance_id: str
    path: str
    reason: str


@dataclass(frozen=True)
class SplitFiles:
    """What lies in a split's folder, sorted by path."""

    folder: Path
    audio: tuple[str, ...]
    transcripts: tuple[str, ...]
    newest_mtime_ns: int


@dataclass(frozen=True)
class SplitText:
    """A split before its audio is looked at, both sorted by id."""

    utterances: tuple[Utterance, ...]
    skipped: tuple[Skipped, ...]


def list_split(split_folder: str | os.PathLike[str]) -> SplitFiles:
    """List the audio and transcript files of a split."""
    top = Path(split_folder)
    audio, transcripts, newest_mtime_ns = [], [], 0
    for entry in _walk(top):
        name = entry.name.lower()
        if name.endswith(TRANSCRIPT_SUFFIX):
            transcripts.append(entry.path)
        elif name.endswith(AUDIO_SUFFIXES):
            audio.append(entry.path)
            continue
        # Not of audio: one more stat for each of 281,000 files.
        newest_mtime_ns = max(newest_mtime_ns, entry.stat().st_mtime_ns)
    _check_depth(top, transcripts)
    return SplitFiles(
        top, tuple(sorted(audio)), tuple(sorted(transcripts)), newest_mtime_ns
    )


def _walk(top: Path) -> Iterator[os.DirEntry]:
    """Every folder and every known file below ``top``; hidden ones are left.

    Unlike ``os.walk``, a folder that cannot be read is an error, because
    its utterances would go missing without a word.
    """
    folders, seen = [str(top)], set()
    while folders:
        folder = folders.pop()
        try:
            status = os.stat(folder)
            # Links are followed, but never in a circle.
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as scan:
                entries = [entry for entry in scan if entry.name[0] != "."]
        except OSError as error:
            raise InputError(
                f"data_folder: {folder} cannot be read ({error.strerror}); "
                "give yourself permission to read it, or name other splits."
            ) from error
        known = (*AUDIO_SUFFIXES, TRANSCRIPT_SUFFIX)
        for entry in entries:
            if entry.is_dir():
                folders.append(entry.path)
                yield entry
            elif entry.name.lower().endswith(known) and entry.is_file():
                yield entry


def _check_depth(top: Path, transcripts: list[str]) -> None:
    """Raise InputError unless every transcript is two folders down."""
    if not transcripts:
        raise InputError(
            f"data_folder: {top} holds no *{TRANSCRIPT_SUFFIX} file; the "
            f"layout must be {LAYOUT}."
        )
    for path in map(Path, transcripts):
        if len(path.relative_to(top).parts) != 3:
            split = path.parents[min(2, len(path.parents) - 1)]
            raise InputError(
                f"data_folder: {path} is not at the depth of the layout "
                f"{LAYOUT}; if {split.name!r} is the split, pass "
                f"data_folder={split.parent}, otherwise move the file."
            )


def read_split(split: str | os.PathLike[str] | SplitFiles) -> SplitText:
    """Pair the audio files of a split with their transcripts.

    Of two files, or two lines, with the same id the first in the order of
    their paths is used and the other is reported. Ids are compared in
    Unicode's composed form: some systems decompose the names of files.
    """
    files = split if isinstance(split, SplitFiles) else list_split(split)
    skipped: list[Skipped] = []
    audio = _first_of_each(
        ((Path(path).stem, path, path) for path in files.audio), skipped
    )
    lines = _first_of_each(_read_lines(files.transcripts), skipped)
    utterances = []
    for name, (words, transcript) in lines.items():
        if name not in audio:
            skipped.append(Skipped(name, transcript, MISSING_AUDIO))
        elif not normalised(words):
            skipped.append(Skipped(name, transcript, EMPTY_TRANSCRIPT))
        else:
            # of <speaker>/<chapter>/, whatever the names of the files
            speaker = Path(transcript).parts[-3]
            utterances.append(Utterance(name, speaker, audio[name][0], words))
    skipped += [
        Skipped(name, path, MISSING_TRANSCRIPT)
        for name, (path, _) in audio.items()
        if name not in lines
    ]
    return SplitText(
        tuple(sorted(utterances, key=lambda one: one.utterance_id)),
        tuple(sorted(skipped, key=lambda one: (one.utterance_id, one.path))),
    )


def _first_of_each(
    entries: Iterable[tuple[str, str, str]], skipped: list[Skipped]
) -> dict[str, tuple[str, str]]:
    """id -> (value, file) of the first entry; later ones are reported."""
    first: dict[str, tuple[str, str]] = {}
    for name, value, path in entries:
        name = unicodedata.normalize("NFC", name)
        if name in first:
            skipped.append(Skipped(name, path, DUPLICATE_ID))
        else:
            first[name] = (value, path)
    return first


def _read_lines(transcripts: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """(id, words with single spaces, file) of every transcript line."""
    for path in transcripts:
        try:
            # Editors on Windows put a byte order mark before the first id.
            text = Path(path).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"data_folder: the transcript {path} cannot be read as UTF-8 "
                f"text ({error}); convert or replace it."
            ) from error
        for line in text.split("\n"):
            name, *words = line.split() or [""]
            if name:
                yield name, " ".join(words), path
