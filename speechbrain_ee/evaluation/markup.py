"""Pieces of the page: tables, bars, marks.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Iterable, Sequence
from html import escape

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.tables import label
from speechbrain_ee.evaluation.theme import INK, ORACLE, look, page_colour
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.scoring import mark_errors

DASH = "–"


def table(texts: Sequence[Sequence[str]]) -> str:
    """A table; headings "a: b", "c" become "a" above "b" and "c".

    Arguments
    ---------
    texts : sequence of sequence of str
        The first row is the heading; texts are escaped here.

    Returns
    -------
    str
    """
    rows = ([escape(cell) or DASH for cell in row] for row in texts[1:])
    return grouped(texts[0], rows)


def grouped(
    heading: Sequence[str],
    rows: Iterable[Sequence[str]],
    classes: Sequence[str] = (),
) -> str:
    """A table whose cells are HTML already.

    Arguments
    ---------
    heading : sequence of str
        Texts, grouped as those of :func:`table`.
    rows : iterable of sequence of str
        HTML of the cells.
    classes : sequence of str, optional
        Of the rows.

    Returns
    -------
    str

    Example
    -------
    >>> text = grouped(["exit", "errors: a", "b"], [["1", "2", "3"]])
    >>> "colspan=2>errors</th>" in text
    True
    """
    groups: list[list] = []
    first = set()
    for place, cell in enumerate(heading):
        group, colon, _ = cell.rpartition(": ")
        if colon or not groups:
            first.add(place)
            groups.append([group, 0])
        groups[-1][1] += 1
    names = "".join(
        f"<th{_indent(place, first)}>{escape(cell.rpartition(': ')[2])}</th>"
        for place, cell in enumerate(heading)
    )
    body = ""
    for number, row in enumerate(rows):
        cells = "".join(
            f"<td{_indent(place, first)}>{cell}</td>"
            for place, cell in enumerate(row)
        )
        name = classes[number] if classes else ""
        body += f"<tr class={name}>" if name else "<tr>"
        body += f"{cells}</tr>"
    above = "".join(
        f'<th class="group" colspan={span}>{escape(name)}</th>'
        for name, span in groups
    )
    above = f"<tr>{above}</tr>" if len(groups) > 1 else ""
    return (
        f"<div class=scroll><table><thead>{above}<tr>{names}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def bar(share: float, colour: str) -> str:
    """A bar as long as a share of its cell.

    Arguments
    ---------
    share : float
        0 to 1; what is outside is cut.
    colour : str
        Hexadecimal, one of the figures'.

    Returns
    -------
    str
    """
    width = 100 * min(max(share, 0.0), 1.0)
    style = f"width:{width:.1f}%;background:{page_colour(colour)}"
    return f'<span style="{style}"></span>'


def named(name: str) -> str:
    """A way of choosing exits, with its colour and what it is.

    Arguments
    ---------
    name : str
        Name of a result.

    Returns
    -------
    str
        A criterion's formula and source are shown by a pointer that rests
        on it.
    """
    text = escape(label(name))
    if name in ("fixed", "mixture"):
        return text
    if name == "oracle":
        return f"{chip(ORACLE)}{text}"
    colour = chip(look(name)[0])
    try:
        criterion = get_criterion(name)
    except InputError:  # a policy's own, such as a learned one
        return f"{colour}{text}"
    title = escape(f"{criterion.formula} · {criterion.source}", quote=True)
    return f'{colour}<abbr title="{title}">{text}</abbr>'


def chip(colour: str = INK) -> str:
    """A small square of a colour."""
    return f'<i class=chip style="background:{page_colour(colour)}"></i>'


def soft(text: str) -> str:
    """Small print, escaped."""
    return f"<span class=soft>{escape(text)}</span>"


def marked(ref: str, hyp: str) -> str:
    """A transcript with its errors marked.

    Arguments
    ---------
    ref : str
        What was said.
    hyp : str
        What was recognised.

    Returns
    -------
    str
    """
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


def _indent(place: int, first: set[int]) -> str:
    return " class=first" if place and place in first else ""
