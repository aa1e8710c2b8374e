"""The report as one page, from the template ``templates/report.html.j2``.

Nothing is loaded from elsewhere: style sheet, script, drawings and sounds
stand in the page. It reads the same without its script, which only switches
criteria on and off and sorts tables.

Authors
 * The speechbrain-ee contributors 2026
"""

import base64
import csv
import io
import logging
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.markers import MarkerStyle

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.analysis import (
    SetAnalysis,
    TransferCell,
    TransferMatrix,
    criteria_note,
)
from speechbrain_ee.evaluation.curves import LEVELS, REPLICATES, Result, signed
from speechbrain_ee.evaluation.decodings import (
    DecodingComparison,
    decoding_note,
    decoding_table,
)
from speechbrain_ee.evaluation.figures import (
    FIXED_LABEL,
    draw_overthinking,
    draw_panel,
    figure_bytes,
    kept_label,
)
from speechbrain_ee.evaluation.overthinking import (
    CARRIED_NOTE,
    EXITS_NOTE,
    GROUPS_NOTE,
    OverthinkingStudy,
    SetOverthinking,
    carried_table,
    exit_comparison_table,
    fixed_table,
    group_table,
    overthinking_note,
    set_table,
    shift_note,
)
from speechbrain_ee.evaluation.policies import PolicyResult
from speechbrain_ee.evaluation.tables import (
    exit_table,
    giga,
    overview_table,
    summary,
)
from speechbrain_ee.evaluation.theme import (
    COLOURS,
    INK,
    ORACLE,
    PALE,
    Leaders,
    aspects,
    decoding_said,
    for_page,
    label,
    leaders,
    look,
    needs_search,
    page_colour,
    policy_letter,
    policy_marker,
    search_note,
)
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.scoring import mark_errors
from speechbrain_ee.exits.trace import Trace

logger = logging.getLogger(__name__)
TEMPLATES = Path(__file__).parent / "templates"
DASH = "–"
BUDGET = 5.0  # percent; that of the transfer's thresholds
_GAP_LEVELS = ("equal_wer", "plus_5")


@dataclass(frozen=True)
class Grid:
    """A table whose cells are texts or HTML."""

    heading: Sequence[str]  # "a: b", "c" become "a" above "b" and "c"
    rows: Sequence[Sequence[str]]  # cells; what is not Markup is escaped
    # rows that stand out, counted from 0
    leading: frozenset[int] = frozenset()
    # the criterion of every row, where rows are switched with it
    series: Sequence[str] = ()
    sortable: bool = True  # whether a reader may order the rows

    @cached_property
    def firsts(self) -> set[int]:
        """Columns that begin a group, the first of all aside."""
        places = range(1, len(self.heading))
        return {place for place in places if ": " in self.heading[place]}

    @cached_property
    def groups(self) -> list[tuple[str, int]]:
        """Name and number of columns of every group."""
        starts = [0, *sorted(self.firsts)]
        ends = [*starts[1:], len(self.heading)]
        return [
            (self.heading[start].rpartition(": ")[0], end - start)
            for start, end in zip(starts, ends, strict=True)
        ]

    @cached_property
    def names(self) -> list[str]:
        """Names of the columns without those of their groups."""
        return [name.rpartition(": ")[2] for name in self.heading]


@dataclass(frozen=True)
class Key:
    """An entry of the legend; with the name of a criterion, a switch."""

    text: str
    sign: Markup
    name: str = ""
    shown: bool = True


