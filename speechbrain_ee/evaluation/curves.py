"""Operating points and curves: word error rate against compute, with intervals.

An operating point is what a policy gives on a test set: its word error rate
and the average depth (and multiply-accumulates) it needs. A sweep of
thresholds gives the curve of a criterion. The mixture line is what tossing a
coin between two fixed exits gives; a criterion is worth what lies between
that line and the oracle.

Intervals are percentiles over bootstrap replicates of the test set. Speakers
are drawn with replacement, each with all its utterances (the cluster bootstrap
of Davison & Hinkley 1997, section 3.8); where a trace names none, utterances
are drawn (Efron 1979), and the interval is one for other utterances of the
same people. The ends lie a little further out than 2.5 and 97.5 % where there
are few speakers: a spread estimated from G of them is too small by
sqrt((G - 1)/G), and Student's t is wider than the normal distribution
(Hesterberg 2015, "expanded percentiles"). All ways of choosing exits see the
same draws, and so does the last exit, so that a level like "5 % above the last
exit" is read anew, and paired, in every replicate. The same speakers are drawn
together in every trace, different sets independently of each other.

Axes: B replicates, N utterances, G clusters, T thresholds, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.cost import criterion_macs
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.oracle import lambda_bound
from speechbrain_ee.exits.policy import at_choice, choices_NT, error_rate
from speechbrain_ee.exits.trace import Trace

# What reports ask for: at most so many times the last exit's error rate.
LEVELS = {"equal_wer": 1.0, "plus_1": 1.01, "plus_5": 1.05, "plus_10": 1.1}
REPLICATES = 200
MAX_THRESHOLDS = 200
MAX_PRICES = 100
# WER in percent is a quotient of integers: far below one error in 10^7 words.
WER_TOLERANCE = 1e-9
_OUTSIDE = 0.05  # what a 95 % interval leaves out
# Ends are estimates of 200 draws; sums in another order may differ.
_DECIMALS = 9

Interval = tuple[float, float]


@dataclass(frozen=True)
class OperatingPoint:
    """A policy measured on a test set."""

    avg_layer: float  # encoder layers per utterance, averaged over utterances
    wer: float  # word error rate in percent
    # multiply-accumulates per utterance, averaged
    avg_macs: float | None = None
    # score threshold of a criterion, price of the oracle
    threshold: float | None = None


def measure(
    trace: Trace,
    choice_N: NDArray[np.integer],
    threshold: float | None = None,
    criterion_macs_NE: NDArray[np.floating] | float = 0.0,
) -> OperatingPoint:
    """Operating point of one choice of exits."""
    (point,) = measure_many(
        trace, choice_N[:, None], [threshold], criterion_macs_NE
    )
    return point


def measure_many(
    trace: Trace,
    choice_NT: NDArray[np.integer],
    thresholds: Sequence[float | None] | NDArray[np.floating],
    criterion_macs_NE: NDArray[np.floating] | float = 0.0,
) -> tuple[OperatingPoint, ...]:
    """Operating points of many choices of exits."""
    reference_words(trace)
    wer_T = error_rate(trace.errors_NE, trace.words_N, choice_NT)
    layer_T, macs_T = average_costs(trace, choice_NT, criterion_macs_NE)
    limits_T = [None if at is None else float(at) for at in thresholds]
    columns = layer_T, wer_T.tolist(), macs_T, limits_T
    return tuple(map(OperatingPoint, *columns))


def average_costs(
    trace: Trace,
    choice_NT: NDArray[np.integer],
    criterion_macs_NE: NDArray[np.floating] | float = 0.0,
) -> tuple[list[float], list[float | None]]:
    """Layers and MACs per utterance of T choices of exits."""
    layer_T = trace.layers_E[choice_NT].mean(axis=0).tolist()
    if trace.macs_NE is None:
        return layer_T, [None] * len(layer_T)
    macs_NE = trace.macs_NE + criterion_macs_NE
    return layer_T, at_choice(macs_NE, choice_NT).mean(axis=0).tolist()


def reference_words(trace: Trace) -> int:
    """Words of all references."""
    words = int(trace.words_N.sum())
    if not words:
        raise InputError(
            f"{trace.source}, set {trace.sets[0]!r}: all references are "
            f"empty, so there is no word error rate; check the transcripts."
        )
    return words


class Replicates(NamedTuple):
    """A family of choices on every replicate of a test set."""

    wer_BT: NDArray[np.float64]  # word error rates in percent
    layer_BT: NDArray[np.float64]  # average layers


class Bootstrap:
    """The draws of a test set."""

    def __init__(self, trace: Trace, replicates: int = REPLICATES) -> None:
        self.trace, self.clusters = trace, trace.clusters
        count = self.clusters.count
        self.percentiles = percentiles(count)
        # in the order of the names: that of the trace shall not matter
        order_G = np.argsort(np.array(self.clusters.names), kind="stable")
        seed = zlib.crc32("\n".join(sorted(self.clusters.names)).encode())
        generator = np.random.default_rng(seed)
        self.weights_BG = np.empty((replicates, count))
        for row_G in self.weights_BG:
            drawn_G = generator.integers(0, count, count)
            row_G[order_G] = np.bincount(drawn_G, minlength=count)
        # a draw of utterances that all have empty references has no rate
        self.words_B = np.maximum(self.total(trace.words_N), 1.0)
        self.sizes_B = self.weights_BG @ self.clusters.sizes_G

    def total(self, values_N: NDArray[np.number]) -> NDArray[np.float64]:
        """Sum over the utterances of every draw."""
        sums_G = self.clusters.sums(np.asarray(values_N, dtype=np.float64))
        return self.weights_BG @ sums_G

    def rate(self, errors_N: NDArray[np.number]) -> NDArray[np.float64]:
        """Errors per word of every draw, in percent."""
        return 100 * (self.total(errors_N).T / self.words_B).T

    def mean(self, values_N: NDArray[np.number]) -> NDArray[np.float64]:
        """Average over the utterances of every draw."""
        return (self.total(values_N).T / self.sizes_B).T

    @cached_property
    def fixed(self) -> Replicates:
        """Every utterance at the same exit, one column per exit."""
        exits = len(self.trace.layers_E)
        choice_NE = np.tile(np.arange(exits), (len(self.trace), 1))
        return self.replicate(choice_NE)

    def replicate(self, choice_NT: NDArray[np.integer]) -> Replicates:
        """Measure a family of choices on every draw."""
        return Replicates(
            self.rate(at_choice(self.trace.errors_NE, choice_NT)),
            self.mean(self.trace.layers_E[choice_NT]),
        )

    def band(self, wer_BT: NDArray[np.float64]) -> list[tuple[float, ...]]:
        """Lower and upper ends of rates or their differences."""
        ends_2T = np.percentile(wer_BT, self.percentiles, axis=0)
        return [tuple(ends_T) for ends_T in ends_2T.tolist()]

    def layer_intervals(self, replicates: Replicates) -> dict[str, Interval]:
        """Intervals of the layers needed at each level.

        In every draw the cheapest choice within the level is taken.
        """
        wer_BT, layer_BT = replicates
        return self._intervals(
            lambda limit_B1: np.where(wer_BT <= limit_B1, layer_BT, np.inf)
        )

    def mixture_intervals(self) -> dict[str, Interval]:
        """Intervals of the layers that a mix of two fixed exits needs."""
        wer_BE, layers_E = self.fixed.wer_BT, self.trace.layers_E
        early_P, late_P = np.triu_indices(len(layers_E), 1)
        step_BP = wer_BE[:, early_P] - wer_BE[:, late_P]

        def needed(limit_B1: NDArray[np.float64]) -> NDArray[np.float64]:
            good_BE = wer_BE <= limit_B1
            alone_BE = np.where(good_BE, layers_E, np.inf)
            # how far to go from the bad exit to the good one
            with np.errstate(divide="ignore", invalid="ignore"):
                share_BP = (wer_BE[:, early_P] - limit_B1) / step_BP
            mixed_BP = layers_E[early_P] + share_BP * (
                layers_E[late_P] - layers_E[early_P]
            )
            crosses_BP = good_BE[:, late_P] & ~good_BE[:, early_P]
            mixed_BP = np.where(crosses_BP, mixed_BP, np.inf)
            return np.concatenate([alone_BE, mixed_BP], axis=1)

        return self._intervals(needed)

    def _intervals(
        self, needed: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    ) -> dict[str, Interval]:
        """Intervals of the least needed in every draw (B, ways), by level."""
        intervals = {}
        for level, factor in LEVELS.items():
            limit_B1 = factor * self.fixed.wer_BT[:, -1:] + WER_TOLERANCE
            needed_B = needed(limit_B1).min(axis=1)
            if np.isfinite(needed_B).all():
                # the tolerance of the levels shall not show
                ends = np.percentile(needed_B, self.percentiles).round(6)
                intervals[level] = tuple(ends.tolist())
        return intervals


def percentiles(clusters: int) -> Interval:
    """Ends of a 95 % interval among replicates."""
    if clusters < 2:
        return 0.0, 100.0
    t = -stdtrit(clusters - 1, _OUTSIDE / 2)
    low = 100 * float(ndtr(-t * np.sqrt(clusters / (clusters - 1))))
    return low, 100 - low


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % bootstrap interval."""

    value: float  # on the test set as it is
    low: float  # lower end
    high: float  # upper end

    @property
    def positive(self) -> bool:
        """Whether the whole interval lies above 0."""
        return self.low > 0

    @property
    def negative(self) -> bool:
        """Whether the whole interval lies below 0."""
        return self.high < 0

    def ends(self, sign: str = "+") -> str:
        """The interval as text."""
        return " to ".join(signed(end, sign) for end in (self.low, self.high))

    @classmethod
    def of(
        cls, value: float, draws_B: NDArray[np.floating], *sets: Bootstrap
    ) -> "Estimate":
        """Percentiles of replicates."""
        ends = min(each.percentiles for each in sets)
        low, high = np.percentile(draws_B, ends).round(_DECIMALS)
        return cls(float(value), float(low), float(high))


