"""Everything that a report says about test sets, as numbers.

Axes: B bootstrap replicates, N utterances, E exits, G groups of difficulty.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.cost import criterion_macs
from speechbrain_ee.evaluation.curves import (
    LEVELS,
    Bootstrap,
    Curve,
    Estimate,
    OperatingPoint,
    Result,
    exit_shares,
    fixed_exits,
    measure,
    mixture,
    oracle_curve,
    reference_words,
    relative_excess,
    sweep,
)
from speechbrain_ee.exits.calibration.budget import Budget, Outcomes
from speechbrain_ee.exits.calibration.policy_file import ExitPolicy
from speechbrain_ee.exits.calibration.shift import (
    distributions,
    score_warnings,
    seen_share,
    seen_warnings,
    shift_warnings,
)
from speechbrain_ee.exits.clusters import SPEAKER
from speechbrain_ee.exits.criteria import (
    Criterion,
    criterion_names,
    get_criterion,
    measure_names,
)
from speechbrain_ee.exits.oracle import earliest_best, overthinking
from speechbrain_ee.exits.policy import at_choice, first_exit
from speechbrain_ee.exits.scoring import char_counts, edit_counts
from speechbrain_ee.exits.selector.selector_file import read_selector
from speechbrain_ee.exits.trace import Trace, UtteranceRecord

logger = logging.getLogger(__name__)
DIFFICULTIES = ("easy", "medium", "hard")
TRANSFER_LEVEL = "plus_5"
# Sums in another order may differ in the last digits.
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class DifficultyHistogram:
    """Exits taken by utterances of one difficulty."""

    # ``easy``, ``medium``, ``hard``; groups without utterances left out
    names: tuple[str, ...]
    counts: tuple[int, ...]  # utterances of each group
    # share of the group's utterances that stop at each exit
    shares: tuple[tuple[float, ...], ...]
    # the same for the earliest best exit
    oracle_shares: tuple[tuple[float, ...], ...]
    avg_layer: tuple[float, ...]  # average layer of each group
    oracle_avg_layer: tuple[float, ...]  # the same for the earliest best exit


def thirds(values_N: NDArray[np.number]) -> NDArray[np.int64]:
    """Group of each value, 0 to 2; equal values are in the same group."""
    limits = np.quantile(values_N, (1 / 3, 2 / 3), method="lower")
    return np.searchsorted(limits, values_N, side="left")


def difficulty_groups(trace: Trace) -> NDArray[np.int64]:
    """Thirds of a test set by word errors per word, averaged over exits.

    Groups are thirds only as far as ties allow: where most utterances are
    recognised without an error at every exit, they all are easy.
    """
    # exact: a sum of integers by an integer, equal rates are equal floats
    return thirds(trace.errors_NE.sum(axis=1) / np.maximum(trace.words_N, 1))


def difficulty_histogram(
    trace: Trace, choice_N: NDArray[np.integer]
) -> DifficultyHistogram:
    """Count the exits taken in each group."""
    group_N, exits = difficulty_groups(trace), len(trace.layers_E)
    present = [g for g in range(len(DIFFICULTIES)) if (group_N == g).any()]
    shares_GE, oracle_GE = (
        np.array([exit_shares(taken_N[group_N == g], exits) for g in present])
        for taken_N in (choice_N, earliest_best(trace.errors_NE))
    )
    return DifficultyHistogram(
        names=tuple(DIFFICULTIES[g] for g in present),
        counts=tuple(int((group_N == g).sum()) for g in present),
        shares=tuple(map(tuple, shares_GE.tolist())),
        oracle_shares=tuple(map(tuple, oracle_GE.tolist())),
        avg_layer=tuple((shares_GE @ trace.layers_E).tolist()),
        oracle_avg_layer=tuple((oracle_GE @ trace.layers_E).tolist()),
    )


@dataclass(frozen=True)
class Example:
    """An utterance worth looking at."""

    kind: str  # ``overthinking`` or ``typical``
    record: UtteranceRecord  # with a hypothesis at every exit
    errors: tuple[int, ...]  # word errors at every exit


def choose_examples(trace: Trace, each: int = 3) -> tuple[Example, ...]:
    """Strongest overthinking, and utterances nearest to the average."""
    if trace.edits_NE3 is None:
        return ()
    errors_NE, words_N = trace.errors_NE, trace.words_N
    readable_N = (words_N >= 4) & (words_N <= 25)
    harm_N = (errors_NE[:, -1] - errors_NE.min(axis=1)) * readable_N
    over = [i for i in np.argsort(-harm_N, kind="stable") if harm_N[i] > 0]
    rate_NE = errors_NE / np.maximum(words_N, 1)[:, None]
    mean_E = errors_NE.sum(axis=0) / max(words_N.sum(), 1)
    distance_N = np.abs(rate_NE - mean_E).sum(axis=1)
    distance_N[~readable_N] = np.inf
    order = np.argsort(distance_N, kind="stable")
    typical = [i for i in order if i not in over[:each]]
    return tuple(
        Example(kind, trace.records[i], tuple(errors_NE[i].tolist()))
        for kind, rows in (("overthinking", over), ("typical", typical))
        for i in rows[:each]
    )


@dataclass(frozen=True)
class CarriedThreshold:
    """A threshold of the domain, used on a test set."""

    criterion: str  # what is thresholded
    # the cheapest that keeps the last exit's word error rate in domain
    threshold: float
    domain_layer: float  # average layer there
    avg_layer: float  # average layer here
    avg_macs: float | None  # average multiply-accumulates here
    # average layer of the threshold that this set would have chosen; None if
    # no threshold keeps its last exit's word error rate
    own_layer: float | None
    wer: float  # word error rate here in percent
    # what is more of it than at this set's last exit, in points; the
    # replicates are paired
    above_last: Estimate
    # the same in percent of the last exit's; None if that makes no error
    excess: float | None
    # largest Kolmogorov-Smirnov distance of the scores at an exit here from
    # those in domain
    distance: float
    # what a policy would say of the shift; None if nothing stands out
    warning: str | None = None

    @property
    def point(self) -> OperatingPoint:
        """What the threshold gives here."""
        return OperatingPoint(
            self.avg_layer, self.wer, self.avg_macs, self.threshold
        )


@dataclass(frozen=True)
class TransferCell:
    """A threshold chosen on set A, used on set B.

    It is the cheapest that costs at most 5 % (relative) more errors than the
    last exit on A; the numbers are those of B.
    """

    threshold: float  # the score threshold
    wer: float  # word error rate in percent
    # how much that is above the last exit, in percent of the latter; None if
    # the last exit makes no error
    excess: float | None
    avg_layer: float  # average layer
    avg_macs: float | None = None  # average multiply-accumulates


# By criterion, set A and set B; pairs of other exit layers are not there.
Transfer = Mapping[str, Mapping[str, Mapping[str, TransferCell]]]


@dataclass(frozen=True)
class PolicyResult:
    """What a policy, calibrated elsewhere, gives on a test set."""

    name: str  # name of the policy; that of the default says so
    criterion: str  # what it looks at
    # word error rate and cost, the criterion's own included
    point: OperatingPoint
    # how much the word error rate is above the last exit's, in percent of the
    # latter; None if the last exit makes no error
    excess: float | None
    # share of utterances that stop at each exit
    exit_shares: tuple[float, ...]
    budget: str | None = None  # what it was calibrated for, as given
    # whether the budget holds on this set; None without a budget
    holds: bool | None = None
    # why what is promised may not hold here, or is not tested here
    warnings: tuple[str, ...] = ()
    seen: float = 0.0  # share of the calibration data that is in this set
    default: bool = False  # whether the model follows it if nothing is said

    @property
    def verdict(self) -> str:
        """Whether the budget holds, for a table; empty if unknown."""
        word = {True: "yes", False: "no", None: ""}[self.holds]
        return f"{word}, same data" if word and self.seen else word


@dataclass(frozen=True)
class Choice:
    """The criterion and threshold that a report puts first."""

    result: Result  # the criterion, on this test set
    point: OperatingPoint  # what the threshold gives on this test set
    # the development set; None if both were chosen on the test set itself,
    # which flatters them
    chosen_on: str | None = None
    # word error rate above the last exit's, in points, where chosen on a
    # development set
    above_last: Estimate | None = None


@dataclass(frozen=True)
class SetAnalysis:
    """A test set, analysed."""

    key: str  # its name in the report
    trace: Trace  # its part of the trace
    bootstrap: Bootstrap = field(repr=False)  # draws, shared by all curves
    fixed: Result  # every utterance at the same exit
    mixture: Result  # a random mix of two fixed exits
    oracle: Result  # the lambda bound
    # by cost, avg_layer and where known avg_macs: mixture and oracle
    bounds: Mapping[str, tuple[Curve, Curve]] = field(repr=False)
    # by name of the criterion; empty if the trace has no evidence
    criteria: Mapping[str, Result] = field(default_factory=dict)
    scores: Mapping[str, NDArray[np.float64]] = field(
        default_factory=dict, repr=False
    )  # of these criteria
    # given policies, measured on this set
    policies: tuple[PolicyResult, ...] = ()
    # the development set, on which criteria and thresholds are chosen
    dev: "SetAnalysis | None" = field(default=None, repr=False)
    # by level: thresholds of the development set used here, the criterion that
    # is best there first
    carried: Mapping[str, tuple[CarriedThreshold, ...]] = field(
        default_factory=dict
    )

    @property
    def words(self) -> int:
        """Words of all references."""
        return reference_words(self.trace)

    @cached_property
    def wer(self) -> tuple[float, ...]:
        """Word error rate of each exit in percent."""
        return tuple(point.wer for point in self.fixed.curve.points)

    @cached_property
    def cer_last(self) -> float:
        """Character error rate of the last exit in percent."""
        refs = [row.ref for row in self.trace.records]
        hyps = [row.exits[-1].hyp or "" for row in self.trace.records]
        errors = edit_counts(refs, hyps, unit="character").sum()
        return 100 * float(errors) / int(char_counts(refs).sum())

    @property
    def full_macs(self) -> float | None:
        """Average multiply-accumulates of the last exit."""
        return self.fixed.curve.points[-1].avg_macs

    @cached_property
    def oracle_best(self) -> OperatingPoint:
        """Earliest of the best exits of every utterance."""
        return measure(self.trace, earliest_best(self.trace.errors_NE))

    @cached_property
    def oracle_shares(self) -> tuple[float, ...]:
        """Share of utterances whose earliest best exit is each exit."""
        return self._shares(earliest_best(self.trace.errors_NE))

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

    def ranked(self) -> list[Result]:
        """Criteria by the layers needed at 5 % more errors, fewest first."""
        seen = (self.dev or self).criteria

        def needed(result: Result) -> float:
            found = seen.get(result.name)
            point = found and found.plus_5
            return point.avg_layer if point else np.inf

        return sorted(self.criteria.values(), key=needed)

    def results(self) -> Iterator[Result]:
        """All ways of choosing exits, in the order of the tables."""
        yield from (self.fixed, self.mixture, *self.ranked(), self.oracle)

    def choice(self, level: str = "equal_wer") -> Choice | None:
        """The criterion and threshold that keep a level cheapest."""
        if self.dev is not None:
            for one in self.carried.get(level, ()):
                result = self.criteria[one.criterion]
                return Choice(result, one.point, self.dev.key, one.above_last)
            return None
        found = [r for r in self.criteria.values() if r.points[level]]
        best = min(found, key=lambda r: r.points[level].avg_layer, default=None)
        return best and Choice(best, best.points[level])

    def kept(self, name: str) -> OperatingPoint | None:
        """What a criterion gives with the threshold of the last exit's WER."""
        if self.dev is None:
            return self.criteria[name].equal_wer
        found = self.carried.get("equal_wer", ())
        return next((c.point for c in found if c.criterion == name), None)

    def stops(self, choice: Choice) -> tuple[float, ...]:
        """Share of utterances that stop at each exit."""
        scores_NE = self.scores[choice.result.name]
        return self._shares(first_exit(scores_NE, choice.point.threshold))

    def difficulty(
        self, name: str, point: OperatingPoint | None
    ) -> DifficultyHistogram | None:
        """Where easy and hard utterances stop by a criterion."""
        if point is None:
            return None
        choice_N = first_exit(self.scores[name], point.threshold)
        return difficulty_histogram(self.trace, choice_N)

    def excess(self, wer: float) -> float | None:
        """How much a word error rate is above the last exit's."""
        return relative_excess(wer, self.wer[-1])

    def _shares(self, choice_N: NDArray[np.integer]) -> tuple[float, ...]:
        return exit_shares(choice_N, len(self.trace.layers_E))