def page(
    title: str,
    analyses: Mapping[str, SetAnalysis],
    extra: Mapping[str, Any],
    transfer: Mapping[str, TransferMatrix],
    decodings: Mapping[str, DecodingComparison] | None = None,
    overthinking: OverthinkingStudy | None = None,
) -> str:
    """The whole page."""
    found = list(analyses.values())
    leading = leaders(found)
    in_front = dict.fromkeys(n for names in leading.values() for n in names)
    dev = next((a.dev.key for a in found if a.dev is not None), "")
    drawing = ""
    if overthinking is not None:
        svg = figure_bytes(draw_overthinking(overthinking), "svg").decode()
        said = "word error rates by exit, overthinking by exit"
        drawing = Markup(for_page(svg, "overthinking", said))
    return _environment().render(
        title=title,
        headers=list(dict.fromkeys(a.trace.header for a in found)),
        sets=[_set(analysis, leading[analysis.key]) for analysis in found],
        overview=of_texts(overview_table(found)),
        chosen_how=_chosen_how(dev),
        costs=_costs(found),
        dev=dev,
        replicates=REPLICATES,
        decodings=list((decodings or {}).values()),
        keys=_keys(found, leading),
        figures=_figures(found, leading),
        beyond=_beyond(found, leading),
        matrices=[transfer[name] for name in in_front if name in transfer],
        study=overthinking,
        study_drawing=drawing,
        extra=extra,
    )


