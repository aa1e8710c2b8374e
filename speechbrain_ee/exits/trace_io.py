"""Reading and writing exit traces (JSON Lines, gzip if the name says so).

The first line is the header, then one line per utterance. Fields that are
None are left out. A reader refuses what it does not understand, with file,
line and field: a table that drives thresholds must not be half understood.

Authors
 * The speechbrain-ee contributors 2026
"""

import gzip
import io
import json
import logging
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.scoring import edit_counts
from speechbrain_ee.exits.trace import (
    SCHEMA,
    ExitRecord,
    Trace,
    TraceHeader,
    UtteranceRecord,
)
from speechbrain_ee.exits.trace_parse import (
    HEADER_FIELDS,
    UTTERANCE_FIELDS,
    Line,
)

logger = logging.getLogger(__name__)


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
        If a record does not fit the header or holds a value that is not
        finite.
    """
    path = Path(path)
    with whole_file(path) as raw:
        _write_lines(raw, path, header, records)


def read_trace(path: str | Path) -> Trace:
    """Read a trace and check every field of it.

    Arguments
    ---------
    path : str or Path
        A file that follows ``exit-trace/1``.

    Returns
    -------
    Trace

    Raises
    ------
    InputError
        With file, line and field, if the file is missing, cut or malformed.
    """
    path = Path(path)
    lines = _lines(path)
    try:
        number, line = next(lines)
    except StopIteration:
        raise InputError(
            f"{path}: the file is empty; the first line of a trace is a "
            f'header with "schema": "{SCHEMA}". Write the trace again.'
        ) from None
    header = Line(path, number, line, HEADER_FIELDS).header()
    records = []
    seen: dict[tuple[str, str], int] = {}
    for number, line in lines:
        parsed = Line(path, number, line, UTTERANCE_FIELDS)
        record = parsed.utterance(header)
        key = (record.set, record.id)
        if key in seen:
            parsed.fail(
                "id",
                f"{record.id!r} is there twice in set {record.set!r} "
                f"(first in line {seen[key]})",
            )
        seen[key] = number
        records.append(record)
    if not records:
        raise InputError(f"{path}: the trace has a header but no utterance.")
    trace = Trace(header, tuple(records), str(path))
    _check_errors(trace, list(seen.values()))
    return trace


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file whole or not at all.

    Arguments
    ---------
    path : Path
        Target; its folder is made if missing.

    Yields
    ------
    binary stream
        Its content takes the place of the target when all went well.

    Raises
    ------
    InputError
        If the target cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as stream:
            yield stream
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}); choose "
            f"a place that you may write to."
        ) from None
    finally:
        # of the parent only what is there: it may be a file or missing
        with suppress(OSError):
            temporary.unlink()


def _write_lines(
    raw: BinaryIO,
    path: Path,
    header: TraceHeader,
    records: Iterable[UtteranceRecord],
) -> None:
    # No name and no time in the gzip header, so that bytes depend on the
    # content alone.
    stream: Any = raw
    if path.suffix == ".gz":
        stream = gzip.GzipFile("", "wb", 9, fileobj=raw, mtime=0)
    try:
        stream.write(_encode(_header_dict(header)))
        for record in records:
            layers = tuple(exit_.layer for exit_ in record.exits)
            if layers != tuple(header.exit_layers):
                raise InputError(
                    f"{path}: utterance {record.id!r} has exits at layers "
                    f"{list(layers)}, the header says "
                    f"{list(header.exit_layers)}."
                )
            try:
                stream.write(_encode(_utterance_dict(record)))
            except ValueError as error:
                raise InputError(
                    f"{path}: utterance {record.id!r} holds a number that is "
                    f"not finite ({error}); the trace was not written."
                ) from None
    finally:
        if stream is not raw:
            stream.close()


def _encode(row: dict[str, Any]) -> bytes:
    text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def _header_dict(header: TraceHeader) -> dict[str, Any]:
    row: dict[str, Any] = {
        "schema": SCHEMA,
        "name": header.name,
        "decoding": header.decoding,
        "exit_layers": [int(layer) for layer in header.exit_layers],
    }
    if header.macs is not None:
        row["macs"] = [int(macs) for macs in header.macs]
        row["macs_reference_s"] = float(header.macs_reference_s)
    if header.parameters is not None:
        row["parameters"] = [int(count) for count in header.parameters]
    if header.vocab_size is not None:
        row["vocab_size"] = int(header.vocab_size)
    if header.frames_per_s is not None:
        row["frames_per_s"] = float(header.frames_per_s)
    return row


def _utterance_dict(record: UtteranceRecord) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": record.id,
        "set": record.set,
        "ref": record.ref,
    }
    if record.duration_s is not None:
        row["duration_s"] = float(record.duration_s)
    row["exits"] = [_exit_dict(exit_) for exit_ in record.exits]
    return row


def _exit_dict(record: ExitRecord) -> dict[str, Any]:
    row: dict[str, Any] = {"layer": int(record.layer)}
    if record.hyp is not None:
        row["hyp"] = record.hyp
    if record.errors is not None:
        row["errors"] = int(record.errors)
    if record.evidence:
        row["evidence"] = {
            name: float(record.evidence[name])
            for name in sorted(record.evidence)
        }
    if record.macs is not None:
        row["macs"] = int(record.macs)
    return row


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines; everything the file system can do is an InputError."""
    number = 0
    try:
        with open(path, "rb") as raw:
            packed = raw.peek(2)[:2] == b"\x1f\x8b"
            if path.suffix == ".gz" and not packed and raw.peek(1):
                raise gzip.BadGzipFile("no gzip header")
            stream = gzip.GzipFile(fileobj=raw) if packed else raw
            for line in io.TextIOWrapper(stream, encoding="utf-8"):
                number += 1
                if line.strip():
                    yield number, line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(
            f"{path}, line {number + 1}: the gzip data are cut or damaged "
            f"({error}); copy or write the trace again."
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}, line {number + 1}: not UTF-8 text ({error})."
        ) from None
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}); give the "
            f"path of an exit trace (.jsonl or .jsonl.gz)."
        ) from None


def _check_errors(trace: Trace, line_numbers: list[int]) -> None:
    """Recorded errors must be those of the recorded hypotheses."""
    cells = [
        (number, record.ref, exit_)
        for number, record in zip(line_numbers, trace.records, strict=True)
        for exit_ in record.exits
        if exit_.hyp is not None and exit_.errors is not None
    ]
    totals = edit_counts(
        [ref for _, ref, _ in cells], [e.hyp or "" for _, _, e in cells]
    ).sum(axis=1)
    for (number, _, exit_), total in zip(cells, totals, strict=True):
        if exit_.errors != total:
            raise InputError(
                f"{trace.source}, line {number}, field "
                f"exits[layer {exit_.layer}].errors: {exit_.errors} is given, "
                f"but hyp against ref has {total} word errors. Leave errors "
                f"out, or correct it."
            )
