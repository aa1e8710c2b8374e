"""Everything that a report says about one test set, as numbers.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

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
from speechbrain_ee.evaluation.estimate import Estimate
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

if TYPE_CHECKING:
    from speechbrain_ee.evaluation.carried import CarriedThreshold

# After the criteria that tables put first: those without such a point.
_NEVER = float("inf")


@dataclass(frozen=True)
class Choice:
    """The criterion and threshold that a report puts first.

    Arguments
    ---------
    result : Result
        The criterion, on this test set.
    point : OperatingPoint
        What the threshold gives on this test set.
    chosen_on : str, optional
        The development set; None if both were chosen on the test set itself,
        which flatters them.
    above_last : Estimate, optional
        Word error rate above the last exit's, in points, where chosen on a
        development set.
    """

    result: Result
    point: OperatingPoint
    chosen_on: str | None = None
    above_last: Estimate | None = None


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
    dev : SetAnalysis, optional
        The development set, on which criteria and thresholds are chosen.
    carried : mapping of str to tuple of CarriedThreshold
        By level: thresholds of the development set used here, the criterion
        that is best there first.
    """

    key: str
    trace: Trace
    criteria: Mapping[str, Result] = field(default_factory=dict)
    scores: Mapping[str, NDArray[np.float64]] = field(
        default_factory=dict, repr=False
    )
    policies: tuple[PolicyResult, ...] = ()
    dev: "SetAnalysis | None" = field(default=None, repr=False)
    carried: Mapping[str, tuple["CarriedThreshold", ...]] = field(
        default_factory=dict
    )

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
            With a development set in the order of that.
        """
        seen = (self.dev or self).criteria

        def needed(result: Result) -> float:
            found = seen.get(result.name)
            point = found.plus_5 if found else None
            return point.avg_layer if point else _NEVER

        return sorted(self.criteria.values(), key=needed)

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
            Chosen on the development set where there is one; None if the
            trace has no evidence.
        """
        found = self.choice()
        return found.result if found else None

    def choice(self, level: str = "equal_wer") -> Choice | None:
        """The criterion and threshold that keep a level cheapest.

        Arguments
        ---------
        level : str
            One of :data:`LEVELS`.

        Returns
        -------
        Choice or None
            Chosen on the development set where there is one, else on this
            set; None if nothing was found there.
        """
        if self.dev is not None:
            for one in self.carried.get(level, ()):
                point = self.kept(one.criterion, level)
                result = self.criteria[one.criterion]
                return Choice(result, point, self.dev.key, one.above_last)
            return None
        found = [r for r in self.criteria.values() if r.points[level]]
        if not found:
            return None
        best = min(found, key=lambda r: r.points[level].avg_layer)
        return Choice(best, best.points[level])

    def kept(
        self, name: str, level: str = "equal_wer"
    ) -> OperatingPoint | None:
        """What a criterion gives with the threshold chosen for a level.

        Arguments
        ---------
        name : str
            One of the criteria.
        level : str
            One of :data:`LEVELS`.

        Returns
        -------
        OperatingPoint or None
            On this set; the threshold is the development set's where there
            is one.
        """
        if self.dev is None:
            return self.criteria[name].points[level]
        for one in self.carried.get(level, ()):
            if one.criterion == name:
                return OperatingPoint(
                    one.avg_layer, one.wer, one.avg_macs, one.threshold
                )
        return None

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

    def stops(self, choice: Choice) -> tuple[float, ...]:
        """Share of utterances that stop at each exit.

        Arguments
        ---------
        choice : Choice
            Criterion and threshold.

        Returns
        -------
        tuple of float
        """
        scores_NE = self.scores[choice.result.name]
        choice_N = first_exit(scores_NE, choice.point.threshold)
        return exit_shares(choice_N, scores_NE.shape[1])

    def difficulty(
        self, result: Result, point: OperatingPoint | None = None
    ) -> DifficultyHistogram | None:
        """Where easy and hard utterances stop.

        Arguments
        ---------
        result : Result
            Of one of the criteria.
        point : OperatingPoint, optional
            With the threshold; by default the one that keeps the word error
            rate of the last exit here.

        Returns
        -------
        DifficultyHistogram or None
            None if it is no criterion of this set, or cannot keep the word
            error rate of the last exit.
        """
        point = point or result.equal_wer
        scores_NE = self.scores.get(result.name)
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
