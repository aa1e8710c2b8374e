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
import math
import os
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from speechbrain_ee.errors import InputError, quoted
from speechbrain_ee.exits.scoring import ERROR_UNITS
from speechbrain_ee.exits.trace import (
    MACS_REFERENCE_S,
    ExitRecord,
    Trace,
    TraceHeader,
    UtteranceRecord,
)
from speechbrain_ee.files import GZIP, LARGEST_INT, MB, open_plain, whole_file

SCHEMA = "exit-trace/1"
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
        # No name and no time in the gzip header, so that bytes depend on the
        # content alone.
        stream: Any = raw
        if path.suffix == ".gz":
            stream = gzip.GzipFile("", "wb", 9, fileobj=raw, mtime=0)
        try:
            for row in _checked_rows(path, header, records):
                text = json.dumps(row, ensure_ascii=False, allow_nan=False)
                stream.write((text + "\n").encode())
        finally:
            if stream is not raw:
                stream.close()


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
        number, text = next(lines)
    except StopIteration:
        raise InputError(
            f"{path}: the file is empty; the first line of a trace is a "
            f'header with "schema": "{SCHEMA}". Write the trace again.'
        ) from None
    checks = _Checks(path, _Line(path, number, _decoded(path, number, text)))
    records = tuple(
        checks.utterance(_Line(path, number, _decoded(path, number, text)))
        for number, text in lines
    )
    if not records:
        raise InputError(f"{path}: the trace has a header but no utterance.")
    trace = Trace(checks.header, records, str(path))
    _check_errors(trace, list(checks.seen.values()))
    return trace


# ---- Records as rows -------------------------------------------------------


def _unchanged(value: Any) -> Any:
    return value


def _whole_numbers(values: Iterable[Any]) -> list[int]:
    return [int(value) for value in values]


def _measurements(evidence: Mapping[str, Any]) -> dict[str, float] | None:
    return {name: float(evidence[name]) for name in sorted(evidence)} or None


# How each field of a record is written, in the order of the file; what
# becomes None is left out.
Fields = Mapping[str, Callable[[Any], Any]]
_EXIT: Fields = {
    "layer": int,
    "hyp": _unchanged,
    "errors": int,
    "evidence": _measurements,
    "macs": int,
    "greedy": _unchanged,
    "decoding_macs": int,
}
_UTTERANCE: Fields = {
    "id": _unchanged,
    "set": _unchanged,
    "ref": _unchanged,
    "duration_s": float,
    "speaker": _unchanged,
    "exits": lambda exits: [_row(exit_, _EXIT) for exit_ in exits],
}
_HEADER: Fields = {
    "name": _unchanged,
    "decoding": _unchanged,
    "exit_layers": _whole_numbers,
    "macs": _whole_numbers,
    "macs_reference_s": float,
    "parameters": _whole_numbers,
    "vocab_size": int,
    "frames_per_s": float,
    "error_unit": lambda unit: None if unit == "word" else unit,
    "width": int,
    "left_out": lambda why: dict(sorted(why.items())) or None,
}


def _row(record: Any, fields: Fields) -> dict[str, Any]:
    row = {}
    for name, plain in fields.items():
        value = getattr(record, name)
        if value is not None and (value := plain(value)) is not None:
            row[name] = value
    return row


def utterance_row(record: UtteranceRecord) -> dict[str, Any]:
    """An utterance as a line of a file has it, of plain values."""
    return _row(record, _UTTERANCE)


def _checked_rows(
    path: Path, header: TraceHeader, records: Iterable[UtteranceRecord]
) -> Iterator[dict[str, Any]]:
    """The lines of a file, each checked as the reader does it."""
    row = {"schema": SCHEMA, **_row(header, _HEADER)}
    if header.macs is None:
        row.pop("macs_reference_s", None)
    try:
        checks = _Checks(path, _Line(path, 1, row))
        yield row
        for number, record in enumerate(records, 2):
            row = utterance_row(record)
            checks.utterance(_Line(path, number, row))
            yield row
    except InputError as error:
        name = f" (utterance {row['id']!r})" if "id" in row else ""
        raise InputError(f"{error}{name} The trace was not written.") from None


# ---- Lines as records ------------------------------------------------------


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


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number that a trace may hold")


