"""Reading and writing exit traces (JSON Lines, gzip if the name says so).

The first line is the header, then one line per utterance. Fields that are
None are left out. A reader refuses what it does not understand, with file,
line and field: a table that drives thresholds must not be half understood.

Authors
 * The speechbrain-ee contributors 2026
"""

import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.records import (
    SCHEMA,
    TraceHeader,
    UtteranceRecord,
    header_row,
    utterance_row,
)
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.exits.trace_parse import (
    HEADER_FIELDS,
    UTTERANCE_FIELDS,
    Line,
    SameEvidence,
)
from speechbrain_ee.files import GZIP, MB, open_plain, whole_file

MOST_LINE = 8 * MB  # one utterance
MOST_BYTES = 4000 * MB  # of lines; the records take several times as much
# Text of hypotheses packs to a tenth; a file that packs a hundredfold and is
# larger than this was made to fill memory.
MOST_RATIO = 100
MOST_FREE = 64 * MB


def write_trace(
    path: str | Path, header: TraceHeader, records: Iterable[UtteranceRecord]
) -> None:
    """Write a trace: all of it or nothing; equal input gives equal bytes.

    Arguments
    ---------
    path : str or Path
        Target; compressed if it ends in ``.gz``.
    header : TraceHeader
        What all utterances share.
    records : iterable of UtteranceRecord
        The utterances.

    Raises
    ------
    InputError
        With line and field, if a record is one that :func:`read_trace`
        would refuse (whether errors fit hypotheses is not looked at).
    """
    path = Path(path)
    with whole_file(path) as raw:
        _write_lines(raw, path, header, records)


def read_trace(path: str | Path, most: int = MOST_BYTES) -> Trace:
    """Read a trace and check every field of it.

    Arguments
    ---------
    path : str or Path
        A file that follows ``exit-trace/1``.
    most : int
        Most bytes, decompressed.

    Returns
    -------
    Trace

    Raises
    ------
    InputError
        With file, line and field, if the file is missing, cut or malformed.
    """
    path = Path(path)
    lines = _lines(path, most)
    try:
        number, line = next(lines)
    except StopIteration:
        raise InputError(
            f"{path}: the file is empty; the first line of a trace is a "
            f'header with "schema": "{SCHEMA}". Write the trace again.'
        ) from None
    checks = _Checks(
        path, Line.decode(path, number, line, HEADER_FIELDS).header()
    )
    records = tuple(
        checks.utterance(Line.decode(path, number, line, UTTERANCE_FIELDS))
        for number, line in lines
    )
    if not records:
        raise InputError(f"{path}: the trace has a header but no utterance.")
    trace = Trace(checks.header, records, str(path))
    _check_errors(trace, list(checks.seen.values()))
    return trace


class _Checks:
    """What an utterance must satisfy beside those before it."""

    def __init__(self, path: Path, header: TraceHeader) -> None:
        self.header = header
        self.seen: dict[tuple[str, str], int] = {}
        self.evidence = SameEvidence(path)

    def utterance(self, line: Line) -> UtteranceRecord:
        record = line.utterance(self.header)
        key = (record.set, record.id)
        if key in self.seen:
            line.fail(
                "id",
                f"{record.id!r} is there twice in set {record.set!r} "
                f"(first in line {self.seen[key]})",
            )
        self.evidence.check(line.number, record)
        self.seen[key] = line.number
        return record


def _write_lines(
    raw: IO[bytes],
    path: Path,
    header: TraceHeader,
    records: Iterable[UtteranceRecord],
) -> None:
    # No name and no time in the gzip header, so that bytes depend on the
    # content alone.
    stream: Any = raw
    if path.suffix == ".gz":
        stream = gzip.GzipFile("", "wb", 9, fileobj=raw, mtime=0)
    row = header_row(header)
    try:
        # The reader's own checks. It alone scores the hypotheses, to
        # compare them with the errors.
        checks = _Checks(path, Line(path, 1, row, HEADER_FIELDS).header())
        stream.write(_encode(row))
        for number, record in enumerate(records, 2):
            row = utterance_row(record)
            checks.utterance(Line(path, number, row, UTTERANCE_FIELDS))
            stream.write(_encode(row))
    except InputError as error:
        name = f" (utterance {row['id']!r})" if "id" in row else ""
        raise InputError(f"{error}{name} The trace was not written.") from None
    finally:
        if stream is not raw:
            stream.close()


def _encode(row: dict[str, Any]) -> bytes:
    text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def _lines(path: Path, most: int) -> Iterator[tuple[int, str]]:
    """Numbered lines; everything the file system can do is an InputError."""
    number = size = blank = 0
    try:
        with open_plain(path) as raw:
            packed = raw.peek(2)[:2] == GZIP
            if path.suffix == ".gz" and not packed and raw.peek(1):
                raise gzip.BadGzipFile("no gzip header")
            stream: Any = raw
            if packed:
                stream = gzip.GzipFile(fileobj=raw)
                packed_size = os.fstat(raw.fileno()).st_size
                most = min(most, max(MOST_FREE, MOST_RATIO * packed_size))
            while line := stream.readline(MOST_LINE):
                number += 1
                size += len(line)
                blank += len(line) if line.isspace() else 0
                if size > most or len(line) == MOST_LINE or blank > MB:
                    raise InputError(
                        f"{path}, line {number}: too large to be a trace "
                        f"(lines up to {MOST_LINE // MB} MB and {most // MB} "
                        "MB in all are read); write the trace again, in "
                        "parts."
                    )
                if not line.isspace():
                    yield number, line.decode()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(
            f"{path}, line {number + 1}: the gzip data are cut or damaged "
            f"({error}); copy or write the trace again."
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}, line {number}: not UTF-8 text ({error})."
        ) from None
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}); give the "
            f"path of an exit trace (.jsonl or .jsonl.gz)."
        ) from None


def _check_errors(trace: Trace, line_numbers: list[int]) -> None:
    """Recorded errors must be those of the recorded hypotheses."""
    cells = [
        (row, place)
        for row, record in enumerate(trace.records)
        for place, exit_ in enumerate(record.exits)
        if exit_.hyp is not None and exit_.errors is not None
    ]
    for row, place in cells:
        exit_ = trace.records[row].exits[place]
        total = trace.errors_NE[row, place]
        if exit_.errors != total:
            raise InputError(
                f"{trace.source}, line {line_numbers[row]}, field "
                f"exits[layer {exit_.layer}].errors: {exit_.errors} is given, "
                f"but hyp against ref has {total} {trace.header.error_unit} "
                f"errors. Leave errors out, or correct it."
            )
