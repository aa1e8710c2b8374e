"""The report as one page: no script, no external resource.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from speechbrain_ee.evaluation.analysis import SetAnalysis
from speechbrain_ee.evaluation.examples import Example
from speechbrain_ee.evaluation.figures import draw_panel, figure_bytes
from speechbrain_ee.evaluation.tables import (
    criterion_table,
    exit_table,
    label,
    overview_table,
    summary,
)
from speechbrain_ee.evaluation.theme import (
    INK,
    ORACLE,
    PALE,
    STYLESHEET,
    for_page,
    look,
    page_colour,
)
from speechbrain_ee.exits.scoring import mark_errors


def page(
    title: str,
    analyses: Mapping[str, SetAnalysis],
    extra: Mapping[str, Any],
) -> str:
    """The whole page.

    Arguments
    ---------
    title : str
        Title of the report.
    analyses : mapping of str to SetAnalysis
        The test sets.
    extra : mapping
        Further facts, shown at the end.

    Returns
    -------
    str
        HTML.
    """
    sets = "".join(_section(analysis) for analysis in analyses.values())
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLESHEET}</style></head>"
        f"<body><h1>{escape(title)}</h1>{_models(analyses)}"
        f"{_overview(analyses.values())}{_figures(analyses.values())}"
        f"{sets}{_extra(extra)}</body></html>\n"
    )


def _models(analyses: Mapping[str, SetAnalysis]) -> str:
    headers = dict.fromkeys(a.trace.header for a in analyses.values())
    lines = [
        f"{escape(h.name)}: {len(h.exit_layers)} exits after encoder layers "
        f"{', '.join(map(str, h.exit_layers))}; decoding: "
        f"{escape(h.decoding)}."
        for h in headers
    ]
    return "".join(f'<p class="soft">{line}</p>' for line in lines)


def _overview(analyses: Iterable[SetAnalysis]) -> str:
    return (
        f"<h3>What keeping the last exit's word error rate needs</h3>"
        f"<div class=wrap>{_table(overview_table(list(analyses)))}</div>"
        f'<p class="soft">Averages per utterance. The thresholds of the '
        f"criteria were chosen on the set they are shown for, so a policy "
        f"calibrated on other data will do somewhat worse. The oracle knows "
        f"the errors.</p>"
    )


def _figures(analyses: Iterable[SetAnalysis]) -> str:
    drawn, names = [], {}
    for analysis in analyses:
        names |= dict.fromkeys(analysis.criteria)
        axes = ["avg_layer"]
        if analysis.trace.macs_NE is not None:
            axes.append("avg_macs")
        for axis in axes:
            figure = draw_panel(analysis, axis)
            svg = figure_bytes(figure, "svg").decode()
            drawn.append(
                f"<figure><figcaption>{escape(analysis.key)}</figcaption>"
                f"{for_page(svg, f'f{len(drawn)}')}</figure>"
            )
    return (
        f"{_keys(names)}<div class=panels>{''.join(drawn)}</div>"
        f'<p class="soft">Word error rate against compute. Choosing at random '
        f"between two fixed exits gives the grey line without looking at the "
        f"utterance: a criterion is worth what lies between that line and "
        f"the oracle. Diamonds mark the cheapest point that is no worse than "
        f"the last exit.</p>"
    )


def _keys(names: Iterable[str]) -> str:
    """The legend of all panels."""
    line = '<line x1="0" y1="5" x2="30" y2="5" stroke="{}" {}/>'
    looks = {"mixture": (PALE, ())}
    looks |= {name: look(name) for name in names}
    looks["oracle"] = (ORACLE, ())
    entries = {}
    for name, (colour, dashes) in looks.items():
        lengths = " ".join(f"{2 * length:g}" for length in dashes)
        entries[label(name)] = line.format(
            colour, f'stroke-width="2" stroke-dasharray="{lengths}"'
        )
    entries["fixed exit after layer L"] = (
        f'<circle cx="15" cy="5" r="3.5" fill="{INK}"/>'
    )
    entries["last exit's WER kept"] = (
        f'<path d="M15 .5 19.5 5 15 9.5 10.5 5z" fill="none" '
        f'stroke="{INK}" stroke-width="1.5"/>'
    )
    spans = ""
    for name, sign in entries.items():
        drawing = for_page(f'<svg viewBox="0 0 30 10">{sign}</svg>', "k")
        spans += f"<span>{drawing}{escape(name)}</span>"
    return f"<div class=keys>{spans}</div>"


def _section(analysis: SetAnalysis) -> str:
    text = " ".join(summary(analysis))
    return (
        f"<h2>{escape(analysis.key)}</h2>"
        f'<p class="soft">{len(analysis.trace):,} utterances, '
        f"{analysis.words:,} words</p><p>{escape(text)}</p>"
        f"<div class=side><div><h3>Every exit</h3>"
        f"{_table(exit_table(analysis))}</div>"
        f"<div><h3>Choosing the exit per utterance</h3>"
        f"{_table(criterion_table(analysis))}</div></div>"
        f"{_histogram(analysis)}{_examples(analysis.examples)}"
    )


def _table(table: Sequence[Sequence[str]]) -> str:
    """A table; headings "a: b", "c" become "a" above "b" and "c"."""
    groups: list[list] = []
    first = set()
    for place, cell in enumerate(table[0]):
        group, colon, _ = cell.rpartition(": ")
        if colon or not groups:
            first.add(place)
            groups.append([group, 0])
        groups[-1][1] += 1
    heading = "".join(
        f"<th{_indent(place, first)}>{escape(cell.rpartition(': ')[2])}</th>"
        for place, cell in enumerate(table[0])
    )
    rows = "".join(
        "<tr>"
        + "".join(
            f"<td{_indent(place, first)}>{escape(cell) or '–'}</td>"
            for place, cell in enumerate(row)
        )
        + "</tr>"
        for row in table[1:]
    )
    above = ""
    if len(groups) > 1:
        above = "".join(
            f'<th class="group" colspan={span}>{escape(name)}</th>'
            for name, span in groups
        )
        above = f"<tr>{above}</tr>"
    return (
        f'<div class="scroll"><table><thead>{above}<tr>{heading}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _indent(place: int, first: set[int]) -> str:
    return " class=first" if place and place in first else ""


def _histogram(analysis: SetAnalysis) -> str:
    columns = [("oracle (earliest best exit)", ORACLE, analysis.oracle_shares)]
    best = analysis.best_criterion()
    if best is not None and best.exit_shares is not None:
        colour, _ = look(best.name)
        columns.insert(0, (label(best.name), colour, best.exit_shares))
    heading = "".join(f"<th colspan=2>{escape(c[0])}</th>" for c in columns)
    rows = ""
    for column, layer in enumerate(analysis.trace.header.exit_layers):
        rows += f"<tr><td>layer {layer}</td>"
        for _, colour, values in columns:
            percent = 100 * values[column]
            bar = f"width:{percent:.1f}%;background:{page_colour(colour)}"
            rows += (
                f"<td class=count>{percent:.1f} %</td>"
                f'<td class=bar><span style="{bar}"></span></td>'
            )
        rows += "</tr>"
    return (
        f"<h3>Where utterances stop when the last exit's word error rate is "
        f'kept</h3><div class="scroll"><table class="bars"><thead><tr><th>'
        f"</th>{heading}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _examples(examples: Sequence[Example]) -> str:
    headings = {
        "overthinking": "Overthinking: an earlier exit was right",
        "typical": "Typical utterances",
    }
    blocks = ""
    for kind, heading in headings.items():
        chosen = [e for e in examples if e.kind == kind]
        if chosen:
            blocks += f"<h3>{heading}</h3>" + "".join(map(_example, chosen))
    return blocks


def _example(example: Example) -> str:
    record = example.record
    rows = (
        f"<tr><td class=count>reference</td><td>{escape(record.ref)}</td></tr>"
    )
    for exit_, errors in zip(record.exits, example.errors, strict=True):
        rows += (
            f"<tr><td class=count>layer {exit_.layer} · {errors} "
            f"error{'' if errors == 1 else 's'}</td>"
            f"<td>{_marked(record.ref, exit_.hyp or '')}</td></tr>"
        )
    return (
        f"<div class=utterance><div class=soft>{escape(record.id)}</div>"
        f"<table>{rows}</table></div>"
    )


def _marked(ref: str, hyp: str) -> str:
    wraps = {
        "equal": "{}",
        "substitute": "<mark>{}</mark>",
        "insert": "<mark>{}</mark>",
        "delete": "<del>{}</del>",
    }
    return " ".join(
        wraps[kind].format(escape(words))
        for kind, words in mark_errors(ref, hyp)
    )


def _extra(extra: Mapping[str, Any]) -> str:
    if not extra:
        return ""
    rows = "".join(
        f"<tr><td>{escape(str(name))}</td><td>{escape(str(value))}</td></tr>"
        for name, value in extra.items()
    )
    return f"<h2>Run</h2><div class=scroll><table>{rows}</table></div>"