def analyse(trace: Trace, key: str | None = None) -> SetAnalysis:
    """Analyse one test set."""
    draws = Bootstrap(trace)
    fixed = fixed_exits(trace, draws)
    last = fixed.points[-1].wer
    bounds = {
        "avg_layer": (
            mixture(fixed, bootstrap=draws),
            oracle_curve(trace, bootstrap=draws),
        )
    }
    if trace.macs_NE is not None:
        axis = "avg_macs"
        bounds[axis] = mixture(fixed, axis), oracle_curve(trace, axis)
    by_macs = bounds.get("avg_macs", (None, None))
    mixed, best = (
        Result.at_levels(curve, last, cheap)
        for curve, cheap in zip(bounds["avg_layer"], by_macs)
    )
    criteria, scores = {}, {}
    for criterion in available_criteria(trace):
        name = criterion.name
        scores_NE = scores[name] = criterion.scores(trace.evidence)
        curve = sweep(trace, name, scores_NE, draws)
        result = Result.at_levels(curve, last).with_gap(mixed, best)
        if point := result.equal_wer:
            choice_N = first_exit(scores_NE, point.threshold)
            shares = exit_shares(choice_N, scores_NE.shape[1])
            result = replace(result, exit_shares=shares)
        criteria[name] = result
    return SetAnalysis(
        key or trace.sets[0],
        trace,
        draws,
        Result.at_levels(fixed, last),
        mixed,
        best,
        bounds,
        criteria,
        scores,
    )


