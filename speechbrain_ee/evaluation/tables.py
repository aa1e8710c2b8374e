"""Tables and sentences of a report, for console, page and CSV files.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import io
from collections.abc import Iterable, Sequence

import numpy as np

from speechbrain_ee.evaluation.analysis import Choice, SetAnalysis
from speechbrain_ee.evaluation.curves import (
    LEVELS,
    OperatingPoint,
    Result,
    average_costs,
    signed,
)
from speechbrain_ee.evaluation.policies import choice_of
from speechbrain_ee.evaluation.theme import label, needs_search
from speechbrain_ee.exits.calibration.exit_policy import ExitPolicy
from speechbrain_ee.exits.clusters import UTTERANCE
from speechbrain_ee.exits.trace import Trace

Cell = str | int | float | None
Row = dict[str, Cell]
WIDTH = 100  # columns of a console


def giga(macs: Cell, full: float | None) -> str:
    """Multiply-accumulates in units of 10^9, small models in more detail."""
    if macs is None:
        return ""
    decimals = 2 if (full or macs) >= 1e9 else 3
    return f"{macs / 1e9:.{decimals}f}"


def number(value: Cell) -> str:
    """A number with two decimals."""
    return "" if value is None else f"{float(value):.2f}"


def exit_rows(analysis: SetAnalysis) -> list[Row]:
    """One row per exit."""
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
    """One row per way of choosing exits."""
    return [_criterion_row(analysis, r) for r in analysis.results()]


def policy_rows(analysis: SetAnalysis) -> list[Row]:
    """One row per given policy."""
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
    """Rows as CSV text."""
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


def exit_table(analysis: SetAnalysis) -> list[list[str]]:
    """The table per exit as texts, columns without content left out."""
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
    """The table per criterion as texts."""
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
    """The table per given policy as texts."""
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


def unlabelled_rows(
    traces: Sequence[Trace], policies: Sequence[ExitPolicy]
) -> list[Row]:
    """What policies choose on the sets that have no transcripts."""
    rows: list[Row] = []
    for trace in traces:
        for name in trace.sets:
            if name in trace.labelled_sets:
                continue
            part = trace.subset(name)
            last_N = np.full(len(part), len(part.layers_E) - 1)
            choices = {"last exit": (last_N, 0.0)}
            choices |= {each.name: choice_of(part, each) for each in policies}
            for choice, (choice_N, cost_NE) in choices.items():
                layers, macs = average_costs(part, choice_N[:, None], cost_NE)
                rows.append(
                    {
                        "set": name,
                        "utterances": len(part),
                        "choice": choice,
                        "layers": layers[0],
                        "macs": macs[0],
                    }
                )
    return rows


def unlabelled_table(rows: Sequence[Row]) -> list[list[str]]:
    """The sets without transcripts as texts, columns without content left out."""
    table = [["set without transcripts", "utterances", "exit chosen by"]]
    table[0] += ["layers", "GMAC"]
    most = max((row["macs"] or 0 for row in rows), default=0)
    for row in rows:
        cells = [row["set"], row["utterances"], row["choice"]]
        costs = [number(row["layers"]), giga(row["macs"], most)]
        table.append([*map(str, cells), *costs])
    return _without_empty_columns(table)


def overview_table(analyses: Sequence[SetAnalysis]) -> list[list[str]]:
    """One row per test set: the cost of the last exit's word error rate."""
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


def aligned(table: Sequence[Sequence[str]]) -> str:
    """A table as text: first column to the left, the others to the right."""
    names = [cell.rpartition(": ")[2] for cell in table[0]]
    rows = [names, *table[1:]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    above = _groups(table[0], widths)
    rule = ["-" * width for width in widths]
    lines = [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (names, rule, *rows[1:])
    ]
    return "\n".join(above + lines)


def _groups(heading: Sequence[str], widths: list[int]) -> list[str]:
    """The line above the headings, if any; makes room for it in widths."""
    starts = [
        place
        for place, cell in enumerate(heading)
        if ": " in cell or place == 0
    ]
    names = [heading[place].rpartition(": ")[0] for place in starts]
    if not any(names):
        return []
    parts = []
    for name, start, end in zip(
        names, starts, [*starts[1:], len(heading)], strict=True
    ):
        span = sum(widths[start:end]) + 2 * (end - start - 1)
        widths[start] += max(len(name) - span, 0)
        parts.append(name.center(max(span, len(name))))
    return ["  ".join(parts).rstrip()]


def summary(analysis: SetAnalysis) -> list[str]:
    """What the tables of a set come to."""
    depth = analysis.trace.header.exit_layers[-1]
    lines = _criteria_said(analysis)
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
    lines.append(_overthinking_said(analysis))
    lines.append(resampled(analysis))
    return lines


def resampled(analysis: SetAnalysis) -> str:
    """What the intervals of a set are about."""
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


def _criteria_said(analysis: SetAnalysis) -> list[str]:
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
            f"{_cost_said(analysis, best.point)} by {label(best.result.name)}{among} "
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
            f"{_cost_said(analysis, best.point)}, "
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


def _overthinking_said(analysis: SetAnalysis) -> str:
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


def _cost_said(analysis: SetAnalysis, point: OperatingPoint) -> str:
    depth = analysis.trace.header.exit_layers[-1]
    text = f"{point.avg_layer:.2f} of {depth} layers"
    full = analysis.fixed.curve.points[-1].avg_macs
    if point.avg_macs is not None and full:
        text += (
            f", {giga(point.avg_macs, full)} of {giga(full, full)} GMAC "
            f"per utterance"
        )
    return text
