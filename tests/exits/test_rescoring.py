"""CTC's N best, rescored: one pass gives what teacher forcing gives.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from typing import Any

import pytest

from speechbrain_ee.exits.criteria.beams import Hypothesis
from speechbrain_ee.exits.decoding.methods import ctc_nbest, rescore
from speechbrain_ee.models.decoder import TokenDecoder
from tests.exits.exit_outputs import (
    BLANK,
    BOS,
    EOS,
    chosen,
    ctc_log_prob,
    random_output,
    said,
    sure_attention,
)

SPECIAL = (BOS, EOS)


def test_ctc_nbest_scores_are_those_of_ctc() -> None:
    """A beam wide enough sums over all alignments; the best come first."""
    output = random_output([4, 3], 0)
    for row, found in enumerate(ctc_nbest(output, 1000, SPECIAL)):
        alone = chosen(output, [row])
        assert len({one.tokens for one in found}) == len(found) > 40
        for one in found:
            expected = ctc_log_prob(alone, one.tokens)
            assert one.log_prob == pytest.approx(expected, abs=1e-3)
        scores = [one.log_prob for one in found]
        assert scores == sorted(scores, reverse=True)


def test_ctc_nbest_leaves_out_what_is_not_said() -> None:
    """However probable, and where the beam is wider than the choices."""
    output = random_output([4, 1], 1)
    output.log_probs_BTV[..., [BOS, EOS]] = -0.01
    for size in (1, 10, 100):
        for found in ctc_nbest(output, size, SPECIAL):
            assert 1 <= len(found) <= size
            for one in found:
                assert not {BLANK, BOS, EOS} & set(one.tokens)
                assert one.log_prob > -1e3
    assert output.log_probs_BTV.isfinite().all()  # not changed in place


@pytest.mark.parametrize("weight", [0.1, 0.6])
def test_scores(weight: float) -> None:
    """Weighted sum of CTC's score and of teacher forcing, one by one."""
    attention = sure_attention(0)
    output = random_output([12, 7, 9], 0)
    found = ctc_nbest(output, 5, SPECIAL)
    for row, nbest in enumerate(rescore(1, output, found, attention, weight)):
        ctc = {one.tokens: one.log_prob for one in found[row]}
        assert {one.tokens for one in nbest.hypotheses} == set(ctc)
        for one in nbest.hypotheses:
            values = said(attention, chosen(output, [row]), one.tokens).tolist()
            assert one.log_probs == pytest.approx(values, abs=1e-3)
            expected = weight * ctc[one.tokens] + (1 - weight) * sum(values)
            assert one.score == pytest.approx(expected, abs=1e-3)
            assert one.complete
        scores = [one.score for one in nbest.hypotheses]
        assert scores == sorted(scores, reverse=True)


def test_weight_decides_who_ranks() -> None:
    """Nearly all weight on CTC keeps its order; on attention, changes it."""
    attention = sure_attention(1)
    output = random_output([10, 10, 10], 1)
    found = ctc_nbest(output, 6, SPECIAL)

    def order(weight: float) -> list[list[tuple[int, ...]]]:
        results = rescore(1, output, found, attention, weight)
        return [[one.tokens for one in n.hypotheses] for n in results]

    by_ctc = [[one.tokens for one in row] for row in found]
    assert order(1 - 1e-9) == by_ctc != order(1e-9)


def test_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder reads all hypotheses of a batch at once."""
    shapes = []
    extend = TokenDecoder.extend

    def counted(self: TokenDecoder, tokens_NS: Any, state: Any) -> Any:
        shapes.append(tuple(tokens_NS.shape))
        return extend(self, tokens_NS, state)

    monkeypatch.setattr(TokenDecoder, "extend", counted)
    output = random_output([9, 6], 2)
    found = ctc_nbest(output, 4, SPECIAL)
    rescore(2, output, found, sure_attention(2), 0.3)
    longest = max(len(one.tokens) for row in found for one in row)
    assert shapes == [(8, longest + 1)]


def test_ragged_lists() -> None:
    """Utterances with fewer hypotheses, among them the empty one."""
    attention = sure_attention(3)
    output = random_output([8, 5, 6], 3)
    found = [
        [Hypothesis((3, 4, 5), -1.0), Hypothesis((), -2.0)],
        [Hypothesis((), -0.5)],
        [Hypothesis((6,), -3.0), Hypothesis((5,), -1.0), Hypothesis((3,), -9)],
    ]
    results = rescore(1, output, found, attention, 0.5)
    assert [len(nbest.hypotheses) for nbest in results] == [2, 1, 3]
    assert [nbest.steps for nbest in results] == [4, 1, 2]
    for row, nbest in enumerate(results):
        alone = rescore(1, chosen(output, [row]), [found[row]], attention, 0.5)
        assert [one.tokens for one in nbest.hypotheses] == [
            one.tokens for one in alone[0].hypotheses
        ]
        for one, other in zip(nbest.hypotheses, alone[0].hypotheses):
            assert len(one.log_probs) == len(one.tokens) + 1
            assert one.score == pytest.approx(other.score, abs=1e-4)
    (empty,) = results[1].hypotheses
    end = said(attention, chosen(output, [1]), ())
    assert empty.log_probs == pytest.approx(end.tolist(), abs=1e-4)


def test_not_a_number() -> None:
    """Nothing is said of such an utterance; its neighbours are unharmed."""
    attention = sure_attention(4)
    output = random_output([6, 6], 4)
    expected = rescore(
        1, output, ctc_nbest(output, 3, SPECIAL), attention, 0.4
    )[0]
    output.log_probs_BTV[1] = math.nan
    output.hidden_BTD[1] = math.nan
    found = ctc_nbest(output, 3, SPECIAL)
    fine, broken = rescore(1, output, found, attention, 0.4)
    assert fine.tokens == expected.tokens
    assert fine.best.score == pytest.approx(expected.best.score, abs=1e-5)
    assert broken.tokens == () and math.isnan(broken.best.score)
