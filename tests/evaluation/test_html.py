"""The page: the measured numbers, well-formed, nothing from elsewhere.

Authors
 * The speechbrain-ee contributors 2026
"""

import re
from html import escape
from xml.etree import ElementTree

import pytest

from speechbrain_ee.evaluation.families import leaders
from speechbrain_ee.evaluation.html import page
from speechbrain_ee.evaluation.markup import bar, named
from speechbrain_ee.evaluation.operating_point import LEVELS
from speechbrain_ee.evaluation.tables import label
from speechbrain_ee.evaluation.theme import ORACLE
from speechbrain_ee.evaluation.transfer import transfer_matrices
from tests.evaluation.drawn_sets import drawn_sets


@pytest.fixture(scope="module")
def sets():
    return drawn_sets()


@pytest.fixture(scope="module")
def matrices(sets):
    return transfer_matrices(list(sets.values()))


@pytest.fixture(scope="module")
def text(sets, matrices):
    return page("A & B", sets, {"epochs": 3}, matrices)


@pytest.fixture(scope="module")
def body(text):
    """The body as a tree: fails unless every tag is closed."""
    part = text[text.index("<body>") : text.index("</html>")]
    part = re.sub(r"(\s[\w-]+)=([^\s\"'>]+)(?=[\s>])", r'\1="\2"', part)
    part = part.replace("xlink:", "")
    return ElementTree.fromstring(part)


def rows_after(body, heading):
    """Texts of the cells of the first table after a heading."""
    elements = list(body.iter())
    start = next(
        i
        for i, e in enumerate(elements)
        if e.tag == "h3" and "".join(e.itertext()).startswith(heading)
    )
    table = next(e for e in elements[start:] if e.tag == "table")
    return [
        ["".join(cell.itertext()) for cell in row.iter("td")]
        for row in table.iter("tr")
        if row.find("td") is not None
    ]


def test_stands_alone(text):
    assert "<script" not in text and "@import" not in text
    assert not re.search(r"(?:src|href)=\"?(?!\"?#)\S*//", text)
    assert not re.search(r"url\((?!#)", text)


def test_colours_are_the_style_sheets(text):
    # so that a dark page can replace them
    assert not re.search(r"#[0-9a-f]{6}\b", text[text.index("<body>") :])
    used = set(re.findall(r"var\((--[\w]+)\)", text))
    root = text[text.index(":root") : text.index("@media")]
    dark = text[text.index("@media") :]
    for name in used:
        assert f"{name}:" in root and f"{name}:" in dark


def test_every_criterion_with_all_levels(sets, body):
    analysis = sets["clean"]
    rows = rows_after(body, "Choosing the exit per utterance")
    assert [row[0] for row in rows] == [
        label(result.name) for result in analysis.results()
    ]
    for row, result in zip(rows, analysis.results(), strict=True):
        for cell, level in zip(row[1:5], LEVELS, strict=True):
            assert cell.startswith(f"{result.points[level].avg_layer:.2f}")
            if result.name in analysis.criteria:
                low, high = result.layer_intervals[level]
                assert cell.endswith(f"{low:.1f}–{high:.1f}")
        macs = result.points["equal_wer"].avg_macs
        assert row[5] == f"{macs / 1e9:.2f}"
        if result.name in analysis.criteria:
            share = f"{100 * result.gap_shares['plus_5']:.0f} %"
            assert row[8] == share.replace("-", "−")


def test_leaders_stand_out(sets, text):
    chosen = leaders(list(sets.values()))
    assert text.count("<tr class=lead>") == sum(map(len, chosen.values()))


def test_criteria_say_what_they_are():
    text = named("entropy")
    assert "sum_t" in text and "2309.09546" in text and "var(--c0)" in text


def test_a_policy_may_decide_by_what_is_not_registered():
    assert named("homemade <one>").endswith("</i>homemade &lt;one&gt;")


@pytest.mark.parametrize(
    "share, width", [(0.25, "25.0%"), (-0.5, "0.0%"), (3.0, "100.0%")]
)
def test_bars_stay_in_their_cell(share, width):
    assert f"width:{width}" in bar(share, ORACLE)


def test_difficulty(sets, body):
    analysis = sets["clean"]
    found = analysis.difficulty(analysis.best_criterion())
    rows = rows_after(body, "The same by difficulty")
    assert [row[0] for row in rows[:-1]] == [f"layer {x}" for x in (2, 4, 6, 8)]
    for column, row in enumerate(rows[:-1]):
        for group, cell in enumerate(row[1::2]):
            mine, ideal = found.shares[group], found.oracle_shares[group]
            assert cell == f"{100 * mine[column]:.0f} " + (
                f"/ {100 * ideal[column]:.0f} %"
            )
    assert rows[-1][1] == (
        f"{found.avg_layer[0]:.2f} / {found.oracle_avg_layer[0]:.2f}"
    )


def test_overthinking_is_counted_and_shown(sets, body, text):
    analysis = sets["clean"]
    rows = rows_after(body, "Overthinking")
    assert rows[0][1] == f"{100 * analysis.overthinking_share:.1f} %"
    last = int(analysis.trace.errors_NE[:, -1].sum())
    assert f"{analysis.overthinking_errors} of {last} word errors" in text
    shown = [e for e in analysis.examples if e.kind == "overthinking"]
    assert shown and all(e.record.id in text for e in shown)


def test_policies_and_what_they_warn_of(sets, body, text):
    [row] = rows_after(body, "Given policies")
    policy = sets["clean"].policies[0]
    assert row[:4] == ["my <policy>", "entropy", "wer=+5%", "yes"]
    assert row[4:] == [
        f"{policy.point.wer:.2f}",
        f"{policy.excess:+.1f} %",
        f"{policy.point.avg_layer:.2f}",
        f"{policy.point.avg_macs / 1e9:.2f}",
    ]
    assert text.count(escape("scores of exit 2 are <lower>")) == 2
    assert "<lower>" not in text and "<policy>" not in text


def test_without_policies_nothing_is_said_of_them(matrices):
    text = page("t", drawn_sets(with_policies=False), {}, matrices)
    assert "policies" not in text and ">policy<" not in text


def test_transfer_is_tinted_by_whether_the_budget_holds(sets, matrices, text):
    part = text[text.index("Calibrated on one set") :]
    chosen = leaders(list(sets.values()))["clean"]
    cells = re.findall(
        r'<td style="background:rgba\((\d+),[\d,.]+\)">([+−][\d.]+) %'
        r" <span class=soft>([\d.]+) layers",
        part,
    )
    expected = [
        cell for name in chosen for cell in matrices[name].cells.values()
    ]
    assert len(cells) == len(expected) == 4 * len(chosen)
    for (red, excess, layers), cell in zip(cells, expected, strict=True):
        assert (red == "213") == (cell.excess > 5)
        assert excess == f"{cell.excess:+.1f}".replace("-", "−")
        assert layers == f"{cell.avg_layer:.2f}"
    assert any(red == "213" for red, _, _ in cells)


def test_one_set_has_no_transfer(sets):
    alone = {"clean": sets["clean"]}
    assert "Calibrated on one set" not in page("t", alone, {}, {})


def test_same_bytes(sets, matrices, text):
    assert page("A & B", sets, {"epochs": 3}, matrices) == text
