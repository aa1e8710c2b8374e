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
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.analysis import (
    Example,
    SetAnalysis,
    TransferMatrix,
    analyse_all,
    criteria_note,
    transfer_matrices,
)
from speechbrain_ee.evaluation.curves import Curve, OperatingPoint, Result
from speechbrain_ee.evaluation.decodings import (
    DecodingComparison,
    by_decoding,
    compare_decodings,
    decoding_data,
    decoding_note,
    decoding_rows,
    decoding_table,
)
from speechbrain_ee.evaluation.figures import (
    draw_curves,
    draw_decodings,
    draw_overthinking,
    figure_bytes,
)
from speechbrain_ee.evaluation.overthinking import (
    CARRIED_NOTE,
    EXITS_NOTE,
    GROUPS_NOTE,
    OverthinkingStudy,
    carried_table,
    exit_comparison_table,
    fixed_table,
    group_table,
    overthinking_note,
    overthinking_rows,
    set_table,
    shift_note,
    study_overthinking,
    threshold_rows,
)
from speechbrain_ee.evaluation.page import page
from speechbrain_ee.evaluation.policies import (
    DEFAULT,
    scored_for,
)
from speechbrain_ee.evaluation.tables import (
    Row,
    criterion_rows,
    criterion_table,
    exit_rows,
    exit_table,
    filled,
    policy_table,
    summary,
    to_csv,
    unlabelled_rows,
    unlabelled_table,
)
from speechbrain_ee.evaluation.theme import decoding_said, search_note
from speechbrain_ee.exits.calibration.policy_file import ExitPolicy, read_policy
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
    """A written report."""

    folder: Path  # where it is
    title: str  # its title
    sets: Mapping[str, SetAnalysis]  # the analysis of every test set
    data: Mapping[str, Any]  # what ``report.json`` holds
    # by criterion: thresholds of every set used on every other
    transfer: Mapping[str, TransferMatrix] = field(default_factory=dict)
    # the test sets that were decoded in several ways
    decodings: Mapping[str, DecodingComparison] = field(default_factory=dict)
    overthinking: OverthinkingStudy | None = None  # the study, if asked for
    # what is chosen on the sets without transcripts
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
    if found := list(analyses.values()):
        figure = draw_curves(found)
        files["report.html"] = page(
            title, analyses, facts, transfer, ways, study
        )
        files["exits.csv"] = to_csv(chain(*map(exit_rows, found)))
        files["criteria.csv"] = to_csv(chain(*map(criterion_rows, found)))
        files["curves.png"] = figure_bytes(figure, "png")
        files["curves.pdf"] = figure_bytes(figure, "pdf")
    if compared := list(ways.values()):
        figure = draw_decodings(compared)
        files["decodings.csv"] = to_csv(chain(*map(decoding_rows, compared)))
        files["decodings.png"] = figure_bytes(figure, "png")
    if study is not None:
        figure = draw_overthinking(study)
        files["overthinking.csv"] = to_csv(overthinking_rows(study))
        files["overthinking_thresholds.csv"] = to_csv(threshold_rows(study))
        files["overthinking.png"] = figure_bytes(figure, "png")
    text = json.dumps(data, indent=1, allow_nan=False)
    for name, content in {"report.json": f"{text}\n", **files}.items():
        with whole_file(folder / name) as stream:
            stream.write(
                content if isinstance(content, bytes) else content.encode()
            )
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
    """What a YAML says of the study of overthinking, checked."""
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
    """What ``python -m speechbrain_ee report`` does."""
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
    """All numbers of a report as plain values."""
    data = {
        "schema": SCHEMA,
        "title": title,
        "traces": [asdict(trace.header) for trace in traces],
        "sets": {key: _set_data(a) for key, a in analyses.items()},
        "transfer": {name: _matrix_data(m) for name, m in transfer.items()},
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
        "oracle_best": _point_data(analysis.oracle_best),
        "oracle_no_worse": _point_data(analysis.oracle_no_worse),
        "oracle_exit_shares": list(analysis.oracle_shares),
        "overthinking_share": analysis.overthinking_share,
        "overthinking_errors": analysis.overthinking_errors,
        "fixed": _result_data(analysis.fixed),
        "mixture": _result_data(analysis.mixture),
        "oracle": _result_data(analysis.oracle),
        "criteria": {
            name: _criterion_data(analysis, result)
            for name, result in analysis.criteria.items()
        },
        "policies": [asdict(policy) for policy in analysis.policies],
        "examples": [_example_data(example) for example in analysis.examples],
    } | _chosen(analysis)


def _chosen(analysis: SetAnalysis) -> dict[str, Any]:
    """What thresholds of the development set give here, if there is one."""
    if analysis.dev is None:
        return {}
    levels = {n: [asdict(c) for c in v] for n, v in analysis.carried.items()}
    return {"chosen_on": {"set": analysis.dev.key, **levels}}


def _criterion_data(analysis: SetAnalysis, result: Result) -> dict[str, Any]:
    data = _result_data(result)
    data["gap_shares"] = dict(result.gap_shares)
    data["gap_shares_macs"] = dict(result.gap_shares_macs)
    if result.exit_shares is not None:
        data["exit_shares"] = list(result.exit_shares)
    histogram = analysis.difficulty(result)
    if histogram is not None:
        data["difficulty"] = asdict(histogram)
    return data


