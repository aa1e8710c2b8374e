"""The report as one page: no script, no external resource.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from speechbrain_ee.evaluation.analysis import SetAnalysis
from speechbrain_ee.evaluation.decodings import (
    DecodingComparison,
    decoding_note,
    decoding_table,
)
from speechbrain_ee.evaluation.families import (
    Leaders,
    leaders,
    needs_search,
)
from speechbrain_ee.evaluation.figures import aspects, draw_panel, figure_bytes
from speechbrain_ee.evaluation.labels import policy_letter
from speechbrain_ee.evaluation.markup import DASH, grouped, named, soft, table
from speechbrain_ee.evaluation.overthinking import OverthinkingStudy
from speechbrain_ee.evaluation.overthinking_page import overthinking_section
from speechbrain_ee.evaluation.panel import FIXED_LABEL
from speechbrain_ee.evaluation.sections import section
from speechbrain_ee.evaluation.stylesheet import STYLESHEET
from speechbrain_ee.evaluation.tables import label, overview_table
from speechbrain_ee.evaluation.theme import (
    FAMILIES,
    INK,
    ORACLE,
    PALE,
    family,
    for_page,
    look,
)
from speechbrain_ee.evaluation.transfer import TransferCell, TransferMatrix

BUDGET = 5.0  # percent; that of the transfer's thresholds


def page(
    title: str,
    analyses: Mapping[str, SetAnalysis],
    extra: Mapping[str, Any],
    transfer: Mapping[str, TransferMatrix],
    decodings: Mapping[str, DecodingComparison] | None = None,
    overthinking: OverthinkingStudy | None = None,
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
    transfer : mapping of str to TransferMatrix
        By criterion.
    decodings : mapping of str to DecodingComparison, optional
        The test sets that were decoded in several ways.
    overthinking : OverthinkingStudy, optional
        The study, if asked for.

    Returns
    -------
    str
        HTML.
    """
    found = list(analyses.values())
    leading = leaders(found)
    in_front = dict.fromkeys(n for names in leading.values() for n in names)
    sets = "".join(section(a, leading[a.key]) for a in found)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLESHEET}</style></head>"
        f"<body><h1>{escape(title)}</h1>{_models(analyses)}"
        f"{_overview(found)}{_decodings(decodings or {})}"
        f"{_figures(found, leading)}"
        f"{sets}{_transfer(transfer, in_front)}"
        f"{overthinking_section(overthinking)}{_run(extra)}</body></html>\n"
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


def _overview(analyses: Sequence[SetAnalysis]) -> str:
    return (
        f"<h3>What keeping the last exit's word error rate needs</h3>"
        f"<div class=wrap>{table(overview_table(analyses))}</div>"
        f'<p class="soft">Averages per utterance. The thresholds of the '
        f"criteria were chosen on the set they are shown for, so a policy "
        f"calibrated on other data will do somewhat worse. The oracle knows "
        f"the errors.{_costs(analyses)}</p>"
    )


def _costs(analyses: Sequence[SetAnalysis]) -> str:
    """What the overview's costs hold beyond the encoder."""
    text = ""
    if any(a.trace.decoding_macs_NE is not None for a in analyses):
        text += " GMAC include decoding."
    best = [found for a in analyses if (found := a.best_criterion())]
    names = {label(each.name) for each in best if needs_search(each.name)}
    if names:
        text += (
            f" The cheapest criterion is that of the fewest layers; "
            f"{' and '.join(sorted(names))} also takes decoding at every exit "
            f"passed, which layers do not count."
        )
    return escape(text)


def _decodings(comparisons: Mapping[str, DecodingComparison]) -> str:
    return "".join(
        f"<h3>Ways of decoding: {escape(key)}</h3>{_ways(comparison)}"
        f'<p class="soft">In bold the best of every exit. '
        f"{escape(decoding_note(comparison))}</p>"
        for key, comparison in comparisons.items()
    )


def _ways(comparison: DecodingComparison) -> str:
    heading, *texts = decoding_table(comparison)
    rows = [[escape(cell) for cell in row] for row in texts]
    for column in range(len(comparison.exit_layers)):
        # ties by value, not by how they are rounded
        least = comparison.best(column)
        for place, result in enumerate(comparison.results, start=2):
            if result.wer_E[column] == least:
                rows[column][place] = f"<b>{rows[column][place]}</b>"
    return grouped(heading, rows)


def _figures(analyses: Sequence[SetAnalysis], leading: Leaders) -> str:
    drawn, count = "", 0
    for analysis in analyses:
        for row in aspects(analysis, leading[analysis.key]):
            pair = ""
            for aspect in row:
                svg = figure_bytes(draw_panel(analysis, aspect), "svg")
                pair += for_page(svg.decode(), f"f{count}")
                count += 1
            caption = escape(analysis.key)
            if len(row) > 1:
                caption += soft(" – on the right close to the last exit")
            drawn += (
                f"<figure><figcaption>{caption}</figcaption>"
                f"<div class=pair>{pair}</div></figure>"
            )
    return (
        f"{_keys(analyses, leading)}<div class=panels>{drawn}</div>"
        f'<p class="soft">Word error rate against compute. Choosing at random '
        f"between two fixed exits gives the grey line without looking at the "
        f"utterance: a criterion is worth what lies between that line and "
        f"the oracle. In front the best criterion of every family (the "
        f"fewest layers, averaged over 0, 1, 5 and 10 % more errors) and the "
        f"cheapest of all at equal word error rate, with what 95 % of 200 "
        f"bootstrap replicates of the test set give; behind them, pale, the "
        f"others. Diamonds mark the cheapest point that is no worse "
        f"than the last exit.{_beyond(leading)}</p>"
    )


