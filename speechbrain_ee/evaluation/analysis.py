"""Everything that a report says about one test set, as numbers.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.evaluation.bootstrap import Bootstrap
from speechbrain_ee.evaluation.curves import (
    Curve,
    fixed_exits,
    mixture,
    oracle_curve,
)
from speechbrain_ee.evaluation.difficulty import (
    DifficultyHistogram,
    difficulty_histogram,
)
from speechbrain_ee.evaluation.examples import Example, choose_examples
from speechbrain_ee.evaluation.operating_point import (
    OperatingPoint,
    measure,
    reference_words,
)
from speechbrain_ee.evaluation.policy_result import PolicyResult
from speechbrain_ee.evaluation.result import Result, exit_shares
from speechbrain_ee.exits.oracle import (
    earliest_best,
    earliest_no_worse,
    overthinking,
)
from speechbrain_ee.exits.policy import first_exit
from speechbrain_ee.exits.scoring import char_counts, edit_counts
from speechbrain_ee.exits.trace import Trace

# After the criteria that tables put first: those without such a point.
_NEVER = float("inf")


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
    scores : mapping of str to array of shape (N, E)
        Of these criteria.
    policies : tuple of PolicyResult
        Given policies, measured on this set.
    """

    key: str
    trace: Trace
    criteria: Mapping[str, Result] = field(default_factory=dict)
    scores: Mapping[str, NDArray[np.float64]] = field(
        default_factory=dict, repr=False
    )
    policies: tuple[PolicyResult, ...] = ()

    @cached_property
    def bootstrap(self) -> Bootstrap:
        """Draws of the set, shared by all curves."""
        return Bootstrap(self.trace)

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
        errors = edit_counts(refs, hyps, unit="character").sum()
        return 100 * float(errors) / int(char_counts(refs).sum())

    @cached_property
    def fixed(self) -> Result:
        """Every utterance at the same exit."""
        return self.result(fixed_exits(self.trace, self.bootstrap))

    @cached_property
    def mixture(self) -> Result:
        """A random mix of two fixed exits."""
        result = self.result(
            mixture(self.fixed.curve, bootstrap=self.bootstrap)
        )
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
        result = self.result(oracle_curve(self.trace, bootstrap=self.bootstrap))
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

    def extended(self, **fields: Any) -> "SetAnalysis":
        """The same analysis with some fields replaced.

        Arguments
        ---------
        **fields : any
            New values.

        Returns
        -------
        SetAnalysis
            What depends on the trace alone is not computed again.
        """
        analysis = replace(self, **fields)
        for view in ("bootstrap", "fixed", "mixture", "oracle"):
            if view in self.__dict__:
                analysis.__dict__[view] = self.__dict__[view]
        return analysis

    def ranked(self) -> list[Result]:
        """Criteria by the layers needed at 5 % more errors, fewest first.

        Returns
        -------
        list of Result
        """
        return sorted(
            self.criteria.values(),
            key=lambda r: r.plus_5.avg_layer if r.plus_5 else _NEVER,
        )

    def results(self) -> Iterator[Result]:
        """All ways of choosing exits, in the order of the tables.

        Returns
        -------
        iterator of Result
        """
        yield self.fixed
        yield self.mixture
        yield from self.ranked()
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

    def criterion_result(
        self, curve: Curve, scores_NE: NDArray[np.floating]
    ) -> Result:
        """Read the curve of a criterion, with all that is said of one.

        Arguments
        ---------
        curve : Curve
            From a sweep of thresholds.
        scores_NE : array of shape (N, E)
            The scores swept over.

        Returns
        -------
        Result
        """
        result = self.result(curve).with_gap(self.mixture, self.oracle)
        point = result.equal_wer
        if point is None or point.threshold is None:
            return result
        choice_N = first_exit(scores_NE, point.threshold)
        shares = exit_shares(choice_N, scores_NE.shape[1])
        return replace(result, exit_shares=shares)

    def difficulty(self, result: Result) -> DifficultyHistogram | None:
        """Where easy and hard utterances stop when the WER is kept.

        Arguments
        ---------
        result : Result
            Of one of the criteria.

        Returns
        -------
        DifficultyHistogram or None
            None if it is no criterion of this set, or cannot keep the word
            error rate of the last exit.
        """
        point, scores_NE = result.equal_wer, self.scores.get(result.name)
        if scores_NE is None or point is None or point.threshold is None:
            return None
        choice_N = first_exit(scores_NE, point.threshold)
        return difficulty_histogram(self.trace, choice_N)

    def excess(self, wer: float) -> float | None:
        """How much a word error rate is above the last exit's.

        Arguments
        ---------
        wer : float
            In percent.

        Returns
        -------
        float or None
            In percent of the last exit's; None if that makes no error.
        """
        last = self.wer[-1]
        return 100 * (wer / last - 1) if last else None
