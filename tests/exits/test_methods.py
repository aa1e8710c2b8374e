"""Ways of decoding by name: each is what it says, the rest is refused.

Authors
 * The speechbrain-ee contributors 2026
"""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.criteria.beams import beam_search
from speechbrain_ee.exits.decoding import greedy_tokens
from speechbrain_ee.exits.decoding.beam_search import AttentionBeamSearch, NBest
from speechbrain_ee.exits.decoding.methods import (
    BY_ATTENTION,
    DECODINGS,
    Decoding,
    check_decodings,
)
from speechbrain_ee.exits.decoding.search_options import SearchOptions
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


def test_rescoring_weighs_ctcs_hypotheses():
    """At the exit asked for; its place tells the decoder which one."""
    by_ctc = found("ctc_beam", ALONE)[0]
    (nbest,) = Decoding("rescoring", MODEL, OPTIONS)(1, ALONE)
    assert {h.tokens for h in nbest.hypotheses} == {
        h.tokens for h in by_ctc.hypotheses
    }
    scores = [h.score for h in nbest.hypotheses]
    assert scores == sorted(scores, reverse=True)
    for one in nbest.hypotheses:
        by_attention = float(said(ATTENTION, ALONE, one.tokens).sum())
        by_beam = next(
            h.score for h in by_ctc.hypotheses if h.tokens == one.tokens
        )
        # a beam keeps some of the alignments
        assert by_beam <= ctc_log_prob(ALONE, one.tokens) + 1e-4
        assert one.score == pytest.approx(
            0.3 * by_beam + 0.7 * by_attention, abs=1e-3
        )
    (other,) = found("rescoring", ALONE)
    assert other.best.score != pytest.approx(nbest.best.score)


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