def signed(value: float, sign: str = "+", decimals: int = 2) -> str:
    """A difference as text, without a negative zero."""
    return f"{round(value, decimals) + 0.0:{sign}.{decimals}f}"


@dataclass(frozen=True)
class Curve:
    """Operating points of one family, in order of average layer."""

    name: str  # criterion, ``fixed``, ``oracle`` or ``mixture``
    points: tuple[OperatingPoint, ...]  # measured points
    # whether every point on the line between two neighbours can be had (by
    # choosing at random between two fixed exits), too
    mixable: bool = False
    # ends of the 95 % interval of the word error rate at each point
    wer_low: tuple[float, ...] | None = None
    wer_high: tuple[float, ...] | None = None
    # the same of the word error rate minus the last exit's, in points. Both
    # see the same draws of utterances, so that the interval is that of the
    # comparison, and vanishes at the last exit
    above_low: tuple[float, ...] | None = None
    above_high: tuple[float, ...] | None = None
    # by level: 95 % interval of the average layer needed
    layer_intervals: Mapping[str, Interval] = field(default_factory=dict)

    def axis(self, name: str) -> NDArray[np.float64]:
        """One coordinate of all points."""
        values = [getattr(point, name) for point in self.points]
        return np.array(
            [np.nan if value is None else value for value in values]
        )

    def cheapest(
        self, wer: float, axis: str = "avg_layer"
    ) -> OperatingPoint | None:
        """The point with the smallest cost at a word error rate."""
        good = [p for p in self.points if p.wer <= wer + WER_TOLERANCE]
        best = min(good, key=lambda p: (getattr(p, axis), p.wer), default=None)
        if best is None or not self.mixable:
            return best
        place = self.points.index(best)
        if place == 0:
            return best
        return _between(self.points[place - 1], best, wer)