def _result_data(result: Result) -> dict[str, Any]:
    data: dict[str, Any] = {
        level: _point_data(point) for level, point in result.points.items()
    }
    data["layer_intervals"] = {
        level: list(ends) for level, ends in result.layer_intervals.items()
    }
    data["curve"] = _curve_data(result.curve)
    return data


def _point_data(point: OperatingPoint | None) -> dict[str, float] | None:
    if point is None:
        return None
    values = asdict(point).items()
    return {name: value for name, value in values if value is not None}


def _curve_data(curve: Curve) -> dict[str, list[float]]:
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


def _matrix_data(matrix: TransferMatrix) -> dict[str, Any]:
    """From set A to set B to what A's threshold does there."""
    data: dict[str, Any] = {}
    for (source, target), cell in matrix.cells.items():
        values = asdict(cell)
        for name in ("criterion", "calibrated_on", "used_on"):
            del values[name]
        data.setdefault(source, {})[target] = values
    return data


def _example_data(example: Example) -> dict[str, Any]:
    return {
        "kind": example.kind,
        "id": example.record.id,
        "ref": example.record.ref,
        "hyps": [exit_.hyp for exit_ in example.record.exits],
        "errors": list(example.errors),
    }


_EXAMPLES = 2  # of overthinking, per set
_LONGEST_KEY = 16  # name of a set in a table of overthinking


def console_tables(report: "Report") -> str:
    """All tables as aligned plain text."""
    blocks = []
    for analysis in report.sets.values():
        blocks += [
            f"{analysis.key}: {len(analysis.trace)} utterances, "
            f"{analysis.words} {analysis.trace.header.error_unit}s"
            f"{_unit_note(analysis)}{decoding_said(analysis.trace.header)}",
            exit_table(analysis).text(),
            criterion_table(analysis).text(),
        ]
        notes = (criteria_note(analysis.trace), search_note(analysis))
        blocks += [filled(note) for note in notes if note]
        if analysis.policies:
            blocks += [
                policy_table(analysis).text(),
                *_warnings_text(analysis),
            ]
        blocks.append("\n".join(filled(s) for s in summary(analysis)))
        chosen = [e for e in analysis.examples if e.kind == "overthinking"]
        blocks += [_example_text(example) for example in chosen[:_EXAMPLES]]
    if default := report.data["extra"].get(DEFAULT):
        blocks.append(filled(f"{DEFAULT}: {default}"))
    if report.unlabelled:
        blocks.append(unlabelled_table(report.unlabelled).text())
    for comparison in report.decodings.values():
        blocks += [
            f"{comparison.key}: ways of decoding",
            decoding_table(comparison).text(),
        ]
        if note := decoding_note(comparison):
            blocks.append(filled(note))
    if report.overthinking is not None:
        blocks += _study_text(report.overthinking)
    return "\n\n".join(blocks)


def _unit_note(analysis: SetAnalysis) -> str:
    by_word = analysis.trace.header.error_unit == "word"
    return "" if by_word else " (WER: errors in 100 characters)"


def _study_text(study: OverthinkingStudy) -> list[str]:
    """The study as tables and sentences."""
    blocks = [filled(f"Overthinking; in domain: {study.in_domain}")]
    tables = [set_table(study), fixed_table(study)]
    if max(map(len, study.sets)) > _LONGEST_KEY:
        # numbers take the place of names that would make lines too long
        names = [f"{place}: {key}" for place, key in enumerate(study.sets, 1)]
        blocks.append("\n".join(map(filled, names)))
        for table in tables:
            for place, row in enumerate(table.rows, 1):
                row[0] = str(place)
    blocks += [table.text() for table in tables]
    for each in study.sets.values():
        blocks += [
            filled(f"Overthinking on {each.key}"),
            filled(overthinking_note(study, each.key)),
            f"{exit_comparison_table(each).text()}\n{EXITS_NOTE}",
            group_table(each).text(),
        ]
        if each.key != study.in_domain and each.carried:
            blocks += [
                filled(f"Thresholds of {study.in_domain} on {each.key}"),
                carried_table(each).text(),
            ]
        if note := shift_note(study, each.key):
            blocks.append(filled(note))
    notes = [GROUPS_NOTE]
    if any(each.carried for each in study.others):
        notes.append(CARRIED_NOTE)
    return [*blocks, *map(filled, notes)]


def _warnings_text(analysis: SetAnalysis) -> list[str]:
    """What many policies share is said once."""
    names: dict[str, list[str]] = {}
    for policy in analysis.policies:
        for warning in policy.warnings:
            names.setdefault(warning, []).append(policy.name)
    return [
        filled(f"Policy {'; '.join(of)}: {warning}")
        for warning, of in names.items()
    ]


def _example_text(example: Example) -> str:
    """An utterance at every exit."""
    record = example.record
    lines = [f"Overthinking in {record.id}:"]
    rows = [("reference", record.ref)]
    for exit_, errors in zip(record.exits, example.errors, strict=True):
        plural = "" if errors == 1 else "s"
        rows.append(
            (f"layer {exit_.layer}, {errors} error{plural}", exit_.hyp or "")
        )
    margin = 2 + max(len(head) for head, _ in rows)
    for head, text in rows:
        lines.append(filled(text, head.ljust(margin), " " * margin))
    return "\n".join(lines)
