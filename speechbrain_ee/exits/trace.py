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
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.clusters import Clusters, speakers_from_ids
from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.exits.records import (
    MACS_REFERENCE_S,
    SCHEMA,
    ExitRecord,
    TraceHeader,
    UtteranceRecord,
    check_column,
    evidence_columns,
)
from speechbrain_ee.exits.scoring import edit_counts, unit_counts

__all__ = [
    "MACS_REFERENCE_S",
    "SCHEMA",
    "ExitRecord",
    "Trace",
    "TraceHeader",
    "UtteranceRecord",
]

logger = logging.getLogger(__name__)

# Views with the utterance as first axis, which a subset can slice.
_VIEWS_BY_UTTERANCE = tuple(
    "words_N errors_NE edits_NE3 durations_N macs_NE decoding_macs_NE".split()
)


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
    def labelled_sets(self) -> tuple[str, ...]:
        """Those of the test sets in which anything is said."""
        said = {row.set for row in self.records if row.ref.strip()}
        return tuple(name for name in self.sets if name in said)

    @cached_property
    def clusters(self) -> Clusters:
        """Which utterances are alike: those of a speaker, where known."""
        return Clusters.of(
            [record.speaker for record in self.records],
            [f"{record.set}/{record.id}" for record in self.records],
        )

    def with_speakers_from_ids(self) -> "Trace":
        """The trace with speakers guessed from LibriSpeech's way of naming.

        Returns
        -------
        Trace
            Speakers that the trace names already stay as they are.

        Raises
        ------
        InputError
            If the names are not of that kind.
        """
        names = speakers_from_ids(self.ids, self.source)
        records = tuple(
            replace(record, speaker=record.speaker or name)
            for record, name in zip(self.records, names)
        )
        return self._with_records(records)

    @cached_property
    def evidence(self) -> Evidence:
        """Measurements and transcripts as columns, for criteria."""
        texts = [[exit_.seen for exit_ in row.exits] for row in self.records]
        has_all = all(hyp is not None for row in texts for hyp in row)
        return Evidence(
            self.layers_E,
            self.ids,
            evidence_columns(self.records),
            texts if has_all else None,
            self.source,
        )

    @property
    def evidence_names(self) -> tuple[str, ...]:
        """Evidence that every utterance has, sorted."""
        return tuple(sorted(self.evidence.values))

    @cached_property
    def words_N(self) -> NDArray[np.int64]:
        """Words (by the header's ``error_unit``, characters) of each
        reference."""
        refs = [record.ref for record in self.records]
        return unit_counts(refs, self.header.error_unit)

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
        unit = self.header.error_unit
        return edit_counts(refs, hyps, unit).reshape(shape)

    @cached_property
    def errors_NE(self) -> NDArray[np.int64]:
        """Errors: scored from the hypotheses, else as recorded."""
        if self.edits_NE3 is not None:
            return self.edits_NE3.sum(axis=2)
        cells = [(row.ref, e) for row in self.records for e in row.exits]
        totals = np.array([e.errors or 0 for _, e in cells], dtype=np.int64)
        scored = [i for i, (_, e) in enumerate(cells) if e.hyp is not None]
        totals[scored] = edit_counts(
            [cells[i][0] for i in scored],
            [cells[i][1].hyp or "" for i in scored],
            self.header.error_unit,
        ).sum(axis=1)
        return totals.reshape(len(self.records), -1)

    @cached_property
    def macs_NE(self) -> NDArray[np.float64] | None:
        """Multiply-accumulates up to and including each exit.

        As recorded per utterance; else the header's, scaled with the
        duration (linear in time, which leaves out the small quadratic share
        of attention), as they are if no utterance has one; else None.
        """
        rows = [[exit_.macs for exit_ in row.exits] for row in self.records]
        if not any(value is None for row in rows for value in row):
            return np.array(rows, dtype=np.float64)
        if self.header.macs is None:
            return None
        scale_N = np.ones(len(self.records))
        if self.durations_N is not None:
            scale_N = self.durations_N / self.header.macs_reference_s
        return scale_N[:, None] * np.array(self.header.macs, dtype=float)

    @cached_property
    def durations_N(self) -> NDArray[np.float64] | None:
        """Length of each utterance in seconds; None if none is known.

        Where some are missing, the mean of the others stands for them.
        """
        known = [row.duration_s for row in self.records]
        missing = known.count(None)
        if missing == len(known):
            return None
        durations_N = np.array(known, dtype=np.float64)
        if missing:
            logger.warning(
                "%s: %d of %d utterances have no duration_s; what depends on "
                "it is calculated with the mean of the others.",
                self.source,
                missing,
                len(known),
            )
            durations_N[np.isnan(durations_N)] = np.nanmean(durations_N)
        return durations_N

    @cached_property
    def decoding_macs_NE(self) -> NDArray[np.float64] | None:
        """The part of :attr:`macs_NE` that decoding at each exit takes.

        None where that is not recorded, as for greedy decoding, which costs
        nothing.
        """
        rows = [[e.decoding_macs for e in row.exits] for row in self.records]
        if any(value is None for row in rows for value in row):
            return None
        return np.array(rows, dtype=np.float64)

    def evidence_NE(self, name: str) -> NDArray[np.float64]:
        """Raw evidence of one kind.

        Arguments
        ---------
        name : str
            Key of the evidence in the trace.

        Returns
        -------
        array of shape (N, E)
            NaN at the first exits if the measure needs earlier ones.

        Raises
        ------
        InputError
            If an utterance lacks it.
        """
        return self.evidence.column(name)

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
        if "evidence" in self.__dict__:
            part.__dict__["evidence"] = self.evidence.select(rows)
        return part

    def with_evidence(
        self, name: str, values_NE: NDArray[np.floating]
    ) -> "Trace":
        """The trace with further evidence of one kind.

        Arguments
        ---------
        name : str
            Its key; evidence of that name is replaced.
        values_NE : array of shape (N, E)
            Raw values; NaN at the first exits if there is none yet.

        Returns
        -------
        Trace

        Raises
        ------
        InputError
            See :meth:`with_columns`.
        """
        return self.with_columns({name: values_NE})

    def with_columns(
        self, columns: Mapping[str, NDArray[np.floating]]
    ) -> "Trace":
        """The trace with further evidence of several kinds.

        Arguments
        ---------
        columns : mapping of str to array of shape (N, E)
            Raw values by key; NaN at the first exits if there is none yet.
            Evidence of the same name is replaced.

        Returns
        -------
        Trace

        Raises
        ------
        InputError
            If values are missing at later exits, or infinite.
        """
        columns = {n: np.asarray(v, dtype=float) for n, v in columns.items()}
        for name, values_NE in columns.items():
            check_column(name, values_NE, self.ids, len(self.layers_E))
        lists = {name: v.tolist() for name, v in columns.items()}
        records = []
        for row, record in enumerate(self.records):
            exits = []
            for place, exit_ in enumerate(record.exits):
                known = dict(exit_.evidence)
                for name, values in lists.items():
                    known[name] = values[row][place]
                    if np.isnan(known[name]):
                        del known[name]
                exits.append(replace(exit_, evidence=known))
            records.append(replace(record, exits=tuple(exits)))
        trace = self._with_records(tuple(records))
        if "evidence" in self.__dict__:
            trace.__dict__["evidence"] = self.evidence.with_columns(columns)
        return trace

    def _with_records(self, records: tuple[UtteranceRecord, ...]) -> "Trace":
        """The same utterances, more being known of them."""
        trace = Trace(self.header, records, self.source)
        for view in (*_VIEWS_BY_UTTERANCE, "evidence"):
            if view in self.__dict__:
                trace.__dict__[view] = self.__dict__[view]
        return trace
