"""The figure of decodings shows the numbers of the table.

Authors
 * The speechbrain-ee contributors 2026
"""

import pytest

from speechbrain_ee.evaluation.decodings import (
    DecodingComparison,
    DecodingResult,
)
from speechbrain_ee.evaluation.figures import draw_decodings, figure_bytes

WER = {"greedy": (40.0, 9.0, 5.0), "joint": (8.0, 4.0, 3.0)}
MACS = {"greedy": (1e9, 2e9, 3e9), "joint": (2e9, 3e9, 4e9)}


def comparison(key="clean", macs=MACS, wer=WER):
    results = tuple(
        DecodingResult(name, wer[name], None, macs[name]) for name in wer
    )
    return DecodingComparison(key, (2, 4, 6), None, results)


def drawn(figure, panel=0):
    lines = figure.axes[panel].get_lines()
    return {line.get_label(): line.get_xydata().tolist() for line in lines}


def test_points_are_error_rate_against_compute():
    figure = draw_decodings([comparison(), comparison("other")])
    assert len(figure.axes) == 2
    assert [panel.get_title("left") for panel in figure.axes] == [
        "clean",
        "other",
    ]
    points = drawn(figure, panel=1)
    assert points["joint"] == [[2.0, 8.0], [3.0, 4.0], [4.0, 3.0]]
    assert points["CTC greedy"] == [[1.0, 40.0], [2.0, 9.0], [3.0, 5.0]]
    assert figure_bytes(figure, "png") == figure_bytes(figure, "png")


def test_without_costs_layers_stand_in():
    macs = dict.fromkeys(MACS)
    (panel,) = draw_decodings([comparison(macs=macs)]).axes
    assert "layers" in panel.get_xlabel()
    for line in panel.get_lines():
        assert line.get_xdata().tolist() == [2.0, 4.0, 6.0]


@pytest.mark.parametrize(
    ("last", "scale"), [(3.0, "log"), (0.0, "linear")], ids=["some", "none"]
)
def test_a_rate_of_zero_has_no_logarithm(last, scale):
    wer = WER | {"joint": (8.0, 4.0, last)}
    (panel,) = draw_decodings([comparison(wer=wer)]).axes
    assert panel.get_yscale() == scale
    low, high = panel.get_ylim()
    assert low <= last and high >= 40
