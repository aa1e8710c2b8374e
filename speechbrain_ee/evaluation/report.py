"""Reports: everything that an exit trace tells, in one folder.

``report.json`` holds all numbers, ``exits.csv`` and ``criteria.csv`` the two
tables, ``curves.png`` and ``curves.pdf`` the figure, ``report.html`` all of
it in one self-contained page; ``decodings.csv`` compares ways of decoding
where there are several.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speechbrain_ee.evaluation.analyses import analyse_all
from speechbrain_ee.evaluation.analysis import SetAnalysis
from speechbrain_ee.evaluation.console import console_tables
from speechbrain_ee.evaluation.decoding_figure import draw_decodings
from speechbrain_ee.evaluation.decodings import (
    DecodingComparison,
    by_decoding,
    compare_decodings,
    decoding_rows,
)
from speechbrain_ee.evaluation.figures import draw_curves, figure_bytes
from speechbrain_ee.evaluation.html import page
from speechbrain_ee.evaluation.policies import scored_for
from speechbrain_ee.evaluation.report_data import report_data
from speechbrain_ee.evaluation.rows import criterion_rows, exit_rows, to_csv
from speechbrain_ee.evaluation.transfer import (
    TransferMatrix,
    transfer_matrices,
)
from speechbrain_ee.exits.calibration.exit_policy import ExitPolicy
from speechbrain_ee.exits.calibration.policy_file import read_policy
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.exits.trace_io import read_trace, whole_file

logger = logging.getLogger(__name__)

_DECODINGS_FILES = ("decodings.csv", "decodings.png")


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
    transfer : mapping of str to TransferMatrix
        By criterion: thresholds of every set used on every other.
    decodings : mapping of str to DecodingComparison
        The test sets that were decoded in several ways.
    """

    folder: Path
    title: str
    sets: Mapping[str, SetAnalysis]
    data: Mapping[str, Any]
    transfer: Mapping[str, TransferMatrix] = field(default_factory=dict)
    decodings: Mapping[str, DecodingComparison] = field(default_factory=dict)


def write_report(
    traces: Trace | Sequence[Trace],
    folder: str | Path,
    title: str,
    extra: Mapping[str, Any] | None = None,
    policies: Sequence[ExitPolicy] = (),
    decoded: Mapping[str, Sequence[Trace]] | None = None,
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
    policies : sequence of ExitPolicy
        Measured on every test set.
    decoded : mapping of str to sequence of Trace, optional
        By test set, the traces of all ways of decoding it, the one that is
        reported on first; they are compared exit by exit.

    Returns
    -------
    Report

    Raises
    ------
    InputError
        If the folder cannot be written, a set has no reference words, a
        policy was made for other exits, or traces of several ways of decoding
        do not fit.
    """
    folder = Path(folder)
    if isinstance(traces, Trace):
        traces = [traces]
    analyses = analyse_all(traces, policies)
    transfer = transfer_matrices(list(analyses.values()))
    ways = compare_decodings(decoded or {})
    facts = extra or {}
    data = report_data(traces, analyses, transfer, title, facts, ways)
    figure = draw_curves(list(analyses.values()))
    files = {
        "report.json": json.dumps(data, indent=1, allow_nan=False) + "\n",
        "exits.csv": _csv(exit_rows(a) for a in analyses.values()),
        "criteria.csv": _csv(criterion_rows(a) for a in analyses.values()),
        "curves.png": figure_bytes(figure, "png"),
        "curves.pdf": figure_bytes(figure, "pdf"),
        "report.html": page(title, analyses, facts, transfer, ways),
    }
    if ways:
        drawn = draw_decodings(list(ways.values()))
        files["decodings.csv"] = _csv(decoding_rows(w) for w in ways.values())
        files["decodings.png"] = figure_bytes(drawn, "png")
    _write_files(folder, files)
    for name in _DECODINGS_FILES:
        if name not in files:  # of an earlier report
            (folder / name).unlink(missing_ok=True)
    logger.info("Report written to %s", folder)
    return Report(folder, title, analyses, data, transfer, ways)


def report_command(
    traces: Sequence[str | Path],
    out: str | Path,
    as_json: bool = False,
    policies: Sequence[str | Path] = (),
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
    policies : sequence of str or Path
        Policy files to measure on every test set.

    Returns
    -------
    str
        The text to show.

    Raises
    ------
    InputError
        If a trace or a policy is malformed, they do not fit, or the folder
        cannot be written.
    """
    read = [read_trace(path) for path in traces]
    title = ", ".join(dict.fromkeys(trace.header.name for trace in read))
    given = [read_policy(path) for path in policies]
    for path, policy in zip(policies, given, strict=True):
        read = scored_for(read, Path(path), policy)
    report = write_report(
        read, out, title, policies=given, decoded=by_decoding(read)
    )
    if as_json:
        return json.dumps(report.data, indent=1)
    return f"{console_tables(report)}\n\nReport: {report.folder}"


def _csv(rows_by_set: Any) -> str:
    return to_csv(row for rows in rows_by_set for row in rows)


def _write_files(folder: Path, files: Mapping[str, str | bytes]) -> None:
    for name, content in files.items():
        with whole_file(folder / name) as stream:
            stream.write(
                content if isinstance(content, bytes) else content.encode()
            )