def available_criteria(trace: Trace) -> tuple[Criterion, ...]:
    """The criteria that a report compares.

    Those whose evidence is there; baselines are left out, which look at no
    utterance, and criteria that decide exactly as another one does.
    """
    return _sorted_out(trace)[0]


def criteria_note(trace: Trace) -> str:
    """How many criteria a report compares, and where the others are."""
    compared, left_out = _sorted_out(trace)
    registered = len(criterion_names())
    own = len(compared) + sum(left_out.values()) - registered
    reasons = ", ".join(f"{why} ({n})" for why, n in left_out.items() if n)
    text = f"Of {registered} registered criteria"
    if own:
        text += f", and {own} with parameters of their own,"
    text += f" {len(compared)} are compared here"
    return f"{text}; left out: {reasons}." if reasons else f"{text}."


def _sorted_out(trace: Trace) -> tuple[tuple[Criterion, ...], dict[str, int]]:
    """Criteria that are compared, and by reason how many are not."""
    names = [*criterion_names()]
    names += [
        name
        for name in trace.evidence_names
        if ":" in name and name.partition(":")[0] in criterion_names()
    ]
    every = {c.name: c for c in map(get_criterion, names)}
    scored = {n: c for n, c in every.items() if not c.baseline}
    here = trace.evidence.names
    found = {n: c for n, c in scored.items() if c.available(here)}
    compared = tuple(c for c in found.values() if c.same_as not in found)
    return compared, {
        "baselines": len(every) - len(scored),
        "without evidence in this trace": len(scored) - len(found),
        "deciding as another does": len(found) - len(compared),
    }


