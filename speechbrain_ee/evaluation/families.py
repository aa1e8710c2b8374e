"""Which criteria figures and pages put in front.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Collection, Mapping, Sequence

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.analysis import SetAnalysis
from speechbrain_ee.evaluation.labels import label
from speechbrain_ee.evaluation.theme import FAMILIES, family
from speechbrain_ee.exits.criteria import get_criterion

Leaders = Mapping[str, tuple[str, ...]]


def depth_needed(analysis: SetAnalysis, name: str) -> float:
    """Share of the layers that a criterion needs, averaged over the levels.

    One number to order criteria by: the cheapest point within 0, 1, 5 and
    10 % of the last exit's word error rate, all layers where there is none.

    Arguments
    ---------
    analysis : SetAnalysis
        A test set.
    name : str
        One of its criteria.

    Returns
    -------
    float
        Above 0, at most 1.
    """
    depth = analysis.trace.header.exit_layers[-1]
    points = analysis.criteria[name].points.values()
    needed = [depth if p is None else p.avg_layer for p in points]
    return sum(needed) / (depth * len(needed))


def needs_search(name: str) -> bool:
    """Whether a criterion looks at what an attention decoder found.

    Arguments
    ---------
    name : str
        A criterion, registered or not.

    Returns
    -------
    bool

    Example
    -------
    >>> needs_search("beam_score"), needs_search("entropy")
    (True, False)
    """
    try:
        return get_criterion(name).decodes
    except InputError:  # a policy's own, such as a learned one
        return False


def search_note(analysis: SetAnalysis) -> str:
    """What the costs of criteria that need a search mean.

    Arguments
    ---------
    analysis : SetAnalysis
        A test set.

    Returns
    -------
    str
        A sentence; empty if there is no such criterion.
    """
    names = [label(name) for name in analysis.criteria if needs_search(name)]
    if not names:
        return ""
    text = (
        f"Of the attention decoder: {', '.join(names)}. These criteria take "
        f"its decoding at every exit that an utterance comes to. Layers do "
        f"not count it"
    )
    if analysis.trace.decoding_macs_NE is not None:
        text += "; GMAC do"
    return text + "."


def leaders(analyses: Sequence[SetAnalysis]) -> Leaders:
    """The criterion of every family that needs the fewest layers.

    It is chosen over all test sets that have it, so that figures of two sets
    show the same criteria as far as both have them; with a development set,
    on that alone. The criterion that tables and summaries name (see
    :meth:`~speechbrain_ee.evaluation.analysis.SetAnalysis.choice`) is always
    among them.

    Arguments
    ---------
    analyses : sequence of SetAnalysis
        The test sets.

    Returns
    -------
    dict of str to tuple of str
        By key of the test set: criteria in the order of the families.
    """
    names = dict.fromkeys(n for a in analyses for n in a.criteria)
    seen = [analysis.dev or analysis for analysis in analyses]
    overall = {}
    for name in names:
        needed = [depth_needed(a, name) for a in seen if name in a.criteria]
        # without the evidence on the development set there is no choosing it
        overall[name] = sum(needed) / len(needed) if needed else 1.0
    chosen = {}
    for analysis in analyses:
        winners: dict[str, str] = {}
        for name in sorted(analysis.criteria, key=overall.__getitem__):
            winners.setdefault(family(name), name)
        front = {*winners.values(), *best_two(analysis, analysis.criteria)[:1]}
        chosen[analysis.key] = tuple(
            name
            for group in FAMILIES
            for name in analysis.criteria
            if name in front and family(name) == group
        )
    return chosen


def best_two(analysis: SetAnalysis, names: Collection[str]) -> tuple[str, ...]:
    """The two of some criteria that figures show with a band.

    The one that tables name, and the one of another family that needs the
    fewest layers: two of one family differ by little.
    """
    seen = analysis.dev or analysis
    order = sorted(
        (name for name in names if name in seen.criteria),
        key=lambda name: depth_needed(seen, name),
    )
    best = analysis.choice()
    first = [best.result.name] if best else order[:1]
    second = [n for n in order if family(n) != family(first[0])]
    return (*first, *second[:1])
