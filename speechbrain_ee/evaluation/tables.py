"""Tables of a report, for console, page and CSV files.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import io
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.analysis import SetAnalysis, choice_of
from speechbrain_ee.evaluation.curves import (
    OperatingPoint,
    average_costs,
    fixed_exits,
)
from speechbrain_ee.evaluation.theme import decoding_label, label
from speechbrain_ee.exits.calibration.policy_file import ExitPolicy
from speechbrain_ee.exits.decoding import DECODINGS
from speechbrain_ee.exits.trace import Trace

Row = dict[str, str | int | float | None]  # of a CSV file
WIDTH = 100  # columns of a console
LEVEL_NAMES = {
    "equal_wer": "equal",
    "plus_1": "+1 %",
    "plus_5": "+5 %",
    "plus_10": "+10 %",
}
GAP_LEVELS = ("equal_wer", "plus_5")
_EDITS = ("substitutions", "deletions", "insertions")
_WAYS = ("greedy", *DECODINGS)  # headers call ctc_greedy so


@dataclass(frozen=True)
class Table:
    """A table of texts, for the console and for a page.

    Of the headings "a: b", "c", the name "a" is put above "b" and "c".
    """

    heading: Sequence[str]
    rows: Sequence[Sequence[str]]
    leading: frozenset[int] = frozenset()  # rows of a page that stand out
    strong: frozenset[tuple[int, int]] = frozenset()  # cells that do
    sortable: bool = True  # whether a reader of a page may order the rows

    def dense(self) -> "Table":
        """The table without columns that have no content."""
        keep = [any(column) for column in zip(*self.rows, strict=True)]
        heading, *rows = (
            [cell for cell, kept in zip(row, keep, strict=True) if kept]
            for row in (self.heading, *self.rows)
        )
        return Table(heading, rows)

    def numbered(self) -> "Table":
        """The table with numbers in place of the names of its rows."""
        rows = [[str(n), *row[1:]] for n, row in enumerate(self.rows, 1)]
        return replace(self, rows=rows)

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
    trace, header = analysis.trace, analysis.trace.header
    blank = (None,) * len(header.exit_layers)
    edits_E3, cers = [blank[:1] * 3] * len(blank), [*blank]
    if trace.edits_NE3 is not None:
        edits_E3 = trace.edits_NE3.sum(axis=0).tolist()
        cers[-1] = analysis.cer_last
    return [
        {
            "set": analysis.key,
            "exit": column + 1,
            "layer": layer,
            "wer": analysis.wer[column],
            **dict(zip(_EDITS, edits_E3[column], strict=True)),
            "words": analysis.words,
            "cer": cers[column],
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
    heading = ["exit", "layer", "WER %", "sub %", "del %", "ins %"]
    heading += ["CER %", "params M", f"GMAC/{header.macs_reference_s:g} s"]
    decoded = analysis.trace.decoding_macs_NE is not None
    if decoded:
        heading[-1] = f"no decoding: {heading[-1]}"
        heading.append("with decoding: GMAC/utterance")
    rows = [
        [
            str(row["exit"]),
            str(row["layer"]),
            number(row["wer"]),
            *(percent(row[kind], row["words"]) for kind in _EDITS),
            number(row["cer"]),
            percent(row["parameters"], 1e8),
            giga(row["macs"], full),
            *[giga(row["avg_macs"], analysis.full_macs)] * decoded,
        ]
        for row in exit_rows(analysis)
    ]
    return Table(heading, rows).dense()


def criterion_rows(analysis: SetAnalysis) -> list[Row]:
    """Every way of choosing exits: its cost at each level, with intervals."""
    rows = []
    for result in analysis.results():
        row: Row = {"set": analysis.key, "criterion": result.name}
        for level, point in result.points.items():
            low, high = result.layer_intervals.get(level, (None, None))
            row |= {
                f"{level}_layers": point and point.avg_layer,
                f"{level}_layers_low": low,
                f"{level}_layers_high": high,
                f"{level}_macs": point and point.avg_macs,
                f"{level}_wer": point and point.wer,
                f"{level}_threshold": point and point.threshold,
                f"{level}_gap_share": result.gap_shares.get(level),
            }
        rows.append(row)
    return rows


def criterion_table(analysis: SetAnalysis) -> Table:
    """Every way of choosing exits; the gap is from the mix to the oracle."""
    columns = {
        "layers at WER": ("layers", LEVEL_NAMES, number),
        "GMAC at": ("macs", GAP_LEVELS, partial(giga, full=analysis.full_macs)),
        "gap closed %": ("gap_share", GAP_LEVELS, _whole_percent),
    }
    heading = ["exit chosen by"]
    for group, (_, levels, _) in columns.items():
        first, *others = (LEVEL_NAMES[level] for level in levels)
        heading += [f"{group}: {first}", *others]
    rows = [
        [label(row["criterion"])]
        + [
            form(row[f"{level}_{name}"])
            for name, levels, form in columns.values()
            for level in levels
        ]
        for row in criterion_rows(analysis)
    ]
    return Table(heading, rows).dense()


def _whole_percent(share: float | None) -> str:
    return "" if share is None else str(round(100 * share))


def policy_table(analysis: SetAnalysis) -> Table:
    """Every given policy."""
    heading = ["policy", "WER %", "above last exit %", "layers", "GMAC"]
    rows = [
        [
            policy.name,
            number(policy.point.wer),
            number(policy.excess),
            number(policy.point.avg_layer),
            giga(policy.point.avg_macs, analysis.full_macs),
            policy.verdict,
        ]
        for policy in analysis.policies
    ]
    return Table([*heading, "budget holds"], rows).dense()


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
                row = {"set": name, "utterances": len(part), "choice": choice}
                rows.append(row | {"layers": layers[0], "macs": macs[0]})
    return rows


def unlabelled_table(rows: Sequence[Row]) -> Table:
    """The sets without transcripts, columns without content left out."""
    most = max((row["macs"] or 0 for row in rows), default=0)
    cells = [
        [
            row["set"],
            str(row["utterances"]),
            row["choice"],
            number(row["layers"]),
            giga(row["macs"], most),
        ]
        for row in rows
    ]
    heading = ["set without transcripts", "utterances", "exit chosen by"]
    return Table([*heading, "layers", "GMAC"], cells).dense()


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


@dataclass(frozen=True)
class DecodingResult:
    """One way of decoding a test set, at each exit."""

    wer: list[float]  # word error rate in percent
    # multiply-accumulates of decoding, averaged over the utterances; None
    # where the trace does not tell them
    decoding_macs: list[float] | None = None
    # the same of all that is spent up to the exit, decoding included
    avg_macs: list[float] | None = None


@dataclass(frozen=True)
class DecodingComparison:
    """All ways of decoding a test set, from one pass of its encoder."""

    key: str  # name of the set
    exit_layers: tuple[int, ...]  # encoder layer of each exit
    # parameters of the model truncated at each exit
    parameters: tuple[int, ...] | None
    results: Mapping[str, DecodingResult]  # by way; CTC's ways first


def by_decoding(traces: Sequence[Trace]) -> dict[str, tuple[Trace, ...]]:
    """Traces that are the same test set of the same model, put together."""
    models = {trace.header.name for trace in traces}
    groups: dict[str, list[Trace]] = {}
    for trace in traces:
        for name in trace.sets:
            model = f", {trace.header.name}" if len(models) > 1 else ""
            groups.setdefault(name + model, []).append(trace.subset(name))
    return {
        key: tuple(group)
        for key, group in groups.items()
        if any(trace.decoding_macs_NE is not None for trace in group)
    }


def compare_decodings(
    decoded: Mapping[str, Sequence[Trace]],
) -> dict[str, DecodingComparison]:
    """Compare the ways of decoding every set that has several."""
    return {
        key: _compare(key, traces)
        for key, traces in decoded.items()
        if len(traces) > 1 and traces[0].labelled_sets
    }


def _compare(key: str, traces: Sequence[Trace]) -> DecodingComparison:
    main, *others = traces
    header = main.header
    utterances = sorted((row.id, row.ref) for row in main.records)
    for trace in others:
        found = sorted((row.id, row.ref) for row in trace.records)
        if trace.header.exit_layers != header.exit_layers or (
            found != utterances
        ):
            raise InputError(
                f"{trace.source}: has other exits or utterances than "
                f"{main.source}, so that their ways of decoding "
                f"{key!r} cannot be compared; give traces of one evaluation."
            )
    names = [trace.header.decoding for trace in traces]
    if len({*names}) < len(names):
        raise InputError(
            f"Set {key!r}: decodings {', '.join(names)} are not all "
            f"different; give one trace per way of decoding."
        )
    order = {name: place for place, name in enumerate(_WAYS)}
    results = {
        trace.header.decoding: DecodingResult(
            [point.wer for point in fixed_exits(trace).points],
            _means(trace.decoding_macs_NE),
            _means(trace.macs_NE),
        )
        for trace in sorted(
            traces, key=lambda t: order.get(t.header.decoding, len(order))
        )
    }
    return DecodingComparison(
        key, header.exit_layers, header.parameters, results
    )


def _means(values_NE: NDArray[np.float64] | None) -> list[float] | None:
    return None if values_NE is None else values_NE.mean(axis=0).tolist()


def _at(values: Sequence[float] | None, column: int) -> float | None:
    return None if values is None else values[column]


def decoding_rows(comparison: DecodingComparison) -> list[Row]:
    """One row per way of decoding and exit."""
    return [
        {
            "set": comparison.key,
            "decoding": name,
            "exit": column + 1,
            "layer": layer,
            "wer": result.wer[column],
            "decoding_macs": _at(result.decoding_macs, column),
            "avg_macs": _at(result.avg_macs, column),
            "parameters": _at(comparison.parameters, column),
        }
        for name, result in comparison.results.items()
        for column, layer in enumerate(comparison.exit_layers)
    ]


def decoding_table(comparison: DecodingComparison) -> Table:
    """One row per exit, then what decoding the last exit costs."""
    results = [*comparison.results.values()]
    names = [*map(decoding_label, comparison.results)]
    names[0] = f"WER %: {names[0]}"
    known = comparison.parameters is not None
    heading = ["exit", "layer", *names, *[": params M"] * known]
    rows, strong = [], set()
    for column, layer in enumerate(comparison.exit_layers):
        rates = [result.wer[column] for result in results]
        row = [str(column + 1), str(layer), *map(number, rates)]
        if comparison.parameters is not None:
            row.append(number(comparison.parameters[column] / 1e6))
        rows.append(row)
        # ties by value, not by how they are rounded
        best = [place for place, r in enumerate(rates) if r == min(rates)]
        strong |= {(column, 2 + place) for place in best}
    costs = {
        "GMAC of decoding": [_at(r.decoding_macs, -1) for r in results],
        "GMAC in all": [_at(r.avg_macs, -1) for r in results],
    }
    full = max((c for row in costs.values() for c in row if c), default=None)
    for name, values in costs.items():
        if any(value is not None for value in values):
            cells = [giga(value, full) for value in values]
            rows.append([name, "", *cells, *[""] * known])
    # the last rows are sums, which no order may part from the others
    return Table(heading, rows, strong=frozenset(strong), sortable=False)