def analyse_all(
    traces: Sequence[Trace],
    policies: Sequence[ExitPolicy] = (),
    dev: Trace | None = None,
    default: ExitPolicy | None = None,
) -> dict[str, SetAnalysis]:
    """Analyse every set of every trace, those without transcripts left out."""
    chosen_on = _analyse_dev(dev, traces) if dev is not None else None
    analyses: dict[str, SetAnalysis] = {}
    all_sets = [name for trace in traces for name in trace.sets]
    for trace in traces:
        _log_unknown_evidence(trace)
        trace.score()
        for name in trace.labelled_sets:
            key = name
            if all_sets.count(name) > 1:
                key = f"{name}, {_difference(trace, traces)}"
            if key in analyses:
                raise InputError(
                    f"{trace.source}: set {key!r} is there twice; give every "
                    f"trace once, and traces that differ in name or decoding."
                )
            analysis = analyse(trace.subset(name), key)
            if chosen_on is not None:
                used = {n: carried(chosen_on, analysis, n) for n in LEVELS}
                analysis = replace(analysis, dev=chosen_on, carried=used)
            analyses[key] = with_policies(analysis, policies, default)
    return analyses


def _analyse_dev(dev: Trace, traces: Sequence[Trace]) -> SetAnalysis | None:
    """The development set; None if utterances of it are tested, too."""
    known = {(row.id, row.ref) for row in dev.records}
    for trace in traces:
        if trace.header.exit_layers != dev.header.exit_layers:
            raise InputError(
                f"{dev.source}: has exits after layers "
                f"{list(dev.header.exit_layers)}, {trace.source} after "
                f"{list(trace.header.exit_layers)}; give the development "
                f"trace of the same model."
            )
        for row in trace.records:
            if (row.id, row.ref) in known:
                # a run that tests on its development set still has a report
                logger.warning(
                    "%s: utterance %r is also in the test data of %s, so that "
                    "nothing can be chosen on it; criteria and thresholds are "
                    "chosen on the test sets, and the report says so.",
                    dev.source,
                    row.id,
                    trace.source,
                )
                return None
    return analyse(dev, ", ".join(dev.sets))


