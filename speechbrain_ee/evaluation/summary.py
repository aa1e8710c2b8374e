"""A test set in a few sentences.

Authors
 * The speechbrain-ee contributors 2026
"""

from speechbrain_ee.evaluation.analysis import Choice, SetAnalysis
from speechbrain_ee.evaluation.estimate import signed
from speechbrain_ee.evaluation.families import needs_search
from speechbrain_ee.evaluation.labels import giga, label
from speechbrain_ee.evaluation.operating_point import OperatingPoint
from speechbrain_ee.exits.clusters import UTTERANCE


def summary(analysis: SetAnalysis) -> list[str]:
    """What the tables of a set come to.

    Arguments
    ---------
    analysis : SetAnalysis
        A test set.

    Returns
    -------
    list of str
        A few sentences.
    """
    depth = analysis.trace.header.exit_layers[-1]
    lines = _criteria(analysis)
    blind = analysis.mixture.equal_wer
    if blind is not None:
        lines.append(
            f"A mix of two fixed exits, which looks at no utterance, needs "
            f"{blind.avg_layer:.2f} layers to keep {analysis.wer[-1]:.2f} %."
        )
    lines.append(
        f"The oracle needs {analysis.oracle_best.avg_layer:.2f} of {depth} "
        f"layers for its best, {analysis.oracle_best.wer:.2f} %."
    )
    lines.append(_overthinking(analysis))
    lines.append(resampled(analysis))
    return lines


def resampled(analysis: SetAnalysis) -> str:
    """What the intervals of a set are about.

    Arguments
    ---------
    analysis : SetAnalysis
        A test set.

    Returns
    -------
    str
        A sentence or two.
    """
    clusters = analysis.trace.clusters
    if clusters.by == UTTERANCE:
        return (
            "Intervals are by utterance, since the trace names no speakers: "
            "for new speakers they are too narrow."
        )
    text = f"Intervals are for new speakers, from {clusters.said}"
    if clusters.few:
        return f"{text}: too few to trust them."
    return f"{text}."


def _criteria(analysis: SetAnalysis) -> list[str]:
    """What the best of the criteria reach."""
    if analysis.dev is not None:
        return _chosen_elsewhere(analysis)
    lines = []
    depth = analysis.trace.header.exit_layers[-1]
    several = len(analysis.criteria) > 1
    best = analysis.choice()
    if best is not None:
        dearer = _searches(analysis, best, "equal_wer")
        among = ", the cheapest of the criteria" if several else ""
        if dearer and several:
            among = ", the criterion with the fewest layers"
        intervals = best.result.layer_intervals
        low, high = intervals.get("equal_wer", (depth, depth))
        lines.append(
            f"The last exit's {analysis.wer[-1]:.2f} % is kept at "
            f"{_cost(analysis, best.point)} by {label(best.result.name)}{among} "
            f"(95 % interval {low:.2f} to {high:.2f} layers)."
            if round(best.point.avg_layer, 2) < depth
            else f"No criterion keeps the last exit's "
            f"{analysis.wer[-1]:.2f} % with fewer than {depth} layers."
        )
        lines += dearer
    first = analysis.choice("plus_5")
    if first is not None:
        lines.append(
            f"At 5 % (relative) more errors, {label(first.result.name)} needs "
            f"{first.point.avg_layer:.2f} layers."
        )
        if best is None or first.result is not best.result:
            lines += _searches(analysis, first, "plus_5")
    if best is not None:
        lines.append(
            "Criterion and threshold were chosen on this test set itself, "
            "which flatters them."
        )
    return lines


def _chosen_elsewhere(analysis: SetAnalysis) -> list[str]:
    """What was chosen on the development set, measured here."""
    goals = {
        "equal_wer": "to keep the last exit's word error rate",
        "plus_5": "for 5 % (relative) more errors",
    }
    lines, last = [], analysis.wer[-1]
    for level, goal in goals.items():
        best = analysis.choice(level)
        if best is None:
            continue
        lines.append(
            f"Chosen on {best.chosen_on} {goal}: {label(best.result.name)}. "
            f"Here it makes {best.point.wer:.2f} % at "
            f"{_cost(analysis, best.point)}, "
            f"{signed(best.above_last.value)} points against the last exit's "
            f"{last:.2f} % (95 % interval {best.above_last.ends()})."
        )
        lines += _searches(analysis, best, level)
    return lines


def _searches(analysis: SetAnalysis, first: Choice, level: str) -> list[str]:
    """What the layers of the first criterion keep quiet about, if anything.

    One that looks at what a beam search found pays for a search at every
    exit passed: fewest in layers, it may be dear in multiply-accumulates.
    """
    point, name = first.point, first.result.name
    if not needs_search(name):
        return []
    text = (
        f"Layers flatter {label(name)}: they leave out the decoding at "
        f"every exit passed"
    )
    if point.avg_macs is None or analysis.trace.decoding_macs_NE is None:
        return [text + ", whose cost the trace does not tell."]
    full = analysis.fixed.curve.points[-1].avg_macs
    others = [analysis.fixed, analysis.mixture, *analysis.criteria.values()]
    found = {r.name: p for r in others if (p := r.points[level]) is not None}
    name, cheapest = min(found.items(), key=lambda pair: pair[1].avg_macs)
    if cheapest.avg_macs >= point.avg_macs:
        return []
    return [
        f"{text}, which makes it {giga(point.avg_macs, full)} GMAC. The "
        f"cheapest by GMAC: {label(name)}, {giga(cheapest.avg_macs, full)} at "
        f"{cheapest.avg_layer:.2f} layers."
    ]


def _overthinking(analysis: SetAnalysis) -> str:
    errors = analysis.overthinking_errors
    text = (
        f"An earlier exit is better than the last for "
        f"{100 * analysis.overthinking_share:.1f} % of the utterances"
    )
    if not errors:
        return text + "."
    points = 100 * errors / analysis.words
    return (
        f"{text}: of the last exit's {analysis.wer[-1]:.2f} %, {points:.2f} "
        f"({errors} word error{'' if errors == 1 else 's'}) come from having "
        f"gone on."
    )


def _cost(analysis: SetAnalysis, point: OperatingPoint) -> str:
    depth = analysis.trace.header.exit_layers[-1]
    text = f"{point.avg_layer:.2f} of {depth} layers"
    full = analysis.fixed.curve.points[-1].avg_macs
    if point.avg_macs is not None and full:
        text += (
            f", {giga(point.avg_macs, full)} of {giga(full, full)} GMAC "
            f"per utterance"
        )
    return text
