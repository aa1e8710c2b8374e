"""Tables of a report as texts, for the page and the console.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence

from speechbrain_ee.evaluation.analysis import SetAnalysis
from speechbrain_ee.evaluation.labels import giga, label, number
from speechbrain_ee.evaluation.operating_point import LEVELS
from speechbrain_ee.evaluation.rows import (
    Cell,
    Row,
    criterion_rows,
    exit_rows,
    policy_rows,
)
from speechbrain_ee.evaluation.summary import summary

__all__ = [
    "criterion_table",
    "exit_table",
    "giga",
    "label",
    "overview_table",
    "policy_table",
    "summary",
    "unlabelled_table",
]


def exit_table(analysis: SetAnalysis) -> list[list[str]]:
    """The table per exit as texts, columns without content left out.

    Arguments
    ---------
    analysis : SetAnalysis
        A test set.

    Returns
    -------
    list of list of str
        The first row is the heading. Where the trace tells what decoding
        takes, the last column includes it.
    """
    seconds = f"{analysis.trace.header.macs_reference_s:g} s"
    heading = ["exit", "layer", "WER %", "sub %", "del %", "ins %", "CER %"]
    heading += ["params M", f"GMAC/{seconds}"]
    decoded = analysis.trace.decoding_macs_NE is not None
    if decoded:
        heading[-1] = f"no decoding: GMAC/{seconds}"
        heading.append("with decoding: GMAC/utterance")
    table = [heading]
    full = (analysis.trace.header.macs or [None])[-1]
    average = analysis.fixed.curve.points[-1].avg_macs
    for row in exit_rows(analysis):
        rates = [
            _share(row[name], analysis.words)
            for name in ("substitutions", "deletions", "insertions")
        ]
        table.append(
            [
                str(row["exit"]),
                str(row["layer"]),
                number(row["wer"]),
                *(number(rate) for rate in rates),
                number(row["cer"]),
                number(_share(row["parameters"], 1e8)),
                giga(row["macs"], full),
                *[giga(row["avg_macs"], average)] * decoded,
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
        The first row is the heading. Costs are averages per utterance;
        the gap is the one between the mix of fixed exits and the oracle.
    """
    table = [
        ["exit chosen by"]
        + ["layers at WER: equal", "+1 %", "+5 %", "+10 %"]
        + ["GMAC at: equal", "+5 %"]
        + ["gap closed %: equal", "+5 %"]
    ]
    full = analysis.fixed.curve.points[-1].avg_macs
    for row in criterion_rows(analysis):
        gaps = [row[f"{level}_gap_share"] for level in ("equal_wer", "plus_5")]
        table.append(
            [
                label(str(row["criterion"])),
                *(number(row[f"{level}_layers"]) for level in LEVELS),
                giga(row["equal_wer_macs"], full),
                giga(row["plus_5_macs"], full),
                *(_percent(gap) for gap in gaps),
            ]
        )
    return _without_empty_columns(table)


def policy_table(analysis: SetAnalysis) -> list[list[str]]:
    """The table per given policy as texts.

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
        ["policy", "WER %", "above last exit %", "layers", "GMAC"]
        + ["budget holds"]
    ]
    full = analysis.fixed.curve.points[-1].avg_macs
    for row in policy_rows(analysis):
        table.append(
            [
                str(row["policy"]),
                number(row["wer"]),
                number(row["excess"]),
                number(row["layers"]),
                giga(row["macs"], full),
                str(row["verdict"]),
            ]
        )
    return _without_empty_columns(table)


def unlabelled_table(rows: Sequence[Row]) -> list[list[str]]:
    """The sets without transcripts as texts, columns without content left out.

    Arguments
    ---------
    rows : sequence of dict
        Layers and multiply-accumulates by set and choice of exits.

    Returns
    -------
    list of list of str
        The first row is the heading.
    """
    table = [["set without transcripts", "utterances", "exit chosen by"]]
    table[0] += ["layers", "GMAC"]
    most = max((row["macs"] or 0 for row in rows), default=0)
    for row in rows:
        cells = [row["set"], row["utterances"], row["choice"]]
        costs = [number(row["layers"]), giga(row["macs"], most)]
        table.append([*map(str, cells), *costs])
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
    dev = next((a.dev.key for a in analyses if a.dev is not None), None)
    chosen = f"chosen on {dev}" if dev else "cheapest criterion"
    table[0] += [f"{chosen}: WER %"] if dev else []
    table[0] += ["layers" if dev else f"{chosen}: layers", "GMAC", "which"]
    table[0] += ["oracle: layers", "GMAC"]
    for analysis in analyses:
        best = analysis.choice()
        points = [
            analysis.fixed.curve.points[-1],
            analysis.mixture.equal_wer,
            best and best.point,
            analysis.oracle.equal_wer,
        ]
        full = points[0].avg_macs
        costs = [
            [
                number(point and point.avg_layer),
                giga(point and point.avg_macs, full),
            ]
            for point in points
        ]
        costs[0].insert(0, number(analysis.wer[-1]))
        costs[2].append(label(best.result.name) if best else "")
        if dev:
            costs[2].insert(0, number(best and best.point.wer))
        table.append([analysis.key, *(c for cells in costs for c in cells)])
    return _without_empty_columns(table)


def _share(value: Cell, whole: float) -> float | None:
    return None if value is None else 100 * float(value) / whole


def _percent(share: Cell) -> str:
    return "" if share is None else str(round(100 * float(share)))


def _without_empty_columns(table: list[list[str]]) -> list[list[str]]:
    keep = [
        any(row[place] for row in table[1:]) for place in range(len(table[0]))
    ]
    return [
        [cell for cell, kept in zip(row, keep, strict=True) if kept]
        for row in table
    ]
