"""From one line of a trace to a checked record.

A table that drives thresholds must not be half understood: an unknown field
is an error, as is a value of the wrong kind, and every error names file,
line and field.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from speechbrain_ee.errors import InputError, quoted
from speechbrain_ee.exits.records import (
    MACS_REFERENCE_S,
    SCHEMA,
    ExitRecord,
    TraceHeader,
    UtteranceRecord,
)
from speechbrain_ee.exits.scoring import ERROR_UNITS

HEADER_FIELDS = {
    "schema",
    "name",
    "decoding",
    "exit_layers",
    "macs",
    "macs_reference_s",
    "parameters",
    "vocab_size",
    "frames_per_s",
    "error_unit",
    "width",
    "left_out",
}
UTTERANCE_FIELDS = {"id", "set", "ref", "exits", "duration_s", "speaker"}
EXIT_FIELDS = {
    "layer",
    "hyp",
    "errors",
    "evidence",
    "macs",
    "greedy",
    "decoding_macs",
}


def _reject_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number that a trace may hold")


_DECODER = json.JSONDecoder(parse_constant=_reject_constant)
_LARGEST_COUNT = 2**63 - 1  # what a column of counts can hold


class Line:
    """One line of a trace on its way to a record.

    Arguments
    ---------
    path : Path
        The file, for messages.
    number : int
        The line, counted from 1.
    row : Any
        Its content.
    fields : set of str
        Fields that it may have.

    Raises
    ------
    InputError
        If it is not an object with these fields.
    """

    def __init__(
        self, path: Path, number: int, row: Any, fields: set[str]
    ) -> None:
        self.path, self.number = path, number
        if not isinstance(row, dict):
            self.fail("JSON", f"an object was expected, got {quoted(row)}")
        if fields is HEADER_FIELDS and row.get("schema") != SCHEMA:
            self.fail(
                "schema",
                f"{quoted(row.get('schema'))} in the first line; this reader knows "
                f"{SCHEMA!r}",
            )
        self.row = row
        self.check_fields(row, fields, "")

    @classmethod
    def decode(
        cls, path: Path, number: int, text: str, fields: set[str]
    ) -> "Line":
        """The line from its text, which must be JSON."""
        try:
            row = _DECODER.decode(text)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{path}, line {number}, field JSON: {error}."
            ) from None
        return cls(path, number, row, fields)

    def fail(self, field: str, problem: str) -> NoReturn:
        """Raise the error that names file, line and field."""
        raise InputError(
            f"{self.path}, line {self.number}, field {field}: {problem}."
        )

    def check_fields(
        self, row: dict[str, Any], fields: set[str], where: str
    ) -> None:
        """No field but the known ones."""
        unknown = row.keys() - fields
        if unknown:
            self.fail(
                f"{where}{min(unknown)[:100]}",
                f"unknown; valid fields: {', '.join(sorted(fields))}",
            )

    def text(self, name: str) -> str:
        """A field that must be text."""
        if name not in self.row:
            self.fail(name, "missing")
        return self.text_of(self.row[name], name)

    def text_of(self, value: Any, field: str) -> str:
        """A value that must be text."""
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
        """A value that must be a count."""
        if type(value) is not int or not 0 <= value <= _LARGEST_COUNT:
            self.fail(field, f"a count was expected, got {quoted(value)}")
        return value

    def number_of(self, value: Any, field: str) -> float:
        """A value that must be a finite number."""
        # bool is an int for isinstance, and not a measurement
        if type(value) in (int, float):
            with suppress(OverflowError):
                if math.isfinite(number := float(value)):
                    return number
        self.fail(field, f"a finite number was expected, got {quoted(value)}")

    def positive(self, name: str) -> float | None:
        """A field that may be a positive number."""
        if name not in self.row:
            return None
        value = self.number_of(self.row[name], name)
        if value <= 0:
            self.fail(name, f"{value} is not positive")
        return value

    def counts(self, name: str, length: int | None) -> tuple[int, ...] | None:
        """A field that may be a list of counts."""
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
        """The line as a header."""
        layers = self.counts("exit_layers", None)
        if layers is None:
            self.fail("exit_layers", "missing")
        if any(b <= a for a, b in zip(layers, layers[1:], strict=False)):
            self.fail(
                "exit_layers", f"{quoted(list(layers))} does not increase"
            )
        for name in ("vocab_size", "width"):
            if self.row.get(name) is not None:
                self.count(self.row[name], name)
        left_out = self.row.get("left_out", {})
        if not isinstance(left_out, dict):
            self.fail("left_out", "an object was expected")
        for name, why in left_out.items():
            self.text_of(name, "left_out")
            self.text_of(why, f"left_out.{name[:100]}")
        unit = self.row.get("error_unit", "word")
        if unit not in ERROR_UNITS:
            self.fail("error_unit", f"{unit!r} is none of {ERROR_UNITS}")
        return TraceHeader(
            self.text("name"),
            self.text("decoding"),
            layers,
            self.counts("macs", len(layers)),
            self.counts("parameters", len(layers)),
            self.positive("macs_reference_s") or MACS_REFERENCE_S,
            self.row.get("vocab_size"),
            self.positive("frames_per_s"),
            unit,
            self.row.get("width"),
            left_out,
        )

    def utterance(self, header: TraceHeader) -> UtteranceRecord:
        """The line as an utterance with the exits of the header."""
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
        if speaker is not None and not self.text_of(speaker, "speaker"):
            self.fail("speaker", "empty; leave it out where it is not known")
        return UtteranceRecord(
            self.text("id"),
            self.text("set"),
            self.text("ref"),
            tuple(self.exit(row) for row in exits),
            duration_s,
            speaker,
        )

    def exit(self, row: dict[str, Any]) -> ExitRecord:
        """One entry of ``exits``."""
        where = f"exits[layer {row['layer']}]."
        self.check_fields(row, EXIT_FIELDS, where)
        hyp, errors, macs = row.get("hyp"), row.get("errors"), row.get("macs")
        if hyp is None and errors is None:
            self.fail(f"{where}hyp", "neither hyp nor errors is there")
        for name in ("hyp", "greedy"):
            if row.get(name) is not None:
                self.text_of(row[name], f"{where}{name}")
        for name in ("errors", "macs", "decoding_macs"):
            if row.get(name) is not None:
                self.count(row[name], f"{where}{name}")
        decoding_macs = row.get("decoding_macs")
        if decoding_macs is not None and decoding_macs > (macs or 0):
            self.fail(
                f"{where}decoding_macs",
                f"{decoding_macs} is more than macs, {macs}, of which it is "
                "a part",
            )
        evidence = row.get("evidence", {})
        if not isinstance(evidence, dict):
            self.fail(f"{where}evidence", "an object was expected")
        checked = {
            name: self.number_of(value, f"{where}evidence.{name}")
            for name, value in evidence.items()
        }
        return ExitRecord(
            row["layer"],
            hyp,
            errors,
            checked,
            macs,
            row.get("greedy"),
            decoding_macs,
        )


class SameEvidence:
    """Checks that all utterances have the same evidence at the same exits.

    Exits may differ (the first ones lack what compares with earlier exits),
    utterances may not: half a column is a mistake of whoever wrote it.

    Arguments
    ---------
    path : Path
        The file, for messages.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.first: tuple[int, UtteranceRecord] | None = None

    def check(self, number: int, record: UtteranceRecord) -> None:
        """Compare an utterance with the first one.

        Arguments
        ---------
        number : int
            Its line.
        record : UtteranceRecord
            The utterance.

        Raises
        ------
        InputError
            Naming the first line that lacks evidence, and the field.
        """
        if self.first is None:
            self.first = number, record
        top, model = self.first
        for known, new in zip(model.exits, record.exits, strict=True):
            if known.evidence.keys() == new.evidence.keys():
                continue
            if lost := known.evidence.keys() - new.evidence.keys():
                self._fail(number, top, new.layer, min(lost))
            lost = new.evidence.keys() - known.evidence.keys()
            self._fail(top, number, new.layer, min(lost))

    def _fail(self, number: int, other: int, layer: int, name: str) -> NoReturn:
        raise InputError(
            f"{self.path}, line {number}, field exits[layer {layer}]."
            f"evidence.{name}: missing, but line {other} has it. Give it for "
            f"every utterance, or leave it out of the whole trace."
        )
