"""The part of the page that is about one test set.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from html import escape

from speechbrain_ee.evaluation.analysis import SetAnalysis
from speechbrain_ee.evaluation.examples import Example
from speechbrain_ee.evaluation.families import search_note
from speechbrain_ee.evaluation.labels import decoding_said
from speechbrain_ee.evaluation.markup import (
    DASH,
    bar,
    chip,
    grouped,
    marked,
    named,
    soft,
    table,
)
from speechbrain_ee.evaluation.operating_point import LEVELS
from speechbrain_ee.evaluation.policy_result import PolicyResult
from speechbrain_ee.evaluation.result import Result
from speechbrain_ee.evaluation.tables import (
    exit_table,
    giga,
    label,
    summary,
)
from speechbrain_ee.evaluation.theme import INK, ORACLE, PALE, look

_GAP_LEVELS = ("equal_wer", "plus_5")


def section(analysis: SetAnalysis, leading: Sequence[str] = ()) -> str:
    """All about one test set.

    Arguments
    ---------
    analysis : SetAnalysis
        The test set.
    leading : sequence of str
        Criteria whose rows stand out.

    Returns
    -------
    str
    """
    text = " ".join(summary(analysis))
    return (
        f"<h2>{escape(analysis.key)}</h2>"
        f'<p class="soft">{len(analysis.trace):,} utterances, '
        f"{analysis.words:,} words"
        f"{escape(decoding_said(analysis.trace.header))}</p>"
        f"<p>{escape(text)}</p>"
        f"<h3>Every exit</h3>{table(exit_table(analysis))}{_decoded(analysis)}"
        f"{_criteria(analysis, leading)}{_policies(analysis)}"
        f"{_stops(analysis)}{_difficulty(analysis)}"
        f"{_overthinking(analysis)}{_typical(analysis)}"
    )


def _criteria(analysis: SetAnalysis, leading: Sequence[str]) -> str:
    results = list(analysis.results())
    with_macs = analysis.trace.macs_NE is not None
    heading = ["exit chosen by"]
    heading += ["layers at WER: equal", "+1 %", "+5 %", "+10 %"]
    if with_macs:
        heading += ["GMAC at: equal", "+5 %"]
    if analysis.criteria:
        heading += ["gap closed: equal", "+5 %"]
    rows = [_criterion(analysis, r, with_macs) for r in results]
    classes = ["lead" if r.name in leading else "" for r in results]
    return (
        f"<h3>Choosing the exit per utterance</h3>"
        f"<div class=gaps>{grouped(heading, rows, classes)}</div>"
        f'<p class="soft">Average layers that each needs for at most so many '
        f"errors, relative to the last exit; in small print the 95 % interval "
        f"of 200 bootstrap replicates of the test set. The gap is the one "
        f"between the mix of two fixed exits (0 %) and the oracle (100 %). "
        f"In bold what the figure shows in front. "
        f"{escape(search_note(analysis))}</p>"
    )


def _decoded(analysis: SetAnalysis) -> str:
    """What the costs in the table of exits hold, where there are two."""
    if analysis.trace.decoding_macs_NE is None:
        return ""
    return (
        '<p class="soft">Without decoding: front-end, encoder and CTC heads '
        "up to the exit. With it: average per utterance, decoded at that "
        "exit alone.</p>"
    )


def _criterion(
    analysis: SetAnalysis, result: Result, with_macs: bool
) -> list[str]:
    cells = [named(result.name)]
    for level in LEVELS:
        point = result.points[level]
        cell = DASH if point is None else f"{point.avg_layer:.2f}"
        ends = result.layer_intervals.get(level)
        # a fixed exit is a whole number of layers, an interval of it too
        known = ends and point is not None and result.name != "fixed"
        cell += soft(f"{ends[0]:.1f}–{ends[1]:.1f}" if known else "")
        cells.append(cell)
    full = analysis.fixed.curve.points[-1].avg_macs
    if with_macs:
        points = [result.points[level] for level in _GAP_LEVELS]
        cells += [giga(p and p.avg_macs, full) or DASH for p in points]
    if analysis.criteria:
        cells += [_gap(result, level) for level in _GAP_LEVELS]
    return cells


def _gap(result: Result, level: str) -> str:
    share = result.gap_shares.get(level)
    if share is None:
        return ""
    percent = f"{100 * share:.0f} %".replace("-", "−")
    return percent + bar(share, look(result.name)[0])


def _policies(analysis: SetAnalysis) -> str:
    if not analysis.policies:
        return ""
    heading = ["policy", "decides by", "calibrated for", "holds here"]
    heading += ["WER %", "above the last exit", "layers"]
    with_macs = analysis.trace.macs_NE is not None
    heading += ["GMAC"] if with_macs else []
    rows = [_policy(analysis, p, with_macs) for p in analysis.policies]
    warnings = "".join(
        f"<li><b>{escape(policy.name)}</b>: {escape(text)}</li>"
        for policy in analysis.policies
        for text in policy.warnings
    )
    if warnings:
        warnings = (
            f"<p class=warn>What a policy guarantees may not hold here, or "
            f"is not tested here:</p>"
            f"<ul class=warn>{warnings}</ul>"
        )
    return f"<h3>Given policies</h3>{grouped(heading, rows)}{warnings}"


def _policy(
    analysis: SetAnalysis, policy: PolicyResult, with_macs: bool
) -> list[str]:
    full = analysis.fixed.curve.points[-1].avg_macs
    excess = DASH
    if policy.excess is not None:
        excess = f"{policy.excess:+.1f} %".replace("-", "−")
    cells = [
        escape(policy.name),
        named(policy.criterion),
        escape(policy.budget or "") or DASH,
        policy.verdict.replace("no", "<mark>no</mark>") or DASH,
        f"{policy.point.wer:.2f}",
        excess,
        f"{policy.point.avg_layer:.2f}",
    ]
    return cells + [giga(policy.point.avg_macs, full)] * with_macs


def _stops(analysis: SetAnalysis) -> str:
    """Where utterances stop: the best criterion beside the oracle."""
    columns = [("oracle (earliest best exit)", ORACLE, analysis.oracle_shares)]
    best = analysis.best_criterion()
    if best is not None and best.exit_shares is not None:
        colour, _ = look(best.name)
        name = f"{label(best.name)}, last exit's WER kept"
        columns.insert(0, (name, colour, best.exit_shares))
    for policy in analysis.policies:
        colour, _ = look(policy.criterion)
        name = f"policy {policy.name}"
        columns.insert(-1, (name, colour, policy.exit_shares))
    heading = "".join(
        f"<th colspan=2>{chip(colour)}{escape(name)}</th>"
        for name, colour, _ in columns
    )
    rows = ""
    for column, layer in enumerate(analysis.trace.header.exit_layers):
        rows += f"<tr><td>layer {layer}</td>"
        for _, colour, shares in columns:
            rows += (
                f"<td class=count>{100 * shares[column]:.1f} %</td>"
                f"<td class=bar>{bar(shares[column], colour)}</td>"
            )
        rows += "</tr>"
    return (
        f"<h3>Where utterances stop</h3><div class=scroll><table class=bars><thead><tr><th></th>"
        f"{heading}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _difficulty(analysis: SetAnalysis) -> str:
    best = analysis.best_criterion()
    found = analysis.difficulty(best) if best is not None else None
    if best is None or found is None:
        return ""
    colour, _ = look(best.name)
    heading = "".join(
        f"<th colspan=2>{name} {soft(f'{count:,} utterances')}</th>"
        for name, count in zip(found.names, found.counts, strict=True)
    )
    groups = range(len(found.names))
    rows = ""
    for column, layer in enumerate(analysis.trace.header.exit_layers):
        rows += f"<tr><td>layer {layer}</td>"
        for g in groups:
            mine, ideal = (
                found.shares[g][column],
                found.oracle_shares[g][column],
            )
            rows += (
                f"<td class=count>{100 * mine:.0f} "
                f"{soft(f'/ {100 * ideal:.0f} %')}</td><td class='bar thin'>"
                f"{bar(mine, colour)}{bar(ideal, ORACLE)}</td>"
            )
        rows += "</tr>"
    rows += "<tr><td>average layer</td>"
    for g in groups:
        ideal = soft(f"/ {found.oracle_avg_layer[g]:.2f}")
        rows += (
            f"<td class=count>{found.avg_layer[g]:.2f} {ideal}</td><td></td>"
        )
    return (
        f"<h3>The same by difficulty</h3><p class=soft>{chip(colour)}"
        f"{escape(label(best.name))} / {chip(ORACLE)}oracle. Thirds of the "
        f"utterances by word errors per word, averaged over the exits; "
        f"utterances of equal rate are of equal difficulty.</p>"
        f"<div class=scroll><table class=bars><thead><tr><th></th>{heading}"
        f"</tr></thead><tbody>{rows}</tr></tbody></table></div>"
    )


def _overthinking(analysis: SetAnalysis) -> str:
    errors = analysis.overthinking_errors
    if not errors:
        return ""
    last = int(analysis.trace.errors_NE[:, -1].sum())
    shares = (
        ("utterances with a better earlier exit", analysis.overthinking_share),
        ("errors of the last exit that it avoids", errors / last),
    )
    rows = "".join(
        f"<tr><td>{escape(text)}</td><td class=count>{100 * share:.1f} %</td>"
        f"<td class=bar>{bar(share, INK)}</td></tr>"
        for text, share in shares
    )
    points = 100 * errors / analysis.words
    return (
        f"<h3>Overthinking: an earlier exit was right</h3>"
        f"<table class=bars><tbody>{rows}</tbody></table>"
        f"<p class=soft>{errors:,} of {last:,} word errors, {points:.2f} of "
        f"{analysis.wer[-1]:.2f} % word error rate, would not be there had "
        f"every utterance stopped at its earliest best exit.</p>"
        f"{_examples(analysis.examples, 'overthinking')}"
    )


def _typical(analysis: SetAnalysis) -> str:
    blocks = _examples(analysis.examples, "typical")
    return f"<h3>Typical utterances</h3>{blocks}" if blocks else ""


def _examples(examples: Sequence[Example], kind: str) -> str:
    return "".join(_example(e) for e in examples if e.kind == kind)


def _example(example: Example) -> str:
    record = example.record
    rows = (
        f"<tr><td class=count>reference</td><td>{escape(record.ref)}</td></tr>"
    )
    fewest = min(example.errors)
    for exit_, errors in zip(record.exits, example.errors, strict=True):
        colour = ORACLE if errors == fewest else PALE
        rows += (
            f"<tr><td class=count>{chip(colour)}layer {exit_.layer} · {errors} "
            f"error{'' if errors == 1 else 's'}</td>"
            f"<td>{marked(record.ref, exit_.hyp or '')}</td></tr>"
        )
    return (
        f"<div class=utterance><div class=soft>{escape(record.id)}</div>"
        f"<table>{rows}</table></div>"
    )
