"""Reports: everything that an exit trace tells, in one folder.

``report.json`` holds all numbers, ``exits.csv`` and ``criteria.csv`` the two
tables, ``curves.png`` and ``curves.pdf`` the figure, ``report.html`` all of
it in one self-contained page; ``decodings.csv`` compares ways of decoding
where there are several. A study of overthinking adds ``overthinking.csv``,
``overthinking_thresholds.csv`` and ``overthinking.png``.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speechbrain_ee.errors import InputError
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
from speechbrain_ee.evaluation.overthinking import (
    OverthinkingStudy,
    study_overthinking,
)
from speechbrain_ee.evaluation.overthinking_figure import draw_overthinking
from speechbrain_ee.evaluation.overthinking_tables import (
    overthinking_rows,
    threshold_rows,
)
from speechbrain_ee.evaluation.page import page
from speechbrain_ee.evaluation.policies import (
    DEFAULT,
    scored_for,
    unlabelled_rows,
)
from speechbrain_ee.evaluation.report_data import report_data
from speechbrain_ee.evaluation.rows import (
    Row,
    criterion_rows,
    exit_rows,
    to_csv,
)
from speechbrain_ee.evaluation.transfer import (
    TransferMatrix,
    transfer_matrices,
)
from speechbrain_ee.exits.calibration.exit_policy import ExitPolicy
from speechbrain_ee.exits.calibration.policy_file import read_policy
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.exits.trace_file import read_trace
from speechbrain_ee.files import whole_file

logger = logging.getLogger(__name__)

# Not every report has these; those of an earlier one must not stay.
_OPTIONAL_FILES = (
    "exits.csv",
    "criteria.csv",
    "curves.png",
    "curves.pdf",
    "report.html",
    "decodings.csv",
    "decodings.png",
    "overthinking.csv",
    "overthinking_thresholds.csv",
    "overthinking.png",
)


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
    overthinking : OverthinkingStudy, optional
        The study, if asked for.
    unlabelled : sequence of dict
        What is chosen on the sets without transcripts.
    """

    folder: Path
    title: str
    sets: Mapping[str, SetAnalysis]
    data: Mapping[str, Any]
    transfer: Mapping[str, TransferMatrix] = field(default_factory=dict)
    decodings: Mapping[str, DecodingComparison] = field(default_factory=dict)
    overthinking: OverthinkingStudy | None = None
    unlabelled: Sequence[Row] = ()


