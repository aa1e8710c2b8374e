"""The records that an exit trace is made of, schema ``exit-trace/1``.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError

logger = logging.getLogger(__name__)

SCHEMA = "exit-trace/1"
MACS_REFERENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class ExitRecord:
    """What one exit made of one utterance.

    Arguments
    ---------
    layer : int
        Encoder layer that the exit follows.
    hyp : str, optional
        What it recognised.
    errors : int, optional
        Word errors; may be left out when ``hyp`` is there.
    evidence : mapping of str to float
        Raw values by criterion (an entropy is an entropy).
    macs : int, optional
        Multiply-accumulates spent on this utterance up to this exit,
        the exit and decoding there included.
    greedy : str, optional
        CTC's greedy transcript, where ``hyp`` comes from a costlier way of
        decoding: the transcript that a policy can see before it decides.
    decoding_macs : int, optional
        The part of ``macs`` that decoding at this exit takes; an utterance
        that goes on to a later exit pays it only if its policy looks at what
        was decoded here.
    """

    layer: int
    hyp: str | None = None
    errors: int | None = None
    evidence: Mapping[str, float] = field(default_factory=dict)
    macs: int | None = None
    greedy: str | None = None
    decoding_macs: int | None = None

    @property
    def seen(self) -> str | None:
        """The transcript that a policy can compare before it decides."""
        return self.hyp if self.greedy is None else self.greedy


@dataclass(frozen=True, slots=True)
class UtteranceRecord:
    """One utterance at every exit.

    Arguments
    ---------
    id : str
        Name of the utterance, unique within its set.
    set : str
        Test set, for example ``test-clean``.
    ref : str
        What was said.
    exits : tuple of ExitRecord
        In the order of the header's ``exit_layers``.
    duration_s : float, optional
        Length of the audio in seconds.
    speaker : str, optional
        Who speaks, as the corpus says; the same name in two sets is the same
        person. None if the corpus does not say.
    """

    id: str
    set: str
    ref: str
    exits: tuple[ExitRecord, ...]
    duration_s: float | None = None
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class TraceHeader:
    """What all utterances of a trace share.

    Arguments
    ---------
    name : str
        The model.
    decoding : str
        How hypotheses were made, for example ``greedy`` or ``joint``.
    exit_layers : tuple of int
        Encoder layer that each exit follows, increasing.
    macs : tuple of int, optional
        Multiply-accumulates up to and including exit k for
        ``macs_reference_s`` seconds of audio.
    parameters : tuple of int, optional
        Parameters of the model truncated at exit k.
    macs_reference_s : float
        Length in seconds of the audio that ``macs`` is for.
    vocab_size : int, optional
        Entries of a frame's output distribution.
    frames_per_s : float, optional
        Such frames per second of audio. With the vocabulary it tells what a
        criterion costs.
    error_unit : str
        What errors are counted in: ``word`` or ``character``.
    width : int, optional
        Width of the hidden states.
    left_out : mapping of str to str
        Evidence that an evaluation takes, but that is not there, and why.
    """

    name: str
    decoding: str
    exit_layers: tuple[int, ...]
    macs: tuple[int, ...] | None = None
    parameters: tuple[int, ...] | None = None
    macs_reference_s: float = MACS_REFERENCE_S
    vocab_size: int | None = None
    frames_per_s: float | None = None
    error_unit: str = "word"
    width: int | None = None
    left_out: Mapping[str, str] = field(default_factory=dict, hash=False)


def _column(
    records: Sequence[UtteranceRecord], name: str
) -> NDArray[np.float64]:
    """One kind of evidence, shape (N, E); NaN where there is none."""
    return np.array(
        [[e.evidence.get(name, np.nan) for e in r.exits] for r in records]
    )


def with_storable_evidence(
    records: Sequence[UtteranceRecord],
) -> tuple[tuple[UtteranceRecord, ...], dict[str, str]]:
    """Leave out what no trace can hold: one value must not cost all others.

    Arguments
    ---------
    records : sequence of UtteranceRecord
        Utterances with the same exits, as they were measured.

    Returns
    -------
    records : tuple of UtteranceRecord
        The same without NaN, and without evidence that is infinite or not
        there for some utterance.
    left_out : dict of str to str
        That evidence, and why.
    """
    cells = [e.evidence for record in records for e in record.exits]
    left_out = {}
    names = {n for c in cells for n, v in c.items() if not math.isfinite(v)}
    for name in sorted(names):
        values_NE = _column(records, name)
        infinite = np.argwhere(np.isinf(values_NE))
        bad = tuple(infinite[0]) if len(infinite) else first_gap(values_NE)
        if bad is not None:
            left_out[name] = (
                f"{values_NE[bad]} for utterance {records[bad[0]].id!r} at "
                f"exit {bad[1] + 1}"
            )
    if not names:
        return tuple(records), left_out

    def kept(exit_: ExitRecord) -> ExitRecord:
        values = {
            name: value
            for name, value in exit_.evidence.items()
            if name not in left_out and not math.isnan(value)
        }
        return replace(exit_, evidence=values)

    return tuple(
        replace(record, exits=tuple(map(kept, record.exits)))
        for record in records
    ), left_out


def evidence_columns(
    records: Sequence[UtteranceRecord],
) -> dict[str, NDArray[np.float64]]:
    """Evidence as columns.

    Arguments
    ---------
    records : sequence of UtteranceRecord
        Utterances with the same exits.

    Returns
    -------
    dict of str to array of shape (N, E)
        What every utterance has from some exit on; NaN before that exit.
        Anything else is left out, with a warning.
    """
    names = sorted({n for r in records for e in r.exits for n in e.evidence})
    columns = {}
    for name in names:
        values_NE = _column(records, name)
        gap = first_gap(values_NE)
        if gap is None:
            columns[name] = values_NE
            continue
        row, place = gap
        logger.warning(
            "Evidence %r is left out: utterance %r lacks it at the exit "
            "after layer %d.",
            name,
            records[row].id,
            records[row].exits[place].layer,
        )
    return columns


def first_gap(values_NE: NDArray[np.floating]) -> tuple[int, int] | None:
    """Where evidence is missing that ought to be there.

    A measure that looks at earlier exits has no value at the first ones;
    from the first exit on where any utterance has one, all must.

    Arguments
    ---------
    values_NE : array of shape (N, E)
        One kind of evidence, NaN where there is none.

    Returns
    -------
    tuple of int, optional
        Row and column of the first missing value; None if there is none.

    Example
    -------
    >>> first_gap(np.array([[np.nan, 0.4, 0.1], [np.nan, 0.5, np.nan]]))
    (1, 2)
    """
    missing_NE = np.isnan(values_NE)
    start = int((~missing_NE).any(axis=0).argmax())
    if not missing_NE[:, start:].any():
        return None
    row = int(missing_NE[:, start:].any(axis=1).argmax())
    return row, start + int(missing_NE[row, start:].argmax())


def check_column(
    name: str, values_NE: NDArray[np.floating], ids: Sequence[str], exits: int
) -> None:
    """Refuse a column of evidence that no trace could hold.

    Arguments
    ---------
    name : str
        Key of the evidence.
    values_NE : array of shape (N, E)
        Its values; NaN at the first exits if there is none yet.
    ids : sequence of str
        Names of the N utterances.
    exits : int
        How many exits E there are.

    Raises
    ------
    InputError
        If the shape is another, or values are missing at later exits or
        infinite.
    """
    if values_NE.shape != (len(ids), exits):
        raise InputError(
            f"evidence {name!r} has shape {values_NE.shape}, but the trace "
            f"has {len(ids)} utterances with {exits} exits."
        )
    infinite = np.argwhere(np.isinf(values_NE))
    bad = tuple(infinite[0]) if len(infinite) else first_gap(values_NE)
    if bad is not None:
        raise InputError(
            f"evidence {name!r} of utterance {ids[bad[0]]!r} is "
            f"{values_NE[bad]} at exit {bad[1] + 1}; give a finite number "
            f"there (only the first exits may have none, the same ones for "
            f"all utterances)."
        )


def header_row(header: TraceHeader) -> dict[str, Any]:
    """The header as the first line of a file has it.

    Arguments
    ---------
    header : TraceHeader
        What all utterances share.

    Returns
    -------
    dict
        Plain values; what is None is left out.
    """
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
    if header.error_unit != "word":
        row["error_unit"] = header.error_unit
    if header.width is not None:
        row["width"] = int(header.width)
    if header.left_out:
        row["left_out"] = dict(sorted(header.left_out.items()))
    return row


def utterance_row(record: UtteranceRecord) -> dict[str, Any]:
    """An utterance as a line of a file has it.

    Arguments
    ---------
    record : UtteranceRecord
        The utterance.

    Returns
    -------
    dict
        Plain values; what is None is left out.
    """
    row: dict[str, Any] = {
        "id": record.id,
        "set": record.set,
        "ref": record.ref,
    }
    if record.duration_s is not None:
        row["duration_s"] = float(record.duration_s)
    if record.speaker is not None:
        row["speaker"] = record.speaker
    row["exits"] = [_exit_row(exit_) for exit_ in record.exits]
    return row


def _exit_row(record: ExitRecord) -> dict[str, Any]:
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
    if record.greedy is not None:
        row["greedy"] = record.greedy
    if record.decoding_macs is not None:
        row["decoding_macs"] = int(record.decoding_macs)
    return row
