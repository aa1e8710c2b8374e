"""Which criteria figures and pages show, and what they look like.

A colour stands for a family of criteria, dashes tell its members apart.
Colours are those of Okabe and Ito (2008), and two of Tol's muted scheme,
told apart by colour-blind readers too; on a dark page lighter ones
take their place (see ``templates/report.css``).

Authors
 * The speechbrain-ee contributors 2026
"""

import re
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.analysis import SetAnalysis
from speechbrain_ee.evaluation.curves import Curve, OperatingPoint
from speechbrain_ee.exits.criteria import criterion_names, get_criterion

LABELS = {
    "fixed": "fixed exit",
    "mixture": "mix of two fixed exits",
    "max_prob": "maximum probability",
    "max_prob_nonblank": "maximum probability, non-blank",
    "entropy_nonblank": "entropy, non-blank",
    "entropy_nats": "entropy in nats",
    "margin_nonblank": "margin, non-blank",
    "token_quantile_nonblank": "token quantile, non-blank",
    "tsallis_mean": "Tsallis entropy, mean",
    "tsallis_min": "Tsallis entropy, least certain",
    "nbest_posterior": "N-best posterior",
    "ctc_forward": "CTC forward score",
    "ctc_forward_per_frame": "CTC forward score per frame",
    "hidden_cosine": "cosine of hidden states",
    "agreement": "agreement of transcripts",
    "patience_transcript": "patience on transcripts",
    "patience_distribution": "patience on distributions",
    "plausibility": "plausibility of the text",
    "beam_score": "attention beam score",
    "beam_posterior": "attention beam posterior",
    "token_confidence": "attention token confidence",
    "token_confidence_min": "least attention token confidence",
}
DECODINGS = {
    "greedy": "CTC greedy",
    "ctc_greedy": "CTC greedy",
    "ctc_beam": "CTC beam",
}


def label(name: str) -> str:
    """How a way of choosing exits is called in tables and figures."""
    stem, _, parameters = name.partition(":")
    text = LABELS.get(stem, stem.replace("_", " "))
    return f"{text} ({parameters})" if parameters else text


def decoding_label(name: str) -> str:
    """How a way of decoding is called in tables."""
    return DECODINGS.get(name, name.replace("_", " "))


def policy_letter(number: int) -> str:
    """The letter that marks a policy in figures."""
    return chr(ord("A") + number % 26)


INK = "#2b2f36"
PALE = "#8a919c"
SOFT = "#6b7280"
GRID = "#c9ced6"
ORACLE = "#009e73"

# A family's colour on light pages; the first parts of its members' names.
FAMILIES = {
    "entropies": ("#0072b2", ("entropy", "tsallis")),
    "probabilities and margins": (
        "#e69f00",
        ("max_prob", "margin", "token_quantile"),
    ),
    "sequence posteriors": ("#d55e00", ("ctc_forward", "nbest")),
    "between exits": (
        "#cc79a7",
        ("agreement", "patience", "hidden_cosine", "cross_entropy"),
    ),
    "texts": ("#56b4e9", ("plausibility", "unseen_words")),
    "learned and combined": (
        "#882255",
        ("selector", "learned", "combination", "combined", "zscore", "value"),
    ),
    "attention decoder": ("#332288", ("beam_", "token_confidence")),
    "others": ("#4a3a2c", ("",)),
}
COLOURS = tuple(colour for colour, _ in FAMILIES.values())

# Shapes of policies, told apart without colour.
POLICY_MARKERS = "*PX^svp<"

# On, off, ... in line widths; none for a solid line.
DASHES = ((), (5, 1.5), (1.2, 1.2), (6, 1.5, 1.2, 1.5))
_VARIABLES = {
    INK: "currentColor",
    PALE: "var(--pale)",
    SOFT: "var(--soft)",
    GRID: "var(--line)",
    ORACLE: "var(--oracle)",
    "#ffffff": "var(--back)",
} | {colour: f"var(--c{place})" for place, colour in enumerate(COLOURS)}


def family(name: str) -> str:
    """Which family a criterion belongs to."""
    return next(
        group
        for group, (_, stems) in FAMILIES.items()
        if name.startswith(stems)
    )


def look(name: str) -> tuple[str, tuple[float, ...]]:
    """Colour and dashes of a criterion, the same in every figure."""
    group = family(name)
    stem, _, parameters = name.partition(":")
    members = [n for n in criterion_names() if family(n) == group]
    # a name's checksum is the same in every process, its hash is not
    place = (
        members.index(stem) if stem in members else zlib.crc32(stem.encode())
    )
    if parameters:
        # any dashes but those of the default parameters
        place += 1 + zlib.crc32(parameters.encode()) % (len(DASHES) - 1)
    return FAMILIES[group][0], DASHES[place % len(DASHES)]


def policy_marker(number: int) -> str:
    """Matplotlib's name of the shape of a policy, counted from 0."""
    return POLICY_MARKERS[number % len(POLICY_MARKERS)]


def page_colour(colour: str) -> str:
    """The style sheet's name of a colour, which dark pages replace."""
    return _VARIABLES[colour]