def _environment() -> Any:
    """The template, with what it calls."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {
        "CARRIED_NOTE": CARRIED_NOTE,
        "EXITS_NOTE": EXITS_NOTE,
        "GROUPS_NOTE": GROUPS_NOTE,
        "INK": INK,
        "ORACLE": ORACLE,
        "PALE": PALE,
        "colours": COLOURS,
        "bar": bar,
        "carried_grid": _carried,
        "chip": chip,
        "criteria_note": criteria_note,
        "decoding_note": decoding_note,
        "exit_comparison_table": exit_comparison_table,
        "fixed_table": fixed_table,
        "group_table": group_table,
        "marked": marked,
        "named": named,
        "of_texts": of_texts,
        "overthinking_note": overthinking_note,
        "search_note": search_note,
        "set_table": set_table,
        "shift_note": shift_note,
        "summary": summary,
        "transfer_cell": _transfer_cell,
        "ways": _ways,
    }
    return environment.get_template("report.html.j2")


def of_texts(table: Sequence[Sequence[str]]) -> Grid:
    """A table of texts whose first row is the heading."""
    rows = [[_minus(cell) or DASH for cell in row] for row in table[1:]]
    return Grid(table[0], rows)


def bar(share: float, colour: str) -> Markup:
    """A bar as long as a share of its cell, 0 to 1; what is outside is cut."""
    width = 100 * min(max(share, 0.0), 1.0)
    style = f"width:{width:.1f}%;background:{page_colour(colour)}"
    return Markup('<span style="{}"></span>').format(style)


def named(name: str) -> Markup:
    """A way of choosing exits, with its colour and what it is.

    A criterion's formula and source are shown by a pointer that rests on it.
    """
    text = label(name)
    if name in ("fixed", "mixture"):
        return Markup.escape(text)
    if name == "oracle":
        return chip(ORACLE) + text
    colour = chip(look(name)[0])
    try:
        criterion = get_criterion(name)
    except InputError:  # a policy's own, such as a learned one
        return colour + text
    title = f"{criterion.formula} · {criterion.source}"
    return colour + Markup('<abbr title="{}">{}</abbr>').format(title, text)


def chip(colour: str = INK) -> Markup:
    """A small square of a colour."""
    style = f"background:{page_colour(colour)}"
    return Markup('<i class="chip" style="{}"></i>').format(style)


def soft(text: str) -> Markup:
    """Small print."""
    return Markup('<span class="soft">{}</span>').format(text)


def marked(ref: str, hyp: str) -> Markup:
    """A transcript with its errors marked."""
    wraps = {
        "equal": "{}",
        "substitute": "<mark>{}</mark>",
        "insert": "<mark>{}</mark>",
        "delete": "<del>{}</del>",
    }
    return Markup(" ").join(
        Markup(wraps[kind]).format(words)
        for kind, words in mark_errors(ref, hyp)
    )


def _minus(text: str) -> str:
    """Numbers with a minus sign; hyphens within names stay."""
    return re.sub(r"(?<!\w)-(?=\d)", "−", text)


def _chosen_how(dev: str) -> str:
    """Which data criteria and thresholds were chosen on."""
    if dev:
        return (
            f"Criterion and threshold were chosen on {dev}, where they keep "
            f"the last exit's word error rate at the fewest layers; the test "
            f"sets had no part in the choice. Here the rate may end a little "
            f"above or below."
        )
    return (
        "Criterion and threshold were chosen on the test set that they are "
        "shown for, which flatters them: on other data they will do somewhat "
        "worse. Give the development set's trace (--dev) to choose there and "
        "report here."
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
    return text


def _beyond(analyses: Sequence[SetAnalysis], leading: Leaders) -> str:
    """Why lines may leave a panel."""
    drawn = any(len(aspects(a, leading)) > 1 for a in analyses)
    names = {n for chosen in leading.values() for n in chosen}
    if not drawn or not any(map(needs_search, names)):
        return ""
    return (
        " Criteria of the attention decoder pay for decoding at every exit "
        "passed; a line that leaves a GMAC panel on the right costs more than "
        "the last exit for every utterance."
    )


def _ways(comparison: DecodingComparison) -> Grid:
    heading, *texts = decoding_table(comparison)
    rows: list[list[str]] = [list(row) for row in texts]
    for column in range(len(comparison.exit_layers)):
        # ties by value, not by how they are rounded
        least = comparison.best(column)
        for place, result in enumerate(comparison.results, start=2):
            if result.wer_E[column] == least:
                bold = Markup("<b>{}</b>").format(rows[column][place])
                rows[column][place] = bold
    # its last rows are sums
    return Grid(heading, rows, sortable=False)


def _figures(
    analyses: Sequence[SetAnalysis], leading: Leaders
) -> list[dict[str, Any]]:
    figures, count = [], 0
    for analysis in analyses:
        for row in aspects(analysis, leading):
            drawings = []
            for aspect in row:
                svg = figure_bytes(draw_panel(analysis, aspect), "svg")
                cost = "layers" if aspect.by_layer else "GMAC"
                said = f"{analysis.key}: word error rate against {cost}"
                drawings.append(
                    Markup(for_page(svg.decode(), f"f{count}", said))
                )
                count += 1
            figures.append({"key": analysis.key, "drawings": drawings})
    return figures


def _keys(analyses: Sequence[SetAnalysis], leading: Leaders) -> list[Key]:
    """The legend of all panels, what is drawn at first in front."""
    shown = dict.fromkeys(n for chosen in leading.values() for n in chosen)
    names = dict.fromkeys([*shown, *(n for a in analyses for n in a.criteria)])
    keys = [Key(label(n), _sample(*look(n)), n, n in shown) for n in names]
    keys += [
        Key(label("mixture"), _sample(PALE, ())),
        Key(label("oracle"), _sample(ORACLE, ())),
        Key(
            FIXED_LABEL, _sign(f'<circle cx="15" cy="5" r="3.5" fill="{INK}"/>')
        ),
        Key(kept_label(analyses), _mark("D", "none", 1.5)),
    ]
    # the same policies on every set that has any
    policies = max((a.policies for a in analyses), key=len)
    for number, policy in enumerate(policies):
        text = f"policy {policy_letter(number)}: {policy.name}"
        colour = look(policy.criterion)[0]
        keys.append(Key(text, _mark(policy_marker(number), colour)))
    return keys


def _sample(colour: str, dashes: tuple[float, ...]) -> Markup:
    lengths = " ".join(f"{2 * length:g}" for length in dashes)
    return _sign(
        f'<line x1="0" y1="5" x2="30" y2="5" stroke="{colour}" '
        f'stroke-width="2" stroke-dasharray="{lengths}"/>'
    )


def _mark(marker: str, colour: str, width: float = 0.8) -> Markup:
    """A shape of the figures."""
    style = MarkerStyle(marker)
    outline = style.get_transform().transform_path(style.get_path())
    points = " ".join(
        f"{15 + 9 * x:.1f},{5 - 9 * y:.1f}"
        for x, y in outline.to_polygons(closed_only=False)[0]
    )
    return _sign(
        f'<polygon points="{points}" fill="{colour}" stroke="{INK}" '
        f'stroke-width="{width}"/>'
    )


def _sign(drawing: str) -> Markup:
    svg = f'<svg viewBox="0 0 30 10" aria-hidden="true">{drawing}</svg>'
    return Markup(for_page(svg, "k"))


def _set(analysis: SetAnalysis, leading: Sequence[str]) -> dict[str, Any]:
    """What the page shows of one test set."""
    choice = analysis.choice()
    chosen = choice and analysis.difficulty(choice.result, choice.point)
    ids = [example.record.id for example in analysis.examples]
    return {
        "analysis": analysis,
        "decoding": decoding_said(analysis.trace.header),
        "exits": of_texts(exit_table(analysis)),
        "criteria": _criteria(analysis, leading),
        "policies": _policies(analysis),
        "stops": _stops(analysis),
        "difficulty": chosen,
        "last_errors": int(analysis.trace.errors_NE[:, -1].sum()),
        "sounds": nearby_sounds(analysis.trace, ids),
    }


def _criteria(analysis: SetAnalysis, leading: Sequence[str]) -> Grid:
    results = list(analysis.results())
    heading = ["exit chosen by"]
    if analysis.dev is not None:
        heading += [f"{analysis.dev.key}: WER %", "above last", "layers"]
    heading += ["layers at WER: equal", "+1 %", "+5 %", "+10 %"]
    if analysis.trace.macs_NE is not None:
        heading += ["GMAC at: equal", "+5 %"]
    if analysis.criteria:
        heading += ["gap closed: equal", "+5 %"]
    return Grid(
        heading,
        [_criterion(analysis, result) for result in results],
        frozenset(i for i, r in enumerate(results) if r.name in leading),
        [result.name for result in results],
    )


def _criterion(analysis: SetAnalysis, result: Result) -> list[str]:
    cells: list[str] = [named(result.name)]
    if analysis.dev is not None:
        cells += _from_dev(analysis, result.name)
    for level in LEVELS:
        point = result.points[level]
        cell = DASH if point is None else f"{point.avg_layer:.2f}"
        ends = result.layer_intervals.get(level)
        # a fixed exit is a whole number of layers, an interval of it too
        known = ends and point is not None and result.name != "fixed"
        interval = f"{ends[0]:.1f}–{ends[1]:.1f}" if known else ""
        cells.append(cell + Markup(" ") + soft(interval))
    full = analysis.fixed.curve.points[-1].avg_macs
    if analysis.trace.macs_NE is not None:
        points = [result.points[level] for level in _GAP_LEVELS]
        cells += [giga(p and p.avg_macs, full) or DASH for p in points]
    if analysis.criteria:
        cells += [_gap(result, level) for level in _GAP_LEVELS]
    return cells


def _from_dev(analysis: SetAnalysis, name: str) -> list[str]:
    """What the development set's threshold of a criterion gives here."""
    point = analysis.kept(name) if name in analysis.criteria else None
    if point is None:
        return [DASH, DASH, DASH]
    excess = analysis.excess(point.wer)
    above = (
        DASH if excess is None else f"{_minus(signed(excess, decimals=1))} %"
    )
    return [f"{point.wer:.2f}", above, f"{point.avg_layer:.2f}"]


