"""Rows of a report's tables: plain numbers, and their CSV files.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import io
from collections.abc import Iterable, Sequence

from speechbrain_ee.evaluation.analysis import SetAnalysis
from speechbrain_ee.evaluation.result import Result

Cell = str | int | float | None
Row = dict[str, Cell]


def exit_rows(analysis: SetAnalysis) -> list[Row]:
    """One row per exit.

    Arguments
    ---------
    analysis : SetAnalysis
        A test set.

    Returns
    -------
    list of dict
        Rates in percent; parameters and MACs of the model truncated at the
        exit, the latter for the header's reference length.
    """
    header = analysis.trace.header
    rows = []
    for column, layer in enumerate(header.exit_layers):
        point = analysis.fixed.curve.points[column]
        edits = analysis.edits[column] if analysis.edits else (None,) * 3
        last = column == len(header.exit_layers) - 1
        rows.append(
            {
                "set": analysis.key,
                "exit": column + 1,
                "layer": layer,
                "wer": analysis.wer[column],
                "substitutions": edits[0],
                "deletions": edits[1],
                "insertions": edits[2],
                "words": analysis.words,
                "cer": analysis.cer_last if last else None,
                "parameters": _pick(header.parameters, column),
                "macs": _pick(header.macs, column),
                "avg_macs": point.avg_macs,
            }
        )
    return rows


def criterion_rows(analysis: SetAnalysis) -> list[Row]:
    """One row per way of choosing exits.

    Arguments
    ---------
    analysis : SetAnalysis
        A test set.

    Returns
    -------
    list of dict
        Cost at the last exit's word error rate and at 1, 5, 10 % more, with
        the 95 % interval of the layers, and the share of the way from the
        mixture to the oracle.
    """
    return [_criterion_row(analysis, r) for r in analysis.results()]


def policy_rows(analysis: SetAnalysis) -> list[Row]:
    """One row per given policy.

    Arguments
    ---------
    analysis : SetAnalysis
        A test set.

    Returns
    -------
    list of dict
        What each policy gives here, against the last exit.
    """
    return [
        {
            "set": analysis.key,
            "policy": policy.name,
            "criterion": policy.criterion,
            "wer": policy.point.wer,
            "excess": policy.excess,
            "layers": policy.point.avg_layer,
            "macs": policy.point.avg_macs,
            "budget": policy.budget,
            "holds": policy.holds,
            "verdict": policy.verdict,
        }
        for policy in analysis.policies
    ]


def to_csv(rows: Iterable[Row]) -> str:
    """Rows as CSV text.

    Arguments
    ---------
    rows : iterable of dict
        With the same keys.

    Returns
    -------
    str

    Example
    -------
    >>> print(to_csv([{"exit": 1, "wer": 5.0}, {"exit": 2, "wer": None}]))
    exit,wer
    1,5.0
    2,
    <BLANKLINE>
    """
    rows = list(rows)
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


def _criterion_row(analysis: SetAnalysis, result: Result) -> Row:
    row: Row = {"set": analysis.key, "criterion": result.name}
    for level, point in result.points.items():
        low, high = result.layer_intervals.get(level, (None, None))
        row[f"{level}_layers"] = point and point.avg_layer
        row[f"{level}_layers_low"] = low
        row[f"{level}_layers_high"] = high
        row[f"{level}_macs"] = point and point.avg_macs
        row[f"{level}_wer"] = point and point.wer
        row[f"{level}_threshold"] = point and point.threshold
        row[f"{level}_gap_share"] = result.gap_shares.get(level)
    return row


def _pick(values: Sequence[int] | None, column: int) -> int | None:
    return None if values is None else values[column]
