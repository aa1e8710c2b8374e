"""Figures: what is drawn is what was measured, and can be told apart.

Authors
 * The speechbrain-ee contributors 2026
"""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from speechbrain_ee.evaluation.aspect import Aspect, has_close_up
from speechbrain_ee.evaluation.families import depth_needed, leaders
from speechbrain_ee.evaluation.figures import (
    _columns,
    aspects,
    draw_curves,
    draw_panel,
    figure_bytes,
)
from speechbrain_ee.evaluation.stylesheet import STYLESHEET
from speechbrain_ee.evaluation.tables import label
from speechbrain_ee.evaluation.theme import (
    COLOURS,
    FAMILIES,
    ORACLE,
    family,
    look,
)
from speechbrain_ee.exits.criteria import criterion_names, get_criterion
from tests.evaluation.drawn_sets import drawn_sets

# How linear RGB looks to readers who lack one kind of cone: Machado,
# Oliveira and Fernandes 2009, severity 1.
VISION = {
    "normal": np.eye(3),
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "tritan": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
XYZ = [
    [0.4124, 0.3576, 0.1805],
    [0.2126, 0.7152, 0.0722],
    [0.0193, 0.1192, 0.9505],
]


@pytest.fixture(scope="module")
def sets():
    return drawn_sets()


@pytest.fixture(scope="module")
def leading(sets):
    return leaders(list(sets.values()))


def panel_of(analysis, **aspect):
    return draw_panel(analysis, Aspect(**aspect)).axes[0]


def test_a_criterion_without_a_family_is_one_of_the_others():
    """A new one takes the family's colour, and no other edit."""
    scored = [n for n in criterion_names() if not get_criterion(n).baseline]
    for name in scored:
        assert look(name)[0] == FAMILIES[family(name)][0]
    assert family("entropy") == "entropies"
    assert family("new_criterion") == "others"


def test_families_share_a_colour_and_members_differ_in_dashes():
    assert look("entropy")[0] == look("tsallis_mean")[0]
    assert look("entropy")[0] != look("max_prob")[0]
    assert look("entropy")[1] != look("entropy_nonblank")[1]


@pytest.mark.parametrize("value", ["0.25", "0.5", "1", "2"])
def test_parameters_keep_the_colour_and_change_the_dashes(value):
    default, varied = look("tsallis_min"), look(f"tsallis_min:alpha={value}")
    assert varied[0] == default[0] and varied[1] != default[1]


def test_unknown_names_have_a_look():
    assert look("homemade") == look("homemade")
    assert look("homemade")[0] == FAMILIES["others"][0]


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("page", ["light", "dark"])
def test_colours_can_be_told_apart(page, vision):
    colours = [*COLOURS, ORACLE]
    if page == "dark":
        dark = STYLESHEET[STYLESHEET.index("prefers-color-scheme: dark") :]
        colours = re.findall(r"--(?:oracle|c\d): (#\w{6})", dark)
    assert len(set(colours)) == len(FAMILIES) + 1
    seen = [lab(VISION[vision] @ linear(colour)) for colour in colours]
    for a, b in itertools.combinations(seen, 2):
        assert np.linalg.norm(a - b) > 12  # 2.3 can just be noticed


def linear(colour):
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    xyz = XYZ @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


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
        assert set(leading[key]) == best | {analysis.best_criterion().name}
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
    assert odd.best_criterion().name == "max_prob"
    assert leaders([odd])["clean"] == ("margin", "max_prob")


def test_depth_needed_counts_all_layers_where_a_level_is_not_reached(sets):
    analysis = sets["clean"]
    result = analysis.criteria["entropy"]
    never = dict.fromkeys(result.points)
    poor = replace(
        analysis, criteria={"entropy": replace(result, points=never)}
    )
    assert depth_needed(poor, "entropy") == 1.0
    levels = [p.avg_layer / 8 for p in result.points.values()]
    assert depth_needed(analysis, "entropy") == pytest.approx(sum(levels) / 4)


@pytest.mark.parametrize("axis", ["avg_layer", "avg_macs"])
@pytest.mark.parametrize("close", [False, True])
def test_lines_and_bands_are_the_measured_curves(sets, leading, axis, close):
    analysis = sets["clean"]
    panel = panel_of(analysis, axis=axis, leading=leading["clean"], close=close)
    scale = 1.0 if axis == "avg_layer" else 1e-9
    lines = {line.get_label(): line for line in panel.lines}
    bands = [c for c in panel.collections if isinstance(c, PolyCollection)]
    assert len(bands) == len(leading["clean"])
    for name, band in zip(leading["clean"], bands, strict=True):
        curve = analysis.criteria[name].curve
        line = lines[label(name)]
        assert line.get_color() == look(name)[0]
        np.testing.assert_allclose(line.get_xdata(), curve.axis(axis) * scale)
        np.testing.assert_allclose(line.get_ydata(), curve.axis("wer"))
        corners = {tuple(v) for v in band.get_paths()[0].vertices.tolist()}
        for ends in (curve.wer_low, curve.wer_high):
            expected = zip((curve.axis(axis) * scale).tolist(), ends)
            assert set(expected) <= corners


def test_the_other_criteria_are_pale_lines_of_their_family(sets, leading):
    analysis = sets["clean"]
    panel = panel_of(analysis, axis="avg_layer", leading=leading["clean"])
    [pale] = [c for c in panel.collections if isinstance(c, LineCollection)]
    others = [n for n in analysis.criteria if n not in leading["clean"]]
    assert others and len(pale.get_segments()) == len(others)
    for name, segment, colour in zip(
        others, pale.get_segments(), pale.get_colors(), strict=True
    ):
        np.testing.assert_allclose(
            segment[:, 1], analysis.criteria[name].curve.axis("wer")
        )
        assert to_hex(colour) == look(name)[0] and colour[3] < 0.5


def test_a_criterions_own_cost_is_charged(sets, leading):
    # never stopping early costs all layers and the criterion at three exits
    analysis = sets["clean"]
    panel = panel_of(analysis, axis="avg_macs", leading=leading["clean"])
    [line] = [x for x in panel.lines if x.get_label() == label("entropy")]
    full = analysis.fixed.curve.points[-1].avg_macs * 1e-9
    once = get_criterion("entropy").macs(125, 1000) * 1e-9
    assert line.get_xdata().max() == pytest.approx(full + 3 * once)


def test_legend_names_what_stands_out_and_nothing_else(sets, leading):
    figure = draw_curves(list(sets.values()))
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(texts) == sorted(
        [
            *map(label, ["mixture", *leading["clean"], "oracle"]),
            "fixed exit after layer L",
            "other criteria, colour by family",
            "WER of the last exit kept",
            "policy A: my <policy>",
        ]
    )


def test_policies_are_stars_with_their_letter(sets):
    analysis = sets["other"]
    panel = panel_of(analysis, axis="avg_macs", close=True)
    [star] = [line for line in panel.lines if line.get_marker() == "*"]
    point = analysis.policies[0].point
    place = (star.get_xdata()[0], star.get_ydata()[0])
    assert place == pytest.approx((point.avg_macs * 1e-9, point.wer))
    assert "A" in [text.get_text() for text in panel.texts]


def test_close_up_shows_the_way_from_the_oracle_to_the_last_exit(sets):
    analysis = sets["clean"]
    panel = panel_of(analysis, axis="avg_layer", close=True)
    (left, right), (low, high) = panel.get_xlim(), panel.get_ylim()
    for point in (analysis.oracle.equal_wer, analysis.fixed.curve.points[-1]):
        assert left < point.avg_layer < right and low < point.wer < high
    assert high < analysis.wer[1]


def test_no_close_up_of_single_errors_or_of_equal_exits(sets):
    analysis = sets["clean"]
    assert has_close_up(analysis)
    assert [len(row) for row in aspects(analysis, ())] == [2, 2]
    few = replace(analysis, trace=analysis.trace.select(range(10)))
    assert not has_close_up(replace(few, criteria={}))
    flat = replace(analysis)
    flat.__dict__["wer"] = (analysis.wer[-1] * 1.01, analysis.wer[-1])
    assert not has_close_up(flat)
    assert [len(row) for row in aspects(flat, ())] == [1, 1]


def test_one_row_of_panels_per_set_and_cost(sets):
    drawn = draw_curves(list(sets.values())).axes
    assert len(drawn) == 2 * 2 * 2
    titles = [panel.get_title(loc="left") for panel in drawn]
    assert titles[::2] == ["clean", "clean", "other", "other"]


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_same_bytes(sets, kind):
    first, second = (
        figure_bytes(draw_curves([sets["clean"]]), kind) for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize("number", [1, 5, 11, 30])
@pytest.mark.parametrize("text", ["oracle", "policy A: learned, macs=12.5G"])
def test_a_legend_ends_inside_the_figure(text, number):
    """Names of policies are long, and as many as the user gives."""
    figure = Figure((10, 8))
    canvas = FigureCanvasAgg(figure)
    texts = [text] * number
    columns = _columns(texts, 10, number)
    legend = figure.legend(
        [Line2D([], [])] * number,
        texts,
        ncols=columns,
        fontsize=9,
        handlelength=2.6,
        columnspacing=1.4,
    )
    canvas.draw()
    width = legend.get_window_extent().width
    assert width <= figure.bbox.width
    assert columns == number or width > figure.bbox.width / 2
