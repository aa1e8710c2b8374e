"""Overthinking in sentences.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Iterable

from speechbrain_ee.evaluation.carried import CarriedThreshold
from speechbrain_ee.evaluation.estimate import signed
from speechbrain_ee.evaluation.labels import label
from speechbrain_ee.evaluation.overthinking import (
    OverthinkingStudy,
    SetOverthinking,
)

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
    """A test set in a few sentences.

    Arguments
    ---------
    study : OverthinkingStudy
        The study.
    key : str
        The set.

    Returns
    -------
    str
    """
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
    """What a policy would say of the shift of a set.

    Arguments
    ---------
    study : OverthinkingStudy
        The study.
    key : str
        The set.

    Returns
    -------
    str
        Of the criterion that needs the fewest layers in domain; empty in
        domain, and where nothing stands out.
    """
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
    study: OverthinkingStudy, thresholds: Iterable[CarriedThreshold]
) -> str:
    found = tuple(thresholds)
    broken = sum(one.above_last.positive for one in found)
    shifted = sum(one.warning is not None for one in found)
    return (
        f"Thresholds that keep the last exit's word error rate on "
        f"{study.in_domain}: {len(found)}; that miss it here by more than "
        f"chance: {broken}; whose scores show a shift: {shifted}."
    )
