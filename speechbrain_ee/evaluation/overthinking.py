"""Overthinking: what going on costs, in domain and out of it.

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
from speechbrain_ee.evaluation.analysis import SetAnalysis
from speechbrain_ee.evaluation.carried import CarriedThreshold, carried
from speechbrain_ee.evaluation.difficulty import NAMES, difficulty_groups
from speechbrain_ee.evaluation.estimate import Estimate
from speechbrain_ee.exits.oracle import earliest_best, overthinking
from speechbrain_ee.exits.policy import error_rate

_LENGTHS = ("short", "medium", "long")


@dataclass(frozen=True)
class ExitComparison:
    """A fixed exit against the last one.

    Arguments
    ---------
    exit : int
        Counted from 1.
    layer : int
        Encoder layer.
    wer : float
        Word error rate in percent.
    above_last : Estimate
        What is more of it than at the last exit, in points; the replicates
        are paired.
    better_share : float
        Share of the utterances with strictly fewer errors than at the last.
    worse_share : float
        Share of those with strictly more.
    best_share : float
        Share of those whose earliest best exit this is.
    """

    exit: int
    layer: int
    wer: float
    above_last: Estimate
    better_share: float
    worse_share: float
    best_share: float


@dataclass(frozen=True)
class OverthinkingGroup:
    """A part of a test set.

    Arguments
    ---------
    kind : str
        What it was formed by: ``length`` or ``difficulty``.
    name : str
        Its name, for example ``short``.
    utterances : int
        Their number.
    words : int
        Words of their references.
    wer_last : float, optional
        Word error rate of the last exit in percent; None without words.
    wer_oracle : float, optional
        The same of the earliest best exits.
    share : float
        Share of the utterances with a strictly better earlier exit.
    points : float, optional
        What going on adds to the word error rate.
    best_layer : float
        Average layer of the earliest best exit.
    """

    kind: str
    name: str
    utterances: int
    words: int
    wer_last: float | None
    wer_oracle: float | None
    share: float
    points: float | None
    best_layer: float


@dataclass(frozen=True)
class SetOverthinking:
    """Overthinking on a test set.

    Arguments
    ---------
    key : str
        Name of the set.
    utterances : int
        Their number.
    words : int
        Words of the references.
    wer_oracle : float
        Word error rate of the earliest best exits in percent.
    share : Estimate
        Share of the utterances with a strictly better earlier exit.
    errors : int
        Word errors that the last exit adds to the best one of each utterance.
    errors_share : float
        Their share in the errors of the last exit; 0 if that makes none.
    points : Estimate
        The same errors as points of the word error rate.
    points_above_domain : Estimate, optional
        How many points more than in domain; None for the domain itself.
    best_layer : float
        Average layer of the earliest best exit.
    exits : tuple of E ExitComparison
        Every fixed exit.
    best_exit : int
        The fixed exit with the fewest errors, the earlier one of equals.
    domain_exit : int, optional
        The best exit of the domain, an honest choice on this set; None if
        the exits are others.
    groups : tuple of OverthinkingGroup
        By length, then by difficulty.
    carried : tuple of CarriedThreshold
        The domain's thresholds; empty if the exits are others.
    """

    key: str
    utterances: int
    words: int
    wer_oracle: float
    share: Estimate
    errors: int
    errors_share: float
    points: Estimate
    points_above_domain: Estimate | None
    best_layer: float
    exits: tuple[ExitComparison, ...]
    best_exit: int
    domain_exit: int | None
    groups: tuple[OverthinkingGroup, ...]
    carried: tuple[CarriedThreshold, ...] = ()


@dataclass(frozen=True)
class OverthinkingStudy:
    """Overthinking on every test set of a report.

    Arguments
    ---------
    in_domain : str
        The set that the others are compared with.
    sets : mapping of str to SetOverthinking
        By key, the domain first.
    """

    in_domain: str
    sets: Mapping[str, SetOverthinking]

    @property
    def others(self) -> tuple[SetOverthinking, ...]:
        """The sets out of domain."""
        return tuple(
            each for key, each in self.sets.items() if key != self.in_domain
        )


def study_overthinking(
    analyses: Mapping[str, SetAnalysis], in_domain: str | None = None
) -> OverthinkingStudy:
    """Study overthinking on all test sets.

    Arguments
    ---------
    analyses : mapping of str to SetAnalysis
        The test sets.
    in_domain : str, optional
        Which of them is the domain; by default the first.

    Returns
    -------
    OverthinkingStudy

    Raises
    ------
    InputError
        If there is no set of that name.
    """
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
        "difficulty": (NAMES, difficulty_groups(trace)),
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
