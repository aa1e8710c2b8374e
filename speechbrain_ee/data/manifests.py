"""Manifests: which utterances there are, and where their audio is.

Everything that reads a manifest (training, tests, the tokenizer, shards,
measurements) does so here, so that all see the same. A manifest is a CSV file
in UTF-8 whose first line names the columns, separated by commas, semicolons or
tabs. Of its columns

``wav``
    is a file, or a part of one. A relative path counts from the folder of the
    manifest or, if nothing is there, from the current folder, as
    SpeechBrain's do; ``$data_root`` stands for ``data_folder``.
``start`` and ``stop``
    say which samples of the file are meant, as in SpeechBrain's manifests;
    where all start at 0 and last as long as their files, they mean nothing.
``duration``
    is the length of the utterance in seconds.

A part of a file is written after its name, so that a manifest keeps its
columns and whoever does not know the notation fails instead of hearing the
whole file:

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

import csv
import io
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from speechbrain_ee.errors import InputError, one_line
from speechbrain_ee.files import whole_file

logger = logging.getLogger(__name__)

COLUMNS = ("ID", "duration", "wav", "spk_id", "wrd")  # as they are written
NEEDED = ("ID", "duration", "wav", "wrd")
SKIPPED_COLUMNS = ("ID", "path", "reason")
SEPARATORS = (",", ";", "\t")
DATA_ROOT = "$data_root"
# Durations that are compared with the audio's headers: a few tell whether a
# manifest counts in milliseconds or belongs to other files.
SAMPLED = 20
TOLERANCE_S, TOLERANCE = 0.1, 0.05  # seconds, and share of the duration
WAY_OUT = "make room or give permission, or pass another save_folder"

Row = dict[str, Any]


# ---- The cell ``wav`` ------------------------------------------------------

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
        """Read the notation; None if it names a whole file."""
        found = NOTATION.fullmatch(text)
        if found is None:
            return None
        return cls(
            found["path"],
            found["unit"],
            int(found["start"]),
            int(found["length"]),
            found["crc32"],
        )

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


UNREADABLE_AUDIO = "unreadable audio"
EMPTY_AUDIO = "empty audio"
NOT_FINITE = "samples not finite"
BEYOND_THE_END = "beyond the end of the recording"
FLOAT_SUBTYPES = ("FLOAT", "DOUBLE")
BLOCK_FRAMES = 1 << 20


def check_audio(wav: str) -> tuple[float, str | None]:
    """A recording's length in seconds, and why it cannot be used, or None.

    Any sample rate and any number of channels is fine: the data pipeline
    resamples and mixes.
    """
    clip = Clip.parse(wav)
    try:
        if clip is None and os.path.getsize(wav) == 0:
            return 0.0, EMPTY_AUDIO
        # As bytes: soundfile takes no name that is not valid Unicode.
        with soundfile.SoundFile(os.fsencode(file_of(wav))) as audio:
            frames = audio.frames if clip is None else clip.length
            if frames == 0:
                return 0.0, EMPTY_AUDIO
            return frames / audio.samplerate, _fault(audio, clip)
    except (OSError, soundfile.SoundFileError):
        return 0.0, UNREADABLE_AUDIO


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


# ---- The file --------------------------------------------------------------


def first_few(names: Sequence[str]) -> str:
    """The first three of some ids, for the log."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def write_csv(
    path: Path,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    way_out: str = WAY_OUT,
) -> None:
    """Write a table; the csv module quotes commas and quotes."""
    with whole_file(path, way_out, text=True) as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(columns)
        table.writerows(rows)