_DECODER = json.JSONDecoder(parse_constant=_reject_constant)


def _decoded(path: Path, number: int, text: str) -> Any:
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path}, line {number}, field JSON: {error}."
        ) from None


class _Line:
    """One line of a trace on its way to a record."""

    def __init__(self, path: Path, number: int, row: Any) -> None:
        self.path, self.number, self.row = path, number, row
        if not isinstance(row, dict):
            self.fail("JSON", f"an object was expected, got {quoted(row)}")

    def fail(self, field: str, problem: str) -> NoReturn:
        """Raise the error that names file, line and field."""
        raise InputError(
            f"{self.path}, line {self.number}, field {field}: {problem}."
        )

    def check_fields(
        self, row: dict[str, Any], known: Collection[str], where: str = ""
    ) -> None:
        unknown = row.keys() - known
        if unknown:
            self.fail(
                f"{where}{min(unknown)[:100]}",
                f"unknown; valid fields: {', '.join(sorted(known))}",
            )

    def required_text(self, name: str) -> str:
        if name not in self.row:
            self.fail(name, "missing")
        return self.text(self.row[name], name)

    def text(self, value: Any, field: str) -> str:
        if not isinstance(value, str):
            self.fail(field, f"a text was expected, got {quoted(value)}")
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                # JSON can escape half a character; no file can hold it
                self.fail(field, f"not valid text ({error.reason})")
        return value

    def count(self, value: Any, field: str) -> int:
        if type(value) is not int or not 0 <= value <= LARGEST_INT:
            self.fail(field, f"a count was expected, got {quoted(value)}")
        return value

    def number_of(self, value: Any, field: str) -> float:
        # bool is an int for isinstance, and not a measurement
        if type(value) in (int, float):
            with suppress(OverflowError):
                if math.isfinite(number := float(value)):
                    return number
        self.fail(field, f"a finite number was expected, got {quoted(value)}")

    def positive(self, name: str, default: float | None) -> float | None:
        if name not in self.row:
            return default
        value = self.number_of(self.row[name], name)
        if value <= 0:
            self.fail(name, f"{value} is not positive")
        return value

    def object(self, value: Any, field: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.fail(field, "an object was expected")
        return value

    def counts(self, name: str, length: int | None) -> tuple[int, ...] | None:
        """A list of counts, of a given length; None where there is none."""
        values = self.row.get(name)
        if values is None:
            return None
        if not isinstance(values, list) or not values:
            self.fail(
                name, f"a list of counts was expected, got {quoted(values)}"
            )
        if length is not None and len(values) != length:
            self.fail(
                name, f"{len(values)} values for {length} exits; give one each"
            )
        return tuple(self.count(value, name) for value in values)

    def header(self) -> TraceHeader:
        row = self.row
        if row.get("schema") != SCHEMA:
            self.fail(
                "schema",
                f"{quoted(row.get('schema'))} in the first line; this reader "
                f"knows {SCHEMA!r}",
            )
        self.check_fields(row, {"schema", *_HEADER})
        layers = self.counts("exit_layers", None)
        if layers is None:
            self.fail("exit_layers", "missing")
        if any(b <= a for a, b in zip(layers, layers[1:], strict=False)):
            self.fail(
                "exit_layers", f"{quoted(list(layers))} does not increase"
            )
        for name in ("vocab_size", "width"):
            if row.get(name) is not None:
                self.count(row[name], name)
        left_out = self.object(row.get("left_out", {}), "left_out")
        for name, why in left_out.items():
            self.text(name, "left_out")
            self.text(why, f"left_out.{name[:100]}")
        unit = row.get("error_unit", "word")
        if unit not in ERROR_UNITS:
            self.fail("error_unit", f"{unit!r} is none of {ERROR_UNITS}")
        return TraceHeader(
            self.required_text("name"),
            self.required_text("decoding"),
            layers,
            self.counts("macs", len(layers)),
            self.counts("parameters", len(layers)),
            self.positive("macs_reference_s", MACS_REFERENCE_S),
            row.get("vocab_size"),
            self.positive("frames_per_s", None),
            unit,
            row.get("width"),
            left_out,
        )

    def utterance(self, header: TraceHeader) -> UtteranceRecord:
        """The line as an utterance with the exits of the header."""
        self.check_fields(self.row, _UTTERANCE.keys())
        exits = self.row.get("exits")
        if not isinstance(exits, list):
            self.fail("exits", "a list of exits was expected")
        layers = [
            row.get("layer") if isinstance(row, dict) else row for row in exits
        ]
        # 2.0 and true equal an integer, and are none
        whole = all(
            isinstance(row, dict) and type(layer) is int
            for row, layer in zip(exits, layers, strict=True)
        )
        if not whole or layers != list(header.exit_layers):
            self.fail(
                "exits",
                f"layers {quoted(layers)}, but the header's exit_layers are "
                f"{list(header.exit_layers)}: every utterance needs every "
                f"exit, in that order",
            )
        duration_s = self.row.get("duration_s")
        if duration_s is not None:
            duration_s = self.number_of(duration_s, "duration_s")
            if duration_s < 0:
                self.fail("duration_s", f"{duration_s} is negative")
        speaker = self.row.get("speaker")
        if speaker is not None and not self.text(speaker, "speaker"):
            self.fail("speaker", "empty; leave it out where it is not known")
        return UtteranceRecord(
            self.required_text("id"),
            self.required_text("set"),
            self.required_text("ref"),
            tuple(self.exit(row) for row in exits),
            duration_s,
            speaker,
        )

    def exit(self, row: dict[str, Any]) -> ExitRecord:
        """One entry of ``exits``."""
        where = f"exits[layer {row['layer']}]."
        self.check_fields(row, _EXIT.keys(), where)
        get = row.get
        if get("hyp") is None and get("errors") is None:
            self.fail(f"{where}hyp", "neither hyp nor errors is there")
        for name in ("hyp", "greedy"):
            if get(name) is not None:
                self.text(row[name], f"{where}{name}")
        for name in ("errors", "macs", "decoding_macs"):
            if get(name) is not None:
                self.count(row[name], f"{where}{name}")
        macs, decoding_macs = get("macs"), get("decoding_macs")
        if decoding_macs is not None and decoding_macs > (macs or 0):
            self.fail(
                f"{where}decoding_macs",
                f"{decoding_macs} is more than macs, {macs}, of which it is "
                "a part",
            )
        evidence = self.object(get("evidence", {}), f"{where}evidence")
        evidence = {
            name: self.number_of(value, f"{where}evidence.{name}")
            for name, value in evidence.items()
        }
        return ExitRecord(
            row["layer"],
            get("hyp"),
            get("errors"),
            evidence,
            macs,
            get("greedy"),
            decoding_macs,
        )


class _Checks:
    """The header of a trace, and what utterances must satisfy together."""

    def __init__(self, path: Path, line: _Line) -> None:
        self.path = path
        self.header = line.header()
        self.seen: dict[tuple[str, str], int] = {}
        self.first: tuple[int, UtteranceRecord] | None = None

    def utterance(self, line: _Line) -> UtteranceRecord:
        record = line.utterance(self.header)
        key = (record.set, record.id)
        if key in self.seen:
            line.fail(
                "id",
                f"{record.id!r} is there twice in set {record.set!r} "
                f"(first in line {self.seen[key]})",
            )
        self.check_evidence(line.number, record)
        self.seen[key] = line.number
        return record

    def check_evidence(self, number: int, record: UtteranceRecord) -> None:
        """All utterances have the same evidence at the same exits.

        Exits may differ (the first ones lack what compares with earlier
        exits), utterances may not: half a column is a mistake of whoever
        wrote it.
        """
        if self.first is None:
            self.first = number, record
        top, model = self.first
        for known, new in zip(model.exits, record.exits, strict=True):
            if known.evidence.keys() == new.evidence.keys():
                continue
            if lost := known.evidence.keys() - new.evidence.keys():
                lacking, other = number, top
            else:
                lost = new.evidence.keys() - known.evidence.keys()
                lacking, other = top, number
            raise InputError(
                f"{self.path}, line {lacking}, field exits[layer {new.layer}]."
                f"evidence.{min(lost)}: missing, but line {other} has it. Give "
                "it for every utterance, or leave it out of the whole trace."
            )


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
