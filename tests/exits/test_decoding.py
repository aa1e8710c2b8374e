"""Ways of decoding by name, rescoring, hypotheses, options of the search.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
import warnings
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from speechbrain.decoders.scorer import LengthScorer

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.criteria.beams import Hypothesis, beam_search
from speechbrain_ee.exits.decoding import greedy_tokens
from speechbrain_ee.exits.decoding.beam_search import (
    AttentionBeamSearch,
    NBest,
    Scored,
)
from speechbrain_ee.exits.decoding.methods import (
    BY_ATTENTION,
    DECODINGS,
    Decoding,
    check_decodings,
    ctc_nbest,
    rescore,
)
from speechbrain_ee.exits.decoding.search_options import SearchOptions
from speechbrain_ee.models.attention import TokenDecoder
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

ATTENTION = sure_attention(3, end=1.5)


MODEL = SimpleNamespace(attention=ATTENTION)


PLAIN = SimpleNamespace(attention=None)


OPTIONS = SearchOptions(beam_size=3, ctc_weight=0.3)


OUTPUT = random_output([8, 5], 3)


ALONE = chosen(OUTPUT, [1])


def found(name: str, output: Any = OUTPUT, model: Any = MODEL) -> list[NBest]:
    """What a way of decoding finds at the second exit."""
    return Decoding(name, model, OPTIONS)(2, output)


def test_greedy_is_the_greedy_path():
    for nbest, tokens in zip(found("ctc_greedy"), greedy_tokens(OUTPUT)):
        assert nbest.tokens == tuple(tokens)
        assert len(nbest.hypotheses) == 1 and nbest.best.complete
        assert nbest.steps == 0


def test_ctc_beam_is_ctcs_search_over_pieces():
    """Without the tokens for beginning and end, where there are any."""
    silent = OUTPUT.log_probs_BTV[1, :5].clone()
    silent[:, [BOS, EOS]] = -float("inf")
    for model, frames_TV in (
        (MODEL, silent),
        (PLAIN, OUTPUT.log_probs_BTV[1, :5]),
    ):
        (expected,) = beam_search(
            frames_TV[None], torch.tensor([len(frames_TV)]), BLANK, 3
        )
        hypotheses = found("ctc_beam", model=model)[1].hypotheses
        assert [h.tokens for h in hypotheses] == [h.tokens for h in expected]
        assert [h.score for h in hypotheses] == pytest.approx(
            [h.log_prob for h in expected]
        )
        assert not any(h.log_probs for h in hypotheses)


@pytest.mark.parametrize("name", ["attention", "joint"])
def test_searches(name):
    search = AttentionBeamSearch(ATTENTION, OPTIONS, name == "joint")
    assert found(name) == search.search(2, OUTPUT)
    assert found(name)[0].best.log_probs


def test_attention_and_joint_differ():
    scores = [found(name)[0].best.score for name in ("attention", "joint")]
    assert scores[0] != pytest.approx(scores[1])


@pytest.mark.parametrize("name", DECODINGS)
def test_alone_as_in_a_batch(name):
    (alone,) = found(name, ALONE)
    other, same = found(name)
    assert other.tokens != same.tokens
    assert same.steps == alone.steps
    assert [h.tokens for h in same.hypotheses] == [
        h.tokens for h in alone.hypotheses
    ]
    assert [h.score for h in same.hypotheses] == pytest.approx(
        [h.score for h in alone.hypotheses], abs=1e-4, nan_ok=True
    )


@pytest.mark.parametrize("name", DECODINGS)
def test_who_uses_attention(name):
    decoding = Decoding(name, MODEL)
    assert decoding.options == SearchOptions()
    assert decoding.uses_attention == (name in BY_ATTENTION)
    assert decoding.uses_attention == (found(name)[0].best.log_probs != ())
    if name in BY_ATTENTION:
        with pytest.raises(InputError, match=f"'{name}' needs attention"):
            Decoding(name, PLAIN)
    else:
        assert found(name, model=PLAIN)


@pytest.mark.parametrize(
    ("names", "model", "said"),
    [
        ((), MODEL, r"my_key: \(\) must be a list .*\[rescoring, ctc_greedy\]"),
        (None, MODEL, "my_key: None must be a list"),
        (5, MODEL, "my_key: 5 must be a list"),
        ([["joint"]], MODEL, "my_key: .*'joint'.* is unknown"),
        ("joint", MODEL, "my_key: 'joint' must be a list"),
        (["joint", "joint"], MODEL, "must be a list of different"),
        ([], PLAIN, r"for example \[ctc_beam, ctc_greedy\]"),
        (["jiont"], MODEL, "'jiont' is unknown; valid.*: ctc_greedy.*joint"),
        (["ctc_beam", "joint"], PLAIN, "'joint' needs attention heads"),
        (["nothing"], PLAIN, "is unknown; valid here: ctc_greedy, ctc_beam[.]"),
    ],
)
def test_wrong_names(names, model, said):
    with pytest.raises(InputError, match=said):
        check_decodings(names, model, "my_key")


def test_right_names():
    check_decodings(DECODINGS, MODEL)
    check_decodings(["ctc_beam", "ctc_greedy"], PLAIN)
    with pytest.raises(InputError, match="^decodings: "):
        check_decodings([], MODEL)


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


def test_score_per_token() -> None:
    """The end counts as a token where it was said."""
    assert Scored((5, 6), -6.0).score_per_token == -2.0
    assert Scored((5, 6), -6.0, complete=False).score_per_token == -3.0
    assert Scored((), -6.0).score_per_token == -6.0
    assert math.isnan(Scored((), math.nan, (), False).score_per_token)


@given(st.lists(st.floats(-5000, 0), min_size=1, max_size=12))
def test_posterior(scores: list[float]) -> None:
    """A softmax over the scores; also where the chosen one's is not best."""
    nbest = NBest(tuple(Scored((n,), s) for n, s in enumerate(scores)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        posterior = nbest.posterior
    assert posterior == pytest.approx(float(softmax(scores)[0]), abs=1e-12)
    shifted = NBest(tuple(Scored((), s - 100.0) for s in scores))
    assert posterior == pytest.approx(shifted.posterior, rel=1e-6, abs=1e-12)


def test_chosen_one_is_the_first() -> None:
    """Whatever the scores of the others are."""
    nbest = NBest((Scored((3,), -2.0), Scored((4, 4), -1.0)), steps=3)
    assert nbest.best is nbest.hypotheses[0]
    assert nbest.tokens == (3,)
    assert NBest(nbest.hypotheses[:1]).posterior == 1.0


def test_unknown_score() -> None:
    """No posterior without scores, so that no threshold is passed."""
    assert math.isnan(NBest((Scored((3,)),)).posterior)


@pytest.mark.parametrize(
    "wrong, key",
    [
        ({"beam_size": 0}, "beam_size: 0"),
        ({"beam_size": 2.5}, "beam_size: 2.5"),
        ({"ctc_weight": 1.0}, "ctc_weight: 1.0"),
        ({"ctc_weight": "0.4"}, "ctc_weight: 0.4"),
        ({"max_decode_ratio": 0}, "max_decode_ratio: 0"),
        ({"temperature": -1.0}, "temperature: -1.0"),
        ({"temperature": float("nan")}, "temperature: nan"),
        ({"eos_threshold": "1.5"}, "eos_threshold: '1.5'"),
        ({"scorer_beam_scale": 0.0}, "scorer_beam_scale: 0.0"),
        ({"scorer_weights": {"kenlm": 0.5}}, "scorer_weights: {'kenlm'"),
        (
            {"scorers": [LengthScorer(7)], "scorer_weights": {"length": 0.1}},
            "scorers: length",
        ),
    ],
)
def test_wrong_options(wrong: dict[str, Any], key: str) -> None:
    """The message names the key and its value."""
    with pytest.raises(InputError, match="search: ") as caught:
        replace(SearchOptions(), **wrong)
    assert key in str(caught.value)
