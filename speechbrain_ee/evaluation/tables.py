"""Tables of a report as text, for the page and the console.

Authors
 * The speechbrain-ee contributors 2026
"""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from speechbrain_ee.evaluation.analysis import SetAnalysis
from speechbrain_ee.evaluation.operating_point import OperatingPoint
from speechbrain_ee.evaluation.rows import Cell, criterion_rows, exit_rows

if TYPE_CHECKING:
    from speechbrain_ee.evaluation.report import Report

WIDTH = 100  # columns of a console

LABELS = {
    "fixed": "fixed exit",
    "mixture": "mix of two fixed exits",
    "max_prob": "maximum probability",
    "max_prob_nonblank": "maximum probability, non-blank",
    "entropy_nonblank": "entropy, non-blank",
}


def label(name: str) -> str:
    """How a way of choosing exits is called in tables and figures.

    Arguments
    ---------
    name : str
        Name of a result.

    Returns
    -------
    str

    Example
    -------
    >>> label("max_prob_nonblank")
    'maximum probability, non-blank'
    """
    return LABELS.get(name, name.replace("_", " "))


def giga(macs: Cell, full: float | None) -> str:
    """Multiply-accumulates in units of 10^9, small models in more detail.

    Arguments
    ---------
    macs : int or float, optional
        Multiply-accumulates.
    full : float, optional
        Those of a full pass.

    Returns
    -------
    str
        Empty without a value.

    Example
    -------
    >>> giga(1.5e9, 2.1e9), giga(5.5e7, 1.8e8)
    ('1.50', '0.055')
    """
    if macs is None:
        return ""
    decimals = 2 if (full or macs) >= 1e9 else 3
    return f"{macs / 1e9:.{decimals}f}"


def exit_table(analysis: SetAnalysis) -> list[list[str]]:
    """The table per exit as texts, columns without content left out.

    Arguments
    ---------
    analysis : SetAnalysis
        A test set.

    Returns
    -------
    list of list of str
        The first row is the heading.
    """
    seconds = f"{analysis.trace.header.macs_reference_s:g} s"
    heading = ["exit", "layer", "WER %", "sub %", "del %", "ins %", "CER %"]
    heading += ["params M", f"GMAC/{seconds}"]
    table = [heading]
    full = (analysis.trace.header.macs or [None])[-1]
    for row in exit_rows(analysis):
        rates = [
            _share(row[name], analysis.words)
            for name in ("substitutions", "deletions", "insertions")
        ]
        table.append(
            [
                str(row["exit"]),
                str(row["layer"]),
                _number(row["wer"]),
                *(_number(rate) for rate in rates),
                _number(row["cer"]),
                _number(_share(row["parameters"], 1e8)),
                giga(row["macs"], full),
            ]
        )
    return _without_empty_columns(table)


def criterion_table(analysis: SetAnalysis) -> list[list[str]]:
    """The table per criterion as texts.

    Arguments
    ---------
    analysis : SetAnalysis
        A test set.

    Returns
    -------
    list of list of str
        The first row is the heading.
    """
    table = [
        ["exit chosen by"]
        + ["equal WER: layers", "GMAC", "WER %"]
        + ["+5 %: layers", "GMAC", "WER %"]
    ]
    full = analysis.fixed.curve.points[-1].avg_macs
    for row in criterion_rows(analysis):
        cells = [label(str(row["criterion"]))]
        for level in ("equal_wer", "plus_5"):
            cells += [
                _number(row[f"{level}_layers"]),
                giga(row[f"{level}_macs"], full),
                _number(row[f"{level}_wer"]),
            ]
        table.append(cells)
    return _without_empty_columns(table)


def overview_table(analyses: Sequence[SetAnalysis]) -> list[list[str]]:
    """One row per test set: the cost of the last exit's word error rate.

    Arguments
    ---------
    analyses : sequence of SetAnalysis
        The test sets.

    Returns
    -------
    list of list of str
        The first row is the heading.
    """
    table = [["test set", "last exit: WER %", "layers", "GMAC"]]
    table[0] += ["mix of two fixed exits: layers", "GMAC"]
    table[0] += ["cheapest criterion: layers", "GMAC", "which"]
    table[0] += ["oracle: layers", "GMAC"]
    for analysis in analyses:
        best = analysis.best_criterion()
        points = [
            analysis.fixed.curve.points[-1],
            analysis.mixture.equal_wer,
            best and best.equal_wer,
            analysis.oracle.equal_wer,
        ]
        full = points[0].avg_macs
        costs = [
            [
                _number(point and point.avg_layer),
                giga(point and point.avg_macs, full),
            ]
            for point in points
        ]
        costs[0].insert(0, _number(analysis.wer[-1]))
        costs[2].append(label(best.name) if best else "")
        table.append([analysis.key, *(c for cells in costs for c in cells)])
    return _without_empty_columns(table)


def console_tables(report: "Report") -> str:
    """All tables as aligned plain text.

    Arguments
    ---------
    report : Report
        What :func:`~speechbrain_ee.evaluation.report.write_report` returns.

    Returns
    -------
    str
        At most 100 columns wide.
    """
    blocks = []
    for analysis in report.sets.values():
        blocks += [
            f"{analysis.key}: {len(analysis.trace)} utterances, "
            f"{analysis.words} words",
            aligned(exit_table(analysis)),
            aligned(criterion_table(analysis)),
            "\n".join(textwrap.fill(s, WIDTH) for s in summary(analysis)),
        ]
    return "\n\n".join(blocks)


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
    lines = []
    best = analysis.best_criterion()
    if best is not None and best.equal_wer is not None:
        several = len(analysis.criteria) > 1
        among = ", the cheapest of the criteria" if several else ""
        lines.append(
            f"The last exit's {analysis.wer[-1]:.2f} % is kept at "
            f"{_cost(analysis, best.equal_wer)} by {label(best.name)}{among}."
        )
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
    lines.append(
        f"An earlier exit is better than the last for "
        f"{100 * analysis.overthinking_share:.1f} % of the utterances."
    )
    return lines


def aligned(table: Sequence[Sequence[str]]) -> str:
    """A table as text: first column to the left, the others to the right.

    Arguments
    ---------
    table : sequence of sequence of str
        The first row is the heading.

    Returns
    -------
    str

    Example
    -------
    >>> print(aligned([["exit", "WER"], ["1", "12.50"]]))
    exit    WER
    ----  -----
    1     12.50
    """
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    heading, *rows = table
    rule = ["-" * width for width in widths]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (heading, rule, *rows)
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


def _share(value: Cell, whole: float) -> float | None:
    return None if value is None else 100 * float(value) / whole


def _number(value: Cell) -> str:
    return "" if value is None else f"{float(value):.2f}"


def _without_empty_columns(table: list[list[str]]) -> list[list[str]]:
    keep = [
        any(row[place] for row in table[1:]) for place in range(len(table[0]))
    ]
    return [
        [cell for cell, kept in zip(row, keep, strict=True) if kept]
        for row in table
    ]
