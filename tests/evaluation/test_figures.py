"""Figures: what is drawn is what was measured, and can be told apart.

Authors
 * The speechbrain-ee contributors 2026
"""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.text import Annotation

from speechbrain_ee.evaluation.analysis import analyse
from speechbrain_ee.evaluation.figures import (
    draw_curves,
    draw_decodings,
    draw_panel,
    figure_bytes,
)
from speechbrain_ee.evaluation.report import TEMPLATES
from speechbrain_ee.evaluation.tables import (
    DecodingComparison,
    DecodingResult,
)
from speechbrain_ee.evaluation.theme import (
    COLOURS,
    FAMILIES,
    ORACLE,
    Aspect,
    aspects,
    best_two,
    depth_needed,
    family,
    for_page,
    label,
    leaders,
    look,
)
from speechbrain_ee.exits.criteria import criterion_names, get_criterion
from tests.evaluation.made_up import drawn_sets


@pytest.fixture(scope="module")
def sets():
    return drawn_sets()


@pytest.fixture(scope="module")
def leading(sets):
    return leaders(list(sets.values()))


def panel_of(analysis, **aspect):
    return draw_panel(analysis, Aspect(**aspect)).axes[0]


def test_looks_of_criteria():
    """A family has a colour; members and parameters differ in dashes."""
    for name in criterion_names():
        if not get_criterion(name).baseline:
            assert look(name)[0] == FAMILIES[family(name)][0]
    assert look("entropy")[0] == look("tsallis_mean")[0]
    assert look("entropy")[1] != look("entropy_nonblank")[1]
    assert look("entropy")[0] != look("max_prob")[0]
    default = look("tsallis_min")
    for value in ("0.25", "0.5", "1", "2"):
        varied = look(f"tsallis_min:alpha={value}")
        assert varied[0] == default[0] and varied[1] != default[1]
    # a new one takes the family's colour, and no other edit
    assert family("entropy") == "entropies"
    assert family("new_criterion") == "others"
    assert look("homemade") == look("homemade")
    # every page has a colour of its own for each
    sheet = (TEMPLATES / "report.css").read_text("utf-8")
    dark = sheet[sheet.index("prefers-color-scheme: dark") :]
    dark = re.findall(r"--(?:oracle|c\d): (#\w{6})", dark)
    for colours in (dark, [*COLOURS, ORACLE]):
        assert len({*colours}) == len(FAMILIES) + 1


def test_leaders_are_the_best_of_their_family_over_all_sets(sets, leading):
    names = sets["clean"].criteria
    for key, analysis in sets.items():
        groups = {family(name) for name in names}
        best = {
            min(
                (n for n in names if family(n) == group),
                key=lambda n: sum(depth_needed(a, n) for a in sets.values()),
            )
            for group in groups
        }
        assert set(leading[key]) == best | {analysis.choice().result.name}
    assert {"entropy", "margin"} <= set(leading["clean"])


def test_the_cheapest_criterion_is_in_front_whatever_its_family(sets):
    # margin is far better over the levels, max_prob at equal WER alone
    analysis = sets["clean"]
    margin = analysis.criteria["margin"]
    point = margin.equal_wer
    noisy = replace(
        analysis.criteria["max_prob"],
        points=dict.fromkeys(margin.points)
        | {"equal_wer": replace(point, avg_layer=point.avg_layer - 1)},
    )
    criteria = {"margin": margin, "max_prob": noisy}
    odd = replace(analysis, criteria=criteria)
    never = replace(margin, points=dict.fromkeys(margin.points))
    poor = replace(analysis, criteria={"margin": never})
    assert depth_needed(poor, "margin") == 1.0
    assert odd.choice().result.name == "max_prob"
    assert leaders([odd])["clean"] == ("margin", "max_prob")