def for_page(svg: str, prefix: str, said: str = "") -> str:
    """A drawing as a part of the page, which decides its colours."""
    svg = svg[svg.index("<svg") :]
    if said:
        named = f'<svg role="img" aria-label="{escape(said)}"'
        svg = svg.replace("<svg", named, 1)
    # of one criterion there are several groups, and names stand for one
    svg = re.sub(
        r'\bid="(series|hidden)\.([^"]*)"',
        lambda found: 'class="series{}" data-series="{}"'.format(
            " off" * (found[1] == "hidden"), found[2]
        ),
        svg,
    )
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    # the family is the page's choice; size and weight stay
    svg = svg.replace("'DejaVu Sans'", "system-ui, sans-serif")
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    return svg


Leaders = Mapping[str, tuple[str, ...]]


def depth_needed(analysis: SetAnalysis, name: str) -> float:
    """Share of the layers that a criterion needs, averaged over the levels.

    One number to order criteria by: the cheapest point within 0, 1, 5 and
    10 % of the last exit's word error rate, all layers where there is none.
    """
    depth = analysis.trace.header.exit_layers[-1]
    points = analysis.criteria[name].points.values()
    needed = [depth if p is None else p.avg_layer for p in points]
    return sum(needed) / (depth * len(needed))


def needs_search(name: str) -> bool:
    """Whether a criterion looks at what an attention decoder found."""
    try:
        return get_criterion(name).decodes
    except InputError:  # a policy's own, such as a learned one
        return False


def leaders(analyses: Sequence[SetAnalysis]) -> Leaders:
    """The criterion of every family that needs the fewest layers.

    It is chosen over all test sets that have it, so that figures of two sets
    show the same criteria as far as both have them; with a development set,
    on that alone. The criterion that tables and summaries name (see
    :meth:`~speechbrain_ee.evaluation.analysis.SetAnalysis.choice`) is always
    among them.
    """
    names = dict.fromkeys(n for a in analyses for n in a.criteria)
    seen = [analysis.dev or analysis for analysis in analyses]
    overall = {}
    for name in names:
        needed = [depth_needed(a, name) for a in seen if name in a.criteria]
        # without the evidence on the development set there is no choosing it
        overall[name] = sum(needed) / len(needed) if needed else 1.0
    chosen = {}
    for analysis in analyses:
        winners: dict[str, str] = {}
        for name in sorted(analysis.criteria, key=overall.__getitem__):
            winners.setdefault(family(name), name)
        front = {*winners.values(), *best_two(analysis, analysis.criteria)[:1]}
        chosen[analysis.key] = tuple(
            name
            for group in FAMILIES
            for name in analysis.criteria
            if name in front and family(name) == group
        )
    return chosen


def best_two(analysis: SetAnalysis, names: Collection[str]) -> tuple[str, ...]:
    """The two of some criteria that figures show with a band.

    The one that tables name, and the one of another family that needs the
    fewest layers: two of one family differ by little.
    """
    seen = analysis.dev or analysis
    order = sorted(
        (name for name in names if name in seen.criteria),
        key=lambda name: depth_needed(seen, name),
    )
    best = analysis.choice()
    first = [best.result.name] if best else order[:1]
    second = [n for n in order if family(n) != family(first[0])]
    return (*first, *second[:1])


# Costs that differ by less, in shares of a full pass, draw the same line.
_SAME_COST = 0.02


@dataclass(frozen=True)
class Aspect:
    """What a panel shows of a test set."""

    axis: str  # the cost, ``avg_layer`` or ``avg_macs``
    # criteria drawn as lines; see leaders
    leading: tuple[str, ...] = ()
    banded: tuple[str, ...] = ()  # those of them that have a band
    # only what is close to the last exit's word error rate
    close: bool = False

    @property
    def by_layer(self) -> bool:
        """Whether the cost is layers."""
        return self.axis == "avg_layer"

    def cost(self, curve: Curve) -> NDArray[np.float64]:
        """The cost of a curve's points, in layers or GMAC."""
        return curve.axis(self.axis) * (1.0 if self.by_layer else 1e-9)

    def place(self, point: OperatingPoint) -> tuple[float, float]:
        """Where an operating point is drawn."""
        cost = getattr(point, self.axis)
        return cost * (1.0 if self.by_layer else 1e-9), point.wer


def aspects(
    analysis: SetAnalysis, leading: Leaders
) -> list[tuple[Aspect, Aspect]]:
    """What there is to draw of a test set: per cost the whole and a close-up.

    Multiply-accumulates are drawn where they order the criteria that lead
    otherwise than layers do; else a second scale tells them.
    """
    names = leading[analysis.key]
    banded = best_two(analysis, names)
    axes = ["avg_layer"]
    if _macs_tell_more(analysis, names):
        axes.append("avg_macs")
    return [
        (
            Aspect(axis, names, banded),
            Aspect(axis, names, banded, close=True),
        )
        for axis in axes
    ]


def _macs_tell_more(analysis: SetAnalysis, names: Sequence[str]) -> bool:
    """Whether a criterion costs more than the layers that it takes."""
    fixed = analysis.fixed.curve
    if analysis.trace.macs_NE is None or len(fixed.points) < 2:
        return False
    layers, macs = fixed.axis("avg_layer"), fixed.axis("avg_macs")
    for name in names:
        curve = analysis.criteria[name].curve
        alone = np.interp(curve.axis("avg_layer"), layers, macs)
        beyond = np.abs(curve.axis("avg_macs") - alone).max()
        if beyond > _SAME_COST * macs[-1]:
            return True
    return False
