"""Exit traces as files: JSON Lines, gzip if the name says so.

The first line is the header, then one line per utterance. Fields that are
None are left out. A table that drives thresholds must not be half understood:
an unknown field is an error, as is a value of the wrong kind, and every error
names file, line and field.

Authors
 * The speechbrain-ee contributors 2026
"""

import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from speechbrain_ee.errors import InputError, quoted
from speechbrain_ee.exits.trace import Trace, TraceHeader, UtteranceRecord
from speechbrain_ee.files import GZIP, MB, open_plain, whole_file
from speechbrain_ee.schema import Record, explain

SCHEMA = "exit-trace/1"
MOST_LINE = 8 * MB  # one utterance
MOST_BYTES = 4000 * MB  # of lines; the records take several times as much
# Text of hypotheses packs to a tenth; a file that packs a hundredfold and is
# larger than this was made to fill memory.
MOST_RATIO = 100
MOST_FREE = 64 * MB
# A header's fields in the order of the file, which is not that in memory.
_HEADER = (
    "schema name decoding exit_layers macs macs_reference_s parameters "
    "vocab_size frames_per_s error_unit width left_out"
).split()


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
        # No name and no time in the gzip header, so that bytes depend on the
        # content alone.
        packed = path.suffix == ".gz"
        with (
            gzip.GzipFile("", "wb", 9, fileobj=raw, mtime=0)
            if packed
            else nullcontext(raw)
        ) as stream:
            stream.writelines(_written(path, header, records))


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
    lines = _checked(path, _lines(path, most))
    _, header = next(lines, (0, None))
    if header is None:
        raise InputError(
            f"{path}: the file is empty; the first line of a trace is a "
            f'header with "schema": "{SCHEMA}". Write the trace again.'
        )
    numbered = list(lines)
    if not numbered:
        raise InputError(f"{path}: the trace has a header but no utterance.")
    numbers, records = zip(*numbered)
    trace = Trace(header, records, str(path))
    told = [
        (row, place, exit_)
        for row, record in enumerate(records)
        for place, exit_ in enumerate(record.exits)
        if exit_.hyp is not None and exit_.errors is not None
    ]
    for row, place, exit_ in told:
        if exit_.errors != trace.errors_NE[row, place]:
            _fail(
                path,
                numbers[row],
                f"exits[layer {exit_.layer}].errors",
                f"{exit_.errors} is given, but hyp against ref has "
                f"{trace.errors_NE[row, place]} {header.error_unit} errors. "
                "Leave errors out, or correct it",
            )
    return trace


def utterance_row(record: UtteranceRecord) -> dict[str, Any]:
    """An utterance as a line of a file has it, of plain values."""
    row = _row(record)
    row["exits"] = row.pop("exits")  # after what is shorter
    return row


def _row(record: Record) -> dict[str, Any]:
    """Plain values, also of numpy's; what is None or empty is left out."""
    return msgspec.to_builtins(
        record, order="deterministic", enc_hook=lambda value: value.item()
    )


def _header_row(header: TraceHeader) -> dict[str, Any]:
    row = {"schema": SCHEMA, **_row(header)}
    row.pop("macs_reference_s", None)
    if header.macs is not None:
        row["macs_reference_s"] = header.macs_reference_s
    if header.error_unit == "word":
        row.pop("error_unit", None)
    return {n: row[n] for n in _HEADER if n in row}


def _written(
    path: Path, header: TraceHeader, records: Iterable[UtteranceRecord]
) -> Iterator[bytes]:
    """The lines of a file, each checked as the reader does it."""
    number, row = 0, {}

    def rows() -> Iterator[tuple[int, dict[str, Any]]]:
        nonlocal number, row
        for number, record in enumerate(chain([header], records), 1):
            row = _file_row(record)
            yield number, row

    try:
        for _, record in _checked(path, rows()):
            text = json.dumps(_file_row(record), ensure_ascii=False)
            yield (text + "\n").encode()
    except (InputError, UnicodeEncodeError) as error:
        if isinstance(error, UnicodeEncodeError):  # half a character
            error = f"{path}, line {number}: not valid text ({error.reason})."
        name = f" (utterance {row['id']!r})" if "id" in row else ""
        raise InputError(f"{error}{name} The trace was not written.") from None