@pytest.mark.parametrize("axis", ["avg_layer", "avg_macs"])
@pytest.mark.parametrize("close", [False, True])
def test_lines_and_bands_are_the_measured_curves(sets, leading, axis, close):
    analysis = sets["clean"]
    two = best_two(analysis, leading["clean"])
    assert len(two) == 2 < len(leading["clean"])
    panel = panel_of(
        analysis, axis=axis, leading=leading["clean"], banded=two, close=close
    )
    scale = 1.0 if axis == "avg_layer" else 1e-9
    lines = {line.get_label(): line for line in panel.lines}
    mixture, *bands = (
        c for c in panel.collections if isinstance(c, PolyCollection)
    )
    assert mixture.get_gid() is None
    order = [band.get_gid().removeprefix("series.") for band in bands]
    assert sorted(order) == sorted(two)
    for name in leading["clean"]:
        curve = analysis.criteria[name].curve
        line = lines[label(name)]
        assert line.get_color() == look(name)[0]
        np.testing.assert_allclose(line.get_xdata(), curve.axis(axis) * scale)
        np.testing.assert_allclose(line.get_ydata(), curve.axis("wer"))
        if name not in two:
            continue
        band = bands[order.index(name)]
        corners = {tuple(v) for v in band.get_paths()[0].vertices.tolist()}
        for ends in (curve.above_low, curve.above_high):
            wers = (analysis.wer[-1] + np.array(ends)).tolist()
            expected = zip((curve.axis(axis) * scale).tolist(), wers)
            assert set(expected) <= corners


def test_the_other_criteria_are_there_but_out_of_sight(sets, leading):
    analysis = sets["clean"]
    aspect = Aspect("avg_layer", leading["clean"])
    figure = draw_panel(analysis, aspect)
    others = [n for n in analysis.criteria if n not in leading["clean"]]
    lines = {line.get_gid(): line for line in figure.axes[0].lines}
    for name in others:
        np.testing.assert_allclose(
            lines[f"hidden.{name}"].get_ydata(),
            analysis.criteria[name].curve.axis("wer"),
        )
    svg = for_page(figure_bytes(figure, "svg").decode(), "f")
    for name in analysis.criteria:
        off = " off" if name in others else ""
        assert f'class="series{off}" data-series="{name}"' in svg
    whole = draw_curves([analysis])
    assert others and not any(
        str(line.get_gid()).startswith("hidden")
        for panel in whole.axes
        for line in panel.lines
    )


def test_legend_names_what_stands_out_and_nothing_else(sets, leading):
    figure = draw_curves(list(sets.values()))
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(texts) == sorted(
        [
            *map(label, ["mixture", *leading["clean"], "oracle"]),
            "fixed exit after layer L",
            "last exit's WER kept, chosen on the set itself",
            "policy A: my <policy>",
        ]
    )


def test_policies_have_shapes_of_their_own_and_their_letters(sets):
    analysis = sets["other"]
    first = analysis.policies[0]
    last = analysis.fixed.curve.points[-1]
    others = (replace(first, point=last), replace(first, name="the same"))
    three = replace(analysis, policies=(first, *others))
    panel = panel_of(three, axis="avg_macs", close=True)
    marks = {line.get_marker(): line for line in panel.lines}
    for marker, policy in zip("*PX", three.policies, strict=True):
        found = (marks[marker].get_xdata()[0], marks[marker].get_ydata()[0])
        point = policy.point
        assert found == pytest.approx((point.avg_macs * 1e-9, point.wer))
    texts = [text.get_text() for text in panel.texts]
    assert "A, C" in texts and "B" in texts


@pytest.mark.parametrize("rows", [1, 3, 10, 150])
def test_every_set_has_a_close_up(sets, leading, rows):
    few = analyse(sets["clean"].trace.select(range(rows)), "clean")
    [(whole, close)] = aspects(few, leaders([few]))
    assert close.close and not whole.close
    panel = draw_panel(few, close).axes[0]
    (left, right), (low, high) = panel.get_xlim(), panel.get_ylim()
    assert left < 8 < right and low < few.wer[-1] < high
    assert low <= few.oracle_best.wer


