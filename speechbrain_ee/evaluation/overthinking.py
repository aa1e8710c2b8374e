"""Overthinking: what going on to the last exit costs, in domain and out of it.

An utterance is overthought where an earlier exit is strictly better than the
last one, after Kaya et al. 2019 (arXiv 1810.07052) and, for speech, Berrebbi
et al. 2023 (arXiv 2211.08989). One test set is the domain; every other set is
compared with it, and gets its thresholds.

Axes: B bootstrap replicates, N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Callable, Mapping, Sequence
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
)
from speechbrain_ee.evaluation.curves import Estimate, signed
from speechbrain_ee.evaluation.tables import Column, Row, Table, number
from speechbrain_ee.evaluation.theme import label
from speechbrain_ee.exits.oracle import earliest_best, overthinking
from speechbrain_ee.exits.policy import error_rate

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
    trace, points_B = analysis.trace, _points_B(analysis)
    over_N = overthinking(trace.errors_NE)
    draws = analysis.bootstrap
    errors = analysis.overthinking_errors
    points = 100 * errors / analysis.words
    above = None
    if analysis is not domain:
        there = 100 * domain.overthinking_errors / domain.words
        above = Estimate.of(
            points - there,
            points_B - _points_B(domain),
            draws,
            domain.bootstrap,
        )
    same = trace.header.exit_layers == domain.trace.header.exit_layers
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


def _points_B(analysis: SetAnalysis) -> NDArray[np.float64]:
    """What going on adds in every replicate."""
    errors_NE = analysis.trace.errors_NE
    return analysis.bootstrap.rate(errors_NE[:, -1] - errors_NE.min(axis=1))


def _best_exit(analysis: SetAnalysis) -> int:
    # of errors, not of rates: equal ones are equal
    return int(analysis.trace.errors_NE.sum(axis=0).argmin()) + 1


def _exits(analysis: SetAnalysis) -> tuple[ExitComparison, ...]:
    errors_NE = analysis.trace.errors_NE
    draws = analysis.bootstrap
    wer_BE = draws.fixed.wer_BT
    more_BE = wer_BE - wer_BE[:, -1:]
    better_E = (errors_NE < errors_NE[:, -1:]).mean(axis=0)
    worse_E = (errors_NE > errors_NE[:, -1:]).mean(axis=0)
    return tuple(
        ExitComparison(
            exit=column + 1,
            layer=layer,
            wer=wer,
            above_last=Estimate.of(
                wer - analysis.wer[-1], more_BE[:, column], draws
            ),
            better_share=float(better_E[column]),
            worse_share=float(worse_E[column]),
            best_share=analysis.oracle_shares[column],
        )
        for column, (layer, wer) in enumerate(
            zip(analysis.trace.header.exit_layers, analysis.wer, strict=True)
        )
    )


def _groups(analysis: SetAnalysis) -> tuple[OverthinkingGroup, ...]:
    trace = analysis.trace
    limits = np.quantile(trace.words_N, (1 / 3, 2 / 3), method="lower")
    length_N = np.searchsorted(limits, trace.words_N, side="left")
    ways = {
        "length": (_LENGTHS, length_N),
        "difficulty": (DIFFICULTIES, difficulty_groups(trace)),
    }
    return tuple(
        _group(analysis, kind, name, group_N == place)
        for kind, (names, group_N) in ways.items()
        for place, name in enumerate(names)
        if (group_N == place).any()
    )


def _group(
    analysis: SetAnalysis, kind: str, name: str, in_N: NDArray[np.bool_]
) -> OverthinkingGroup:
    errors_NE = analysis.trace.errors_NE[in_N]
    words_N = analysis.trace.words_N[in_N]
    best_N = earliest_best(errors_NE)
    last_N = np.full(len(errors_NE), errors_NE.shape[1] - 1)
    wer_last = wer_oracle = points = None
    if words_N.any():
        choice_N2 = np.stack([last_N, best_N], axis=1)
        wer_last, wer_oracle = error_rate(
            errors_NE, words_N, choice_N2
        ).tolist()
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
        best_layer=float(analysis.trace.layers_E[best_N].mean()),
    )


def overthinking_rows(study: OverthinkingStudy) -> list[Row]:
    """One row per test set."""
    rows: list[Row] = []
    for each in study.sets.values():
        best = each.exits[each.best_exit - 1]
        rows.append(
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
                "best_exit": best.exit,
                "best_exit_layer": best.layer,
                "best_exit_wer": best.wer,
                **_three("best_exit_above_last", best.above_last),
            }
        )
    return rows


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


def set_table(study: OverthinkingStudy) -> Table:
    """The cost of going on to the last exit, one row per test set."""

    def share(value: float) -> str:
        return f"{100 * value:.1f}"

    columns: list[Column] = [
        ("test set", lambda each: each.key),
        ("WER %: last exit", lambda each: number(each.exits[-1].wer)),
        ("oracle", lambda each: number(each.wer_oracle)),
        (
            "earlier is better: % of utterances",
            lambda each: share(each.share.value),
        ),
        (
            "95 % interval",
            lambda each: f"{share(each.share.low)} to {share(each.share.high)}",
        ),
        ("going on adds: errors", lambda each: str(each.errors)),
        ("points", lambda each: number(each.points.value)),
        ("95 % interval", lambda each: each.points.ends("")),
    ]
    return Table.of(columns, study.sets.values())


def fixed_table(study: OverthinkingStudy) -> Table:
    """The best fixed exit of every set, and the domain's, against the last."""
    heading = ["test set", "best fixed exit: layer", "WER %", "against last"]
    heading += ["95 % interval", "the domain's: layer", "against last"]
    rows = []
    for each in study.sets.values():
        best = each.exits[each.best_exit - 1]
        row = [each.key, str(best.layer), number(best.wer)]
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
    star = {each.best_exit: " *"}
    columns: list[Column] = [
        ("layer", lambda one: f"{one.layer}{star.get(one.exit, '')}"),
        ("WER %", lambda one: number(one.wer)),
        ("against last: points", lambda one: _against(each, one.exit)[0]),
        ("95 % interval", lambda one: _against(each, one.exit)[1]),
        (
            "utterances %: better than last",
            lambda one: f"{100 * one.better_share:.1f}",
        ),
        ("worse", lambda one: f"{100 * one.worse_share:.1f}"),
        ("best exit here", lambda one: f"{100 * one.best_share:.1f}"),
    ]
    return Table.of(columns, each.exits)