def thresholds_for(scores_NE: NDArray[np.floating]) -> NDArray[np.float64]:
    """Thresholds of a sweep: quantiles of the scores that decide.

    The first stops every utterance at the first exit that has a score, the
    last none before the last exit.
    """
    deciding_NE = scores_NE[:, :-1].astype(np.float64)
    # infinite: nothing to go by yet, which no threshold can change
    distinct, counts = np.unique(
        deciding_NE[np.isfinite(deciding_NE)], return_counts=True
    )
    if not distinct.size:
        return np.zeros(1)
    if distinct.size >= MAX_THRESHOLDS:
        # one value that many share is one threshold, not many
        weights = np.minimum(counts, counts.sum() / MAX_THRESHOLDS).cumsum()
        places = np.linspace(0, weights[-1], MAX_THRESHOLDS - 1)
        # taken from the scores themselves: between them nothing changes
        chosen = np.searchsorted(weights, places)
        distinct = distinct[np.unique(chosen.clip(max=distinct.size - 1))]
    return np.append(distinct, np.nextafter(distinct[-1], np.inf))


def sweep(
    trace: Trace,
    name: str,
    scores_NE: NDArray[np.floating],
    bootstrap: Bootstrap | None = None,
) -> Curve:
    """Curve of a criterion with one threshold for all exits."""
    limits_T = thresholds_for(scores_NE)
    choice_NT = choices_NT(scores_NE, limits_T)
    cost_NE = criterion_macs(trace, get_criterion(name))
    return _curve(trace, name, choice_NT, limits_T, bootstrap, cost_NE)


