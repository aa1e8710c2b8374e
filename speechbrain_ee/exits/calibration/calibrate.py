"""Calibration: the threshold, or thresholds, that hold a budget.

Candidates come from a ladder, a budget turns each into losses
(:mod:`~speechbrain_ee.exits.calibration.budget`), a method says which
candidates pass (:mod:`~speechbrain_ee.exits.calibration.risk`). Of those that
pass, a word error budget takes the one with the least compute, a compute
budget the one with the fewest errors.

A ladder of single thresholds goes through quantiles of the scores. A ladder
of thresholds per exit goes through the policies that minimise ``errors +
price x cost`` for a rising price: every threshold in turn is set to its
best value with the others held (backward induction over the exits,
repeated until nothing changes), so that cheap utterances may leave early
at one exit while another exit is passed by. Both run from the policy that
is always last to the one that is always first.

The order of the tests is the ladder from its safe end: always last for a
word error budget, always first for a compute budget. A ladder of thresholds
per exit is made from errors; ``crc`` and ``ltt`` therefore make it on a part
of the calibration set and test on the rest, with no speaker on both sides.

Axes: N utterances, E exits, K exits but the last, T candidates, G grid
values of an exit.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.calibration.budget import Budget, Outcomes
from speechbrain_ee.exits.calibration.risk import check_method, passing
from speechbrain_ee.exits.clusters import Clusters
from speechbrain_ee.exits.policy import (
    ThresholdPolicy,
    at_choice,
    choices_NT,
    error_rate,
    reaches,
)

# below this the t approximation and quantiles are too coarse to rely on
FEW_UTTERANCES = 200
CANDIDATES = 200  # single thresholds, at most
_GRID = 64  # thresholds that are tried at one exit
_PRICES = 48
_SWEEPS = 20
# part of the calibration set that a ladder of thresholds per exit is made on
_LADDER_SHARE = 0.5


@dataclass(frozen=True)
class Calibration:
    """A calibrated policy and what it does on its calibration set."""

    policy: ThresholdPolicy
    # Whether a candidate passed. If not, the policy is always last for a word
    # error budget (which holds it, at full compute), else always first.
    satisfied: bool
    wer: float  # percent
    wer_last: float  # of the last exit
    avg_layer: float
    avg_macs: float | None  # None: not known
    target: float  # utterances that the statement is about
    target_clusters: float
    clusters: Clusters = field(compare=False)  # that the test was made on


def calibrate(
    criterion: str,
    scores_NE: NDArray[np.floating],
    outcomes: Outcomes,
    budget: Budget,
    method: str = "ltt",
    delta: float = 0.1,
    per_exit: bool = False,
    target: float | None = None,
    target_clusters: float | None = None,
) -> Calibration:
    """Choose thresholds that hold a budget.

    Arguments
    ---------
    criterion : str
        Name of the criterion that gave the scores.
    scores_NE : array of shape (N, E)
        Its scores on the calibration set.
    outcomes : Outcomes
        What the exits do there.
    budget : Budget
        What to hold.
    method : str
        ``naive``, ``crc`` or ``ltt``.
    delta : float
        Accepted probability that the target set breaks the budget (``ltt``).
    per_exit : bool
        A threshold per exit instead of one for all.
    target : float, optional
        Utterances of the target set (``ltt``); by default as many as in the
        calibration set; infinite for a statement on the expectation.
    target_clusters : float, optional
        Speakers of the target set (``ltt``); by default with as many
        utterances each as those of the calibration set.

    Returns
    -------
    Calibration

    Raises
    ------
    InputError
        If the method, delta or target is not valid, or a compute budget lies
        below what the first exit takes.

    Example
    -------
    >>> rng = np.random.default_rng(0)
    >>> errors = rng.integers(0, 3, (400, 1)) + np.array([[4, 1, 0]])
    >>> scores = 1 - errors / 6 + 0.1 * rng.random((400, 3))
    >>> outcomes = Outcomes(errors, np.full(400, 20), np.array([4, 8, 12]))
    >>> found = calibrate("c", scores, outcomes, Budget.parse("wer=+3"))
    >>> found.satisfied, found.avg_layer < 12
    (True, True)
    """
    check_method(method, delta)
    target = len(outcomes) if target is None else target
    if not target >= 1:
        raise InputError(f"target={target}: give at least one utterance.")
    budget.check(outcomes)
    clusters = outcomes.clusters
    if target_clusters is None:
        target_clusters = clusters.count * target / len(outcomes)
    naive, tested = method == "naive", np.arange(len(outcomes))
    costs_NE = budget.costs_NE(outcomes)
    losses_NE = budget.losses_NE(outcomes)
    errors_NE = outcomes.errors_NE.astype(np.float64)
    ladder_TK = single_ladder(scores_NE)
    if per_exit:
        made = tested
        if not naive:
            if clusters.count < 4:
                raise InputError(
                    f"thresholds per exit: {clusters.count} {clusters.by}s "
                    f"are too few to be split; calibrate one threshold, or "
                    f"on more data."
                )
            made, tested = clusters.split(_LADDER_SHARE, seed=0)
        rungs_TK = per_exit_ladder(
            scores_NE[made], errors_NE[made], costs_NE[made]
        )
        # the single thresholds too, so that naive is never worse than global
        ladder_TK = np.vstack([ladder_TK, rungs_TK]) if naive else rungs_TK
    if budget.on_compute:
        ladder_TK = ladder_TK[::-1]
    choice_NT = choices_NT(scores_NE[tested], ladder_TK)
    clusters = clusters.select(tested)
    passed_T = passing(
        at_choice(losses_NE[tested], choice_NT),
        method,
        delta,
        float(losses_NE[tested].max()),
        target_clusters,
        # known without data: always last has no excess errors, and layers
        # of the first exit were checked against the budget above
        first_is_safe=budget.kind != "macs",
        clusters=clusters,
    )
    # the one that shall be least counts first
    aims = [costs_NE, errors_NE]
    if budget.on_compute:
        aims.reverse()
    place = 0  # the safe end, if none passes
    places = np.flatnonzero(passed_T)
    if method == "crc" and len(places):
        place = places[-1]  # its statement is about where the ladder is left
    elif len(places):
        keys = [
            at_choice(values_NE[tested], choice_NT[:, places]).sum(axis=0)
            for values_NE in reversed(aims)
        ]
        place = places[np.lexsort(keys)[0]]  # the last key counts first
    limits_K = ladder_TK[place]
    if per_exit and naive and passed_T[place]:
        limits_K = Search(scores_NE).minimise(limits_K, aims[0], losses_NE)[1]
    # passing at the safe end alone is what a policy without scores does, too
    satisfied = bool(passed_T[place]) and (
        budget.on_compute or not np.isposinf(limits_K).all()
    )
    # no negative zero in a file
    limits = tuple(float(limit) + 0.0 for limit in limits_K)
    return Calibration(
        ThresholdPolicy(
            criterion, limits if per_exit else limits[0], len(limits) + 1
        ),
        satisfied,
        *_measured(limits_K, scores_NE, outcomes),
        float(target),
        float(target_clusters),
        clusters,
    )


def _measured(
    limits_K: NDArray[np.float64],
    scores_NE: NDArray[np.floating],
    outcomes: Outcomes,
) -> tuple[float, float, float, float | None]:
    """Word error rate, that of the last exit, layers and MACs."""
    if not outcomes.words_N.any():
        raise InputError(
            "calibration: all references are empty, so there is no word "
            "error rate; check the transcripts of the trace."
        )
    last_K = np.full_like(limits_K, np.inf)
    choice_N2 = choices_NT(scores_NE, np.stack([limits_K, last_K]))
    wer, wer_last = error_rate(
        outcomes.errors_NE, outcomes.words_N, choice_N2
    ).tolist()
    choice_N, macs_NE = choice_N2[:, 0], outcomes.macs_NE
    layers = float(outcomes.layers_E[choice_N].mean())
    if macs_NE is None:
        return wer, wer_last, layers, None
    return wer, wer_last, layers, float(at_choice(macs_NE, choice_N).mean())


def single_ladder(scores_NE: NDArray[np.floating]) -> NDArray[np.float64]:
    """Candidates (T, K) with one threshold for all exits, a score that occurs,
    from always last to always first.

    Example
    -------
    >>> single_ladder(np.array([[0.1, 0.4, 0.9], [0.4, 0.3, 0.9]])).tolist()
    [[inf, inf], [0.4, 0.4], [0.3, 0.3], [0.1, 0.1], [-inf, -inf]]
    """
    early = scores_NE[:, :-1]
    inner = _quantiles(early, CANDIDATES - 2)[::-1]
    limits_T = np.concatenate([[np.inf], inner, [-np.inf]])
    return np.repeat(limits_T[:, None], early.shape[1], axis=1)


def per_exit_ladder(
    scores_NE: NDArray[np.floating],
    errors_NE: NDArray[np.floating],
    costs_NE: NDArray[np.floating],
) -> NDArray[np.float64]:
    """Candidates (T, K) with a threshold per exit, from always last to always
    first.
    """
    search = Search(scores_NE)
    single_TK = single_ladder(scores_NE)
    choice_NT = choices_NT(scores_NE, single_TK)
    errors_T = at_choice(errors_NE, choice_NT).sum(axis=0)
    costs_T = at_choice(costs_NE, choice_NT).sum(axis=0)
    slope = np.ptp(errors_NE.mean(axis=0)) or 1.0
    slope /= np.ptp(costs_NE.mean(axis=0)) or 1.0
    ladder = [single_TK[0]]
    for price in slope * np.geomspace(1e-3, 1e2, _PRICES):
        total_NE = errors_NE + price * costs_NE
        start_K = single_TK[(errors_T + price * costs_T).argmin()]
        # the better of two starts, each improved
        ends = [search.minimise(s, total_NE) for s in (start_K, ladder[-1])]
        best_K = min(ends, key=lambda end: end[0])[1]
        if not np.array_equal(best_K, ladder[-1]):
            ladder.append(best_K)
    return np.stack([*ladder, single_TK[-1]])


class Search:
    """Search for thresholds, one exit at a time; ``grids`` hold those to try
    at each exit, rising, infinities included.
    """

    def __init__(self, scores_NE: NDArray[np.floating]):
        self.scores_NE = scores_NE
        self.grids = [
            np.concatenate([[-np.inf], _quantiles(c, _GRID), [np.inf]])
            for c in scores_NE[:, :-1].T
        ]
        # by exit, how many thresholds of its grid each score reaches
        self._reached = [
            reaches(score_N[:, None], grid).sum(axis=1)
            for score_N, grid in zip(scores_NE.T, self.grids)
        ]

    def totals(
        self,
        limits_K: NDArray[np.floating],
        exit: int,
        values_NE: NDArray[np.floating],
    ) -> NDArray[np.float64]:
        """Sums of the values at the exits taken, for every threshold (G,)
        that one exit, counted from 0, may get beside those of the others.
        """
        limits_2K = np.stack([limits_K, limits_K])
        limits_2K[:, exit] = np.inf, -np.inf
        choice_N2 = choices_NT(self.scores_NE, limits_2K)
        on_N, stop_N = at_choice(values_NE, choice_N2).T
        change = np.bincount(
            self._reached[exit],
            weights=stop_N - on_N,
            minlength=len(self.grids[exit]),
        )
        return on_N.sum() + np.append(change[1:][::-1].cumsum()[::-1], 0)

    def minimise(
        self,
        start_K: NDArray[np.floating],
        values_NE: NDArray[np.floating],
        bound_NE: NDArray[np.floating] | None = None,
    ) -> tuple[float, NDArray[np.float64]]:
        """Lower the sum of the values at the exits taken to a local minimum,
        one threshold after the other, while the sum of the bound's stays at
        most 0; the sum reached, and where.
        """
        limits_K = np.array(start_K, dtype=np.float64)
        choice_N1 = choices_NT(self.scores_NE, limits_K[None])
        best = float(at_choice(values_NE, choice_N1).sum())
        tolerance = 1e-9 * (1 + np.abs(values_NE).sum())
        for _ in range(_SWEEPS):
            before = best
            for exit in reversed(range(len(limits_K))):
                totals_G = self.totals(limits_K, exit, values_NE)
                if bound_NE is not None:
                    bounds_G = self.totals(limits_K, exit, bound_NE)
                    totals_G[bounds_G > 0] = np.inf
                place = int(totals_G.argmin())
                if totals_G[place] < best - tolerance:
                    best = float(totals_G[place])
                    limits_K[exit] = self.grids[exit][place]
            if best == before:
                break
        return best, limits_K


def _quantiles(values: NDArray[np.floating], size: int) -> NDArray[np.float64]:
    """At most ``size`` of the finite values, spread evenly, rising."""
    finite = values[np.isfinite(values)]
    found = np.unique(finite)
    if len(found) <= size:
        return found
    levels = np.linspace(0, 1, size)
    return np.unique(np.quantile(finite, levels, method="inverted_cdf"))