def group_table(each: SetOverthinking) -> Table:
    """Overthinking by length and by difficulty."""
    columns: list[Column] = [
        ("part", lambda group: f"{group.kind}: {group.name}"),
        ("utterances", lambda group: str(group.utterances)),
        ("WER %: last exit", lambda group: number(group.wer_last)),
        ("oracle", lambda group: number(group.wer_oracle)),
        (
            "going on: hurts % of utterances",
            lambda group: f"{100 * group.share:.1f}",
        ),
        ("adds points", lambda group: number(group.points)),
        ("best layer: average", lambda group: number(group.best_layer)),
    ]
    return Table.of(columns, each.groups)


def carried_table(
    each: SetOverthinking, named: Callable[[str], str] = label
) -> Table:
    """The domain's thresholds on a test set; missed budgets stand out."""
    columns: list[Column] = [
        ("criterion", lambda one: named(one.criterion)),
        ("layers: in domain", lambda one: number(one.domain_layer)),
        ("here", lambda one: number(one.avg_layer)),
        ("own", lambda one: number(one.own_layer)),
        (
            "above last exit: %",
            lambda one: (
                "" if one.excess is None else signed(one.excess, decimals=1)
            ),
        ),
        ("points, 95 %", lambda one: one.above_last.ends()),
        (
            "scores: shift",
            lambda one: f"{one.distance:.2f}{'*' if one.warning else ''}",
        ),
    ]
    broken = [i for i, o in enumerate(each.carried) if o.above_last.positive]
    return Table.of(columns, each.carried, leading=frozenset(broken))


def _against(each: SetOverthinking, exit: int) -> list[str]:
    """Difference to the last exit and its interval."""
    if exit == len(each.exits):
        return ["", ""]
    above = each.exits[exit - 1].above_last
    return [signed(above.value), above.ends()]


def _three(
    name: str, estimate: Estimate | None, factor: float = 1.0
) -> dict[str, float | None]:
    """Value and interval as three columns."""
    if estimate is None:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    return {
        name: factor * estimate.value,
        f"{name}_low": factor * estimate.low,
        f"{name}_high": factor * estimate.high,
    }


CARRIED_NOTE = (
    "Each threshold is the cheapest that keeps the last exit's word error "
    "rate in domain. Layers: what it takes there, what it takes here, and "
    "what the set's own threshold would. Shift: largest Kolmogorov-Smirnov "
    "distance of the scores at an exit from those in domain; * more than "
    "chance."
)
GROUPS_NOTE = (
    "Parts are thirds as far as ties allow: length is that of the reference "
    "in words, difficulty the word errors per word averaged over the exits."
)
EXITS_NOTE = "* the best fixed exit, chosen on this set."


def overthinking_note(study: OverthinkingStudy, key: str) -> str:
    """A test set in a few sentences."""
    each = study.sets[key]
    text = (
        f"An earlier exit is better than the last for "
        f"{100 * each.share.value:.1f} % of the utterances; going on adds "
        f"{each.points.value:.2f} points, {100 * each.errors_share:.0f} % of "
        f"the last exit's errors. {_fixed_said(each)}"
    )
    above = each.points_above_domain
    if above is not None:
        sure = above.positive or above.negative
        side = "more than chance" if sure else "no more than chance"
        text += (
            f" Against {study.in_domain} that is {signed(above.value)} points "
            f"({above.ends()}), {side}."
        )
    if above is not None and each.carried:
        text += f" {_carried_said(study, each.carried)}"
    return text


def shift_note(study: OverthinkingStudy, key: str) -> str:
    """What a policy would say of the shift of a set."""
    if key == study.in_domain:
        return ""
    for one in study.sets[key].carried:
        if one.warning:
            return f"{label(one.criterion)}: {one.warning}"
    return ""


def _fixed_said(each: SetOverthinking) -> str:
    best = each.exits[each.best_exit - 1]
    if best is each.exits[-1]:
        return "No fixed exit is better than the last."
    if best.above_last.value == 0:
        return f"Layer {best.layer} makes as few errors as the last exit."
    sure = "" if best.above_last.negative else ", no more than chance"
    return (
        f"As a fixed exit, layer {best.layer} is {-best.above_last.value:.2f} "
        f"points better than the last{sure}."
    )


def _carried_said(
    study: OverthinkingStudy, found: Sequence[CarriedThreshold]
) -> str:
    broken = sum(one.above_last.positive for one in found)
    shifted = sum(one.warning is not None for one in found)
    return (
        f"Thresholds that keep the last exit's word error rate on "
        f"{study.in_domain}: {len(found)}; that miss it here by more than "
        f"chance: {broken}; whose scores show a shift: {shifted}."
    )