def fixed_exits(trace: Trace, bootstrap: Bootstrap | None = None) -> Curve:
    """One point per exit: every utterance stops there."""
    exits = len(trace.layers_E)
    choice_NE = np.tile(np.arange(exits), (len(trace), 1))
    return _curve(trace, "fixed", choice_NE, [None] * exits, bootstrap)


def mixture(
    fixed: Curve, axis: str = "avg_layer", bootstrap: Bootstrap | None = None
) -> Curve:
    """Lower convex hull of the fixed exits.

    Every point on it is had by choosing at random between two fixed exits,
    without looking at the utterance.
    """

    def place(point: OperatingPoint) -> tuple[float, float]:
        return getattr(point, axis), point.wer

    hull: list[OperatingPoint] = []
    for point in sorted(fixed.points, key=lambda p: place(p)[0]):
        while len(hull) > 1:
            # whether the way turns left here, as a lower hull does
            a, b, c = map(place, (*hull[-2:], point))
            left, right = (b[0] - a[0]) * (c[1] - a[1]), (b[1] - a[1])
            if left - right * (c[0] - a[0]) > 0:
                break
            hull.pop()
        hull.append(point)
    intervals = bootstrap.mixture_intervals() if bootstrap else {}
    return Curve(
        "mixture", tuple(hull), mixable=True, layer_intervals=intervals
    )


def oracle_curve(
    trace: Trace, axis: str = "avg_layer", bootstrap: Bootstrap | None = None
) -> Curve:
    """The lambda bound: least errors + lambda x cost, lambda swept."""
    costs_NE = np.broadcast_to(trace.layers_E, trace.errors_NE.shape)
    if axis == "avg_macs" and trace.macs_NE is not None:
        # in units of a full pass, so that prices stay near one
        costs_NE = trace.macs_NE / trace.macs_NE[:, -1].mean()
    prices_T = _prices(trace.errors_NE, costs_NE)
    choice_NT = np.stack(
        [lambda_bound(trace.errors_NE, costs_NE, p) for p in prices_T], axis=1
    )
    return _curve(trace, "oracle", choice_NT, prices_T, bootstrap)


def _prices(
    errors_NE: NDArray[np.integer], costs_NE: NDArray[np.number]
) -> NDArray[np.float64]:
    """Prices between which the oracle's choice changes."""
    early_P, late_P = np.triu_indices(errors_NE.shape[1], 1)
    gained_NP = errors_NE[:, early_P] - errors_NE[:, late_P]
    step_NP = costs_NE[:, late_P] - costs_NE[:, early_P]
    pays_NP = (gained_NP > 0) & (step_NP > 0)
    ratios = gained_NP[pays_NP] / step_NP[pays_NP]
    changes = np.unique(np.append(ratios, 0.0).round(12))
    if changes.size > MAX_PRICES:
        places = np.linspace(0, changes.size - 1, MAX_PRICES).astype(int)
        changes = changes[places]
    between = (changes[1:] + changes[:-1]) / 2
    return np.concatenate([changes[:1], between, changes[-1:] + 1])


