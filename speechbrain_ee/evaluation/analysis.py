"""Everything that a report says about test sets, as numbers.

Axes: B bootstrap replicates, N utterances, E exits, G groups of difficulty.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

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
from speechbrain_ee.evaluation.policies import PolicyResult, measured
from speechbrain_ee.exits.calibration.policy_file import ExitPolicy
from speechbrain_ee.exits.calibration.shift import (
    distributions,
    score_warnings,
)
from speechbrain_ee.exits.criteria import (
    Criterion,
    criterion_names,
    get_criterion,
    measure_names,
)
from speechbrain_ee.exits.oracle import (
    earliest_best,
    earliest_no_worse,
    overthinking,
)
from speechbrain_ee.exits.policy import first_exit
from speechbrain_ee.exits.scoring import char_counts, edit_counts
from speechbrain_ee.exits.trace import Trace, UtteranceRecord

logger = logging.getLogger(__name__)
DIFFICULTIES = ("easy", "medium", "hard")


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


def difficulty_groups(trace: Trace) -> NDArray[np.int64]:
    """Thirds of a test set by word errors per word, averaged over exits.

    Utterances of equal rate are of equal difficulty, so that groups are
    thirds only as far as ties allow: where most utterances are recognised
    without an error at every exit, they all are easy.
    """
    words_N = np.maximum(trace.words_N, 1)
    # exact: a sum of integers by an integer, equal rates are equal floats
    rate_N = trace.errors_NE.sum(axis=1) / words_N
    limits = np.quantile(rate_N, (1 / 3, 2 / 3), method="lower")
    return np.searchsorted(limits, rate_N, side="left")


def difficulty_histogram(
    trace: Trace, choice_N: NDArray[np.integer]
) -> DifficultyHistogram:
    """Count the exits taken in each group."""
    group_N = difficulty_groups(trace)
    best_N = earliest_best(trace.errors_NE)
    present = [g for g in range(len(DIFFICULTIES)) if (group_N == g).any()]
    exits = len(trace.layers_E)

    def shares(chosen_N: NDArray[np.integer]) -> NDArray[np.float64]:
        counts_GE = np.zeros((len(DIFFICULTIES), exits))
        np.add.at(counts_GE, (group_N, chosen_N), 1)
        counts_GE = counts_GE[present]
        return counts_GE / counts_GE.sum(axis=1, keepdims=True)

    shares_GE, oracle_GE = shares(choice_N), shares(best_N)
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
    typical = [
        i for i in np.argsort(distance_N, kind="stable") if i not in over[:each]
    ]
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


TRANSFER_LEVEL = "plus_5"


@dataclass(frozen=True)
class TransferCell:
    """A threshold chosen on set A, used on set B."""

    criterion: str  # what is thresholded
    # set A, on which the threshold is the cheapest that costs at most 5 %
    # (relative) more errors than the last exit
    calibrated_on: str
    used_on: str  # set B
    threshold: float  # the score threshold
    wer: float  # word error rate on B in percent
    # how much that is above B's last exit, in percent of the latter; None if
    # B's last exit makes no error
    excess: float | None
    avg_layer: float  # average layer on B
    avg_macs: float | None = None  # average multiply-accumulates on B


@dataclass(frozen=True)
class TransferMatrix:
    """All ordered pairs of test sets for one criterion."""

    criterion: str  # what is thresholded
    sets: tuple[str, ...]  # keys of the test sets, in order of the report
    # by set A and set B; on the diagonal A is B. Pairs with other exit layers,
    # or without the criterion, are not there
    cells: Mapping[tuple[str, str], TransferCell] = field(default_factory=dict)


# After the criteria that tables put first: those without such a point.
_NEVER = float("inf")


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
        """The same analysis with some fields replaced."""
        analysis = replace(self, **fields)
        for view in ("bootstrap", "fixed", "mixture", "oracle"):
            if view in self.__dict__:
                analysis.__dict__[view] = self.__dict__[view]
        return analysis

    def ranked(self) -> list[Result]:
        """Criteria by the layers needed at 5 % more errors, fewest first."""
        seen = (self.dev or self).criteria

        def needed(result: Result) -> float:
            found = seen.get(result.name)
            point = found.plus_5 if found else None
            return point.avg_layer if point else _NEVER

        return sorted(self.criteria.values(), key=needed)

    def results(self) -> Iterator[Result]:
        """All ways of choosing exits, in the order of the tables."""
        yield self.fixed
        yield self.mixture
        yield from self.ranked()
        yield self.oracle

    def best_criterion(self) -> Result | None:
        """The criterion that keeps the last exit's error rate cheapest."""
        found = self.choice()
        return found.result if found else None

    def choice(self, level: str = "equal_wer") -> Choice | None:
        """The criterion and threshold that keep a level cheapest."""
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
        """What a criterion gives with the threshold chosen for a level."""
        if self.dev is None:
            return self.criteria[name].points[level]
        for one in self.carried.get(level, ()):
            if one.criterion == name:
                return OperatingPoint(
                    one.avg_layer, one.wer, one.avg_macs, one.threshold
                )
        return None

    def result(self, curve: Curve) -> Result:
        """Read a curve at the levels set by the last exit."""
        # the last of the fixed exits is the yardstick of every result
        last = curve if curve.name == "fixed" else self.fixed.curve
        return Result.at_levels(curve, last.points[-1].wer)

    def criterion_result(
        self, curve: Curve, scores_NE: NDArray[np.floating]
    ) -> Result:
        """Read the curve of a criterion, with all that is said of one."""
        result = self.result(curve).with_gap(self.mixture, self.oracle)
        point = result.equal_wer
        if point is None or point.threshold is None:
            return result
        choice_N = first_exit(scores_NE, point.threshold)
        shares = exit_shares(choice_N, scores_NE.shape[1])
        return replace(result, exit_shares=shares)

    def stops(self, choice: Choice) -> tuple[float, ...]:
        """Share of utterances that stop at each exit."""
        scores_NE = self.scores[choice.result.name]
        choice_N = first_exit(scores_NE, choice.point.threshold)
        return exit_shares(choice_N, scores_NE.shape[1])

    def difficulty(
        self, result: Result, point: OperatingPoint | None = None
    ) -> DifficultyHistogram | None:
        """Where easy and hard utterances stop."""
        point = point or result.equal_wer
        scores_NE = self.scores.get(result.name)
        if scores_NE is None or point is None or point.threshold is None:
            return None
        choice_N = first_exit(scores_NE, point.threshold)
        return difficulty_histogram(self.trace, choice_N)

    def excess(self, wer: float) -> float | None:
        """How much a word error rate is above the last exit's."""
        return relative_excess(wer, self.wer[-1])


