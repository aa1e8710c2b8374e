"""What ``report.json`` holds.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from speechbrain_ee.evaluation.analysis import SetAnalysis
from speechbrain_ee.evaluation.curves import Curve
from speechbrain_ee.evaluation.decodings import (
    DecodingComparison,
    decoding_data,
)
from speechbrain_ee.evaluation.examples import Example
from speechbrain_ee.evaluation.operating_point import OperatingPoint
from speechbrain_ee.evaluation.overthinking import OverthinkingStudy
from speechbrain_ee.evaluation.result import Result
from speechbrain_ee.evaluation.rows import exit_rows
from speechbrain_ee.evaluation.transfer import TransferMatrix
from speechbrain_ee.exits.trace import Trace

SCHEMA = "exit-report/1"
# Bands are estimates of 200 draws: more digits would say nothing.
_BAND_DECIMALS = 4


def report_data(
    traces: Sequence[Trace],
    analyses: Mapping[str, SetAnalysis],
    transfer: Mapping[str, TransferMatrix],
    title: str,
    extra: Mapping[str, Any],
    decodings: Mapping[str, DecodingComparison] | None = None,
    overthinking: OverthinkingStudy | None = None,
) -> dict[str, Any]:
    """All numbers of a report as plain values.

    Arguments
    ---------
    traces : sequence of Trace
        What the report is on.
    analyses : mapping of str to SetAnalysis
        The test sets.
    transfer : mapping of str to TransferMatrix
        By criterion.
    title : str
        Title of the report.
    extra : mapping
        Further facts about the run.
    decodings : mapping of str to DecodingComparison, optional
        The test sets that were decoded in several ways.
    overthinking : OverthinkingStudy, optional
        The study, if asked for.

    Returns
    -------
    dict
    """
    data = {
        "schema": SCHEMA,
        "title": title,
        "traces": [asdict(trace.header) for trace in traces],
        "sets": {key: _set_data(a) for key, a in analyses.items()},
        "transfer": {name: _matrix(m) for name, m in transfer.items()},
        "extra": dict(extra),
    }
    if decodings:
        data["decodings"] = {
            key: decoding_data(each) for key, each in decodings.items()
        }
    if overthinking is not None:
        data["overthinking"] = asdict(overthinking)
    return data


def _set_data(analysis: SetAnalysis) -> dict[str, Any]:
    header = analysis.trace.header
    return {
        "model": header.name,
        "decoding": header.decoding,
        "exit_layers": list(header.exit_layers),
        "utterances": len(analysis.trace),
        "words": analysis.words,
        "clusters": {
            "by": analysis.trace.clusters.by,
            "count": analysis.trace.clusters.count,
            "few": analysis.trace.clusters.few,
        },
        "wer": list(analysis.wer),
        "exits": exit_rows(analysis),
        "oracle_best": _point(analysis.oracle_best),
        "oracle_no_worse": _point(analysis.oracle_no_worse),
        "oracle_exit_shares": list(analysis.oracle_shares),
        "overthinking_share": analysis.overthinking_share,
        "overthinking_errors": analysis.overthinking_errors,
        "fixed": _result(analysis.fixed),
        "mixture": _result(analysis.mixture),
        "oracle": _result(analysis.oracle),
        "criteria": {
            name: _criterion(analysis, result)
            for name, result in analysis.criteria.items()
        },
        "policies": [asdict(policy) for policy in analysis.policies],
        "examples": [_example(example) for example in analysis.examples],
    } | _chosen(analysis)


def _chosen(analysis: SetAnalysis) -> dict[str, Any]:
    """What thresholds of the development set give here, if there is one."""
    if analysis.dev is None:
        return {}
    levels = {n: [asdict(c) for c in v] for n, v in analysis.carried.items()}
    return {"chosen_on": {"set": analysis.dev.key, **levels}}


def _criterion(analysis: SetAnalysis, result: Result) -> dict[str, Any]:
    data = _result(result)
    data["gap_shares"] = dict(result.gap_shares)
    data["gap_shares_macs"] = dict(result.gap_shares_macs)
    if result.exit_shares is not None:
        data["exit_shares"] = list(result.exit_shares)
    histogram = analysis.difficulty(result)
    if histogram is not None:
        data["difficulty"] = asdict(histogram)
    return data


def _result(result: Result) -> dict[str, Any]:
    data: dict[str, Any] = {
        level: _point(point) for level, point in result.points.items()
    }
    data["layer_intervals"] = {
        level: list(ends) for level, ends in result.layer_intervals.items()
    }
    data["curve"] = _columns(result.curve)
    return data


def _point(point: OperatingPoint | None) -> dict[str, float] | None:
    if point is None:
        return None
    values = asdict(point).items()
    return {name: value for name, value in values if value is not None}


def _columns(curve: Curve) -> dict[str, list[float]]:
    """Points as columns, those that no point has left out."""
    columns = {}
    for name in ("avg_layer", "avg_macs", "wer", "threshold"):
        values = [getattr(point, name) for point in curve.points]
        if None not in values:
            columns[name] = values
    for name in ("wer_low", "wer_high"):
        ends = getattr(curve, name)
        if ends is not None:
            columns[name] = [round(end, _BAND_DECIMALS) for end in ends]
    return columns


def _matrix(matrix: TransferMatrix) -> dict[str, Any]:
    """From set A to set B to what A's threshold does there."""
    data: dict[str, Any] = {}
    for (source, target), cell in matrix.cells.items():
        values = asdict(cell)
        for name in ("criterion", "calibrated_on", "used_on"):
            del values[name]
        data.setdefault(source, {})[target] = values
    return data


def _example(example: Example) -> dict[str, Any]:
    return {
        "kind": example.kind,
        "id": example.record.id,
        "ref": example.record.ref,
        "hyps": [exit_.hyp for exit_ in example.record.exits],
        "errors": list(example.errors),
    }
