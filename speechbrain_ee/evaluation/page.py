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
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.markers import MarkerStyle

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.analysis import (
    SetAnalysis,
    TransferMatrix,
    criteria_note,
)
from speechbrain_ee.evaluation.curves import (
    REPLICATES,
    OperatingPoint,
    Result,
    signed,
)
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
    carried_table,
    exit_comparison_table,
    fixed_table,
    group_table,
    overthinking_note,
    set_table,
    shift_note,
)
from speechbrain_ee.evaluation.tables import (
    Column,
    Table,
    criterion_columns,
    exit_table,
    giga,
    number,
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
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            title=title,
            headers=list(dict.fromkeys(a.trace.header for a in found)),
            sets=[_set(analysis, leading[analysis.key]) for analysis in found],
            overview=overview_table(found),
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
    )


@cache
def environment() -> Environment:
    """The templates, and what they call."""
    found = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters["shown"] = shown
    called = (criteria_note, decoding_note, exit_comparison_table, fixed_table)
    called += (group_table, label, look, mark_errors, overthinking_note)
    called += (page_colour, search_note, set_table, shift_note, summary)
    found.globals |= {each.__name__: each for each in called}
    found.globals |= {
        "BUDGET": BUDGET,
        "CARRIED_NOTE": CARRIED_NOTE,
        "EXITS_NOTE": EXITS_NOTE,
        "GROUPS_NOTE": GROUPS_NOTE,
        "INK": INK,
        "ORACLE": ORACLE,
        "PALE": PALE,
        "carried_table": lambda each: carried_table(each, parts().named),
        "colours": COLOURS,
        "described": _described,
        "ways": _ways,
    }
    return found


@cache
def parts() -> Any:
    """The pieces of the page, macros of ``templates/parts.html.j2``."""
    return environment().get_template("parts.html.j2").module


def shown(cell: str) -> str:
    """A cell with minus signs, but for hyphens in names; HTML as it is."""
    if isinstance(cell, Markup):
        return cell
    return re.sub(r"(?<!\w)-(?=\d)", "−", cell) or DASH


def _described(name: str) -> str:
    """Formula and source of a criterion; empty for what is none."""
    try:
        criterion = get_criterion(name)
    except InputError:  # a policy's own, such as a learned one
        return ""
    return f"{criterion.formula} · {criterion.source}"


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


def _ways(comparison: DecodingComparison) -> Table:
    """The ways of decoding; of every exit the best in bold."""
    table = decoding_table(comparison)
    rows = [list(map(escape, row)) for row in table.rows]
    for column in range(len(comparison.exit_layers)):
        # ties by value, not by how they are rounded
        least = comparison.best(column)
        for place, result in enumerate(comparison.results, start=2):
            if result.wer_E[column] == least:
                rows[column][place] = parts().bold(rows[column][place])
    return replace(table, rows=rows)


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


def _keys(
    analyses: Sequence[SetAnalysis], leading: Leaders
) -> list[dict[str, Any]]:
    """The legend of all panels; with a name, a key is a switch."""
    front = dict.fromkeys(n for chosen in leading.values() for n in chosen)
    names = dict.fromkeys([*front, *(n for a in analyses for n in a.criteria)])
    keys = [
        {
            "text": label(name),
            "sign": _sample(*look(name)),
            "name": name,
            "shown": name in front,
        }
        for name in names
    ]
    signs = {
        label("mixture"): _sample(PALE, ()),
        label("oracle"): _sample(ORACLE, ()),
        FIXED_LABEL: parts().dot(),
        kept_label(analyses): _mark("D", "none", 1.5),
    }
    # the same policies on every set that has any
    policies = max((a.policies for a in analyses), key=len)
    for place, policy in enumerate(policies):
        text = f"policy {policy_letter(place)}: {policy.name}"
        colour = page_colour(look(policy.criterion)[0])
        signs[text] = _mark(policy_marker(place), colour)
    return keys + [
        {"text": text, "sign": sign, "name": "", "shown": True}
        for text, sign in signs.items()
    ]


def _sample(colour: str, dashes: tuple[float, ...]) -> Markup:
    lengths = " ".join(f"{2 * length:g}" for length in dashes)
    return parts().line(page_colour(colour), lengths)


