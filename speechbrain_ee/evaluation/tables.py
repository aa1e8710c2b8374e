"""Tables and sentences of a report, for console, page and CSV files.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import io
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

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
from speechbrain_ee.exits.calibration.policy_file import ExitPolicy
from speechbrain_ee.exits.clusters import UTTERANCE
from speechbrain_ee.exits.trace import Trace

Row = dict[str, str | int | float | None]  # of a CSV file
Column = tuple[str, Callable[[Any], str]]  # heading, and the cell of a row
WIDTH = 100  # columns of a console
GAP_LEVELS = ("equal_wer", "plus_5")


@dataclass(frozen=True)
class Table:
    """A table of texts, for the console and, where cells may be HTML, a page.

    Of the headings "a: b", "c", the name "a" is put above "b" and "c".
    """

    heading: Sequence[str]
    rows: Sequence[Sequence[str]]
    leading: frozenset[int] = frozenset()  # rows of a page that stand out
    series: Sequence[str] = ()  # criteria of the rows, switched with these
    sortable: bool = True  # whether a reader of a page may order the rows

    @classmethod
    def of(
        cls, columns: Sequence[Column], rows: Iterable[Any], **fields: Any
    ) -> "Table":
        """One row for each of some results."""
        cells = [[cell(row) for _, cell in columns] for row in rows]
        return cls([heading for heading, _ in columns], cells, **fields)

    def dense(self) -> "Table":
        """The table without columns that have no content."""
        keep = [any(column) for column in zip(*self.rows, strict=True)]
        heading, *rows = (
            [cell for cell, kept in zip(row, keep, strict=True) if kept]
            for row in (self.heading, *self.rows)
        )
        return Table(heading, rows)

    @cached_property
    def names(self) -> list[str]:
        """Names of the columns without those of their groups."""
        return [name.rpartition(": ")[2] for name in self.heading]

    @cached_property
    def firsts(self) -> set[int]:
        """Columns that begin a group, the first of all aside."""
        places = range(1, len(self.heading))
        return {place for place in places if ": " in self.heading[place]}

    @cached_property
    def groups(self) -> list[tuple[str, int]]:
        """Name and number of columns of every group."""
        starts = [0, *sorted(self.firsts)]
        ends = [*starts[1:], len(self.heading)]
        return [
            (self.heading[start].rpartition(": ")[0], end - start)
            for start, end in zip(starts, ends, strict=True)
        ]

    def text(self) -> str:
        """Aligned: the first column to the left, the others to the right."""
        rows = [self.names, *self.rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines, start = [], 0
        if any(name for name, _ in self.groups):
            above = []
            for name, count in self.groups:
                span = sum(widths[start : start + count]) + 2 * (count - 1)
                widths[start] += max(len(name) - span, 0)
                above.append(name.center(max(span, len(name))))
                start += count
            lines.append("  ".join(above).rstrip())
        for row in (self.names, ["-" * width for width in widths], *self.rows):
            cells = [row[0].ljust(widths[0])]
            cells += map(str.rjust, row[1:], widths[1:])
            lines.append("  ".join(cells).rstrip())
        return "\n".join(lines)


def aligned(table: Sequence[Sequence[str]]) -> str:
    """A table as text; its first row is the heading."""
    return Table(table[0], table[1:]).text()


def filled(text: str, first: str = "", later: str = "") -> str:
    """A paragraph; the heads of its lines are kept if there is no text."""
    lines = textwrap.fill(
        text, WIDTH, initial_indent=first, subsequent_indent=later
    )
    return lines or first.rstrip()


def to_csv(rows: Iterable[Row]) -> str:
    """Rows with the same keys as CSV text."""
    rows = list(rows)
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


def giga(macs: float | None, full: float | None) -> str:
    """Multiply-accumulates in units of 10^9, small models in more detail."""
    if macs is None:
        return ""
    decimals = 2 if (full or macs) >= 1e9 else 3
    return f"{macs / 1e9:.{decimals}f}"


def number(value: float | None) -> str:
    """A number with two decimals; empty without a value."""
    return "" if value is None else f"{value:.2f}"


def percent(value: float | None, whole: float) -> str:
    """A share in percent with two decimals; empty without a value."""
    return "" if value is None else f"{100 * value / whole:.2f}"


def exit_rows(analysis: SetAnalysis) -> list[Row]:
    """Every exit; parameters and MACs are those of the truncated model."""
    header = analysis.trace.header
    blank = (None,) * len(header.exit_layers)
    edits = analysis.edits or ((None, None, None),) * len(blank)
    return [
        {
            "set": analysis.key,
            "exit": column + 1,
            "layer": layer,
            "wer": analysis.wer[column],
            "substitutions": edits[column][0],
            "deletions": edits[column][1],
            "insertions": edits[column][2],
            "words": analysis.words,
            "cer": analysis.cer_last if column == len(blank) - 1 else None,
            "parameters": (header.parameters or blank)[column],
            "macs": (header.macs or blank)[column],
            "avg_macs": analysis.fixed.curve.points[column].avg_macs,
        }
        for column, layer in enumerate(header.exit_layers)
    ]


def exit_table(analysis: SetAnalysis) -> Table:
    """Every exit, columns without content left out."""
    header = analysis.trace.header
    full = (header.macs or [None])[-1]
    average = analysis.fixed.curve.points[-1].avg_macs
    words = analysis.words
    macs = f"GMAC/{header.macs_reference_s:g} s"
    columns: list[Column] = [
        ("exit", lambda row: str(row["exit"])),
        ("layer", lambda row: str(row["layer"])),
        ("WER %", lambda row: number(row["wer"])),
        ("sub %", lambda row: percent(row["substitutions"], words)),
        ("del %", lambda row: percent(row["deletions"], words)),
        ("ins %", lambda row: percent(row["insertions"], words)),
        ("CER %", lambda row: number(row["cer"])),
        ("params M", lambda row: percent(row["parameters"], 1e8)),
    ]
    if analysis.trace.decoding_macs_NE is None:
        columns.append((macs, lambda row: giga(row["macs"], full)))
    else:
        columns += [
            (f"no decoding: {macs}", lambda row: giga(row["macs"], full)),
            (
                "with decoding: GMAC/utterance",
                lambda row: giga(row["avg_macs"], average),
            ),
        ]
    return Table.of(columns, exit_rows(analysis)).dense()


def criterion_rows(analysis: SetAnalysis) -> list[Row]:
    """Every way of choosing exits: its cost at each level, with intervals."""
    rows = []
    for result in analysis.results():
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
        rows.append(row)
    return rows


def criterion_columns(
    layers: Callable[[Result, str], str],
    macs: Callable[[Result, str], str] | None,
    gap: Callable[[Result, str], str] | None,
    unit: str = "",
) -> list[Column]:
    """The columns of every way of choosing exits, by what fills the cells."""
    names = dict(zip(LEVELS, ("equal", "+1 %", "+5 %", "+10 %"), strict=True))
    groups = [("layers at WER", layers, LEVELS), ("GMAC at", macs, GAP_LEVELS)]
    groups.append((f"gap closed{unit}", gap, GAP_LEVELS))
    columns: list[Column] = []
    for group, cell, levels in groups:
        if cell is not None:
            # the name of the group stands before its first column
            before = (f"{group}: ", *[""] * 3)
            columns += [
                (start + names[level], partial(cell, level=level))
                for start, level in zip(before, levels)
            ]
    return columns


def criterion_table(analysis: SetAnalysis) -> Table:
    """Every way of choosing exits; the gap is from the mix to the oracle."""
    full = analysis.fixed.curve.points[-1].avg_macs

    def layers(result: Result, level: str) -> str:
        point = result.points[level]
        return number(point and point.avg_layer)

    def macs(result: Result, level: str) -> str:
        point = result.points[level]
        return giga(point and point.avg_macs, full)

    def gap(result: Result, level: str) -> str:
        share = result.gap_shares.get(level)
        return "" if share is None else str(round(100 * share))

    columns = [("exit chosen by", lambda result: label(result.name))]
    columns += criterion_columns(layers, macs, gap, " %")
    return Table.of(columns, analysis.results()).dense()


def policy_table(analysis: SetAnalysis) -> Table:
    """Every given policy."""
    full = analysis.fixed.curve.points[-1].avg_macs
    columns: list[Column] = [
        ("policy", lambda policy: policy.name),
        ("WER %", lambda policy: number(policy.point.wer)),
        ("above last exit %", lambda policy: number(policy.excess)),
        ("layers", lambda policy: number(policy.point.avg_layer)),
        ("GMAC", lambda policy: giga(policy.point.avg_macs, full)),
        ("budget holds", lambda policy: policy.verdict),
    ]
    return Table.of(columns, analysis.policies).dense()


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


def unlabelled_table(rows: Sequence[Row]) -> Table:
    """The sets without transcripts, columns without content left out."""
    most = max((row["macs"] or 0 for row in rows), default=0)
    columns: list[Column] = [
        ("set without transcripts", lambda row: row["set"]),
        ("utterances", lambda row: str(row["utterances"])),
        ("exit chosen by", lambda row: row["choice"]),
        ("layers", lambda row: number(row["layers"])),
        ("GMAC", lambda row: giga(row["macs"], most)),
    ]
    return Table.of(columns, rows).dense()


def overview_table(analyses: Sequence[SetAnalysis]) -> Table:
    """One row per test set: the cost of the last exit's word error rate."""
    dev = next((a.dev.key for a in analyses if a.dev is not None), None)
    chosen = f"chosen on {dev}" if dev else "cheapest criterion"
    heading = ["test set", "last exit: WER %", "layers", "GMAC"]
    heading += ["mix of two fixed exits: layers", "GMAC"]
    heading += [f"{chosen}: WER %", "layers"] if dev else [f"{chosen}: layers"]
    heading += ["GMAC", "which", "oracle: layers", "GMAC"]
    rows = []
    for analysis in analyses:
        best, last = analysis.choice(), analysis.fixed.curve.points[-1]

        def costs(
            point: OperatingPoint | None, full: float | None = last.avg_macs
        ) -> list[str]:
            layers = number(point and point.avg_layer)
            return [layers, giga(point and point.avg_macs, full)]

        row = [analysis.key, number(analysis.wer[-1]), *costs(last)]
        row += costs(analysis.mixture.equal_wer)
        row += [number(best and best.point.wer)] if dev else []
        row += costs(best and best.point)
        row += [label(best.result.name) if best else ""]
        rows.append([*row, *costs(analysis.oracle.equal_wer)])
    return Table(heading, rows).dense()


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
    lines.append(_resampled(analysis))
    return lines


def _resampled(analysis: SetAnalysis) -> str:
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