def _curve(
    trace: Trace,
    name: str,
    choice_NT: NDArray[np.integer],
    thresholds: Sequence[float | None] | NDArray[np.floating],
    bootstrap: Bootstrap | None,
    criterion_macs_NE: NDArray[np.floating] | float = 0.0,
) -> Curve:
    """Choices measured, in order of depth, with intervals if asked for."""
    points = measure_many(trace, choice_NT, thresholds, criterion_macs_NE)
    order = sorted(
        range(len(points)),
        key=lambda t: (points[t].avg_layer, points[t].threshold or 0),
    )
    ordered = tuple(points[t] for t in order)
    if bootstrap is None:
        return Curve(name, ordered)
    found = bootstrap.replicate(choice_NT[:, order])
    ends = bootstrap.band(found.wer_BT)
    ends += bootstrap.band(found.wer_BT - bootstrap.fixed.wer_BT[:, -1:])
    intervals = bootstrap.layer_intervals(found)
    return Curve(name, ordered, False, *ends, intervals)


def _between(
    worse: OperatingPoint, better: OperatingPoint, wer: float
) -> OperatingPoint:
    """The point of a segment that has exactly this word error rate."""
    if math.isclose(worse.wer, better.wer):
        return better
    share = (worse.wer - wer) / (worse.wer - better.wer)
    share = min(max(share, 0.0), 1.0)
    pairs = [
        (getattr(worse, axis), getattr(better, axis))
        for axis in ("avg_layer", "wer", "avg_macs")
    ]
    return OperatingPoint(
        *(None if a is None else a + share * (b - a) for a, b in pairs)
    )


@dataclass(frozen=True)
class Result:
    """What one way of choosing exits needs."""

    name: str  # criterion, ``fixed``, ``mixture`` or ``oracle``
    curve: Curve  # its operating points
    # by level (see LEVELS): the cheapest point whose word error rate is at
    # most the last exit's, or 1, 5, 10 % (relative) more. For the mixture and
    # the oracle, which can aim at either, layers and multiply-accumulates are
    # each the smallest possible
    points: Mapping[str, OperatingPoint | None]
    # share of utterances that stop at each exit at ``equal_wer``
    exit_shares: tuple[float, ...] | None = None
    # by level: how much of the way from the mixture of fixed exits to the
    # oracle is covered, in layers; 1 is the oracle, 0 the mixture. Levels
    # without such a way are left out
    gap_shares: Mapping[str, float] = field(default_factory=dict)
    # the same in multiply-accumulates; empty where they are not known
    gap_shares_macs: Mapping[str, float] = field(default_factory=dict)

    @property
    def equal_wer(self) -> OperatingPoint | None:
        """Cheapest point no worse than the last exit."""
        return self.points["equal_wer"]

    @property
    def plus_5(self) -> OperatingPoint | None:
        """Cheapest point at most 5 % (relative) worse than the last exit."""
        return self.points["plus_5"]

    @property
    def layer_intervals(self) -> Mapping[str, tuple[float, float]]:
        """By level: 95 % interval of the average layer needed."""
        return self.curve.layer_intervals

    @classmethod
    def at_levels(
        cls, curve: Curve, wer: float, by_macs: Curve | None = None
    ) -> "Result":
        """Read a curve at the levels above a rate; MACs from another one."""
        points = {}
        for level, factor in LEVELS.items():
            point = curve.cheapest(factor * wer)
            cheap = by_macs and by_macs.cheapest(factor * wer, "avg_macs")
            if point and cheap:
                point = replace(point, avg_macs=cheap.avg_macs)
            points[level] = point
        return cls(curve.name, curve, points)

    def with_gap(self, mixture: "Result", oracle: "Result") -> "Result":
        """The same with the share of the way from mixture to oracle."""

        def shares(axis: str) -> dict[str, float]:
            found = {}
            for level in LEVELS:
                points = [r.points[level] for r in (mixture, self, oracle)]
                costs = [point and getattr(point, axis) for point in points]
                if None not in costs and costs[0] > costs[2]:
                    blind, reached, best = costs
                    found[level] = (blind - reached) / (blind - best)
            return found

        return replace(
            self,
            gap_shares=shares("avg_layer"),
            gap_shares_macs=shares("avg_macs"),
        )


def relative_excess(wer: float, last: float) -> float | None:
    """How far a rate is above the last exit's, in percent, if that has one."""
    return 100 * (wer / last - 1) if last else None


def exit_shares(choice_N: NDArray[np.integer], exits: int) -> tuple[float, ...]:
    """Share of utterances that stop at each exit."""
    counts = np.bincount(choice_N, minlength=exits)
    return tuple((counts / len(choice_N)).tolist())
