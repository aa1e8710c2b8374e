"""Everything that a report says about one test set, as numbers.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.curves import (
    Curve,
    fixed_exits,
    mixture,
    oracle_curve,
    sweep,
)
from speechbrain_ee.evaluation.examples import Example, choose_examples
from speechbrain_ee.evaluation.operating_point import (
    OperatingPoint,
    measure,
    reference_words,
)
from speechbrain_ee.evaluation.result import Result, exit_shares
from speechbrain_ee.exits.criteria import criterion_names, get_criterion
from speechbrain_ee.exits.oracle import (
    earliest_best,
    earliest_no_worse,
    overthinking,
)
from speechbrain_ee.exits.policy import first_exit
from speechbrain_ee.exits.scoring import char_counts, edit_counts
from speechbrain_ee.exits.trace import Trace

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SetAnalysis:
    """A test set, analysed.

    Arguments
    ---------
    key : str
        Its name in the report.
    trace : Trace
        Its part of the trace.
    criteria : mapping of str to Result
        By name of the criterion; empty if the trace has no evidence.
    """

    key: str
    trace: Trace
    criteria: Mapping[str, Result] = field(default_factory=dict)

    @cached_property
    def words(self) -> int:
        """Words of all references."""
        return reference_words(self.trace)

    @cached_property
    def wer(self) -> tuple[float, ...]:
        """Word error rate of each exit in percent."""
        return tuple(point.wer for point in self.fixed.curve.points)

    @cached_property
    def edits(self) -> tuple[tuple[int, int, int], ...] | None:
        """Substitutions, deletions, insertions of each exit."""
        edits_NE3 = self.trace.edits_NE3
        if edits_NE3 is None:
            return None
        return tuple((s, d, i) for s, d, i in edits_NE3.sum(axis=0).tolist())

    @cached_property
    def cer_last(self) -> float | None:
        """Character error rate of the last exit in percent."""
        if self.trace.edits_NE3 is None:
            return None
        refs = [row.ref for row in self.trace.records]
        hyps = [row.exits[-1].hyp or "" for row in self.trace.records]
        errors = edit_counts(refs, hyps, unit="char").sum()
        return 100 * float(errors) / int(char_counts(refs).sum())

    @cached_property
    def fixed(self) -> Result:
        """Every utterance at the same exit."""
        return self.result(fixed_exits(self.trace))

    @cached_property
    def mixture(self) -> Result:
        """A random mix of two fixed exits."""
        result = self.result(mixture(self.fixed.curve))
        return result.with_macs(self.mixture_by_macs, self.wer[-1])

    @cached_property
    def mixture_by_macs(self) -> Curve | None:
        """The mixture line against multiply-accumulates."""
        if self.trace.macs_NE is None:
            return None
        return mixture(self.fixed.curve, "avg_macs")

    @cached_property
    def oracle(self) -> Result:
        """The lambda bound."""
        result = self.result(oracle_curve(self.trace))
        return result.with_macs(self.oracle_by_macs, self.wer[-1])

    @cached_property
    def oracle_by_macs(self) -> Curve | None:
        """The lambda bound with multiply-accumulates as the cost."""
        if self.trace.macs_NE is None:
            return None
        return oracle_curve(self.trace, "avg_macs")

    @cached_property
    def oracle_best(self) -> OperatingPoint:
        """Earliest of the best exits of every utterance."""
        return measure(self.trace, earliest_best(self.trace.errors_NE))

    @cached_property
    def oracle_no_worse(self) -> OperatingPoint:
        """Earliest exit no worse than the last of every utterance."""
        return measure(self.trace, earliest_no_worse(self.trace.errors_NE))

    @cached_property
    def oracle_shares(self) -> tuple[float, ...]:
        """Share of utterances whose earliest best exit is each exit."""
        return exit_shares(
            earliest_best(self.trace.errors_NE), len(self.trace.layers_E)
        )

    @cached_property
    def overthinking_share(self) -> float:
        """Share of utterances with a strictly better earlier exit."""
        return float(overthinking(self.trace.errors_NE).mean())

    @cached_property
    def overthinking_errors(self) -> int:
        """Word errors that the last exit adds to the best exit."""
        errors_NE = self.trace.errors_NE
        return int((errors_NE[:, -1] - errors_NE.min(axis=1)).sum())

    @cached_property
    def examples(self) -> tuple[Example, ...]:
        """A few utterances of two kinds; none without hypotheses."""
        return choose_examples(self.trace)

    def results(self) -> Iterator[Result]:
        """All ways of choosing exits, in the order of the tables.

        Returns
        -------
        iterator of Result
        """
        yield self.fixed
        yield self.mixture
        yield from self.criteria.values()
        yield self.oracle

    def best_criterion(self) -> Result | None:
        """The criterion that keeps the last exit's error rate cheapest.

        Returns
        -------
        Result or None
            None if the trace has no evidence.
        """
        found = [r for r in self.criteria.values() if r.equal_wer is not None]
        return min(
            found,
            key=lambda r: r.equal_wer.avg_layer if r.equal_wer else 0,
            default=None,
        )

    def result(self, curve: Curve) -> Result:
        """Read a curve at the levels set by the last exit.

        Arguments
        ---------
        curve : Curve
            Operating points on this set.

        Returns
        -------
        Result
        """
        # the last of the fixed exits is the yardstick of every result
        last = curve if curve.name == "fixed" else self.fixed.curve
        return Result.at_levels(curve, last.points[-1].wer)


def analyse(trace: Trace, key: str | None = None) -> SetAnalysis:
    """Analyse one test set.

    Arguments
    ---------
    trace : Trace
        One set (see :meth:`Trace.subset`).
    key : str, optional
        Its name in the report; by default the name of the set.

    Returns
    -------
    SetAnalysis
    """
    bare = SetAnalysis(key or trace.sets[0], trace)
    criteria = {}
    for name in criterion_names():
        if name not in trace.evidence_names:
            continue
        scores_NE = get_criterion(name).score(trace.evidence_NE(name))
        result = bare.result(sweep(trace, name, scores_NE))
        criteria[name] = _with_shares(result, scores_NE)
    return SetAnalysis(bare.key, trace, criteria)


def analyse_all(traces: Sequence[Trace]) -> dict[str, SetAnalysis]:
    """Analyse every set of every trace.

    Arguments
    ---------
    traces : sequence of Trace
        Sets of one name in two traces are told apart by what the traces
        differ in.

    Returns
    -------
    dict of str to SetAnalysis
    """
    analyses: dict[str, SetAnalysis] = {}
    all_sets = [name for trace in traces for name in trace.sets]
    for trace in traces:
        _log_unknown_evidence(trace)
        trace.score()
        for name in trace.sets:
            key = name
            if all_sets.count(name) > 1:
                key = f"{name}, {_difference(trace, traces)}"
            if key in analyses:
                raise InputError(
                    f"{trace.source}: set {key!r} is there twice; give every "
                    f"trace once, and traces that differ in name or decoding."
                )
            analyses[key] = analyse(trace.subset(name), key)
    return analyses


def _difference(trace: Trace, traces: Sequence[Trace]) -> str:
    """What tells a trace from the others: model, decoding or both."""
    models = {other.header.name for other in traces}
    decodings = {other.header.decoding for other in traces}
    if len(models) == 1:
        return trace.header.decoding
    if len(decodings) == 1:
        return trace.header.name
    return f"{trace.header.name}, {trace.header.decoding}"


def _log_unknown_evidence(trace: Trace) -> None:
    unknown = sorted(set(trace.evidence_names) - set(criterion_names()))
    if unknown:
        logger.info(
            "%s: evidence %s belongs to no registered criterion; left out",
            trace.source,
            ", ".join(unknown),
        )


def _with_shares(result: Result, scores_NE: NDArray[np.floating]) -> Result:
    point = result.equal_wer
    if point is None or point.threshold is None:
        return result
    choice_N = first_exit(scores_NE, point.threshold)
    return replace(
        result, exit_shares=exit_shares(choice_N, scores_NE.shape[1])
    )