def analyse(trace: Trace, key: str | None = None) -> SetAnalysis:
    """Analyse one test set."""
    bare = SetAnalysis(key or trace.sets[0], trace)
    criteria, scores = {}, {}
    for criterion in available_criteria(trace):
        name = criterion.name
        scores[name] = criterion.scores(trace.evidence)
        curve = sweep(trace, name, scores[name], bare.bootstrap)
        criteria[name] = bare.criterion_result(curve, scores[name])
    return bare.extended(criteria=criteria, scores=scores)


def available_criteria(trace: Trace) -> tuple[Criterion, ...]:
    """The criteria that a report compares.

    Those whose evidence is there; baselines are left out, which look at no
    utterance, and criteria that decide exactly as another one does.
    """
    names = trace.evidence.names
    found = {
        criterion.name: criterion
        for criterion in _candidates(trace)
        if not criterion.baseline and criterion.available(names)
    }
    return tuple(c for c in found.values() if c.same_as not in found)


def criteria_note(trace: Trace) -> str:
    """How many criteria a report compares, and where the others are."""
    names = trace.evidence.names
    candidates = {c.name: c for c in _candidates(trace)}
    scored = {n: c for n, c in candidates.items() if not c.baseline}
    found = {n for n, c in scored.items() if c.available(names)}
    compared = len(available_criteria(trace))
    left_out = {
        "baselines": len(candidates) - len(scored),
        "without evidence in this trace": len(scored) - len(found),
        "deciding as another does": len(found) - compared,
    }
    reasons = [f"{why} ({n})" for why, n in left_out.items() if n]
    own = len(candidates) - len(criterion_names())
    text = f"Of {len(criterion_names())} registered criteria"
    if own:
        text += f", and {own} with parameters of their own,"
    text += f" {compared} are compared here"
    return f"{text}; left out: {', '.join(reasons)}." if reasons else f"{text}."


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
                analysis = analysis.extended(dev=chosen_on, carried=used)
            analyses[key] = with_policies(analysis, policies, default)
    return analyses


