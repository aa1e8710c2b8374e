"""A test set in a few sentences.

Authors
 * The speechbrain-ee contributors 2026
"""

from speechbrain_ee.evaluation.analysis import SetAnalysis
from speechbrain_ee.evaluation.labels import giga, label
from speechbrain_ee.evaluation.operating_point import OperatingPoint


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
    return lines


def _criteria(analysis: SetAnalysis) -> list[str]:
    """What the best of the criteria reach."""
    lines = []
    depth = analysis.trace.header.exit_layers[-1]
    several = len(analysis.criteria) > 1
    best = analysis.best_criterion()
    if best is not None and best.equal_wer is not None:
        among = ", the cheapest of the criteria" if several else ""
        low, high = best.layer_intervals.get("equal_wer", (depth, depth))
        lines.append(
            f"The last exit's {analysis.wer[-1]:.2f} % is kept at "
            f"{_cost(analysis, best.equal_wer)} by {label(best.name)}{among} "
            f"(95 % interval {low:.2f} to {high:.2f} layers)."
            if round(best.equal_wer.avg_layer, 2) < depth
            else f"No criterion keeps the last exit's "
            f"{analysis.wer[-1]:.2f} % with fewer than {depth} layers."
        )
    for first in analysis.ranked()[:1]:
        if first.plus_5 is not None:
            lines.append(
                f"At 5 % (relative) more errors, {label(first.name)} needs "
                f"{first.plus_5.avg_layer:.2f} layers."
            )
    return lines


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
