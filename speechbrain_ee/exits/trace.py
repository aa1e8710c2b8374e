"""The exit trace: one row per utterance and exit, schema ``exit-trace/1``.

A test set is decoded once at full depth; what every exit recognised and how
sure it was goes into a table. Every criterion, threshold, oracle and figure
is a function of that table.

This module is the table in memory; :mod:`speechbrain_ee.exits.trace_file` is
the file.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError, quoted
from speechbrain_ee.exits.clusters import Clusters, speakers_from_ids
from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.exits.scoring import edit_counts, unit_counts
from speechbrain_ee.schema import Count, Finite, Record

logger = logging.getLogger(__name__)

MACS_REFERENCE_S = 10.0
_MOST = sys.float_info.max
_Positive = Annotated[float, Meta(gt=0, le=_MOST)]
_Counts = Annotated[tuple[Count, ...], Meta(min_length=1)]
# Views with the utterance as first axis, which a subset can slice.
_VIEWS_BY_UTTERANCE = tuple(
    "words_N errors_NE edits_NE3 durations_N macs_NE decoding_macs_NE".split()
)
# So that `replace` and `asdict` of dataclasses take records, too.
_like_dataclass = dataclass(init=False, repr=False, eq=False, match_args=False)


# ---- Records ---------------------------------------------------------------


@_like_dataclass
class ExitRecord(Record, omit_defaults=True):
    """What one exit made of one utterance.

    Arguments
    ---------
    layer : int
        Encoder layer that the exit follows.
    hyp : str, optional
        What it recognised.
    errors : int, optional
        Word errors; may be left out when ``hyp`` is there.
    evidence : dict of str to float
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

    layer: Count
    hyp: str | None = None
    errors: Count | None = None
    evidence: dict[str, Finite] = {}
    macs: Count | None = None
    greedy: str | None = None
    decoding_macs: Count | None = None

    def __post_init__(self) -> None:
        if self.hyp is None and self.errors is None:
            raise ValueError("hyp: neither hyp nor errors is there")
        if (self.decoding_macs or 0) > (self.macs or 0):
            raise ValueError(
                f"decoding_macs: {self.decoding_macs} is more than macs, "
                f"{self.macs}, of which it is a part"
            )

    @property
    def seen(self) -> str | None:
        """The transcript that a policy can compare before it decides."""
        return self.hyp if self.greedy is None else self.greedy


@_like_dataclass
class UtteranceRecord(Record, omit_defaults=True):
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
    duration_s: Annotated[float, Meta(ge=0, le=_MOST)] | None = None
    speaker: Annotated[str, Meta(min_length=1)] | None = None