def with_policies(
    analysis: SetAnalysis,
    policies: Sequence[ExitPolicy],
    default: ExitPolicy | None = None,
) -> SetAnalysis:
    """The analysis with policies measured on its set."""
    last = analysis.wer[-1]
    results = tuple(
        measured(analysis.trace, policy, last, policy == default)
        for policy in policies
    )
    return analysis.extended(policies=results)


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


def _candidates(trace: Trace) -> Iterator[Criterion]:
    yield from map(get_criterion, criterion_names())
    for name in trace.evidence_names:
        if name.partition(":")[0] in criterion_names() and ":" in name:
            yield get_criterion(name)


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
    known = {n for c in criterion_names() for n in get_criterion(c).needs}
    known |= set(measure_names())
    unknown = sorted(
        name
        for name in trace.evidence_names
        if name not in known and name.partition(":")[0] not in known
    )
    if unknown:
        logger.info(
            "%s: evidence %s belongs to no registered criterion; left out",
            trace.source,
            ", ".join(unknown),
        )


def carried(
    domain: SetAnalysis, target: SetAnalysis, level: str = "equal_wer"
) -> tuple[CarriedThreshold, ...]:
    """Use the domain's thresholds on a test set."""
    layers = [a.trace.header.exit_layers for a in (domain, target)]
    if layers[0] != layers[1]:
        return ()
    names = [name for name in domain.criteria if name in target.criteria]
    found = [_carry(name, domain, target, level) for name in names]
    kept = [each for each in found if each is not None]
    return tuple(sorted(kept, key=lambda each: each.domain_layer))


def _carry(
    name: str, domain: SetAnalysis, target: SetAnalysis, level: str
) -> CarriedThreshold | None:
    point, scores_NE = domain.criteria[name].points[level], target.scores[name]
    used = _used_elsewhere(name, point, target)
    if used is None:
        return None
    choice_N = first_exit(scores_NE, used.threshold)
    own = target.criteria[name].points[level]
    draws = target.bootstrap
    wer_B = draws.replicate(choice_N[:, None]).wer_BT[:, 0]
    more_B = wer_B - draws.fixed.wer_BT[:, -1]
    distance, warning = _shift(domain.scores[name], scores_NE, target)
    return CarriedThreshold(
        criterion=name,
        threshold=used.threshold,
        domain_layer=point.avg_layer,
        avg_layer=used.avg_layer,
        avg_macs=used.avg_macs,
        own_layer=own and own.avg_layer,
        wer=used.wer,
        above_last=Estimate.of(used.wer - target.wer[-1], more_B, draws),
        excess=target.excess(used.wer),
        distance=distance,
        warning=warning,
    )


def _used_elsewhere(
    name: str, point: OperatingPoint | None, target: SetAnalysis
) -> OperatingPoint | None:
    """What a criterion's threshold, chosen on another set, gives on this."""
    if point is None or point.threshold is None:
        return None
    choice_N = first_exit(target.scores[name], point.threshold)
    macs_NE = criterion_macs(target.trace, get_criterion(name))
    return measure(target.trace, choice_N, point.threshold, macs_NE)


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


def transfer_matrices(
    analyses: Sequence[SetAnalysis],
) -> dict[str, TransferMatrix]:
    """Measure the transfer between all test sets."""
    matrices = {}
    names = dict.fromkeys(n for a in analyses for n in a.criteria)
    for name in names:
        having = [a for a in analyses if name in a.criteria]
        cells = {}
        for source in having:
            for target in having:
                cell = _transfer_cell(name, source, target)
                if cell is not None:
                    cells[source.key, target.key] = cell
        if any(a != b for a, b in cells):
            keys = tuple(a.key for a in having)
            matrices[name] = TransferMatrix(name, keys, cells)
    return matrices


def _transfer_cell(
    name: str, source: SetAnalysis, target: SetAnalysis
) -> TransferCell | None:
    layers = [a.trace.header.exit_layers for a in (source, target)]
    if layers[0] != layers[1]:
        return None
    point = source.criteria[name].points[TRANSFER_LEVEL]
    used = _used_elsewhere(name, point, target)
    if used is None:
        return None
    return TransferCell(
        name,
        source.key,
        target.key,
        used.threshold,
        used.wer,
        target.excess(used.wer),
        used.avg_layer,
        used.avg_macs,
    )