def _beyond(leading: Leaders) -> str:
    """Why lines may leave a panel."""
    if not any(needs_search(n) for names in leading.values() for n in names):
        return ""
    return (
        " Criteria of the attention decoder pay for decoding at every exit "
        "passed; a line that leaves a GMAC panel on the right costs more than "
        "the last exit for every utterance."
    )


def _keys(analyses: Sequence[SetAnalysis], leading: Leaders) -> str:
    """The legend of all panels."""
    names = dict.fromkeys(n for chosen in leading.values() for n in chosen)
    looks = {"mixture": (PALE, ())}
    looks |= {name: look(name) for name in names}
    looks["oracle"] = (ORACLE, ())
    entries = {
        label(name): _sample(colour, dashes)
        for name, (colour, dashes) in looks.items()
    }
    groups = dict.fromkeys(
        family(n) for a in analyses for n in a.criteria if n not in names
    )
    for group in groups:
        colour, _ = FAMILIES[group]
        entries[f"other {group}"] = _sample(colour, (), thin=True)
    entries[FIXED_LABEL] = f'<circle cx="15" cy="5" r="3.5" fill="{INK}"/>'
    entries["last exit's WER kept"] = (
        f'<path d="M15 .5 19.5 5 15 9.5 10.5 5z" fill="none" '
        f'stroke="{INK}" stroke-width="1.5"/>'
    )
    # the same policies on every set that has any
    policies = max((a.policies for a in analyses), key=len)
    for number, policy in enumerate(policies):
        entries[f"policy {policy_letter(number)}: {policy.name}"] = (
            f'<path d="M15 0 16.5 3.6 20 3.8 17.3 6.2 18.2 10 15 8 11.8 10 '
            f'12.7 6.2 10 3.8 13.5 3.6z" fill="{INK}"/>'
        )
    spans = ""
    for name, sign in entries.items():
        drawing = for_page(f'<svg viewBox="0 0 30 10">{sign}</svg>', "k")
        spans += f"<span>{drawing}{escape(name)}</span>"
    return f"<div class=keys>{spans}</div>"


def _sample(colour: str, dashes: tuple[float, ...], thin: bool = False) -> str:
    lengths = " ".join(f"{2 * length:g}" for length in dashes)
    stroke = 'stroke-width="1" stroke-opacity=".5"'
    if not thin:
        stroke = f'stroke-width="2" stroke-dasharray="{lengths}"'
    return f'<line x1="0" y1="5" x2="30" y2="5" stroke="{colour}" {stroke}/>'


def _transfer(
    matrices: Mapping[str, TransferMatrix], leading: Iterable[str]
) -> str:
    chosen = [matrices[name] for name in leading if name in matrices]
    if not chosen:
        return ""
    blocks = "".join(
        f"<div><h3>{named(matrix.criterion)}</h3>{_matrix(matrix)}</div>"
        for matrix in chosen
    )
    return (
        f"<h2>Calibrated on one set, used on another</h2>"
        f'<p class="soft">The threshold is the cheapest that makes at most '
        f"5 % more errors than the last exit on the set of the row. Shown is "
        f"what it does on the set of the column: word error rate above the "
        f"last exit's (relative), and the average layer. Orange where the "
        f"5 % do not hold, blue where there was room left.</p>"
        f"<div class=matrices>{blocks}</div>"
    )


def _matrix(matrix: TransferMatrix) -> str:
    heading = "".join(f"<th>{escape(name)}</th>" for name in matrix.sets)
    rows = ""
    for source in matrix.sets:
        rows += f"<tr><td>{escape(source)}</td>"
        for target in matrix.sets:
            rows += _cell(matrix.cells.get((source, target)))
        rows += "</tr>"
    return (
        f"<div class=scroll><table><thead><tr><th>on ↓ used on →</th>"
        f"{heading}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _cell(cell: TransferCell | None) -> str:
    if cell is None:
        return f"<td>{DASH}</td>"
    layers = soft(f"{cell.avg_layer:.2f} layers")
    if cell.excess is None:
        return f"<td>{cell.wer:.2f} % {layers}</td>"
    over = (cell.excess - BUDGET) / BUDGET
    # translucent, so that it suits light and dark pages
    tint = "213,94,0" if over > 0 else "0,114,178"
    heat = min(abs(over), 1.0) * 0.4
    excess = f"{cell.excess:+.1f}".replace("-", "−")
    return (
        f'<td style="background:rgba({tint},{heat:.2f})">'
        f"{excess} % {layers}</td>"
    )


def _run(extra: Mapping[str, Any]) -> str:
    if not extra:
        return ""
    rows = "".join(
        f"<tr><td>{escape(str(name))}</td><td>{escape(str(value))}</td></tr>"
        for name, value in extra.items()
    )
    return f"<h2>Run</h2><div class=scroll><table>{rows}</table></div>"