def _mark(marker: str, colour: str, width: float = 0.8) -> Markup:
    """A shape of the figures."""
    style = MarkerStyle(marker)
    outline = style.get_transform().transform_path(style.get_path())
    points = " ".join(
        f"{15 + 9 * x:.1f},{5 - 9 * y:.1f}"
        for x, y in outline.to_polygons(closed_only=False)[0]
    )
    return parts().mark(points, colour, width)


def _set(analysis: SetAnalysis, leading: Sequence[str]) -> dict[str, Any]:
    """What the page shows of one test set."""
    choice = analysis.choice()
    chosen = choice and analysis.difficulty(choice.result, choice.point)
    ids = [example.record.id for example in analysis.examples]
    return {
        "analysis": analysis,
        "decoding": decoding_said(analysis.trace.header),
        "exits": exit_table(analysis),
        "criteria": _criteria(analysis, leading),
        "policies": _policies(analysis),
        "stops": _stops(analysis),
        "difficulty": chosen,
        "last_errors": int(analysis.trace.errors_NE[:, -1].sum()),
        "sounds": nearby_sounds(analysis.trace, ids),
    }


def _criteria(analysis: SetAnalysis, leading: Sequence[str]) -> Table:
    """Every way of choosing exits, with intervals and bars."""
    full = analysis.fixed.curve.points[-1].avg_macs

    def layers(result: Result, level: str) -> Markup:
        point, ends = result.points[level], result.layer_intervals.get(level)
        # a fixed exit is a whole number of layers, an interval of it too
        known = ends and point is not None and result.name != "fixed"
        interval = f"{ends[0]:.1f}–{ends[1]:.1f}" if known else ""
        return parts().beside(number(point and point.avg_layer), interval)

    def macs(result: Result, level: str) -> str:
        point = result.points[level]
        return giga(point and point.avg_macs, full)

    def gap(result: Result, level: str) -> Markup:
        share = result.gap_shares.get(level)
        return parts().gap(share, look(result.name)[0])

    columns = [("exit chosen by", lambda result: parts().named(result.name))]
    if analysis.dev is not None:
        columns += _from_dev(analysis, analysis.dev.key)
    columns += criterion_columns(
        layers,
        macs if analysis.trace.macs_NE is not None else None,
        gap if analysis.criteria else None,
    )
    results = list(analysis.results())
    lead = {i for i, each in enumerate(results) if each.name in leading}
    return Table.of(
        columns,
        results,
        leading=frozenset(lead),
        series=[each.name for each in results],
    )


def _from_dev(analysis: SetAnalysis, dev: str) -> list[Column]:
    """What the development set's threshold of a criterion gives here."""

    def point(result: Result) -> OperatingPoint | None:
        known = result.name in analysis.criteria
        return analysis.kept(result.name) if known else None

    def above(result: Result) -> str:
        found = point(result)
        excess = found and analysis.excess(found.wer)
        return "" if excess is None else f"{signed(excess, decimals=1)} %"

    return [
        (f"{dev}: WER %", lambda each: number((p := point(each)) and p.wer)),
        ("above last", above),
        ("layers", lambda each: number((p := point(each)) and p.avg_layer)),
    ]


def _policies(analysis: SetAnalysis) -> Table:
    """Every given policy."""
    full = analysis.fixed.curve.points[-1].avg_macs
    columns: list[Column] = [
        ("policy", lambda policy: escape(policy.name)),
        ("decides by", lambda policy: parts().named(policy.criterion)),
        ("calibrated for", lambda policy: policy.budget or ""),
        ("holds here", lambda policy: parts().verdict(policy)),
        ("WER %", lambda policy: number(policy.point.wer)),
        (
            "above the last exit",
            lambda p: "" if p.excess is None else f"{p.excess:+.1f} %",
        ),
        ("layers", lambda policy: number(policy.point.avg_layer)),
    ]
    if analysis.trace.macs_NE is not None:
        columns.append(("GMAC", lambda p: giga(p.point.avg_macs, full)))
    return Table.of(columns, analysis.policies)


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
