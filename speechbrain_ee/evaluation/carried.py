"""Thresholds carried out of their domain.

The threshold of a criterion that keeps the last exit's word error rate of one
test set at the least depth is used as it is on another, without any safety
margin: what a naive calibration does when the data change.

Axes: B bootstrap replicates, N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.evaluation.analysis import SetAnalysis
from speechbrain_ee.evaluation.estimate import Estimate
from speechbrain_ee.evaluation.operating_point import criterion_macs, measure
from speechbrain_ee.exits.calibration.shift import (
    distributions,
    score_warnings,
)
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.policy import first_exit


@dataclass(frozen=True)
class CarriedThreshold:
    """A threshold of the domain, used on a test set.

    Arguments
    ---------
    criterion : str
        What is thresholded.
    threshold : float
        The cheapest that keeps the last exit's word error rate in domain.
    domain_layer : float
        Average layer there.
    avg_layer : float
        Average layer here.
    avg_macs : float, optional
        Average multiply-accumulates here.
    own_layer : float, optional
        Average layer of the threshold that this set would have chosen; None
        if no threshold keeps its last exit's word error rate.
    wer : float
        Word error rate here in percent.
    above_last : Estimate
        What is more of it than at this set's last exit, in points; the
        replicates are paired.
    excess : float, optional
        The same in percent of the last exit's; None if that makes no error.
    distance : float
        Largest Kolmogorov-Smirnov distance of the scores at an exit here
        from those in domain.
    warning : str, optional
        What a policy would say of the shift; None if nothing stands out.
    """

    criterion: str
    threshold: float
    domain_layer: float
    avg_layer: float
    avg_macs: float | None
    own_layer: float | None
    wer: float
    above_last: Estimate
    excess: float | None
    distance: float
    warning: str | None = None


def carried(
    domain: SetAnalysis, target: SetAnalysis, level: str = "equal_wer"
) -> tuple[CarriedThreshold, ...]:
    """Use the domain's thresholds on a test set.

    Arguments
    ---------
    domain : SetAnalysis
        Where they are chosen.
    target : SetAnalysis
        Where they are used; may be the domain itself.
    level : str
        What they keep in the domain; see :data:`LEVELS`.

    Returns
    -------
    tuple of CarriedThreshold
        For the criteria of both sets, the fewest layers in domain first;
        empty if the sets have other exits.
    """
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
    point = domain.criteria[name].points[level]
    if point is None or point.threshold is None:
        return None
    scores_NE, trace = target.scores[name], target.trace
    choice_N = first_exit(scores_NE, point.threshold)
    macs_NE = criterion_macs(trace, get_criterion(name))
    used = measure(trace, choice_N, point.threshold, macs_NE)
    own = target.criteria[name].points[level]
    draws = target.bootstrap
    wer_B = draws.replicate(choice_N[:, None]).wer_BT[:, 0]
    more_B = wer_B - draws.fixed.wer_BT[:, -1]
    distance, warning = _shift(domain.scores[name], scores_NE, target)
    return CarriedThreshold(
        criterion=name,
        threshold=point.threshold,
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
