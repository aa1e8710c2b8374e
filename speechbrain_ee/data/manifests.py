"""Reading manifests: rows that are checked, with the place of their audio.

Everything that reads a manifest (training, tests, the tokenizer, shards,
measurements) does so here, so that all see the same. A manifest is a CSV file
in UTF-8 whose first line names the columns, separated by commas, semicolons or
tabs. Of its columns

``wav``
    is a file, or a part of one (see :mod:`speechbrain_ee.data.clips`). A
    relative path counts from the folder of the manifest or, if nothing is
    there, from the current folder, as SpeechBrain's do; ``$data_root`` stands
    for ``data_folder``.
``start`` and ``stop``
    say which samples of the file are meant, as in SpeechBrain's manifests;
    where all start at 0 and last as long as their files, they mean nothing.
``duration``
    is the length of the utterance in seconds.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import io
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from speechbrain_ee.data.clips import (
    BEYOND_THE_END,
    SAMPLES,
    Clip,
    check_audio,
    file_of,
    is_remote,
)
from speechbrain_ee.errors import InputError, one_line
from speechbrain_ee.files import whole_file

logger = logging.getLogger(__name__)

COLUMNS = ("ID", "duration", "wav", "spk_id", "wrd")  # as they are written
NEEDED = ("ID", "duration", "wav", "wrd")
SKIPPED_COLUMNS = ("ID", "path", "reason")
EXAMPLES = 3  # ids that the log names for each reason
SEPARATORS = (",", ";", "\t")
DATA_ROOT = "$data_root"
# Durations that are compared with the audio's headers: a few tell whether a
# manifest counts in milliseconds or belongs to other files.
SAMPLED = 20
TOLERANCE_S, TOLERANCE = 0.1, 0.05  # seconds, and share of the duration
WAY_OUT = "make room or give permission, or pass another save_folder"

Row = dict[str, Any]


def first_few(names: Sequence[str]) -> str:
    """The first of some ids, for the log."""
    more = ", ..." if len(names) > EXAMPLES else ""
    return ", ".join(names[:EXAMPLES]) + more


def write_csv(
    path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]
) -> None:
    """Write a table; the csv module quotes commas and quotes."""
    with whole_file(path, WAY_OUT, text=True) as stream:
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
    except UnicodeDecodeError as error:
        fault = f"cannot be read as UTF-8 ({error})"
        raise _refused(path, fault, needed) from error
    except OSError as error:
        fault = f"cannot be read ({error.strerror})"
        raise _refused(path, fault, needed) from error
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
    header = text.partition("\n")[0]
    separator = max(
        SEPARATORS,
        key=lambda mark: len(set(needed) & set(_cells(header, mark))),
    )
    table = csv.DictReader(
        io.StringIO(text), skipinitialspace=True, delimiter=separator
    )
    rows: dict[str, Row] = {}
    try:
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


def _cells(line: str, separator: str) -> list[str]:
    return next(
        csv.reader([line], skipinitialspace=True, delimiter=separator), []
    )


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
    path = wav if clip is None else clip.path
    if os.path.isabs(path) or is_remote(path):
        return wav
    beside = os.path.join(folder, path)
    if os.path.isfile(path) and not os.path.isfile(beside):
        beside = os.path.abspath(path)
    path = beside
    return path if clip is None else str(replace(clip, path=path))


def check_rows(
    path: str | os.PathLike[str], rows: Mapping[str, Mapping[str, Any]]
) -> None:
    """Look whether the audio of a manifest is there and as long as it says.

    Folders are listed rather than files looked at, and only the headers of a
    few files are read, so that this takes seconds for a large corpus.
    """

    @cache
    def is_there(file: str) -> bool:
        folder, name = os.path.split(file)
        # A file system may list a name in another form of Unicode.
        return name in files_in(folder) or os.path.isfile(file)

    @cache
    def files_in(folder: str) -> set[str]:
        try:
            with os.scandir(folder) as entries:
                return {entry.name for entry in entries if entry.is_file()}
        except OSError:
            return set()

    without = []
    for name, row in rows.items():
        clip = Clip.parse(row["wav"])
        if clip is not None and clip.unit != SAMPLES:
            continue  # of a shard, which may be elsewhere
        if not is_there(row["wav"] if clip is None else clip.path):
            without.append(name)
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


def _wrong_length(row: Mapping[str, Any]) -> str | None:
    """What is wrong with the length of an utterance, by the audio's header."""
    wav = row["wav"]
    clip = Clip.parse(wav)
    if "duration" not in row or (clip is not None and clip.unit != SAMPLES):
        return None
    facts = check_audio(wav)
    if facts.fault == BEYOND_THE_END:
        return f"is {facts.fault} {file_of(wav)}"
    wrong_s = abs(facts.duration_s - row["duration"])
    if facts.fault or wrong_s <= max(TOLERANCE_S, TOLERANCE * facts.duration_s):
        return None  # what cannot be decoded is said where it is read
    return (
        f"lasts {row['duration']:g} s by its row and {facts.duration_s:g} s "
        f"by its audio, {wav}"
    )
