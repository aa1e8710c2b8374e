"""Ways of decoding the same exits, side by side.

A model with attention heads is decoded in several ways from one pass of its
encoder. Each gives a trace of its own; together they tell which way suits
which exit, and what it costs.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.curves import fixed_exits
from speechbrain_ee.evaluation.tables import Row, Table, giga, number
from speechbrain_ee.evaluation.theme import decoding_label
from speechbrain_ee.exits.decoding import DECODINGS
from speechbrain_ee.exits.trace import Trace

# What headers call ``ctc_greedy``.
_ORDER = ("greedy", *DECODINGS)


@dataclass(frozen=True)
class DecodingResult:
    """One way of decoding a test set."""

    name: str  # the way, as in the header of its trace
    wer_E: tuple[float, ...]  # word error rate of each exit in percent
    # multiply-accumulates of decoding at each exit, averaged over the
    # utterances; None where the trace does not tell them
    decoding_macs_E: tuple[float, ...] | None = None
    # the same of all that is spent up to each exit, decoding included
    avg_macs_E: tuple[float, ...] | None = None


@dataclass(frozen=True)
class DecodingComparison:
    """All ways of decoding a test set."""

    key: str  # name of the set
    exit_layers: tuple[int, ...]  # encoder layer of each exit
    # parameters of the model truncated at each exit
    parameters: tuple[int, ...] | None
    results: tuple[DecodingResult, ...]  # CTC's ways first

    def best(self, column: int) -> float:
        """The least word error rate at an exit."""
        return min(result.wer_E[column] for result in self.results)


def compare_decodings(
    decoded: Mapping[str, Sequence[Trace]],
) -> dict[str, DecodingComparison]:
    """Compare the ways of decoding every set that has several."""
    return {
        key: _compare(key, traces)
        for key, traces in decoded.items()
        if len(traces) > 1 and traces[0].labelled_sets
    }


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


def decoding_rows(comparison: DecodingComparison) -> list[Row]:
    """One row per way of decoding and exit."""
    return [
        {
            "set": comparison.key,
            "decoding": result.name,
            "exit": column + 1,
            "layer": layer,
            "wer": result.wer_E[column],
            "decoding_macs": _at(result.decoding_macs_E, column),
            "avg_macs": _at(result.avg_macs_E, column),
            "parameters": _at(comparison.parameters, column),
        }
        for result in comparison.results
        for column, layer in enumerate(comparison.exit_layers)
    ]


def decoding_data(comparison: DecodingComparison) -> dict[str, dict]:
    """What ``report.json`` holds of a test set."""
    return {
        result.name: {
            "wer": list(result.wer_E),
            "decoding_macs": _list(result.decoding_macs_E),
            "avg_macs": _list(result.avg_macs_E),
        }
        for result in comparison.results
    }


def decoding_table(comparison: DecodingComparison) -> Table:
    """One row per exit, then what decoding the last exit costs."""
    results = comparison.results
    names = [decoding_label(result.name) for result in results]
    names[0] = f"WER %: {names[0]}"
    known = comparison.parameters is not None
    heading = ["exit", "layer", *names, *[": params M"] * known]
    table = []
    for column, layer in enumerate(comparison.exit_layers):
        row = [str(column + 1), str(layer)]
        row += [number(result.wer_E[column]) for result in results]
        if comparison.parameters is not None:
            row.append(number(comparison.parameters[column] / 1e6))
        table.append(row)
    costs = {
        "GMAC of decoding": [_at(r.decoding_macs_E, -1) for r in results],
        "GMAC in all": [_at(r.avg_macs_E, -1) for r in results],
    }
    full = max((c for row in costs.values() for c in row if c), default=None)
    for name, values in costs.items():
        if any(value is not None for value in values):
            cells = [giga(value, full) for value in values]
            table.append([name, "", *cells, *[""] * known])
    return Table(heading, table, sortable=False)  # its last rows are sums


def decoding_note(comparison: DecodingComparison) -> str:
    """What a reader of the table must know."""
    if not any(result.decoding_macs_E for result in comparison.results):
        return ""
    return (
        "GMAC are averages per utterance at the last exit; in all means with "
        "the encoder and the CTC heads, beyond which CTC greedy costs nothing."
    )


def _compare(key: str, traces: Sequence[Trace]) -> DecodingComparison:
    main = traces[0].header
    names = [trace.header.decoding for trace in traces]
    utterances = [(row.id, row.ref) for row in traces[0].records]
    for trace in traces[1:]:
        found = [(row.id, row.ref) for row in trace.records]
        if trace.header.exit_layers != main.exit_layers or (
            sorted(found) != sorted(utterances)
        ):
            raise InputError(
                f"{trace.source}: has other exits or utterances than "
                f"{traces[0].source}, so that their ways of decoding "
                f"{key!r} cannot be compared; give traces of one evaluation."
            )
    if len({*names}) < len(names):
        raise InputError(
            f"Set {key!r}: decodings {', '.join(names)} are not all "
            f"different; give one trace per way of decoding."
        )
    results = [_result(trace) for trace in traces]
    results.sort(key=lambda result: _place(result.name))
    return DecodingComparison(
        key, main.exit_layers, main.parameters, tuple(results)
    )


def _result(trace: Trace) -> DecodingResult:
    return DecodingResult(
        trace.header.decoding,
        tuple(point.wer for point in fixed_exits(trace).points),
        _means(trace.decoding_macs_NE),
        _means(trace.macs_NE),
    )


def _means(values_NE: NDArray[np.float64] | None) -> tuple[float, ...] | None:
    if values_NE is None:
        return None
    return tuple(values_NE.mean(axis=0).tolist())


def _place(name: str) -> int:
    return _ORDER.index(name) if name in _ORDER else len(_ORDER)


def _at(values: Sequence[float] | None, column: int) -> float | None:
    return None if values is None else values[column]


def _list(values: Iterable[float] | None) -> list[float] | None:
    return None if values is None else list(values)