def _difference(trace: Trace, traces: Sequence[Trace]) -> str:
    """What tells a trace from the others: model, decoding or both."""
    name, decoding = trace.header.name, trace.header.decoding
    if len({other.header.name for other in traces}) == 1:
        return decoding
    if len({other.header.decoding for other in traces}) == 1:
        return name
    return f"{name}, {decoding}"


def _log_unknown_evidence(trace: Trace) -> None:
    known = {n for c in criterion_names() for n in get_criterion(c).needs}
    known |= set(measure_names())
    unknown = [
        name
        for name in sorted(trace.evidence_names)
        if known.isdisjoint({name, name.partition(":")[0]})
    ]
    if unknown:
        logger.info(
            "%s: evidence %s belongs to no registered criterion; left out",
            trace.source,
            ", ".join(unknown),
        )


def carried(
    domain: SetAnalysis, target: SetAnalysis, level: str = "equal_wer"
) -> tuple[CarriedThreshold, ...]:
    """Use the domain's thresholds on a test set, the cheapest there first."""
    found = []
    for name, point, used in _used_elsewhere(domain, target, level):
        scores_NE, own = target.scores[name], target.criteria[name]
        choice_N = first_exit(scores_NE, used.threshold)
        draws, own_point = target.bootstrap, own.points[level]
        wer_B = draws.replicate(choice_N[:, None]).wer_BT[:, 0]
        more_B = wer_B - draws.fixed.wer_BT[:, -1]
        distance, warning = _shift(domain.scores[name], scores_NE, target)
        found.append(
            CarriedThreshold(
                criterion=name,
                threshold=used.threshold,
                domain_layer=point.avg_layer,
                avg_layer=used.avg_layer,
                avg_macs=used.avg_macs,
                own_layer=own_point and own_point.avg_layer,
                wer=used.wer,
                above_last=Estimate.of(
                    used.wer - target.wer[-1], more_B, draws
                ),
                excess=target.excess(used.wer),
                distance=distance,
                warning=warning,
            )
        )
    return tuple(sorted(found, key=lambda each: each.domain_layer))


def _used_elsewhere(
    source: SetAnalysis, target: SetAnalysis, level: str
) -> Iterator[tuple[str, OperatingPoint, OperatingPoint]]:
    """Criteria, and their point of a level on one set and on another."""
    if source.trace.header.exit_layers != target.trace.header.exit_layers:
        return
    for name, result in source.criteria.items():
        point = result.points[level]
        if name in target.criteria and point is not None:
            choice_N = first_exit(target.scores[name], point.threshold)
            macs_NE = criterion_macs(target.trace, get_criterion(name))
            asked = choice_N, point.threshold, macs_NE
            yield name, point, measure(target.trace, *asked)


def _shift(
    domain_NE: NDArray[np.float64],
    scores_NE: NDArray[np.float64],
    target: SetAnalysis,
) -> tuple[float, str | None]:
    """How far the scores have moved, and the warning of a policy."""
    stored = distributions(domain_NE)
    changes = [
        abs(each.distance(scores_N)[0])
        for each, scores_N in zip(stored, scores_NE.T)
    ]
    layers = target.trace.header.exit_layers
    found = score_warnings(stored, len(domain_NE), scores_NE, layers)
    return max(changes, default=0.0), found[0] if found else None


def transfer_matrices(analyses: Sequence[SetAnalysis]) -> Transfer:
    """Measure the transfer of every criterion between all test sets."""
    found: dict[str, dict[str, dict[str, TransferCell]]] = {
        name: {} for analysis in analyses for name in analysis.criteria
    }
    for source, target in product(analyses, analyses):
        used = _used_elsewhere(source, target, TRANSFER_LEVEL)
        for name, _, point in used:
            excess = target.excess(point.wer)
            costs = point.avg_layer, point.avg_macs
            cell = TransferCell(point.threshold, point.wer, excess, *costs)
            found[name].setdefault(source.key, {})[target.key] = cell
    return {
        name: cells
        for name, cells in found.items()
        if any({*row} - {source} for source, row in cells.items())
    }


