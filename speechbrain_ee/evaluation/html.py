"""The report as one page: no script, no external resource.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from speechbrain_ee.evaluation.analysis import SetAnalysis
from speechbrain_ee.evaluation.examples import Example
from speechbrain_ee.evaluation.figures import INK
from speechbrain_ee.evaluation.tables import (
    criterion_table,
    exit_table,
    label,
    summary,
)
from speechbrain_ee.exits.scoring import mark_errors

_STYLE = """
:root { color-scheme: light dark; --ink: #20242b; --soft: #5d6673;
  --line: #dfe3e8; --back: #fff; --card: #f6f7f9; --accent: #0072b2;
  --bad: #b5330b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ec;
  --soft: #9aa4b2; --line: #343a43; --back: #14171b; --card: #1c2026;
  --accent: #56b4e9; --bad: #ff9a70; } }
body { margin: 0 auto; max-width: 66rem; padding: 2.5rem 1.5rem 4rem;
  background: var(--back); color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.25rem; margin: 3rem 0 .3rem; }
h3 { font-size: 1rem; margin: 1.8rem 0 .5rem; }
p { max-width: 46rem; margin: .4rem 0; }
.soft, figcaption { color: var(--soft); font-size: .92rem; }
figure { margin: 1.5rem 0; color: var(--ink); }
figure svg { width: 100%; height: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem;
  font-variant-numeric: tabular-nums; }
th { font-weight: 600; color: var(--soft); vertical-align: bottom; }
th, td { padding: .3rem .8rem; text-align: right;
  border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
.bars td { text-align: left; }
.bars td.bar { width: 16rem; }
.bar span { display: block; height: .7rem; background: var(--accent);
  border-radius: 2px; }
.utterance { background: var(--card); border-radius: 8px;
  padding: .8rem 1rem; margin: .7rem 0; }
.utterance table { width: 100%; }
.utterance td { text-align: left; vertical-align: top; }
.utterance td.count { white-space: nowrap; color: var(--soft); }
.utterance tr:last-child td { border-bottom: 0; }
mark { background: none; color: var(--bad); font-weight: 600; }
del { color: var(--soft); }
"""


def page(
    title: str,
    analyses: Mapping[str, SetAnalysis],
    svg: str,
    extra: Mapping[str, Any],
) -> str:
    """The whole page.

    Arguments
    ---------
    title : str
        Title of the report.
    analyses : mapping of str to SetAnalysis
        The test sets.
    svg : str
        The figure.
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
        f'<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><h1>{escape(title)}</h1>{_models(analyses)}"
        f"{_figure(svg)}{sets}{_extra(extra)}</body></html>\n"
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


def _figure(svg: str) -> str:
    # the page decides the colour of text, so that it reads on dark, too
    drawing = svg[svg.index("<svg") :].replace(INK, "currentColor")
    return (
        f"<figure>{drawing}<figcaption>Word error rate against compute. Dots "
        f"are fixed exits; the grey line is what a random mix of two fixed "
        f"exits gives; the oracle knows the errors. A criterion is worth what "
        f"lies between these two. Diamonds on the dotted line: the word error "
        f"rate of the last exit is kept.</figcaption></figure>"
    )


def _section(analysis: SetAnalysis) -> str:
    text = " ".join(summary(analysis))
    return (
        f"<h2>{escape(analysis.key)}</h2>"
        f'<p class="soft">{len(analysis.trace):,} utterances, '
        f"{analysis.words:,} words</p><p>{escape(text)}</p>"
        f"<h3>Every exit</h3>{_table(exit_table(analysis))}"
        f"<h3>Choosing the exit per utterance</h3>"
        f"{_table(criterion_table(analysis))}"
        f"{_histogram(analysis)}{_examples(analysis.examples)}"
    )


def _table(table: Sequence[Sequence[str]]) -> str:
    heading = "".join(f"<th>{escape(cell)}</th>" for cell in table[0])
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(c) or '–'}</td>" for c in row) + "</tr>"
        for row in table[1:]
    )
    return (
        f'<div class="scroll"><table><thead><tr>{heading}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _histogram(analysis: SetAnalysis) -> str:
    shares = {"oracle (earliest best)": analysis.oracle_shares}
    best = analysis.best_criterion()
    if best is not None and best.exit_shares is not None:
        shares = {f"{label(best.name)} at equal WER": best.exit_shares} | shares
    heading = "".join(f"<th colspan=2>{escape(name)}</th>" for name in shares)
    rows = ""
    for column, layer in enumerate(analysis.trace.header.exit_layers):
        rows += f"<tr><td>layer {layer}</td>"
        for values in shares.values():
            percent = 100 * values[column]
            rows += (
                f"<td>{percent:.1f} %</td><td class=bar>"
                f'<span style="width:{percent:.1f}%"></span></td>'
            )
        rows += "</tr>"
    return (
        f"<h3>Where utterances stop</h3><div class=scroll>"
        f"<table class=bars><thead><tr><th></th>{heading}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
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
