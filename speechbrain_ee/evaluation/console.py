"""A report as plain text, for the console.

Authors
 * The speechbrain-ee contributors 2026
"""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from speechbrain_ee.evaluation.analyses import criteria_note
from speechbrain_ee.evaluation.analysis import SetAnalysis
from speechbrain_ee.evaluation.decodings import (
    decoding_note,
    decoding_table,
)
from speechbrain_ee.evaluation.examples import Example
from speechbrain_ee.evaluation.families import search_note
from speechbrain_ee.evaluation.labels import decoding_said
from speechbrain_ee.evaluation.overthinking import OverthinkingStudy
from speechbrain_ee.evaluation.overthinking_summary import (
    CARRIED_NOTE,
    EXITS_NOTE,
    GROUPS_NOTE,
    overthinking_note,
    shift_note,
)
from speechbrain_ee.evaluation.overthinking_tables import (
    carried_table,
    exit_comparison_table,
    fixed_table,
    group_table,
    set_table,
)
from speechbrain_ee.evaluation.policies import DEFAULT
from speechbrain_ee.evaluation.tables import (
    criterion_table,
    exit_table,
    policy_table,
    summary,
    unlabelled_table,
)

if TYPE_CHECKING:
    from speechbrain_ee.evaluation.report import Report

WIDTH = 100  # columns of a console
_EXAMPLES = 2  # of overthinking, per set
_LONGEST_KEY = 16  # name of a set in a table of overthinking


def console_tables(report: "Report") -> str:
    """All tables as aligned plain text.

    Arguments
    ---------
    report : Report
        What :func:`~speechbrain_ee.evaluation.report.write_report` returns.

    Returns
    -------
    str
        At most 100 columns wide.
    """
    blocks = []
    for analysis in report.sets.values():
        blocks += [
            f"{analysis.key}: {len(analysis.trace)} utterances, "
            f"{analysis.words} {analysis.trace.header.error_unit}s"
            f"{_unit_note(analysis)}{decoding_said(analysis.trace.header)}",
            aligned(exit_table(analysis)),
            aligned(criterion_table(analysis)),
        ]
        blocks.append(_filled(criteria_note(analysis.trace)))
        if note := search_note(analysis):
            blocks.append(_filled(note))
        if analysis.policies:
            blocks += [aligned(policy_table(analysis)), *_warnings(analysis)]
        blocks.append("\n".join(_filled(s) for s in summary(analysis)))
        chosen = [e for e in analysis.examples if e.kind == "overthinking"]
        blocks += [_example(example) for example in chosen[:_EXAMPLES]]
    if default := report.data["extra"].get(DEFAULT):
        blocks.append(_filled(f"{DEFAULT}: {default}"))
    if report.unlabelled:
        blocks.append(aligned(unlabelled_table(report.unlabelled)))
    for comparison in report.decodings.values():
        blocks += [
            f"{comparison.key}: ways of decoding",
            aligned(decoding_table(comparison)),
        ]
        if note := decoding_note(comparison):
            blocks.append(_filled(note))
    if report.overthinking is not None:
        blocks += _overthinking(report.overthinking)
    return "\n\n".join(blocks)


def _unit_note(analysis: SetAnalysis) -> str:
    by_word = analysis.trace.header.error_unit == "word"
    return "" if by_word else " (WER: errors in 100 characters)"


def aligned(table: Sequence[Sequence[str]]) -> str:
    """A table as text: first column to the left, the others to the right.

    Arguments
    ---------
    table : sequence of sequence of str
        The first row is the heading; of "a: b", "c" in it, "a" is put above
        "b" and "c".

    Returns
    -------
    str

    Example
    -------
    >>> print(aligned([["exit", "WER: clean", "other"], ["1", "2.50", "7"]]))
              WER
    exit  clean  other
    ----  -----  -----
    1      2.50      7
    """
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


def _overthinking(study: OverthinkingStudy) -> list[str]:
    """The study as tables and sentences."""
    blocks = [_filled(f"Overthinking; in domain: {study.in_domain}")]
    tables = [set_table(study), fixed_table(study)]
    if max(map(len, study.sets)) > _LONGEST_KEY:
        # numbers take the place of names that would make lines too long
        names = [f"{place}: {key}" for place, key in enumerate(study.sets, 1)]
        blocks.append("\n".join(map(_filled, names)))
        for table in tables:
            for place, row in enumerate(table[1:], 1):
                row[0] = str(place)
    blocks += map(aligned, tables)
    for each in study.sets.values():
        blocks += [
            _filled(f"Overthinking on {each.key}"),
            _filled(overthinking_note(study, each.key)),
            f"{aligned(exit_comparison_table(each))}\n{EXITS_NOTE}",
            aligned(group_table(each)),
        ]
        if each.key != study.in_domain and each.carried:
            blocks += [
                _filled(f"Thresholds of {study.in_domain} on {each.key}"),
                aligned(carried_table(each)),
            ]
        if note := shift_note(study, each.key):
            blocks.append(_filled(note))
    notes = [GROUPS_NOTE]
    if any(each.carried for each in study.others):
        notes.append(CARRIED_NOTE)
    return [*blocks, *map(_filled, notes)]


def _warnings(analysis: SetAnalysis) -> list[str]:
    """What many policies share is said once."""
    names: dict[str, list[str]] = {}
    for policy in analysis.policies:
        for warning in policy.warnings:
            names.setdefault(warning, []).append(policy.name)
    return [
        _filled(f"Policy {'; '.join(of)}: {warning}")
        for warning, of in names.items()
    ]


def _example(example: Example) -> str:
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
        lines.append(_filled(text, head.ljust(margin), " " * margin))
    return "\n".join(lines)


def _filled(text: str, first: str = "", later: str = "") -> str:
    """A paragraph; the heads of its lines are kept if there is no text."""
    filled = textwrap.fill(
        text, WIDTH, initial_indent=first, subsequent_indent=later
    )
    return filled or first.rstrip()
