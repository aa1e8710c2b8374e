"""Overthinking: errors that later exits add, in domain and out of it.

An utterance is overthought where an earlier exit is strictly better than the
last one, after Kaya et al. 2019 (arXiv 1810.07052) and, for speech, Berrebbi
et al. 2023 (arXiv 2211.08989). One test set is the domain; every other set is
compared with it, and gets its thresholds.

Axes: B bootstrap replicates, N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.analysis import (
    DIFFICULTIES,
    CarriedThreshold,
    SetAnalysis,
    carried,
    difficulty_groups,
    thirds,
)
from speechbrain_ee.evaluation.curves import Estimate, signed
from speechbrain_ee.evaluation.tables import Row, Table, number
from speechbrain_ee.evaluation.theme import label
from speechbrain_ee.exits.oracle import earliest_best, overthinking
from speechbrain_ee.exits.policy import error_rate
from speechbrain_ee.exits.trace import Trace

_LENGTHS = ("short", "medium", "long")


@dataclass(frozen=True)
class ExitComparison:
    """A fixed exit against the last one."""

    exit: int  # counted from 1
    layer: int  # encoder layer
    wer: float  # word error rate in percent
    # what is more of it than at the last exit, in points; the replicates are
    # paired
    above_last: Estimate
    # share of the utterances with strictly fewer errors than at the last
    better_share: float
    worse_share: float  # share of those with strictly more
    best_share: float  # share of those whose earliest best exit this is


@dataclass(frozen=True)
class OverthinkingGroup:
    """A part of a test set."""

    kind: str  # what it was formed by: ``length`` or ``difficulty``
    name: str  # its name, for example ``short``
    utterances: int  # their number
    words: int  # words of their references
    # word error rate of the last exit in percent; None without words
    wer_last: float | None
    wer_oracle: float | None  # the same of the earliest best exits
    share: float  # share of the utterances with a strictly better earlier exit
    points: float | None  # what going on adds to the word error rate
    best_layer: float  # average layer of the earliest best exit


@dataclass(frozen=True)
class SetOverthinking:
    """Overthinking on a test set."""

    key: str  # name of the set
    utterances: int  # their number
    words: int  # words of the references
    wer_oracle: float  # word error rate of the earliest best exits in percent
    # share of the utterances with a strictly better earlier exit
    share: Estimate
    # word errors that the last exit adds to the best one of each utterance
    errors: int
    # their share in the errors of the last exit; 0 if that makes none
    errors_share: float
    points: Estimate  # the same errors as points of the word error rate
    # how many points more than in domain; None for the domain itself
    points_above_domain: Estimate | None
    best_layer: float  # average layer of the earliest best exit
    exits: tuple[ExitComparison, ...]  # every fixed exit
    # the fixed exit with the fewest errors, the earlier one of equals
    best_exit: int
    # the best exit of the domain, an honest choice on this set; None if the
    # exits are others
    domain_exit: int | None
    groups: tuple[OverthinkingGroup, ...]  # by length, then by difficulty
    # the domain's thresholds; empty if the exits are others
    carried: tuple[CarriedThreshold, ...] = ()

    @property
    def best(self) -> ExitComparison:
        """The fixed exit with the fewest errors."""
        return self.exits[self.best_exit - 1]


@dataclass(frozen=True)
class OverthinkingStudy:
    """Overthinking on every test set of a report."""

    in_domain: str  # the set that the others are compared with
    sets: Mapping[str, SetOverthinking]  # by key, the domain first

    @property
    def others(self) -> tuple[SetOverthinking, ...]:
        """The sets out of domain."""
        return tuple(
            each for key, each in self.sets.items() if key != self.in_domain
        )


def study_overthinking(
    analyses: Mapping[str, SetAnalysis], in_domain: str | None = None
) -> OverthinkingStudy:
    """Study overthinking on all test sets."""
    key = next(iter(analyses)) if in_domain is None else in_domain
    if key not in analyses:
        raise InputError(
            f"--in-domain {key!r}: there is no such test set; the traces "
            f"hold: {'; '.join(analyses)}."
        )
    order = [analyses[key], *(a for k, a in analyses.items() if k != key)]
    sets = {each.key: _study(each, analyses[key]) for each in order}
    return OverthinkingStudy(key, sets)


def _study(analysis: SetAnalysis, domain: SetAnalysis) -> SetOverthinking:
    trace, draws = analysis.trace, analysis.bootstrap
    errors, above = analysis.overthinking_errors, None
    points, points_B = _points(analysis)
    if analysis is not domain:
        there, there_B = _points(domain)
        sets = draws, domain.bootstrap
        above = Estimate.of(points - there, points_B - there_B, *sets)
    same = trace.header.exit_layers == domain.trace.header.exit_layers
    over_N = overthinking(trace.errors_NE)
    return SetOverthinking(
        key=analysis.key,
        utterances=len(trace),
        words=analysis.words,
        wer_oracle=analysis.oracle_best.wer,
        share=Estimate.of(
            analysis.overthinking_share, draws.mean(over_N), draws
        ),
        errors=errors,
        errors_share=errors / max(int(trace.errors_NE[:, -1].sum()), 1),
        points=Estimate.of(points, points_B, draws),
        points_above_domain=above,
        best_layer=analysis.oracle_best.avg_layer,
        exits=_exits(analysis),
        best_exit=_best_exit(analysis),
        domain_exit=_best_exit(domain) if same else None,
        groups=_groups(analysis),
        carried=carried(domain, analysis),
    )


def _points(analysis: SetAnalysis) -> tuple[float, NDArray[np.float64]]:
    """What the last exit adds to the error rate, also in every replicate."""
    errors_NE = analysis.trace.errors_NE
    added_N = errors_NE[:, -1] - errors_NE.min(axis=1)
    points = 100 * analysis.overthinking_errors / analysis.words
    return points, analysis.bootstrap.rate(added_N)


def _best_exit(analysis: SetAnalysis) -> int:
    # of errors, not of rates: equal ones are equal
    return int(analysis.trace.errors_NE.sum(axis=0).argmin()) + 1


def _exits(analysis: SetAnalysis) -> tuple[ExitComparison, ...]:
    errors_NE, draws = analysis.trace.errors_NE, analysis.bootstrap
    more_BE = draws.fixed.wer_BT - draws.fixed.wer_BT[:, -1:]
    better_E = (errors_NE < errors_NE[:, -1:]).mean(axis=0).tolist()
    worse_E = (errors_NE > errors_NE[:, -1:]).mean(axis=0).tolist()
    return tuple(
        ExitComparison(
            exit=column + 1,
            layer=layer,
            wer=wer,
            above_last=Estimate.of(
                wer - analysis.wer[-1], more_BE[:, column], draws
            ),
            better_share=better_E[column],
            worse_share=worse_E[column],
            best_share=analysis.oracle_shares[column],
        )
        for column, (layer, wer) in enumerate(
            zip(analysis.trace.header.exit_layers, analysis.wer, strict=True)
        )
    )


def _groups(analysis: SetAnalysis) -> tuple[OverthinkingGroup, ...]:
    trace = analysis.trace
    ways = {
        "length": (_LENGTHS, thirds(trace.words_N)),
        "difficulty": (DIFFICULTIES, difficulty_groups(trace)),
    }
    return tuple(
        _group(trace, kind, name, group_N == place)
        for kind, (names, group_N) in ways.items()
        for place, name in enumerate(names)
        if (group_N == place).any()
    )


def _group(
    trace: Trace, kind: str, name: str, in_N: NDArray[np.bool_]
) -> OverthinkingGroup:
    errors_NE, words_N = trace.errors_NE[in_N], trace.words_N[in_N]
    best_N = earliest_best(errors_NE)
    last_N = np.full(len(errors_NE), errors_NE.shape[1] - 1)
    wer_last = wer_oracle = points = None
    if words_N.any():
        ends_N2 = np.stack([last_N, best_N], axis=1)
        rates = error_rate(errors_NE, words_N, ends_N2).tolist()
        wer_last, wer_oracle = rates
        points = wer_last - wer_oracle
    return OverthinkingGroup(
        kind=kind,
        name=name,
        utterances=int(in_N.sum()),
        words=int(words_N.sum()),
        wer_last=wer_last,
        wer_oracle=wer_oracle,
        share=float(overthinking(errors_NE).mean()),
        points=points,
        best_layer=float(trace.layers_E[best_N].mean()),
    )


def overthinking_rows(study: OverthinkingStudy) -> list[Row]:
    """One row per test set."""
    return [
        {
            "set": each.key,
            "in_domain": each.key == study.in_domain,
            "utterances": each.utterances,
            "words": each.words,
            "wer_last": each.exits[-1].wer,
            "wer_oracle": each.wer_oracle,
            **_three("overthought", each.share, 100),
            "errors_added": each.errors,
            "errors_added_share": 100 * each.errors_share,
            **_three("points_added", each.points),
            **_three("points_above_domain", each.points_above_domain),
            "oracle_layer": each.best_layer,
            "best_exit": each.best.exit,
            "best_exit_layer": each.best.layer,
            "best_exit_wer": each.best.wer,
            **_three("best_exit_above_last", each.best.above_last),
        }
        for each in study.sets.values()
    ]


def threshold_rows(study: OverthinkingStudy) -> list[Row]:
    """One row per test set and criterion."""
    return [
        {
            "set": each.key,
            "in_domain": each.key == study.in_domain,
            "criterion": one.criterion,
            "threshold": one.threshold,
            "layers_in_domain": one.domain_layer,
            "layers": one.avg_layer,
            "layers_own_threshold": one.own_layer,
            "avg_macs": one.avg_macs,
            "wer": one.wer,
            **_three("above_last", one.above_last),
            "excess": one.excess,
            "score_distance": one.distance,
            "shifted": one.warning is not None,
        }
        for each in study.sets.values()
        for one in each.carried
    ]


def _three(
    name: str, estimate: Estimate | None, factor: float = 1.0
) -> dict[str, float | None]:
    """Value and interval as three columns."""
    ends = {name: "value", f"{name}_low": "low", f"{name}_high": "high"}
    if estimate is None:
        return dict.fromkeys(ends)
    return {key: factor * getattr(estimate, end) for key, end in ends.items()}


def set_table(study: OverthinkingStudy) -> Table:
    """What the last exit adds to the errors, one row per test set."""
    heading = ["test set", "WER %: last exit", "oracle"]
    heading += ["earlier is better: % of utterances", "95 % interval"]
    heading += ["going on adds: errors", "points", "95 % interval"]
    rows = [
        [
            each.key,
            number(each.exits[-1].wer),
            number(each.wer_oracle),
            _percent(each.share.value),
            f"{_percent(each.share.low)} to {_percent(each.share.high)}",
            str(each.errors),
            number(each.points.value),
            each.points.ends(""),
        ]
        for each in study.sets.values()
    ]
    return Table(heading, rows)


def fixed_table(study: OverthinkingStudy) -> Table:
    """The best fixed exit of every set, and the domain's, against the last."""
    heading = ["test set", "best fixed exit: layer", "WER %", "against last"]
    heading += ["95 % interval", "the domain's: layer", "against last"]
    rows = []
    for each in study.sets.values():
        row = [each.key, str(each.best.layer), number(each.best.wer)]
        row += _against(each, each.best_exit)
        if each.key == study.in_domain or each.domain_exit is None:
            row += ["", "", ""]
        else:
            row.append(str(each.exits[each.domain_exit - 1].layer))
            row += _against(each, each.domain_exit)
        rows.append(row)
    return Table([*heading, "95 % interval"], rows)


