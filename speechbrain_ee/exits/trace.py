"""The exit trace: one row per utterance and exit, schema ``exit-trace/1``.

A test set is decoded once at full depth; what every exit recognised and how
sure it was goes into a table. Every criterion, threshold, oracle and figure
is a function of that table. This module is the table in memory;
:mod:`speechbrain_ee.exits.trace_io` is the file.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.scoring import edit_counts, word_counts

logger = logging.getLogger(__name__)

SCHEMA = "exit-trace/1"
MACS_REFERENCE_S = 10.0

# Views with the utterance as first axis, which a subset can slice.
_VIEWS_BY_UTTERANCE = ("words_N", "errors_NE", "edits_NE3", "macs_NE")


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
        the exit included.
    """

    layer: int
    hyp: str | None = None
    errors: int | None = None
    evidence: Mapping[str, float] = field(default_factory=dict)
    macs: int | None = None


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
    """

    id: str
    set: str
    ref: str
    exits: tuple[ExitRecord, ...]
    duration_s: float | None = None


@dataclass(frozen=True, slots=True)
class TraceHeader:
    """What all utterances of a trace share.

    Arguments
    ---------
    name : str
        The model.
    decoding : str
        How hypotheses were made, for example ``greedy``.
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
    """

    name: str
    decoding: str
    exit_layers: tuple[int, ...]
    macs: tuple[int, ...] | None = None
    parameters: tuple[int, ...] | None = None
    macs_reference_s: float = MACS_REFERENCE_S
    vocab_size: int | None = None
    frames_per_s: float | None = None


@dataclass(frozen=True)
class Trace:
    """A trace in memory, with its columns as arrays (each computed once).

    Arguments
    ---------
    header : TraceHeader
        What all utterances share.
    records : tuple of UtteranceRecord
        The utterances.
    source : str
        The file, for messages.

    Example
    -------
    >>> exits = (
    ...     ExitRecord(2, hyp="a cat", evidence={"entropy": 0.4}),
    ...     ExitRecord(4, hyp="the cat", evidence={"entropy": 0.1}),
    ... )
    >>> trace = Trace(
    ...     TraceHeader("tiny", "greedy", (2, 4)),
    ...     (UtteranceRecord("u1", "test", "the cat", exits),),
    ... )
    >>> trace.errors_NE.tolist(), trace.evidence_NE("entropy").tolist()
    ([[1, 0]], [[0.4, 0.1]])
    """

    header: TraceHeader
    records: tuple[UtteranceRecord, ...]
    source: str = "trace"

    def __len__(self) -> int:
        return len(self.records)

    @cached_property
    def layers_E(self) -> NDArray[np.int64]:
        """Encoder layer of each exit."""
        return np.array(self.header.exit_layers, dtype=np.int64)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Name of each utterance."""
        return tuple(record.id for record in self.records)

    @cached_property
    def sets(self) -> tuple[str, ...]:
        """The test sets, in order of appearance."""
        return tuple(dict.fromkeys(record.set for record in self.records))

    @cached_property
    def evidence_names(self) -> tuple[str, ...]:
        """Evidence that every exit of every utterance has, sorted."""
        names: set[str] | None = None
        for record in self.records:
            for exit_ in record.exits:
                found = exit_.evidence.keys()
                names = set(found) if names is None else names & found
        return tuple(sorted(names or ()))

    @cached_property
    def words_N(self) -> NDArray[np.int64]:
        """Words of each reference."""
        return word_counts([record.ref for record in self.records])

    @cached_property
    def edits_NE3(self) -> NDArray[np.int64] | None:
        """Substitutions, deletions, insertions; None without hypotheses."""
        refs, hyps = [], []
        for record in self.records:
            for exit_ in record.exits:
                if exit_.hyp is None:
                    return None
                refs.append(record.ref)
                hyps.append(exit_.hyp)
        shape = (len(self.records), len(self.header.exit_layers), 3)
        return edit_counts(refs, hyps).reshape(shape)

    @cached_property
    def errors_NE(self) -> NDArray[np.int64]:
        """Word errors: scored from the hypotheses, else as recorded."""
        if self.edits_NE3 is not None:
            return self.edits_NE3.sum(axis=2)
        return np.array(
            [
                [
                    exit_.errors
                    if exit_.errors is not None
                    else int(edit_counts([row.ref], [exit_.hyp or ""]).sum())
                    for exit_ in row.exits
                ]
                for row in self.records
            ],
            dtype=np.int64,
        ).reshape(len(self.records), -1)

    @cached_property
    def macs_NE(self) -> NDArray[np.float64] | None:
        """Multiply-accumulates up to and including each exit.

        As recorded per utterance; else the header's, scaled with the
        duration where every utterance has one (linear in time, which
        leaves out the small quadratic share of attention); else None.
        """
        rows = [[exit_.macs for exit_ in row.exits] for row in self.records]
        if not any(value is None for row in rows for value in row):
            return np.array(rows, dtype=np.float64)
        if self.header.macs is None:
            return None
        durations = [row.duration_s for row in self.records]
        scale_N = np.ones(len(durations))
        if None not in durations:
            scale_N = np.array(durations) / self.header.macs_reference_s
        return scale_N[:, None] * np.array(self.header.macs, dtype=float)

    def evidence_NE(self, name: str) -> NDArray[np.float64]:
        """Raw evidence of one kind.

        Arguments
        ---------
        name : str
            Key of the evidence in the trace.

        Returns
        -------
        array of shape (N, E)

        Raises
        ------
        InputError
            If an exit of an utterance lacks it.
        """
        try:
            return np.array(
                [[e.evidence[name] for e in row.exits] for row in self.records]
            )
        except KeyError:
            listed = ", ".join(self.evidence_names) or "none"
            raise InputError(
                f"{self.source}: no evidence {name!r} at every exit of every "
                f"utterance; evidence present: {listed}."
            ) from None

    def score(self) -> None:
        """Score all hypotheses now, so that subsets need not do it again."""
        logger.debug("%s: %d errors", self.source, self.errors_NE.sum())

    def subset(self, name: str) -> "Trace":
        """The utterances of one test set.

        Arguments
        ---------
        name : str
            One of :attr:`sets`.

        Returns
        -------
        Trace

        Raises
        ------
        InputError
            If the trace has no such set.
        """
        if name not in self.sets:
            raise InputError(
                f"{self.source}: no set {name!r}; "
                f"sets present: {', '.join(self.sets)}."
            )
        rows = [i for i, row in enumerate(self.records) if row.set == name]
        return self.select(rows)

    def select(self, rows: Sequence[int]) -> "Trace":
        """Some of the utterances, with the columns computed so far.

        Arguments
        ---------
        rows : sequence of int
            Positions of the utterances.

        Returns
        -------
        Trace
        """
        part = Trace(
            self.header, tuple(self.records[i] for i in rows), self.source
        )
        for view in _VIEWS_BY_UTTERANCE:
            if self.__dict__.get(view) is not None:
                part.__dict__[view] = self.__dict__[view][list(rows)]
        return part