def _gap(result: Result, level: str) -> Markup:
    share = result.gap_shares.get(level)
    if share is None:
        return Markup("")
    percent = _minus(f"{100 * share:.0f} %")
    return Markup.escape(percent) + bar(share, look(result.name)[0])


def _policies(analysis: SetAnalysis) -> Grid:
    heading = ["policy", "decides by", "calibrated for", "holds here"]
    heading += ["WER %", "above the last exit", "layers"]
    if analysis.trace.macs_NE is not None:
        heading.append("GMAC")
    return Grid(heading, [_policy(analysis, p) for p in analysis.policies])


def _policy(analysis: SetAnalysis, policy: PolicyResult) -> list[str]:
    full = analysis.fixed.curve.points[-1].avg_macs
    excess = DASH
    if policy.excess is not None:
        excess = _minus(f"{policy.excess:+.1f} %")
    said: str | Markup = policy.verdict or DASH
    if policy.holds is False:
        said = Markup("<mark>{}</mark>").format(said)
    cells = [
        policy.name,
        named(policy.criterion),
        policy.budget or DASH,
        said,
        f"{policy.point.wer:.2f}",
        excess,
        f"{policy.point.avg_layer:.2f}",
    ]
    with_macs = analysis.trace.macs_NE is not None
    return cells + [giga(policy.point.avg_macs, full)] * with_macs


