"""Which candidate policies hold a budget: three answers of rising strength.

Every candidate has one loss per utterance, scaled so that the budget holds
if the mean loss is at most 0. Candidates come in a fixed order, from the one
that is safest to the boldest, chosen without looking at these losses.

``naive``
    The mean on the calibration set is at most 0. Nothing is guaranteed: on
    new data about half of such choices break the budget.
``crc``
    Conformal risk control (Angelopoulos et al. 2022, arXiv 2208.02814, eq.
    (4)): go on while ``n/(n+1) mean + B/(n+1) <= 0``, B a bound on the loss.
    The *expected* loss over calibration sets and new utterances is at most
    0; a single calibration may well break the budget. The theorem asks for
    utterances that can be exchanged (those of new speakers cannot), for a
    loss that never falls from one candidate to the next (word errors may),
    and for a bound that is known beforehand (here it is the largest loss of
    any exit that was seen). Its promise is therefore an approximation.
``ltt``
    Learn then Test (Angelopoulos et al. 2021, arXiv 2110.01052), with
    fixed-sequence testing: go on while the p-value of "the budget is
    broken" is at most the level. With probability 1 - delta over
    the calibration *and the target set* the budget holds on the target set.

The p-value of ``ltt``. A person who uses a policy sees the word error rate
of the next utterances, not its expectation, and hears it from other people
than those of the development set. The budget holds if the sum of the losses
is at most 0, and what is drawn anew is speakers; so the tested statement is
"the mean of the loss sums of m new speakers is positive". If both sets are
drawn from the same population, the difference of the two means over speakers
has variance ``s^2 (1/g + 1/m)``, s^2 that of the sums of g speakers, so the
statistic is ``t = mean / (s sqrt(1/g + 1/m))`` against Student's t with g - 1
degrees of freedom (the prediction interval for a mean). For a random split
of the speakers of one set this variance holds exactly, by sampling without
replacement. With m infinite it is the t-test of the expected loss. Where no
speakers are known every utterance is its own, and the statement is about
other utterances of the same people. The t-distribution is asymptotic: the
loss of a speaker has no bound that is known beforehand, and of a handful of
speakers no test can promise anything
(:data:`~speechbrain_ee.exits.clusters.FEW_CLUSTERS`). A betting martingale
(Waudby-Smith & Ramdas 2020, arXiv 2010.09686) with the largest loss seen as
the bound, valid for every n if that bound is right, was measured to cost 0.2
to 2 layers more on 1,300 utterances, or to find no threshold at all. Tests
are therefore made with t, at 0.7 delta to leave room for the approximation;
``benchmarks/calibration_splits.py`` shows what is held.

Axes: N utterances, G clusters, T candidates.

Authors
 * The speechbrain-ee contributors 2026
"""

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.clusters import UTTERANCE, Clusters

METHODS = ("naive", "crc", "ltt")
# share of delta that tests use; the rest is for the t approximation
_TEST_SHARE = 0.7
# rounding of a sum of losses that are 0 on paper
_ROUNDING = 1e-9


def check_method(method: str, delta: float) -> None:
    """Refuse what cannot be calculated with."""
    if method not in METHODS:
        raise InputError(
            f"method {method!r} is not known; valid methods: "
            f"{', '.join(METHODS)}."
        )
    if not 0 < delta < 1:
        raise InputError(
            f"delta={delta}: the probability of breaking the budget must lie "
            f"between 0 and 1, for example 0.1."
        )


def p_values(
    losses_GT: NDArray[np.floating], target: float
) -> NDArray[np.float64]:
    """p-values (T,) of "the mean loss of the target set is positive", from
    losses summed by speaker and for so many speakers of the target set.

    Example
    -------
    >>> losses = np.array([[-1.0, 1.0], [-2.0, -1.0], [-1.0, 0.0]])
    >>> p_values(losses, np.inf).round(3).tolist()
    [0.029, 0.5]
    """
    count = len(losses_GT)
    if count < 2:  # a single speaker tells nothing of the spread
        return np.ones(losses_GT.shape[1])
    mean_T = losses_GT.mean(axis=0)
    spread_T = losses_GT.std(axis=0, ddof=1)
    spread_T *= np.sqrt(1 / count + 1 / target)
    certain_T = spread_T <= _ROUNDING
    t_T = mean_T / np.where(certain_T, 1, spread_T)
    # Not at the top: policies are read on devices without scipy.
    from scipy.special import stdtr

    p_T = stdtr(count - 1, t_T)
    # losses that are all 0 so far do not show that they stay 0
    return np.where(certain_T, mean_T >= -_ROUNDING, p_T)


def passing(
    losses_NT: NDArray[np.floating],
    method: str,
    delta: float,
    largest: float,
    target: float,
    first_is_safe: bool,
    clusters: Clusters | None = None,
) -> NDArray[np.bool_]:
    """Which candidates (T,), from the safest to the boldest, hold the budget.

    ``largest`` bounds the loss of an utterance (``crc``), ``target`` counts
    the clusters of the target set (``ltt``); where ``first_is_safe``, the
    first candidate holds the budget whatever the data.

    Example
    -------
    >>> losses = np.tile([-1.0, 0.1, -0.5], (50, 1))
    >>> passing(losses, "naive", 0.1, 1, 50, True).tolist()
    [True, False, True]
    >>> passing(losses, "ltt", 0.1, 1, 50, True).tolist()
    [True, False, False]
    """
    count, mean_T = len(losses_NT), losses_NT.mean(axis=0)
    if method == "ltt":
        losses_GT = losses_NT if clusters is None else clusters.sums(losses_NT)
        passed_T = p_values(losses_GT, target) <= _TEST_SHARE * delta
    elif method == "crc":
        bound = max(largest, 0) / (count + 1)
        passed_T = count / (count + 1) * mean_T + bound <= _ROUNDING
    else:
        passed_T = mean_T <= _ROUNDING
    passed_T[0] |= first_is_safe
    return (
        passed_T if method == "naive" else np.logical_and.accumulate(passed_T)
    )


def guarantee(
    method: str,
    delta: float,
    target: float,
    target_clusters: float,
    clusters: Clusters,
    budget_words: str,
) -> str:
    """What a method promises of a target set of so many utterances and
    speakers; begins with ``None`` if nothing.
    """
    if method == "naive":
        return (
            f"None: {budget_words} was measured on the calibration set. On "
            f"new data of the same kind it is broken about every second time."
        )
    if method == "crc":
        return (
            f"In expectation over calibration and new utterances of the same "
            f"speakers, approximately (word errors need not rise from "
            f"threshold to threshold, and their bound is the largest loss "
            f"seen): {budget_words}. A single target set may break it. No "
            f"promise for new speakers."
        )
    if clusters.few:
        return (
            f"None: {clusters.caveat} The test by these was passed for "
            f"{budget_words}."
        )
    promise = (
        f"With probability {1 - delta:g} (Student's t, asymptotic) over "
        f"calibration and target data of the same kind: {budget_words}, "
        f"on a target set of {target:g} or more utterances"
    )
    if clusters.by == UTTERANCE:
        return f"{promise} of the same speakers. {clusters.caveat}"
    return f"{promise} of {target_clusters:.0f} or more new speakers."