def test_a_row_of_panels_per_set_where_macs_say_the_same(sets, leading):
    drawn = draw_curves(list(sets.values())).axes
    assert len(drawn) == 2 * 2
    titles = [panel.get_title(loc="left") for panel in drawn]
    assert titles[::2] == ["clean", "other"]
    # half a GMAC a layer for five seconds, which a second scale says
    [above] = drawn[0].child_axes
    half = [end / 2 for end in drawn[0].get_xlim()]
    assert above.get_xlim() == pytest.approx(half)
    dear = replace(sets["clean"].criteria["entropy"])
    points = tuple(
        replace(p, avg_macs=p.avg_macs + 0.1e9 * p.avg_layer)
        for p in dear.curve.points
    )
    curve = replace(dear.curve, points=points)
    criteria = {"entropy": replace(dear, curve=curve)}
    other = replace(sets["clean"], criteria=criteria)
    rows = aspects(other, leaders([other]))
    assert [row[0].axis for row in rows] == ["avg_layer", "avg_macs"]


@pytest.mark.parametrize("seed", range(4))
def test_labels_do_not_lie_on_each_other(sets, seed):
    """Nor do they leave the panel, however close the points are."""
    generator = np.random.default_rng(seed)
    analysis = sets["clean"]
    last = analysis.fixed.curve.points[-1]
    policies = tuple(
        replace(
            analysis.policies[0],
            point=replace(
                last,
                avg_layer=last.avg_layer - generator.uniform(0, 0.6),
                wer=last.wer + generator.uniform(-0.2, 0.2),
            ),
        )
        for _ in range(4)
    )
    crowded = replace(analysis, policies=policies)
    names = leaders([crowded])["clean"]
    two = best_two(crowded, names)
    panel = panel_of(
        crowded, axis="avg_layer", leading=names, banded=two, close=True
    )
    renderer = panel.figure.canvas.get_renderer()
    boxes = [
        text.get_window_extent(renderer)
        for text in panel.texts
        if isinstance(text, Annotation)
    ]
    assert len(boxes) >= 7
    for a, b in itertools.combinations(boxes, 2):
        assert not a.overlaps(b)
    for box in boxes:
        assert panel.bbox.padded(3).containsx(box.x0)
        assert panel.bbox.padded(3).containsx(box.x1)
        assert panel.bbox.padded(3).containsy(box.y0)
        assert panel.bbox.padded(3).containsy(box.y1)


WER = {"greedy": (40.0, 9.0, 5.0), "joint": (8.0, 4.0, 3.0)}
MACS = {"greedy": (1e9, 2e9, 3e9), "joint": (2e9, 3e9, 4e9)}


def comparison(key="clean", macs=MACS, wer=WER):
    results = {n: DecodingResult(wer[n], None, macs[n]) for n in wer}
    return DecodingComparison(key, (2, 4, 6), None, results)


def drawn(figure, panel=0):
    lines = figure.axes[panel].get_lines()
    return {line.get_label(): line.get_xydata().tolist() for line in lines}


@pytest.mark.parametrize("known", [True, False])
def test_decodings_are_error_rate_against_compute(known):
    macs = MACS if known else dict.fromkeys(MACS)
    sets = [comparison(macs=macs), comparison("other", macs)]
    figure = draw_decodings(sets)
    titles = [panel.get_title("left") for panel in figure.axes]
    assert titles == ["clean", "other"]
    points = drawn(figure, panel=1)
    x = (2.0, 3.0, 4.0) if known else (2.0, 4.0, 6.0)
    assert points["joint"] == [*map(list, zip(x, WER["joint"]))]
    x = (1.0, 2.0, 3.0) if known else x
    assert points["CTC greedy"] == [*map(list, zip(x, WER["greedy"]))]
    assert figure_bytes(figure, "png") == figure_bytes(figure, "png")
    # a rate of zero has no logarithm
    for last, scale in ((3.0, "log"), (0.0, "linear")):
        wer = WER | {"joint": (8.0, 4.0, last)}
        (panel,) = draw_decodings([comparison(wer=wer)]).axes
        low, high = panel.get_ylim()
        assert panel.get_yscale() == scale and low <= last and high >= 40