def scored_for(
    traces: Sequence[Trace], path: Path, policy: ExitPolicy
) -> list[Trace]:
    """Traces with the scores that a policy of a learned selector needs."""
    if policy.selector is None:
        return list(traces)
    selector = None
    scored = []
    for trace in traces:
        same = trace.header.exit_layers == policy.exit_layers
        if same and policy.criterion not in trace.evidence.names:
            if selector is None:
                selector = read_selector(path.parent / policy.selector)
            scores_NE = selector.scores(trace.evidence)
            trace = trace.with_evidence(policy.criterion, scores_NE)
        scored.append(trace)
    return scored


def choice_of(
    trace: Trace, policy: ExitPolicy
) -> tuple[NDArray[np.int64], NDArray[np.float64] | float]:
    """Every utterance's exit (N,), and what choosing costs at each (N, E)."""
    layers = tuple(trace.header.exit_layers)
    if tuple(policy.exit_layers) != layers:
        raise InputError(
            f"policy {policy.name}: made for exits after layers "
            f"{list(policy.exit_layers)}, but {trace.source} has exits after "
            f"layers {list(layers)}; calibrate a policy on a trace of this "
            f"model."
        )
    criterion = get_criterion(policy.criterion)
    choice_N = policy.choose(criterion.scores(trace.evidence))
    return choice_N, criterion_macs(trace, criterion)


def with_policies(
    analysis: SetAnalysis,
    policies: Sequence[ExitPolicy],
    default: ExitPolicy | None = None,
) -> SetAnalysis:
    """The analysis with policies measured on its set."""
    results = tuple(
        _measured(analysis, policy, policy == default) for policy in policies
    )
    return replace(analysis, policies=results)


def _measured(
    analysis: SetAnalysis, policy: ExitPolicy, default: bool
) -> PolicyResult:
    trace = analysis.trace
    choice_N, cost_NE = choice_of(trace, policy)
    point = measure(trace, choice_N, None, cost_NE)
    known = policy.calibration
    seen = seen_share(known.fingerprint, trace.records) if known else 0.0
    return PolicyResult(
        name=f"{policy.name}, default" if default else policy.name,
        criterion=policy.criterion,
        point=point,
        excess=analysis.excess(point.wer),
        exit_shares=exit_shares(choice_N, len(trace.layers_E)),
        budget=policy.budget,
        holds=_holds(trace, policy, choice_N),
        warnings=_warnings(policy, trace, seen),
        seen=seen,
        default=default,
    )


def _warnings(policy: ExitPolicy, trace: Trace, seen: float) -> tuple[str, ...]:
    known, said = policy.calibration, ""
    if not policy.satisfied:
        said = (
            "No threshold satisfied the budget on its calibration data, so "
            "it does not depend on the utterance."
        )
    elif policy.method == "ltt" and known is not None:
        if policy.guarantee.startswith("None"):
            said = (
                f"Calibrated on {known.clusters} speakers, too few for a "
                f"promise."
            )
        elif known.clustered_by != SPEAKER:
            said = "Calibrated by utterance: no promise for new speakers."
    shifted = shift_warnings(policy, trace.evidence)
    return ((said,) if said else ()) + (*seen_warnings(seen), *shifted)


def outcomes_of(trace: Trace, criterion: Criterion) -> Outcomes:
    """What the exits do, the criterion's own cost included."""
    macs_NE = trace.macs_NE
    if macs_NE is not None:
        macs_NE = macs_NE + criterion_macs(trace, criterion)
    known = trace.errors_NE, trace.words_N, trace.layers_E
    return Outcomes(*known, macs_NE, trace.clusters)


def _holds(
    trace: Trace, policy: ExitPolicy, choice_N: NDArray[np.integer]
) -> bool | None:
    """Whether the budget holds on this set; None if it cannot be told."""
    budget = Budget.parse(policy.budget)
    if budget.kind == "macs" and trace.macs_NE is None:
        return None
    outcomes = outcomes_of(trace, get_criterion(policy.criterion))
    losses_NE = budget.losses_NE(outcomes)
    losses_N = at_choice(losses_NE, choice_N)
    return bool(losses_N.mean() <= _TOLERANCE * np.abs(losses_NE).max())