def _file_row(record: TraceHeader | UtteranceRecord) -> dict[str, Any]:
    is_header = isinstance(record, TraceHeader)
    return _header_row(record) if is_header else utterance_row(record)


def _checked(
    path: Path, lines: Iterable[tuple[int, bytes | dict[str, Any]]]
) -> Iterator[tuple[int, Any]]:
    """Numbered lines as records, and what they must satisfy together.

    Exits may differ in their evidence (the first ones lack what compares with
    earlier exits), utterances may not: half a column is a mistake of whoever
    wrote it.
    """
    lines = iter(lines)
    for number, line in lines:
        row = dict(_parsed(path, number, line, dict))
        if (schema := row.pop("schema", None)) != SCHEMA:
            problem = f"{quoted(schema)} in the first line; write {SCHEMA!r}"
            _fail(path, number, "schema", problem)
        header = _parsed(path, number, row, TraceHeader)
        yield number, header
        break
    lines_by_id: dict[tuple[str, str], int] = {}
    top, expected = 0, None
    for number, line in lines:
        record = _parsed(path, number, line, UtteranceRecord)
        found = tuple(exit_.layer for exit_ in record.exits)
        if found != header.exit_layers:
            problem = (
                f"layers {quoted(found)}, but the header's exit_layers are "
                f"{header.exit_layers}: every utterance needs every exit, in "
                "that order"
            )
            _fail(path, number, "exits", problem)
        first = lines_by_id.setdefault((record.set, record.id), number)
        if first != number:
            problem = f"{record.id!r} is there twice in set {record.set!r}"
            _fail(path, number, "id", f"{problem} (first in line {first})")
        names = [exit_.evidence.keys() for exit_ in record.exits]
        if expected is None:
            top, expected = number, names
        if names != expected:
            _uneven(path, found, (top, expected), (number, names))
        yield number, record


def _uneven(path: Path, layers: Sequence[int], *utterances: Any) -> NoReturn:
    """Name the evidence that one of two utterances lacks, and the line."""
    for has, lacks in (utterances, utterances[::-1]):
        for layer, some, others in zip(layers, has[1], lacks[1]):
            if lost := some - others:
                _fail(
                    path,
                    lacks[0],
                    f"exits[layer {layer}].evidence.{min(lost)}",
                    f"missing, but line {has[0]} has it. Give it for every "
                    "utterance, or leave it out of the whole trace",
                )
    raise AssertionError("both have the same evidence")


def _parsed(path: Path, number: int, line: Any, kind: type) -> Any:
    """A line, as bytes or as plain values, as a record of a kind."""
    try:
        if isinstance(line, bytes):
            return _DECODERS[kind].decode(line)
        return msgspec.convert(line, kind)
    except msgspec.ValidationError as error:
        field, problem = "JSON", str(error)
        with suppress(ValueError, RecursionError):
            content = json.loads(line) if isinstance(line, bytes) else line
            field, problem = explain(error, content, kind)
            if (
                error.__cause__ is not None
            ):  # a record's own rule names its field
                name, _, problem = problem.partition(": ")
                field = f"{field}.{name}".lstrip(".")
    except msgspec.DecodeError as error:
        field, problem = "JSON", str(error)
    _fail(path, number, field or "JSON", problem)


_DECODERS = {
    kind: msgspec.json.Decoder(kind) for kind in (UtteranceRecord, dict)
}


def _fail(path: Path, number: int, field: str, problem: str) -> NoReturn:
    raise InputError(f"{path}, line {number}, field {field}: {problem}.")


def _lines(path: Path, most: int) -> Iterator[tuple[int, bytes]]:
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
                    yield number, line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(
            f"{path}, line {number + 1}: the gzip data are cut or damaged "
            f"({error}); copy or write the trace again."
        ) from None
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}); give the "
            f"path of an exit trace (.jsonl or .jsonl.gz)."
        ) from None
