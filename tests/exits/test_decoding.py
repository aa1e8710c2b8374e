"""Ways of decoding by name, rescoring, hypotheses, options of the search.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
import pydoc
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
from speechbrain_ee.exits.beam import beam_search
from speechbrain_ee.exits.decoding import (
    BY_ATTENTION,
    DECODINGS,
    AttentionBeamSearch,
    Decoding,
    NBest,
    Scored,
    SearchOptions,
    check_decodings,
    ctc_nbest,
    greedy_tokens,
    rescore,
)
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
            [h.score for h in expected]
        )
        assert not any(h.log_probs for h in hypotheses)


@pytest.mark.parametrize("name", ["attention", "joint"])
def test_searches(name):
    search = AttentionBeamSearch(ATTENTION, OPTIONS, name == "joint")
    assert found(name) == search.search(2, OUTPUT)
    assert [n.tokens for n in found("ctc_greedy")] == [
        tuple(tokens) for tokens in greedy_tokens(OUTPUT)
    ]
    assert found(name)[0].best.log_probs


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
    ("names", "model", "message"),
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
def test_wrong_names(names, model, message):
    check_decodings(["ctc_beam", "ctc_greedy"], model)
    with pytest.raises(InputError, match=message):
        check_decodings(names, model, "my_key")


SPECIAL = (BOS, EOS)


def test_ctc_nbest_scores_are_those_of_ctc() -> None:
    """A beam wide enough sums over all alignments; the best come first."""
    output = random_output([4, 3], 0)
    output.log_probs_BTV[..., [BOS, EOS]] = -0.01  # left out all the same
    for row, found in enumerate(ctc_nbest(output, 1000, SPECIAL)):
        alone = chosen(output, [row])
        assert len({one.tokens for one in found}) == len(found) > 40
        for one in found:
            expected = ctc_log_prob(alone, one.tokens)
            assert one.score == pytest.approx(expected, abs=1e-3)
        scores = [one.score for one in found]
        assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("weight", [0.1, 0.6])
def test_scores(weight: float) -> None:
    """Weighted sum of CTC's score and of teacher forcing, one by one."""
    attention = sure_attention(0)
    output = random_output([12, 7, 9], 0)
    found = ctc_nbest(output, 5, SPECIAL)
    for row, nbest in enumerate(rescore(1, output, found, attention, weight)):
        ctc = {one.tokens: one.score for one in found[row]}
        assert {one.tokens for one in nbest.hypotheses} == set(ctc)
        for one in nbest.hypotheses:
            values = said(attention, chosen(output, [row]), one.tokens).tolist()
            assert one.log_probs == pytest.approx(values, abs=1e-3)
            expected = weight * ctc[one.tokens] + (1 - weight) * sum(values)
            assert one.score == pytest.approx(expected, abs=1e-3)
            assert one.complete
        scores = [one.score for one in nbest.hypotheses]
        assert scores == sorted(scores, reverse=True)


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


def test_scores_of_hypotheses() -> None:
    """The end counts as a token where it was said; the first is chosen."""
    nbest = NBest((Scored((3,), -2.0), Scored((4, 4), -1.0)), steps=3)
    assert nbest.best is nbest.hypotheses[0] and nbest.tokens == (3,)
    assert NBest(nbest.hypotheses[:1]).posterior == 1.0
    assert math.isnan(NBest((Scored((3,)),)).posterior)
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


@pytest.mark.parametrize(
    "wrong, key",
    [
        ({"beam_size": 0}, "beam_size: 0"),
        ({"beam_size": 2.5}, "beam_size: 2.5"),
        ({"ctc_weight": 1.0}, "ctc_weight: 1.0"),
        ({"ctc_weight": "0.4"}, "ctc_weight: '0.4'"),
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
    earlier = "speechbrain_ee.exits.decoding.SearchOptions"
    assert pydoc.locate(earlier) is SearchOptions  # as YAMLs name it
    with pytest.raises(InputError, match="search") as caught:
        replace(SearchOptions(), **wrong)
    assert key in str(caught.value)
