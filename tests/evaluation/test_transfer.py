"""Transfer: a threshold taken from one set, measured on another.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import replace

import pytest

from speechbrain_ee.evaluation.analysis import analyse, transfer_matrices
from tests.evaluation.made_up import made_up


@pytest.fixture(scope="module")
def analyses():
    return [analyse(made_up(60, seed), f"set{seed}") for seed in (1, 2, 3)]


def test_every_ordered_pair(analyses):
    (matrix,) = transfer_matrices(analyses).values()
    assert matrix.criterion == "entropy"
    assert matrix.sets == ("set1", "set2", "set3")
    assert set(matrix.cells) == {
        (a.key, b.key) for a in analyses for b in analyses
    }


def test_a_cell_is_the_threshold_of_the_one_set_on_the_other(analyses):
    source, target = analyses[:2]
    cell = transfer_matrices(analyses)["entropy"].cells["set1", "set2"]
    assert cell.threshold == source.criteria["entropy"].plus_5.threshold
    errors = layers = 0
    for record in target.trace.records:
        for exit_ in record.exits:
            if -exit_.evidence["entropy"] >= cell.threshold:
                break
        errors += exit_.errors
        layers += exit_.layer
    wer = 100 * errors / target.words
    assert cell.wer == pytest.approx(wer)
    assert cell.avg_layer == pytest.approx(layers / len(target.trace))
    last = sum(row.exits[-1].errors for row in target.trace.records)
    assert cell.excess == pytest.approx(100 * (errors - last) / last)


def test_the_diagonal_keeps_its_budget(analyses):
    cells = transfer_matrices(analyses)["entropy"].cells
    for analysis in analyses:
        cell = cells[analysis.key, analysis.key]
        assert cell.excess <= 5 + 1e-9
        assert cell.avg_layer == pytest.approx(
            analysis.criteria["entropy"].plus_5.avg_layer
        )


def test_other_exit_layers_have_no_transfer(analyses):
    other = analyse(made_up(20, 4, exits=3), "shallow")
    assert transfer_matrices([analyses[0], other]) == {}
    assert transfer_matrices(analyses[:1]) == {}


def test_a_perfect_last_exit_has_no_relative_excess(analyses):
    trace = made_up(20, 5)
    perfect = tuple(
        replace(r, exits=(*r.exits[:-1], replace(r.exits[-1], errors=0)))
        for r in trace.records
    )
    target = analyse(type(trace)(trace.header, perfect), "perfect")
    cells = transfer_matrices([analyses[0], target])["entropy"].cells
    assert cells["set1", "perfect"].excess is None