def write_report(
    traces: Trace | Sequence[Trace],
    folder: str | Path,
    title: str,
    extra: Mapping[str, Any] | None = None,
    policies: Sequence[ExitPolicy] = (),
    decoded: Mapping[str, Sequence[Trace]] | None = None,
    overthinking: bool = False,
    in_domain: str | None = None,
    dev: Trace | None = None,
    default: tuple[ExitPolicy | None, str] | None = None,
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
    overthinking : bool
        Study what going on costs, in domain and out of it.
    in_domain : str, optional
        The test set that the study takes for the domain; by default the
        first.
    dev : Trace, optional
        The development set: the criterion and the threshold that the report
        puts first are chosen on it and measured on the test sets. Without it,
        or if it holds utterances of a test set, they are chosen on the test
        sets, and the report says so.
    default : tuple of (ExitPolicy or None, str), optional
        The policy that the model follows if nothing is said (None: it goes
        to its last exit), and what to say of it.

    Returns
    -------
    Report

    Raises
    ------
    InputError
        If the folder cannot be written, a policy was made for other exits,
        traces of several ways of decoding do not fit, there is no set of the
        domain's name, or the development set has other exits.
    """
    folder = Path(folder)
    if isinstance(traces, Trace):
        traces = [traces]
    followed, words = default or (None, None)
    analyses = analyse_all(traces, policies, dev, followed)
    transfer = transfer_matrices(list(analyses.values()))
    ways = compare_decodings(decoded or {})
    study = None
    if overthinking and analyses:
        study = study_overthinking(analyses, in_domain)
    unlabelled = unlabelled_rows(traces, policies)
    facts = {**(extra or {}), **_notes(traces, unlabelled)}
    if words is not None:
        facts = {DEFAULT: words, **facts}
    data = report_data(traces, analyses, transfer, title, facts, ways, study)
    if unlabelled:
        data["unlabelled"] = unlabelled
    files: dict[str, str | bytes] = {}
    if analyses:
        figure = draw_curves(list(analyses.values()))
        files = {
            "report.html": page(title, analyses, facts, transfer, ways, study),
            "exits.csv": _csv(exit_rows(a) for a in analyses.values()),
            "criteria.csv": _csv(criterion_rows(a) for a in analyses.values()),
            "curves.png": figure_bytes(figure, "png"),
            "curves.pdf": figure_bytes(figure, "pdf"),
        }
    text = json.dumps(data, indent=1, allow_nan=False)
    files["report.json"] = f"{text}\n"
    files |= _decoding_files(ways) | _overthinking_files(study)
    _write_files(folder, files)
    for name in _OPTIONAL_FILES:
        if name not in files:
            (folder / name).unlink(missing_ok=True)
    logger.info("Report written to %s", folder)
    return Report(
        folder, title, analyses, data, transfer, ways, study, unlabelled
    )


def study_options(
    hparams: Mapping[str, Any], sets: Collection[str]
) -> dict[str, Any]:
    """What a YAML says of the study of overthinking, checked.

    Arguments
    ---------
    hparams : mapping
        Uses ``overthinking`` and ``in_domain``.
    sets : collection of str
        Names of the test sets.

    Returns
    -------
    dict
        The two as :func:`write_report` takes them.

    Raises
    ------
    InputError
        If ``overthinking`` is neither True nor False, or ``in_domain`` is
        given for no study or is no test set: better now than after training.

    Example
    -------
    >>> study_options({"overthinking": True, "in_domain": None}, ["test"])
    {'overthinking': True, 'in_domain': None}
    """
    study, domain = hparams["overthinking"], hparams["in_domain"]
    if not isinstance(study, bool):
        raise InputError(
            f"overthinking: {study!r} must be True or False; the name of the "
            "test set in domain is the option in_domain."
        )
    if domain is not None and not study:
        raise InputError(
            f"in_domain: {domain!r}, but only the study of overthinking has a "
            "domain; pass --overthinking=True, or leave it out."
        )
    if domain is not None and domain not in sets:
        raise InputError(
            f"in_domain: there is no test set {domain!r}; the test sets are "
            f"{', '.join(sets)}."
        )
    return {"overthinking": study, "in_domain": domain}


def report_command(
    traces: Sequence[str | Path],
    out: str | Path,
    as_json: bool = False,
    policies: Sequence[str | Path] = (),
    overthinking: bool = False,
    in_domain: str | None = None,
    dev: str | Path | None = None,
    speakers_from_ids: bool = False,
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
    overthinking : bool
        Study what going on costs, in domain and out of it.
    in_domain : str, optional
        The test set that the study takes for the domain; by default the
        first.
    dev : str or Path, optional
        Trace file of the development set, to choose criterion and threshold.
    speakers_from_ids : bool
        Take what stands before the first hyphen of an utterance's name for
        its speaker, where a trace names none.

    Returns
    -------
    str
        The text to show.

    Raises
    ------
    InputError
        If a trace or a policy is malformed, they do not fit, the folder
        cannot be written, or a domain is named for no study or not there.
    """
    if in_domain is not None and not overthinking:
        raise InputError(
            f"--in-domain {in_domain!r}: only the study of overthinking has a "
            f"domain; add --overthinking, or leave it out."
        )
    read = [read_trace(path) for path in traces]
    title = ", ".join(dict.fromkeys(trace.header.name for trace in read))
    if dev is not None:
        read.append(read_trace(dev))
    if speakers_from_ids:
        read = [trace.with_speakers_from_ids() for trace in read]
    given = [read_policy(path) for path in policies]
    for path, policy in zip(policies, given, strict=True):
        read = scored_for(read, Path(path), policy)
    chosen_on = read.pop() if dev is not None else None
    report = write_report(
        read,
        out,
        title,
        policies=given,
        decoded=by_decoding(read),
        overthinking=overthinking,
        in_domain=in_domain,
        dev=chosen_on,
    )
    if as_json:
        return json.dumps(report.data, indent=1)
    return f"{console_tables(report)}\n\nReport: {report.folder}"


def _notes(
    traces: Sequence[Trace], unlabelled: Sequence[Row]
) -> dict[str, str]:
    """What a reader should know of the unit of errors, and of other sets."""
    notes: dict[str, str] = {}
    if any(trace.header.error_unit == "character" for trace in traces):
        notes["WER"] = "is the character error rate: error_unit is character"
    for row in unlabelled:
        name = f"{row['set']}: no transcripts, {row['utterances']} utterances"
        chosen = f"{row['choice']} {row['layers']:.2f} layers"
        notes[name] = f"{notes[name]}, {chosen}" if name in notes else chosen
    return notes


def _decoding_files(
    ways: Mapping[str, DecodingComparison],
) -> dict[str, str | bytes]:
    if not ways:
        return {}
    figure = draw_decodings(list(ways.values()))
    return {
        "decodings.csv": _csv(decoding_rows(w) for w in ways.values()),
        "decodings.png": figure_bytes(figure, "png"),
    }


def _overthinking_files(
    study: OverthinkingStudy | None,
) -> dict[str, str | bytes]:
    if study is None:
        return {}
    figure = draw_overthinking(study)
    return {
        "overthinking.csv": to_csv(overthinking_rows(study)),
        "overthinking_thresholds.csv": to_csv(threshold_rows(study)),
        "overthinking.png": figure_bytes(figure, "png"),
    }


def _csv(rows_by_set: Any) -> str:
    return to_csv(row for rows in rows_by_set for row in rows)


def _write_files(folder: Path, files: Mapping[str, str | bytes]) -> None:
    for name, content in files.items():
        with whole_file(folder / name) as stream:
            stream.write(
                content if isinstance(content, bytes) else content.encode()
            )
