"""Colours and line styles of figures and pages.

A colour stands for a family of criteria, dashes tell its members apart.
Colours are those of Okabe and Ito (2008), and two of Tol's muted scheme,
told apart by colour-blind readers too; on a dark page lighter ones
take their place (see ``templates/report.css``).

Authors
 * The speechbrain-ee contributors 2026
"""

import re
import zlib
from html import escape

from speechbrain_ee.exits.criteria import criterion_names

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
    """Which family a criterion belongs to.

    Arguments
    ---------
    name : str
        A criterion, with or without parameters; unknown ones are "others".

    Returns
    -------
    str
        A key of ``FAMILIES``.

    Example
    -------
    >>> family("tsallis_min:alpha=0.5"), family("homemade")
    ('entropies', 'others')
    """
    return next(
        group
        for group, (_, stems) in FAMILIES.items()
        if name.startswith(stems)
    )


def look(name: str) -> tuple[str, tuple[float, ...]]:
    """Colour and dashes of a criterion, the same in every figure.

    Arguments
    ---------
    name : str
        A criterion, registered or not, with or without parameters.

    Returns
    -------
    colour : str
        Hexadecimal; that of the family.
    dashes : tuple of float
        Lengths on and off in line widths; empty for a solid line.

    Example
    -------
    >>> look("entropy")
    ('#0072b2', ())
    """
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
    """The style sheet's name of a colour, which dark pages replace.

    Arguments
    ---------
    colour : str
        Hexadecimal, one of the figures'.

    Returns
    -------
    str

    Example
    -------
    >>> page_colour(ORACLE)
    'var(--oracle)'
    """
    return _VARIABLES[colour]


def for_page(svg: str, prefix: str, said: str = "") -> str:
    """A drawing as a part of the page, which decides its colours.

    Arguments
    ---------
    svg : str
        A file.
    prefix : str
        Put before the names in the drawing: a page may hold several.
    said : str
        What the drawing shows, for readers who do not see it.

    Returns
    -------
    str
        The ``svg`` element; its groups that belong to a criterion are of the
        class ``series``, those out of sight also ``off``.
    """
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