def exit_comparison_table(each: SetOverthinking) -> Table:
    """Every fixed exit of a set against the last; the best one has a star."""
    heading = ["layer", "WER %", "against last: points", "95 % interval"]
    heading += ["utterances %: better than last", "worse", "best exit here"]
    rows = [
        [
            f"{one.layer}{' *' * (one.exit == each.best_exit)}",
            number(one.wer),
            *_against(each, one.exit),
            *map(_percent, (one.better_share, one.worse_share, one.best_share)),
        ]
        for one in each.exits
    ]
    return Table(heading, rows)


def group_table(each: SetOverthinking) -> Table:
    """Overthinking by length and by difficulty."""
    heading = ["part", "utterances", "WER %: last exit", "oracle"]
    heading += ["going on: hurts % of utterances", "adds points"]
    rows = [
        [
            f"{group.kind}: {group.name}",
            str(group.utterances),
            number(group.wer_last),
            number(group.wer_oracle),
            _percent(group.share),
            number(group.points),
            number(group.best_layer),
        ]
        for group in each.groups
    ]
    return Table([*heading, "best layer: average"], rows)


def carried_table(each: SetOverthinking) -> Table:
    """The domain's thresholds on a test set; missed budgets stand out."""
    heading = ["criterion", "layers: in domain", "here", "own"]
    heading += ["above last exit: %", "points, 95 %", "scores: shift"]
    rows = [
        [
            label(one.criterion),
            number(one.domain_layer),
            number(one.avg_layer),
            number(one.own_layer),
            "" if one.excess is None else signed(one.excess, decimals=1),
            one.above_last.ends(),
            f"{one.distance:.2f}{'*' if one.warning else ''}",
        ]
        for one in each.carried
    ]
    broken = [i for i, o in enumerate(each.carried) if o.above_last.positive]
    return Table(heading, rows, leading=frozenset(broken))


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _against(each: SetOverthinking, exit: int) -> list[str]:
    """Difference to the last exit and its interval."""
    if exit == len(each.exits):
        return ["", ""]
    above = each.exits[exit - 1].above_last
    return [signed(above.value), above.ends()]
