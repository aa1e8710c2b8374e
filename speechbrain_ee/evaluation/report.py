"""Reports: everything that an exit trace tells, in one folder.

``report.json`` holds all numbers, ``exits.csv`` and ``criteria.csv`` the two
tables, ``curves.png`` and ``curves.pdf`` the figure, ``report.html`` all of
it in one self-contained page; ``decodings.csv`` compares ways of decoding
where there are several. A study of overthinking adds ``overthinking.csv``,
``overthinking_thresholds.csv`` and ``overthinking.png``.

What console and page say, and how, stands in ``templates/``. Nothing of the
page is loaded from elsewhere: style sheet, script, drawings and sounds stand
in it. It reads the same without its script, which only switches criteria on
and off and sorts tables.

Authors
 * The speechbrain-ee contributors 2026
"""

import base64
import csv
import io
import json
import logging
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation import (
    curves,
    figures,
    overthinking,
    tables,
    theme,
)
from speechbrain_ee.evaluation.analysis import (
    Example,
    SetAnalysis,
    Transfer,
    analyse_all,
    criteria_note,
    scored_for,
    transfer_matrices,
)
from speechbrain_ee.evaluation.overthinking import (
    OverthinkingStudy,
    overthinking_rows,
    study_overthinking,
    threshold_rows,
)
from speechbrain_ee.exits.calibration.policy_file import ExitPolicy, read_policy
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.oracle import earliest_no_worse
from speechbrain_ee.exits.scoring import mark_errors
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.exits.trace_file import read_trace
from speechbrain_ee.files import whole_file

logger = logging.getLogger(__name__)
SCHEMA = "exit-report/1"
DEFAULT = "Default policy"  # of a report's facts
TEMPLATES = Path(__file__).parent / "templates"

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
# Bands are estimates of 200 draws: more digits would say nothing.
_BAND_DECIMALS = 4
_RATE_HZ = 16000
_LONGEST_S = 30.0  # a page holds a few utterances, not recordings


@dataclass(frozen=True)
class Report:
    """A written report."""

    folder: Path  # where it is
    sets: Mapping[str, SetAnalysis]  # the analysis of every test set
    data: Mapping[str, Any]  # what ``report.json`` holds
    # the test sets that were decoded in several ways
    decodings: Mapping[str, tables.DecodingComparison]
    overthinking: OverthinkingStudy | None  # the study, if asked for
    # what is chosen on the sets without transcripts
    unlabelled: Sequence[tables.Row]


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
        Study which errors later exits add, in domain and out of it.
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
    found = list(analyses.values())
    transfer = transfer_matrices(found)
    ways = tables.compare_decodings(decoded or {})
    study = None
    if overthinking and analyses:
        study = study_overthinking(analyses, in_domain)
    unlabelled = tables.unlabelled_rows(traces, policies)
    facts = {**(extra or {}), **_notes(traces, unlabelled)}
    if words is not None:
        facts = {DEFAULT: words, **facts}
    data = {
        "schema": SCHEMA,
        "title": title,
        "traces": [asdict(trace.header) for trace in traces],
        "sets": {key: _set_data(each) for key, each in analyses.items()},
        "transfer": _plain(transfer),
        "extra": facts,
    }
    if ways:
        data["decodings"] = {k: _plain(w.results) for k, w in ways.items()}
    if study is not None:
        data["overthinking"] = asdict(study)
    if unlabelled:
        data["unlabelled"] = unlabelled
    text = json.dumps(data, indent=1, allow_nan=False)
    files: dict[str, str | bytes] = {"report.json": f"{text}\n"}
    if found:
        figure = figures.draw_curves(found)
        files |= {
            "report.html": page(title, analyses, facts, transfer, ways, study),
            "exits.csv": tables.to_csv(chain(*map(tables.exit_rows, found))),
            "criteria.csv": tables.to_csv(
                chain(*map(tables.criterion_rows, found))
            ),
            "curves.png": figures.figure_bytes(figure, "png"),
            "curves.pdf": figures.figure_bytes(figure, "pdf"),
        }
    if compared := list(ways.values()):
        figure = figures.draw_decodings(compared)
        files |= {
            "decodings.csv": tables.to_csv(
                chain(*map(tables.decoding_rows, compared))
            ),
            "decodings.png": figures.figure_bytes(figure, "png"),
        }
    if study is not None:
        figure = figures.draw_overthinking(study)
        files |= {
            "overthinking.csv": tables.to_csv(overthinking_rows(study)),
            "overthinking_thresholds.csv": tables.to_csv(threshold_rows(study)),
            "overthinking.png": figures.figure_bytes(figure, "png"),
        }
    for name, content in files.items():
        with whole_file(folder / name) as stream:
            stream.write(
                content if isinstance(content, bytes) else content.encode()
            )
    for name in _OPTIONAL_FILES:
        if name not in files:
            (folder / name).unlink(missing_ok=True)
    logger.info("Report written to %s", folder)
    data = json.loads(text)
    return Report(folder, analyses, data, ways, study, unlabelled)


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
        decoded=tables.by_decoding(read),
        overthinking=overthinking,
        in_domain=in_domain,
        dev=chosen_on,
    )
    if as_json:
        return json.dumps(report.data, indent=1)
    return f"{console_tables(report)}\n\nReport: {report.folder}"


