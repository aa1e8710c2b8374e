"""Reports: everything that an exit trace tells, in one folder.

``report.json`` holds all numbers, ``exits.csv`` and ``criteria.csv`` the two
tables, ``curves.png`` and ``curves.pdf`` the figure, ``report.html`` all of
it in one self-contained page.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from speechbrain_ee.evaluation.analysis import SetAnalysis, analyse_all
from speechbrain_ee.evaluation.curves import Curve
from speechbrain_ee.evaluation.figures import draw_curves, figure_bytes
from speechbrain_ee.evaluation.html import page
from speechbrain_ee.evaluation.operating_point import OperatingPoint
from speechbrain_ee.evaluation.result import Result
from speechbrain_ee.evaluation.rows import criterion_rows, exit_rows, to_csv
from speechbrain_ee.evaluation.tables import console_tables
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.exits.trace_io import read_trace, whole_file

logger = logging.getLogger(__name__)

SCHEMA = "exit-report/1"


@dataclass(frozen=True)
class Report:
    """A written report.

    Arguments
    ---------
    folder : Path
        Where it is.
    title : str
        Its title.
    sets : mapping of str to SetAnalysis
        The analysis of every test set.
    data : mapping
        What ``report.json`` holds.
    """

    folder: Path
    title: str
    sets: Mapping[str, SetAnalysis]
    data: Mapping[str, Any]


def write_report(
    traces: Trace | Sequence[Trace],
    folder: str | Path,
    title: str,
    extra: Mapping[str, Any] | None = None,
) -> Report:
    """Analyse traces and write the report.

    Arguments
    ---------
    traces : Trace or sequence of Trace
        What to report on.
    folder : str or Path
        Target, made if missing; files of an earlier report are replaced.
    title : str
        Title of the report.
    extra : mapping, optional
        Further facts about the run, shown at the end and kept in the JSON.

    Returns
    -------
    Report

    Raises
    ------
    InputError
        If the folder cannot be written, or a set has no reference words.
    """
    folder = Path(folder)
    if isinstance(traces, Trace):
        traces = [traces]
    analyses = analyse_all(traces)
    data = _data(traces, analyses, title, extra or {})
    figure = draw_curves(list(analyses.values()))
    _write_files(
        folder,
        {
            "report.json": json.dumps(data, indent=1, allow_nan=False) + "\n",
            "exits.csv": _csv(exit_rows(a) for a in analyses.values()),
            "criteria.csv": _csv(criterion_rows(a) for a in analyses.values()),
            "curves.png": figure_bytes(figure, "png"),
            "curves.pdf": figure_bytes(figure, "pdf"),
            "report.html": page(title, analyses, extra or {}),
        },
    )
    logger.info("Report written to %s", folder)
    return Report(folder, title, analyses, data)


def report_command(
    traces: Sequence[str | Path], out: str | Path, as_json: bool = False
) -> str:
    """What ``python -m speechbrain_ee report`` does.

    Arguments
    ---------
    traces : sequence of str or Path
        Trace files.
    out : str or Path
        Folder for the report.
    as_json : bool
        Return the content of ``report.json`` instead of tables.

    Returns
    -------
    str
        The text to show.

    Raises
    ------
    InputError
        If a trace is malformed or the folder cannot be written.
    """
    read = [read_trace(path) for path in traces]
    title = ", ".join(dict.fromkeys(trace.header.name for trace in read))
    report = write_report(read, out, title)
    if as_json:
        return json.dumps(report.data, indent=1)
    return f"{console_tables(report)}\n\nReport: {report.folder}"


def _csv(rows_by_set: Any) -> str:
    return to_csv(row for rows in rows_by_set for row in rows)


def _data(
    traces: Sequence[Trace],
    analyses: Mapping[str, SetAnalysis],
    title: str,
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "title": title,
        "traces": [asdict(trace.header) for trace in traces],
        "sets": {key: _set_data(a) for key, a in analyses.items()},
        "extra": dict(extra),
    }


def _set_data(analysis: SetAnalysis) -> dict[str, Any]:
    header = analysis.trace.header
    return {
        "model": header.name,
        "decoding": header.decoding,
        "exit_layers": list(header.exit_layers),
        "utterances": len(analysis.trace),
        "words": analysis.words,
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
            name: _result(result) for name, result in analysis.criteria.items()
        },
        "examples": [
            {"kind": example.kind, "id": example.record.id}
            for example in analysis.examples
        ],
    }


def _result(result: Result) -> dict[str, Any]:
    data: dict[str, Any] = {
        "equal_wer": _point(result.equal_wer),
        "plus_5": _point(result.plus_5),
        "curve": _columns(result.curve),
    }
    if result.exit_shares is not None:
        data["exit_shares"] = list(result.exit_shares)
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
    return columns


def _write_files(folder: Path, files: Mapping[str, str | bytes]) -> None:
    for name, content in files.items():
        with whole_file(folder / name) as stream:
            stream.write(
                content if isinstance(content, bytes) else content.encode()
            )
