"""Calibration: the threshold, or thresholds, that hold a budget.

Candidates come from a ladder (:mod:`~speechbrain_ee.exits.calibration.ladder`), a budget
turns each into losses (:mod:`~speechbrain_ee.exits.calibration.budget`), a method says
which candidates pass (:mod:`~speechbrain_ee.exits.calibration.risk`). Of those that
pass, a word error budget takes the one with the least compute, a compute
budget the one with the fewest errors.

The order of the tests is the ladder from its safe end: always last for a
word error budget, always first for a compute budget. A ladder of thresholds
per exit is made from errors; ``crc`` and ``ltt`` therefore make it on a part
of the calibration set and test on the rest, with no speaker on both sides.

Axes: N utterances, E exits, T candidates.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.calibration.budget import Budget, Outcomes
from speechbrain_ee.exits.calibration.ladder import (
    Search,
    per_exit_ladder,
    single_ladder,
)
from speechbrain_ee.exits.calibration.risk import check_method, passing
from speechbrain_ee.exits.clusters import Clusters
from speechbrain_ee.exits.policy import (
    ThresholdPolicy,
    at_choice,
    choices_NT,
    error_rate,
)

# part of the calibration set that a ladder of thresholds per exit is made on
LADDER_SHARE = 0.5
# below this the t approximation and quantiles are too coarse to rely on
FEW_UTTERANCES = 200


@dataclass(frozen=True)
class Calibration:
    """A calibrated policy and what it does on its calibration set.

    Arguments
    ---------
    policy : ThresholdPolicy
        The policy.
    satisfied : bool
        Whether a candidate passed. If not, the policy is always last for a
        word error budget (which holds it, at full compute), always first for
        a compute budget.
    wer : float
        Word error rate on the calibration set, percent.
    wer_last : float
        That of the last exit.
    avg_layer : float
        Encoder layers per utterance there.
    avg_macs : float or None
        Multiply-accumulates per utterance there, if known.
    target : float
        Utterances of the target set that the statement is about.
    target_clusters : float
        Its speakers (utterances where no speakers are known).
    clusters : Clusters
        What the test was made on.
    """

    policy: ThresholdPolicy
    satisfied: bool
    wer: float
    wer_last: float
    avg_layer: float
    avg_macs: float | None
    target: float
    target_clusters: float
    clusters: Clusters = field(compare=False)


def calibrate(
    criterion: str,
    scores_NE: NDArray[np.floating],
    outcomes: Outcomes,
    budget: Budget,
    method: str = "ltt",
    delta: float = 0.1,
    per_exit: bool = False,
    target: float | None = None,
    seed: int = 0,
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
    seed : int
        Of the split that ``per_exit`` makes with ``crc`` and ``ltt``.
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
    budget.check(outcomes, "the calibration set")
    clusters = outcomes.clusters
    if target_clusters is None:
        target_clusters = clusters.count * target / len(outcomes)
    if per_exit and method != "naive" and clusters.count < 4:
        raise InputError(
            f"thresholds per exit: {clusters.count} {clusters.by}s are too "
            f"few to be split; calibrate one threshold, or on more data."
        )
    tested, ladder_TK = _candidates(
        scores_NE, outcomes, budget, method, per_exit, seed
    )
    losses_NE = budget.losses_NE(outcomes)[tested]
    choice_NT = choices_NT(scores_NE[tested], ladder_TK)
    clusters = clusters.select(tested)
    passed_T = passing(
        at_choice(losses_NE, choice_NT),
        method,
        delta,
        float(losses_NE.max()),
        target_clusters,
        # known without data: always last has no excess errors, and layers
        # of the first exit were checked against the budget above
        first_is_safe=budget.kind != "macs",
        clusters=clusters,
    )
    place = _best(outcomes.select(tested), budget, choice_NT, passed_T, method)
    limits_K = ladder_TK[place]
    if per_exit and method == "naive" and passed_T[place]:
        limits_K = _improved(limits_K, scores_NE, outcomes, budget)
    # passing at the safe end alone is what a policy without scores does, too
    satisfied = bool(passed_T[place]) and (
        budget.on_compute or not np.isposinf(limits_K).all()
    )
    return Calibration(
        policy=_policy(criterion, limits_K, per_exit),
        satisfied=satisfied,
        **_measured(limits_K, scores_NE, outcomes),
        target=float(target),
        target_clusters=float(target_clusters),
        clusters=clusters,
    )


def _candidates(
    scores_NE: NDArray[np.floating],
    outcomes: Outcomes,
    budget: Budget,
    method: str,
    per_exit: bool,
    seed: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rows to test on, and the ladder from its safe end."""
    tested = np.arange(len(outcomes))
    ladder_TK = single_ladder(scores_NE)
    if per_exit:
        made = tested
        if method != "naive":
            made, tested = outcomes.clusters.split(LADDER_SHARE, seed)
        rungs_TK = per_exit_ladder(
            scores_NE[made],
            outcomes.errors_NE[made].astype(np.float64),
            budget.costs_NE(outcomes)[made],
        )
        # the single thresholds too, so that naive is never worse than global
        naive = method == "naive"
        ladder_TK = np.vstack([ladder_TK, rungs_TK]) if naive else rungs_TK
    return tested, ladder_TK[::-1] if budget.on_compute else ladder_TK


def _best(
    outcomes: Outcomes,
    budget: Budget,
    choice_NT: NDArray[np.int64],
    passed_T: NDArray[np.bool_],
    method: str,
) -> int:
    """The candidate to take; the safe end if none passes."""
    if not passed_T.any():
        return 0
    if method == "crc":  # its statement is about where the ladder is left
        return int(np.flatnonzero(passed_T).max())
    places = np.flatnonzero(passed_T)
    keys = [
        at_choice(values_NE, choice_NT[:, places]).sum(axis=0)
        for values_NE in (outcomes.errors_NE, budget.costs_NE(outcomes))
    ]
    if budget.on_compute:
        keys.reverse()
    return int(places[np.lexsort(keys)[0]])  # the last key counts first


def _improved(
    limits_K: NDArray[np.float64],
    scores_NE: NDArray[np.floating],
    outcomes: Outcomes,
    budget: Budget,
) -> NDArray[np.float64]:
    """Move single thresholds while the budget holds on the same data."""
    values_NE = (
        outcomes.errors_NE.astype(np.float64)
        if budget.on_compute
        else budget.costs_NE(outcomes)
    )
    losses_NE = budget.losses_NE(outcomes)
    return Search.on(scores_NE).minimise(limits_K, values_NE, losses_NE)[1]


def _policy(
    criterion: str, limits_K: NDArray[np.float64], per_exit: bool
) -> ThresholdPolicy:
    # no negative zero in a file
    limits = tuple(float(limit) + 0.0 for limit in limits_K)
    threshold = limits if per_exit else limits[0]
    return ThresholdPolicy(criterion, threshold, len(limits) + 1)


def _measured(
    limits_K: NDArray[np.float64],
    scores_NE: NDArray[np.floating],
    outcomes: Outcomes,
) -> dict[str, float | None]:
    """What thresholds do on the calibration set."""
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
    return {
        "wer": wer,
        "wer_last": wer_last,
        "avg_layer": float(outcomes.layers_E[choice_N].mean()),
        "avg_macs": None
        if macs_NE is None
        else float(at_choice(macs_NE, choice_N).mean()),
    }
