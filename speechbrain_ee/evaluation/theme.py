"""Colours and line styles of figures, and the style sheet of the page.

Colours of lines are those of Okabe and Ito (2008), told apart by colour-blind
readers too; on a dark page lighter ones of the same hue take their place.

Authors
 * The speechbrain-ee contributors 2026
"""

import re

from speechbrain_ee.exits.criteria import criterion_names

INK = "#2b2f36"
PALE = "#8a919c"
SOFT = "#6b7280"
GRID = "#c9ced6"
ORACLE = "#009e73"
COLOURS = ("#0072b2", "#d55e00", "#cc79a7", "#e69f00", "#56b4e9")
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

_LIGHT = "".join(f"--c{n}:{colour};" for n, colour in enumerate(COLOURS))

STYLESHEET = (
    """
:root { color-scheme: light dark; --ink: #20242b; --soft: #5d6673;
  --line: #dfe3e8; --back: #fff; --card: #f6f7f9; --pale: #8a919c;
  --bad: #b5330b; --oracle: #009e73; """
    + _LIGHT
    + """ }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ec;
  --soft: #9aa4b2; --line: #343a43; --back: #14171b; --card: #1c2026;
  --pale: #78818e; --bad: #ff9a70; --oracle: #2cc79a; --c0: #4aa3df;
  --c1: #ff8a3d; --c2: #e3a0c6; --c3: #f0b73c; --c4: #a5d8f5; } }
body { margin: 0 auto; max-width: 66rem; padding: 2.5rem 1.5rem 4rem;
  background: var(--back); color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.3rem; margin: 3.5rem 0 .3rem; padding-top: 1.2rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.8rem 0 .5rem; }
p { max-width: 46rem; margin: .4rem 0; }
.soft { color: var(--soft); font-size: .92rem; }
.panels { display: grid; gap: 1.2rem 1.5rem; margin: 1.2rem 0;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
.panels figure { margin: 0; max-width: 36rem; }
.panels svg { width: 100%; height: auto; display: block; }
figcaption { font-weight: 600; font-size: .95rem; }
.keys { display: flex; flex-wrap: wrap; gap: .2rem 1.3rem;
  margin-top: 1.8rem; font-size: .88rem; }
.keys svg { width: 2rem; height: .7rem; margin-right: .4rem; }
.side { display: flex; flex-wrap: wrap; gap: 0 3.5rem; }
.side > div { max-width: 100%; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem;
  font-variant-numeric: tabular-nums; }
th { font-weight: 600; color: var(--soft); vertical-align: bottom; }
th, td { padding: .28rem .7rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th.group { text-align: center; border-bottom: 0; padding-bottom: 0; }
.first { padding-left: 1.6rem; }
.wrap td { white-space: normal; }
.wrap .first { padding-left: 1.2rem; }
.bars th, .bars td { text-align: left; }
.bars td.count { text-align: right; }
.bar { width: 13rem; min-width: 4.5rem; }
.bar span { display: block; height: .7rem; border-radius: 2px; }
.utterance { background: var(--card); border-radius: 8px;
  padding: .8rem 1rem; margin: .7rem 0; }
.utterance table { width: 100%; }
.utterance td { text-align: left; vertical-align: top;
  white-space: normal; }
.utterance td.count { white-space: nowrap; color: var(--soft); width: 9rem; }
.utterance tr:last-child td { border-bottom: 0; }
mark { background: none; color: var(--bad); font-weight: 600; }
del { color: var(--soft); }
@media (max-width: 34rem) { body { padding: 1.5rem 1rem 3rem; }
  table { font-size: .84rem; }
  th, td { padding: .25rem .35rem; } .first { padding-left: .8rem; }
  .utterance td.count { width: auto; padding-left: 0; } }
"""
)


def look(name: str) -> tuple[str, tuple[float, ...]]:
    """Colour and dashes of a criterion, the same in every figure.

    Arguments
    ---------
    name : str
        A registered criterion.

    Returns
    -------
    colour : str
        Hexadecimal.
    dashes : tuple of float
        Lengths on and off in line widths; empty for a solid line.

    Example
    -------
    >>> look("entropy")
    ('#0072b2', ())
    """
    place = criterion_names().index(name)
    return COLOURS[place % len(COLOURS)], DASHES[place % len(DASHES)]


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


def for_page(svg: str, prefix: str) -> str:
    """A drawing as a part of the page, which decides its colours.

    Arguments
    ---------
    svg : str
        A file.
    prefix : str
        Put before the names in the drawing: a page may hold several.

    Returns
    -------
    str
        The ``svg`` element.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    # the family is the page's choice; size and weight stay
    svg = svg.replace("'DejaVu Sans'", "system-ui, sans-serif")
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    return svg