def _stops(analysis: SetAnalysis) -> list[dict[str, Any]]:
    """Where utterances stop: the choice and the policies beside the oracle."""
    columns = []
    choice = analysis.choice()
    if choice is not None:
        name = choice.result.name
        how = "last exit's WER kept"
        if choice.chosen_on:
            how = f"threshold of {choice.chosen_on}"
        columns.append(
            (f"{label(name)}, {how}", look(name)[0], analysis.stops(choice))
        )
    columns += [
        (f"policy {p.name}", look(p.criterion)[0], p.exit_shares)
        for p in analysis.policies
    ]
    columns.append(
        ("oracle (earliest best exit)", ORACLE, analysis.oracle_shares)
    )
    keys = ("name", "colour", "shares")
    return [dict(zip(keys, column, strict=True)) for column in columns]


def _transfer_cell(cell: TransferCell | None) -> Markup:
    if cell is None:
        return Markup("<td>{}</td>").format(DASH)
    layers = soft(f"{cell.avg_layer:.2f} layers")
    if cell.excess is None:
        return Markup("<td>{} % {}</td>").format(f"{cell.wer:.2f}", layers)
    over = (cell.excess - BUDGET) / BUDGET
    # translucent, so that it suits light and dark pages
    tint = "213,94,0" if over > 0 else "0,114,178"
    heat = min(abs(over), 1.0) * 0.4
    return Markup('<td style="background:rgba({},{})">{} % {}</td>').format(
        tint, f"{heat:.2f}", _minus(f"{cell.excess:+.1f}"), layers
    )


def _carried(each: SetOverthinking) -> Grid:
    heading, *texts = carried_table(each)
    rows = [
        [named(one.criterion), *(_minus(cell) or DASH for cell in row[1:])]
        for one, row in zip(each.carried, texts, strict=True)
    ]
    broken = [i for i, o in enumerate(each.carried) if o.above_last.positive]
    return Grid(heading, rows, frozenset(broken))


_RATE_HZ = 16000
_LONGEST_S = 30.0  # a page holds a few utterances, not recordings


def nearby_sounds(trace: Trace, ids: Collection[str]) -> dict[str, str]:
    """Utterances as sounds that a page can hold, where their audio is near.

    A run writes its traces into a folder beside the manifest of every test
    set; a trace that was taken elsewhere has no sound.
    """
    paths = _audio_paths(trace, ids)
    if not paths:
        return {}
    # imports torchaudio, which most reports need not wait for
    from speechbrain_ee.data.audio import AudioReader

    sounds, read = {}, AudioReader(_RATE_HZ)
    for name, path in paths.items():
        try:
            samples = read(path).numpy()
            if len(samples) <= _LONGEST_S * _RATE_HZ:
                sounds[name] = _address(samples)
        except (InputError, RuntimeError) as error:
            logger.info("No sound of %s in the report: %s", name, error)
    return sounds


def _audio_paths(trace: Trace, ids: Collection[str]) -> dict[str, str]:
    """Where the manifest beside a trace says that the audio is."""
    source = Path(trace.source)
    if not source.is_file():
        return {}
    for folder in source.resolve().parents[:2]:
        manifest = folder / f"{trace.sets[0]}.csv"
        if not manifest.is_file():
            continue
        try:
            with open(manifest, encoding="utf-8", newline="") as stream:
                rows = list(csv.DictReader(stream))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            logger.info("%s: cannot be read: %s", manifest, error)
            return {}
        return {
            row["ID"]: row["wav"]
            for row in rows
            if row.get("ID") in ids and row.get("wav")
        }
    return {}


def _address(samples: np.ndarray) -> str:
    """Samples as MP3, which every browser plays, in a ``data:`` address."""
    stream = io.BytesIO()
    kind = "MP3" if "MP3" in soundfile.available_formats() else "FLAC"
    soundfile.write(stream, samples, _RATE_HZ, format=kind)
    text = base64.b64encode(stream.getvalue()).decode()
    return f"data:audio/{'mpeg' if kind == 'MP3' else 'flac'};base64,{text}"