@_like_dataclass
class TraceHeader(Record, omit_defaults=True):
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
    left_out : dict of str to str
        Evidence that an evaluation takes, but that is not there, and why.
    """

    name: str
    decoding: str
    exit_layers: _Counts
    macs: _Counts | None = None
    parameters: _Counts | None = None
    macs_reference_s: _Positive = MACS_REFERENCE_S
    vocab_size: Count | None = None
    frames_per_s: _Positive | None = None
    error_unit: Literal["word", "character"] = "word"
    width: Count | None = None
    left_out: dict[str, str] = {}

    def __post_init__(self) -> None:
        layers = self.exit_layers
        if any(b <= a for a, b in zip(layers, layers[1:])):
            raise ValueError(f"exit_layers: {quoted(layers)} does not increase")
        for name in ("macs", "parameters"):
            values = getattr(self, name)
            if values is not None and len(values) != len(layers):
                raise ValueError(
                    f"{name}: {len(values)} values for {len(layers)} exits; "
                    "give one each"
                )

    def __hash__(self) -> int:  # a dict has none
        return hash((self.name, self.decoding, self.exit_layers))


# ---- The table -------------------------------------------------------------


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

    def evidence_NE(self, name: str) -> NDArray[np.float64]:
        """Raw evidence of one kind; NaN where it needs earlier exits."""
        return self.evidence.column(name)

    @cached_property
    def words_N(self) -> NDArray[np.int64]:
        """Words (by the header's ``error_unit``, characters) of each
        reference."""
        refs = [record.ref for record in self.records]
        return unit_counts(refs, self.header.error_unit)

    @cached_property
    def edits_NE3(self) -> NDArray[np.int64] | None:
        """Substitutions, deletions, insertions; None without hypotheses."""
        hyps = [e.hyp for row in self.records for e in row.exits]
        return None if None in hyps else self._edits_NE3(hyps)

    @cached_property
    def errors_NE(self) -> NDArray[np.int64]:
        """Errors: scored from the hypotheses, else as recorded."""
        if self.edits_NE3 is not None:
            return self.edits_NE3.sum(axis=2)
        cells = [e for row in self.records for e in row.exits]
        scored_NE = self._edits_NE3([e.hyp or "" for e in cells]).sum(axis=2)
        has_hyp = np.array([e.hyp is not None for e in cells])
        errors = np.array([e.errors or 0 for e in cells], dtype=np.int64)
        shape = scored_NE.shape
        return np.where(
            has_hyp.reshape(shape), scored_NE, errors.reshape(shape)
        )

    def _edits_NE3(self, hyps: Sequence[str]) -> NDArray[np.int64]:
        exits = len(self.header.exit_layers)
        refs = [row.ref for row in self.records for _ in range(exits)]
        edits = edit_counts(refs, hyps, self.header.error_unit)
        return edits.reshape(len(self), exits, 3)

    @cached_property
    def macs_NE(self) -> NDArray[np.float64] | None:
        """Multiply-accumulates up to and including each exit.

        As recorded per utterance; else the header's, scaled with the
        duration (linear in time, which leaves out the small quadratic share
        of attention), as they are if no utterance has one; else None.
        """
        recorded_NE = self._recorded_NE("macs")
        if recorded_NE is not None or self.header.macs is None:
            return recorded_NE
        scale_N = np.ones(len(self))
        if self.durations_N is not None:
            scale_N = self.durations_N / self.header.macs_reference_s
        return scale_N[:, None] * np.array(self.header.macs, dtype=float)

    @cached_property
    def decoding_macs_NE(self) -> NDArray[np.float64] | None:
        """The part of :attr:`macs_NE` that decoding at each exit takes.

        None where that is not recorded, as for greedy decoding, which costs
        nothing.
        """
        return self._recorded_NE("decoding_macs")

    def _recorded_NE(self, name: str) -> NDArray[np.float64] | None:
        rows = [[getattr(e, name) for e in row.exits] for row in self.records]
        values_NE = np.array(rows, dtype=np.float64)  # None is NaN
        return None if np.isnan(values_NE).any() else values_NE

    @cached_property
    def durations_N(self) -> NDArray[np.float64] | None:
        """Length of each utterance in seconds; None if none is known.

        Where some are missing, the mean of the others stands for them.
        """
        durations_N = np.array(
            [row.duration_s for row in self.records], dtype=np.float64
        )
        missing_N = np.isnan(durations_N)
        if missing_N.all():
            return None
        if missing_N.any():
            logger.warning(
                "%s: %d of %d utterances have no duration_s; what depends on "
                "it is calculated with the mean of the others.",
                self.source,
                missing_N.sum(),
                len(self),
            )
            durations_N[missing_N] = np.nanmean(durations_N)
        return durations_N

    def score(self) -> None:
        """Score all hypotheses now, so that subsets need not do it again."""
        logger.debug("%s: %d errors", self.source, self.errors_NE.sum())

    def subset(self, name: str) -> "Trace":
        """The utterances of one test set, by its name."""
        if name not in self.sets:
            raise InputError(
                f"{self.source}: no set {name!r}; "
                f"sets present: {', '.join(self.sets)}."
            )
        rows = [i for i, row in enumerate(self.records) if row.set == name]
        return self.select(rows)

    def select(self, rows: Sequence[int]) -> "Trace":
        """The utterances in some rows, with the columns computed so far."""
        records = tuple(self.records[i] for i in rows)
        return self._with_records(records, list(rows))

    def _with_records(
        self, records: tuple[UtteranceRecord, ...], rows: Sequence[int]
    ) -> "Trace":
        """Other records of the utterances in some rows."""
        trace = Trace(self.header, records, self.source)
        known, kept = vars(self), vars(trace)
        for view in _VIEWS_BY_UTTERANCE:
            if known.get(view) is not None:
                kept[view] = known[view][list(rows)]
        if "evidence" in known:
            kept["evidence"] = self.evidence.select(rows)
        return trace

    def with_speakers_from_ids(self) -> "Trace":
        """The trace with speakers guessed from LibriSpeech's way of naming."""
        names = speakers_from_ids(self.ids, self.source)
        records = tuple(
            replace(record, speaker=record.speaker or name)
            for record, name in zip(self.records, names)
        )
        return self._with_records(records, range(len(self)))

    def with_evidence(
        self, name: str, values_NE: NDArray[np.floating]
    ) -> "Trace":
        """As :meth:`with_columns`, for evidence of one kind."""
        return self.with_columns({name: values_NE})

    def with_columns(
        self, columns: Mapping[str, NDArray[np.floating]]
    ) -> "Trace":
        """The trace with further evidence by name, shape (N, E) each.

        NaN at the first exits if there is none yet; evidence of the same
        name is replaced.
        """
        columns = {n: np.asarray(v, dtype=float) for n, v in columns.items()}
        for name, values_NE in columns.items():
            if values_NE.shape != (len(self), len(self.layers_E)):
                raise InputError(
                    f"evidence {name!r} has shape {values_NE.shape}, but the "
                    f"trace has {len(self)} utterances with "
                    f"{len(self.layers_E)} exits."
                )
            if (bad := _bad_cell(values_NE)) is not None:
                raise InputError(
                    f"evidence {name!r} of utterance {self.ids[bad[0]]!r} is "
                    f"{values_NE[bad]} at exit {bad[1] + 1}; give a finite "
                    "number there (only the first exits may have none, the "
                    "same ones for all utterances)."
                )
        new = np.stack([*columns.values()], axis=-1).tolist()

        def measured(exit_: ExitRecord, values: list[float]) -> ExitRecord:
            known = {**exit_.evidence, **dict(zip(columns, values))}
            return _with_numbers(exit_, known)

        records = tuple(
            replace(record, exits=tuple(map(measured, record.exits, cells)))
            for record, cells in zip(self.records, new)
        )
        trace = self._with_records(records, range(len(self)))
        if "evidence" in vars(self):
            vars(trace)["evidence"] = self.evidence.with_columns(columns)
        return trace


def _with_numbers(exit_: ExitRecord, known: dict[str, float]) -> ExitRecord:
    """An exit with the evidence that is not NaN."""
    numbers = {n: v for n, v in known.items() if not math.isnan(v)}
    return replace(exit_, evidence=numbers)


def cross_fitted(
    trace: Trace,
    fit: Callable[[Trace], Callable[[Evidence], NDArray[np.float64]]],
    folds: int,
) -> NDArray[np.float64]:
    """Scores (N, E) from models that were fitted to other clusters.

    ``fit`` makes of a part of the trace a function that scores evidence.
    """
    fold_N = trace.clusters.folds(folds)
    scores_NE = np.full(trace.evidence.shape, np.nan)
    for fold in np.unique(fold_N):
        scorer = fit(trace.select(np.flatnonzero(fold_N != fold).tolist()))
        rows = np.flatnonzero(fold_N == fold)
        scores_NE[rows] = scorer(trace.evidence.select(rows))
    return scores_NE


# ---- Evidence as columns ---------------------------------------------------


def with_storable_evidence(
    records: Sequence[UtteranceRecord],
) -> tuple[tuple[UtteranceRecord, ...], dict[str, str]]:
    """Leave out what no trace can hold: one value must not cost all others.

    Returns the records without NaN and without evidence that is infinite, or
    missing for some utterance; and of that evidence why it was left out.
    """
    cells = [e.evidence for record in records for e in record.exits]
    left_out = {}
    names = {n for c in cells for n, v in c.items() if not math.isfinite(v)}
    for name in sorted(names):
        values_NE = _column(records, name)
        if (bad := _bad_cell(values_NE)) is not None:
            left_out[name] = (
                f"{values_NE[bad]} for utterance {records[bad[0]].id!r} at "
                f"exit {bad[1] + 1}"
            )

    def kept(exit_: ExitRecord) -> ExitRecord:
        known = exit_.evidence.items()
        return _with_numbers(
            exit_, {n: v for n, v in known if n not in left_out}
        )

    if names:
        records = [replace(r, exits=tuple(map(kept, r.exits))) for r in records]
    return tuple(records), left_out


def evidence_columns(
    records: Sequence[UtteranceRecord],
) -> dict[str, NDArray[np.float64]]:
    """Evidence as columns (N, E): what every utterance has from some exit on.

    NaN before that exit. Anything else is left out, with a warning.
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
    """
    missing_NE = np.isnan(values_NE)
    start = int((~missing_NE).any(axis=0).argmax())
    missing_NE[:, :start] = False
    gaps = np.argwhere(missing_NE)
    return tuple(gaps[0].tolist()) if len(gaps) else None


def _column(
    records: Sequence[UtteranceRecord], name: str
) -> NDArray[np.float64]:
    """One kind of evidence, shape (N, E); NaN where there is none."""
    return np.array(
        [[e.evidence.get(name, np.nan) for e in r.exits] for r in records]
    )


def _bad_cell(values_NE: NDArray[np.floating]) -> tuple[int, int] | None:
    """Where evidence is infinite, or else missing."""
    infinite = np.argwhere(np.isinf(values_NE))
    return tuple(infinite[0]) if len(infinite) else first_gap(values_NE)