def _notes(
    traces: Sequence[Trace], unlabelled: Sequence[tables.Row]
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


def _plain(value: Any) -> Any:
    """Mappings of dataclasses as mappings of plain values."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return asdict(value)


def _set_data(analysis: SetAnalysis) -> dict[str, Any]:
    trace, header = analysis.trace, analysis.trace.header
    clusters = trace.clusters
    no_worse = curves.measure(trace, earliest_no_worse(trace.errors_NE))
    data = {
        "model": header.name,
        "decoding": header.decoding,
        "exit_layers": header.exit_layers,
        "utterances": len(trace),
        "words": analysis.words,
        "clusters": {
            "by": clusters.by,
            "count": clusters.count,
            "few": clusters.few,
        },
        "wer": analysis.wer,
        "exits": tables.exit_rows(analysis),
        "oracle_best": _point_data(analysis.oracle_best),
        "oracle_no_worse": _point_data(no_worse),
        "oracle_exit_shares": analysis.oracle_shares,
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
        "examples": [
            {
                "kind": example.kind,
                "id": example.record.id,
                "ref": example.record.ref,
                "hyps": [exit_.hyp for exit_ in example.record.exits],
                "errors": example.errors,
            }
            for example in analysis.examples
        ],
    }
    if analysis.dev is not None:
        levels = {
            level: [asdict(each) for each in found]
            for level, found in analysis.carried.items()
        }
        data["chosen_on"] = {"set": analysis.dev.key, **levels}
    return data


def _criterion_data(
    analysis: SetAnalysis, result: curves.Result
) -> dict[str, Any]:
    data = _result_data(result)
    data["gap_shares"] = result.gap_shares
    data["gap_shares_macs"] = result.gap_shares_macs
    if result.exit_shares is not None:
        data["exit_shares"] = result.exit_shares
    histogram = analysis.difficulty(result.name, result.equal_wer)
    if histogram is not None:
        data["difficulty"] = asdict(histogram)
    return data


def _result_data(result: curves.Result) -> dict[str, Any]:
    points = result.points.items()
    return {level: _point_data(point) for level, point in points} | {
        "layer_intervals": result.layer_intervals,
        "curve": _curve_data(result.curve),
    }


def _point_data(point: curves.OperatingPoint | None) -> dict[str, float] | None:
    if point is None:
        return None
    values = asdict(point).items()
    return {name: value for name, value in values if value is not None}


def _curve_data(curve: curves.Curve) -> dict[str, list[float]]:
    """Points as columns, those that no point has left out."""
    columns = {}
    for name in ("avg_layer", "avg_macs", "wer", "threshold"):
        values = [getattr(point, name) for point in curve.points]
        if None not in values:
            columns[name] = values
    for name in ("wer_low", "wer_high"):
        if ends := getattr(curve, name):
            columns[name] = [round(end, _BAND_DECIMALS) for end in ends]
    return columns


def console_tables(report: Report) -> str:
    """All tables as aligned plain text."""
    template = _environment().get_template("report.txt.j2")
    text = template.render(report=report)
    return re.sub(r"\n{3,}", "\n\n", text.strip())


def page(
    title: str,
    analyses: Mapping[str, SetAnalysis],
    extra: Mapping[str, Any],
    transfer: Transfer,
    decodings: Mapping[str, tables.DecodingComparison] | None = None,
    overthinking: OverthinkingStudy | None = None,
) -> str:
    """The whole page."""
    found = list(analyses.values())
    leading = theme.leaders(found)
    front = dict.fromkeys(n for names in leading.values() for n in names)
    every = dict.fromkeys(name for each in found for name in each.criteria)
    panels: list[tuple[str, list[Markup]]] = []
    for analysis in found:
        for row in theme.aspects(analysis, leading):
            drawings = []
            for aspect in row:
                figure = figures.draw_panel(analysis, aspect)
                cost = "layers" if aspect.by_layer else "GMAC"
                said = f"{analysis.key}: word error rate against {cost}"
                place = 2 * len(panels) + len(drawings)
                drawings.append(_drawing(figure, f"f{place}", said))
            panels.append((analysis.key, drawings))
    drawing = overthinking and _drawing(
        figures.draw_overthinking(overthinking),
        "overthinking",
        "word error rates by exit, overthinking by exit",
    )
    matrices = {
        name: ([a.key for a in found if name in a.criteria], transfer[name])
        for name in front
        if name in transfer
    }
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            title=title,
            headers=list(dict.fromkeys(each.trace.header for each in found)),
            analyses=found,
            dev=next((each.dev.key for each in found if each.dev), ""),
            decodings=list((decodings or {}).values()),
            leading=leading,
            front=list(front),
            others=[name for name in every if name not in front],
            # the same policies on every set that has any
            policies=max((each.policies for each in found), key=len),
            figures=panels,
            # whether there are panels of GMAC, and lines that may leave them
            beyond=len(panels) > len(found)
            and any(map(theme.needs_search, front)),
            matrices=matrices,
            study=overthinking,
            study_drawing=drawing,
            extra=extra,
        )
    )


def _drawing(figure: Figure, prefix: str, said: str) -> Markup:
    svg = figures.figure_bytes(figure, "svg").decode()
    return Markup(theme.for_page(svg, prefix, said))


@cache
def _environment() -> Environment:
    """The templates, and what they call."""
    found = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=lambda name: bool(name) and ".html." in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= {
        "best_criterion": lambda a: (c := a.choice()) and c.result.name,
        "filled": tables.filled,
        "label": theme.label,
        "number": tables.number,
        "shown": shown,
    }
    found.tests["needs_search"] = lambda name: name and theme.needs_search(name)
    called = (cheapest_by_macs, criteria_note, described, example_text)
    called += (mark_errors, nearby_sounds, outline, say, sentences, stops_of)
    found.globals |= {each.__name__: each for each in called}
    for module in (curves, figures, overthinking, tables, theme):
        found.globals |= vars(module)
    found.globals |= {
        "BUDGET": 5.0,  # percent; that of the transfer's thresholds
        "DEFAULT": DEFAULT,
        "EXITS_NOTE": "* the best fixed exit, chosen on this set.",
    }
    return found


def sentences(name: str, *given: Any) -> list[str]:
    """What a macro of ``templates/prose.j2`` says."""
    prose = _environment().get_template("prose.j2").module
    blocks = re.split(r"\n\s*\n", getattr(prose, name)(*given))
    return [" ".join(block.split()) for block in blocks if block.strip()]


def say(name: str, *given: Any) -> str:
    """The same as one paragraph; empty if there is nothing to say."""
    return " ".join(sentences(name, *given))


def shown(cell: str) -> str:
    """A cell with minus signs, but for hyphens in names; a dash for none."""
    return re.sub(r"(?<!\w)-(?=\d)", "−", cell) or "–"


def described(name: str) -> str:
    """Formula and source of a criterion; empty for what is none."""
    try:
        criterion = get_criterion(name)
    except InputError:  # a policy's own, such as a learned one
        return ""
    return f"{criterion.formula} · {criterion.source}"


def cheapest_by_macs(
    analysis: SetAnalysis, level: str
) -> tuple[str, curves.OperatingPoint]:
    """What needs the fewest multiply-accumulates at a level, by name."""
    ways = [analysis.fixed, analysis.mixture, *analysis.criteria.values()]
    found = {r.name: p for r in ways if (p := r.points[level]) is not None}
    return min(found.items(), key=lambda pair: pair[1].avg_macs)


def example_text(example: Example) -> str:
    """An utterance at every exit, for the console."""
    record = example.record
    rows = [("reference", record.ref)]
    for exit_, errors in zip(record.exits, example.errors, strict=True):
        plural = "" if errors == 1 else "s"
        rows.append(
            (f"layer {exit_.layer}, {errors} error{plural}", exit_.hyp or "")
        )
    margin = 2 + max(len(head) for head, _ in rows)
    lines = [tables.filled(t, h.ljust(margin), " " * margin) for h, t in rows]
    return "\n".join([f"Overthinking in {record.id}:", *lines])


def stops_of(
    analysis: SetAnalysis,
) -> list[tuple[str, str, tuple[float, ...]]]:
    """Where utterances stop: the choice and the policies beside the oracle."""
    columns = []
    if choice := analysis.choice():
        name, how = choice.result.name, "last exit's WER kept"
        if choice.chosen_on:
            how = f"threshold of {choice.chosen_on}"
        title, colour = f"{theme.label(name)}, {how}", theme.look(name)[0]
        columns.append((title, colour, analysis.stops(choice)))
    for policy in analysis.policies:
        colour = theme.look(policy.criterion)[0]
        columns.append((f"policy {policy.name}", colour, policy.exit_shares))
    best = "oracle (earliest best exit)", theme.ORACLE, analysis.oracle_shares
    return [*columns, best]


def outline(marker: str) -> str:
    """A shape of the figures, as the points of a polygon."""
    style = MarkerStyle(marker)
    path = style.get_transform().transform_path(style.get_path())
    return " ".join(
        f"{15 + 9 * x:.1f},{5 - 9 * y:.1f}"
        for x, y in path.to_polygons(closed_only=False)[0]
    )


def nearby_sounds(analysis: SetAnalysis) -> dict[str, str]:
    """Examples as sounds that a page can hold, where their audio is near.

    A run writes its traces into a folder beside the manifest of every test
    set; a trace that was taken elsewhere has no sound.
    """
    paths = _audio_paths(
        analysis.trace, [e.record.id for e in analysis.examples]
    )
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