def read_manifest(
    path: str | os.PathLike[str],
    data_folder: str | os.PathLike[str] | None = None,
    needed: Sequence[str] = NEEDED,
) -> dict[str, Row]:
    """The utterances of a manifest.

    Arguments
    ---------
    path : path
        The CSV file.
    data_folder : path, optional
        What ``$data_root`` in it stands for.
    needed : sequence of str
        Columns that it must have.

    Returns
    -------
    dict of str to dict
        By ID, in the order of the file: the other cells by column, with
        ``duration`` as a number and ``wav`` absolute and with the part of the
        file. Whether the audio is there, :func:`check_rows` says.

    Raises
    ------
    InputError
        If it is missing or unreadable, lacks a column, has a ragged row, a
        repeated ID, an impossible duration or part of a file.

    Example
    -------
    >>> path = getfixture("tmp_path") / "talks.csv"
    >>> _ = path.write_text(
    ...     "ID;duration;wav;start;stop;wrd\\n"
    ...     "u1;0.5;/talk.flac;8000;16000;HELLO\\n"
    ... )
    >>> read_manifest(path)["u1"]["wav"]
    '/talk.flac?samples=8000+8000'
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise InputError(
            f"{path}: this manifest does not exist; run without "
            "--skip_prep=True, or pass --train_csv, --valid_csv, --test_csv."
        )
    try:
        # Spreadsheets put a byte order mark before the first column.
        with open(path, newline="", encoding="utf-8-sig") as stream:
            text = stream.read()
    except (UnicodeDecodeError, OSError) as error:
        raise _refused(
            path, f"cannot be read as UTF-8 ({error})", needed
        ) from error
    rows = parse_manifest(text, path, needed)
    folder = os.path.dirname(os.path.abspath(path))
    for row in rows.values():
        row["wav"] = _located(row["wav"], folder, data_folder)
    _drop_idle_parts(path, rows)
    return rows


def _drop_idle_parts(path: str, rows: Mapping[str, Row]) -> None:
    """Read whole files where start and stop contradict every duration.

    SpeechBrain's own samples have such columns, which its recipes ignore.
    """
    marked = [row for row in rows.values() if "stop" in row]
    seen = [row for row in _some(marked) if "duration" in row]
    whole = [{**row, "wav": file_of(row["wav"])} for row in seen]
    if not seen or any(float(row["start"]) for row in marked):
        return
    if all(map(_wrong_length, seen)) and not any(map(_wrong_length, whole)):
        logger.warning(
            "%s: start and stop are ignored: all starts are 0, and by their "
            "durations the utterances are whole files.",
            path,
        )
        for row in marked:
            row["wav"] = file_of(row["wav"])


def _some(items: Sequence[Any]) -> Sequence[Any]:
    """A few of them, evenly spread."""
    return items[:: max(1, -(-len(items) // SAMPLED))]


def parse_manifest(
    text: str, name: str, needed: Sequence[str] = NEEDED
) -> dict[str, Row]:
    """As :func:`read_manifest`, of a text; paths stay as they are written."""
    tables = [
        csv.DictReader(io.StringIO(text), skipinitialspace=True, delimiter=mark)
        for mark in SEPARATORS
    ]
    rows: dict[str, Row] = {}
    try:
        table = max(
            tables, key=lambda one: len({*needed} & {*(one.fieldnames or ())})
        )
        columns = table.fieldnames or ()
        missing = [column for column in needed if column not in columns]
        if missing:
            raise ValueError(f"the column {' and '.join(missing)} is missing")
        for row in table:
            where = f"line {table.line_num}"
            if None in row or None in row.values():
                raise ValueError(
                    f"{where} has not as many cells as the first line"
                )
            utterance = row.pop("ID", None) or row["wav"]
            if utterance in rows:
                raise ValueError(f"{where} repeats the ID {utterance!r}")
            rows[utterance] = _converted(row, where)
        if not rows:
            raise ValueError("it has no utterance")
    except (ValueError, csv.Error) as error:
        raise _refused(name, one_line(error), needed) from None
    return rows


def _refused(name: str, fault: str, needed: Sequence[str]) -> InputError:
    return InputError(
        f"{name}: {fault}; a manifest needs the columns {','.join(needed)} "
        "and at least one utterance. Mend it, or run without --skip_prep=True "
        "to have it made again."
    )


def _converted(row: Row, where: str) -> Row:
    """The row with numbers, and the part of the file in ``wav``."""
    if "duration" in row:
        try:
            duration_s = float(row["duration"])
        except ValueError:
            duration_s = 0.0
        if not 0 < duration_s < float("inf"):
            raise ValueError(f"{where} has the duration {row['duration']!r}")
        row["duration"] = duration_s
    start, stop = (row.pop(key, "").strip() for key in ("start", "stop"))
    if not stop and start in ("", "0"):
        return row
    try:
        first, last = float(start), float(stop)
        if not (0 <= first < last and first.is_integer() and last.is_integer()):
            raise ValueError
        clip = Clip(row["wav"], SAMPLES, int(first), int(last) - int(first))
    except (ValueError, OverflowError):
        raise ValueError(
            f"{where} has the start {start!r} and the stop {stop!r}, which "
            "must be whole samples of the file, the first below the second"
        ) from None
    if Clip.parse(row["wav"]) is not None:
        raise ValueError(
            f"{where} names a part of its file twice, in the columns wav and "
            "start"
        )
    return row | {"wav": str(clip), "start": start, "stop": stop}


def _located(
    wav: str, folder: str, data_folder: str | os.PathLike[str] | None
) -> str:
    """The cell ``wav`` with an absolute path."""
    if data_folder is not None and DATA_ROOT in wav:
        root = os.path.abspath(os.path.expanduser(data_folder))
        wav = wav.replace(DATA_ROOT, root)
    clip = Clip.parse(wav)
    path = file_of(wav)
    if os.path.isabs(path) or is_remote(path):
        return wav
    beside = os.path.join(folder, path)
    if os.path.isfile(path) and not os.path.isfile(beside):
        beside = os.path.abspath(path)
    return beside if clip is None else str(replace(clip, path=beside))


def check_rows(
    path: str | os.PathLike[str], rows: Mapping[str, Mapping[str, Any]]
) -> None:
    """Look whether the audio of a manifest is there and as long as it says.

    Folders are listed rather than files looked at, and only the headers of a
    few files are read, so that this takes seconds for a large corpus.
    """

    @cache
    def files_in(folder: str) -> set[str]:
        try:
            with os.scandir(folder) as entries:
                return {entry.name for entry in entries if entry.is_file()}
        except OSError:
            return set()

    @cache
    def is_there(file: str) -> bool:
        folder, name = os.path.split(file)
        # A file system may list a name in another form of Unicode.
        return name in files_in(folder) or os.path.isfile(file)

    without = [
        name
        for name, row in rows.items()
        if not _in_a_shard(row["wav"]) and not is_there(file_of(row["wav"]))
    ]
    if without:
        name, folder = without[0], os.path.dirname(os.path.abspath(path))
        file = file_of(rows[name]["wav"])
        raise InputError(
            f"{path}: the audio of {name}, {file}, does not exist "
            f"({len(without)} of {len(rows)} utterances lack theirs); relative "
            f"paths count from {folder}, and {DATA_ROOT} stands for the data "
            "folder (data_folder, --data-folder). Mend the manifest, or "
            "prepare the data again."
        )
    for name in _some(list(rows)):
        fault = _wrong_length(rows[name])
        if fault:
            raise InputError(
                f"{path}: the utterance {name} {fault}; durations are in "
                "seconds, start and stop in samples of the file. Mend the "
                "manifest, or prepare the data again."
            )


def _in_a_shard(wav: str) -> bool:
    clip = Clip.parse(wav)
    return clip is not None and clip.unit == BYTES


def _wrong_length(row: Mapping[str, Any]) -> str | None:
    """What is wrong with the length of an utterance, by the audio's header."""
    wav = row["wav"]
    if "duration" not in row or _in_a_shard(wav):
        return None
    duration_s, fault = check_audio(wav)
    if fault == BEYOND_THE_END:
        return f"is {fault} {file_of(wav)}"
    wrong_s = abs(duration_s - row["duration"])
    if fault or wrong_s <= max(TOLERANCE_S, TOLERANCE * duration_s):
        return None  # what cannot be decoded is said where it is read
    return (
        f"lasts {row['duration']:g} s by its row and {duration_s:g} s by its "
        f"audio, {wav}"
    )
