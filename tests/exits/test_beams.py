"""Hypotheses of a beam: CTC's N best, and what an attention decoder found.

Authors
 * The speechbrain-ee contributors 2026
"""

import collections
import itertools
import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.beam import beam_search
from speechbrain_ee.exits.criteria import (
    criterion_names,
    get_criterion,
    get_measure,
    measure_all,
)
from speechbrain_ee.exits.criteria.beams import nbest_posterior
from speechbrain_ee.exits.criteria.view import ExitView
from speechbrain_ee.exits.decoding import NBest, Scored
from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.models.heads import ExitOutput

WIDE = 512  # more than all prefixes and endings of four frames of four


def searched(log_probs_TV, blank=0, beam=10, size=None):
    lengths = torch.tensor([len(log_probs_TV)])
    return beam_search(log_probs_TV[None], lengths, blank, beam)[0][:size]


def random_frames(seed, frames, vocab, sharpness=2.0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(frames, vocab, generator=generator)
    return (sharpness * logits).log_softmax(-1)


def view_of(rows, blank=0, filler=float("nan"), extra=3):
    longest = max(len(row) for row in rows) + extra
    batch_BTV = torch.full((len(rows), longest, rows[0].shape[1]), filler)
    for place, row in enumerate(rows):
        batch_BTV[place, : len(row)] = row
    lengths_B = torch.tensor([len(row) for row in rows])
    return ExitView(ExitOutput(batch_BTV, lengths_B, 2, blank_index=blank))


def all_sequences(log_probs_TV, blank):
    """Exact probability of every token sequence, path by path."""
    frames, vocab = log_probs_TV.shape
    rows = log_probs_TV.double().exp().tolist()
    totals = {}
    for path in itertools.product(range(vocab), repeat=frames):
        merged = [token for token, _ in itertools.groupby(path)]
        tokens = tuple(token for token in merged if token != blank)
        p = math.prod(rows[t][token] for t, token in enumerate(path))
        totals[tokens] = totals.get(tokens, 0.0) + p
    return dict(sorted(totals.items(), key=lambda item: -item[1]))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(2, 4), st.data())
def test_wide_beam_is_exact(seed, frames, vocab, data):
    blank = data.draw(st.integers(0, vocab - 1))
    size = data.draw(st.integers(2, 12))
    log_probs_TV = random_frames(seed, frames, vocab)
    exact = all_sequences(log_probs_TV, blank)
    assert sum(exact.values()) == pytest.approx(1.0)
    found = searched(log_probs_TV, blank, WIDE, size)
    assert len(found) == min(size, len(exact))
    for one, p in zip(found, exact.values()):
        assert math.exp(one.score) == pytest.approx(p, rel=1e-5)
        assert math.exp(one.score) == pytest.approx(exact[one.tokens], rel=1e-5)
    best = list(exact.values())[:size]
    expected = best[0] / sum(best) if found[0].tokens else 0.0
    measured = nbest_posterior(
        view_of([log_probs_TV], blank), size=size, beam=WIDE
    )
    assert measured.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("filler", [float("nan"), float("-inf"), 50.0, 0.0])
def test_batch_and_padding_change_nothing(filler):
    rows = [random_frames(n, n, 12) for n in (30, 1, 7, 18)]
    posterior = partial(nbest_posterior, size=5, beam=8)
    alone = [posterior(view_of([row], extra=0)) for row in rows]
    together = posterior(view_of(rows, filler=filler))
    assert together.shape == (4,)
    assert torch.equal(torch.cat(alone), together)
    backwards = posterior(view_of(rows[::-1], filler=filler))
    assert torch.equal(backwards.flip(0), together)


def one_by_one(log_probs_TV, blank, beam):
    """Prefix beam search as papers write it, with a dictionary."""
    beams = {(): (0.0, -math.inf)}  # alignments that end in blank, in a token
    for frame in log_probs_TV.double():
        after = collections.defaultdict(lambda: [-math.inf, -math.inf])

        def add(tokens, place, score, after=after):
            after[tokens][place] = np.logaddexp(after[tokens][place], score)

        for token in frame.topk(min(beam, len(frame))).indices.tolist():
            p = frame[token].item()
            for tokens, (by_blank, by_token) in beams.items():
                both = np.logaddexp(by_blank, by_token)
                if token == blank:
                    add(tokens, 0, both + p)
                elif tokens[-1:] == (token,):
                    add(tokens, 1, by_token + p)
                    add((*tokens, token), 1, by_blank + p)
                else:
                    add((*tokens, token), 1, both + p)
        ranked = sorted(after.items(), key=lambda one: -np.logaddexp(*one[1]))
        beams = {tokens: tuple(scores) for tokens, scores in ranked[:beam]}
    return {tokens: np.logaddexp(*scores) for tokens, scores in beams.items()}


@pytest.mark.parametrize("vocab", [5, 32, 64])
def test_pruning_search_equals_the_plain_algorithm(vocab):
    for seed in range(5):
        log_probs_TV = random_frames(seed, 60, vocab, sharpness=3.0)
        expected = one_by_one(log_probs_TV, 2, 10)
        found = searched(log_probs_TV, 2, 10)
        assert [one.tokens for one in found] == list(expected)
        assert [one.score for one in found] == pytest.approx(
            list(expected.values()), rel=1e-9
        )


def test_certain_undecided_long_and_half():
    """Differences alone are exponentiated: exp(-3000) is 0."""
    posterior = partial(nbest_posterior, size=4, beam=6)
    certain = torch.eye(3)[[1, 0, 2, 2]].log()  # zeros become -inf
    assert searched(certain, 0, 6)[0].tokens == (1, 2)
    undecided = torch.full((4, 3), 1 / 3).log()
    sure, unsure = posterior(view_of([certain, undecided])).tolist()
    assert sure == 1.0 and 0.25 <= unsure < 0.5
    long = random_frames(3, 1500, 12, sharpness=0.5)
    found = searched(long, 0, 4)
    assert found[0].score < -1500 and len({h.tokens for h in found}) == 4
    full = posterior(view_of([long[:20]])).item()
    assert 1 / 4 <= posterior(view_of([long])).item() < 1
    half = ExitView(ExitOutput(long[None, :20].half(), torch.tensor([20]), 2))
    assert posterior(half).item() == pytest.approx(full, abs=0.05)


def test_impossible_options():
    view = view_of([random_frames(n, 9, 6) for n in range(3)])
    name = "nbest_posterior:size=3,beam=7"
    measured = measure_all(view, [name])[name]
    assert torch.equal(measured, nbest_posterior(view, size=3, beam=7))
    for name, said in (("size=1", "from 2"), ("width=1", "size, beam")):
        with pytest.raises(InputError, match=said):
            get_measure(f"nbest_posterior:{name}")
    with pytest.raises(InputError, match="beam=5 .* at least 8"):
        nbest_posterior(view, size=8, beam=5)


def test_nothing_recognised_is_the_least_ready():
    blanks = torch.tensor([[0.98, 0.01, 0.01]] * 6).log()
    broken = random_frames(0, 6, 3)
    broken[2, 1] = torch.nan
    rows = [blanks, blanks[:0], random_frames(0, 6, 3), broken]
    values = nbest_posterior(view_of(rows), size=3, beam=9)
    assert values[:2].tolist() == [0.0, 0.0]
    assert values[2] > 0 and values[3].isnan()


NAMES = (
    "beam_score",
    "beam_posterior",
    "token_confidence",
    "token_confidence_min",
)


SURE = NBest(
    (
        Scored((4, 5), -0.6, (-0.1, -0.3, -0.2)),
        Scored((4,), -3.0, (-0.1, -2.9)),
        Scored((5, 5, 3), -2.0, (-1.0, -0.5, -0.25, -0.25)),
    ),
    steps=4,
)


# cut at the greatest length: the end was never said
CUT = NBest((Scored((3, 3), -5.0, (-2.0, -3.0), complete=False),), steps=2)


# the second is the more probable one, but not per token
LONG = NBest(
    (
        Scored((6, 6, 6), -2.0, (-0.5, -0.5, -0.5, -0.5)),
        Scored((), -1.0, (-1.0,)),
    ),
    steps=4,
)


EMPTY = NBest((Scored((), -0.01, (-0.01,)), Scored((3,), -9.0, (-4.0, -5.0))))
BROKEN = NBest((Scored((3,), math.nan, (math.nan, math.nan)),))


UNKNOWN = NBest((Scored((), math.nan, (), complete=False),), steps=1)


def view_found(found: Sequence[NBest] | None, frames: int = 3) -> ExitView:
    """A batch of so many utterances, and what was found for each."""
    count = 2 if found is None else len(found)
    output = ExitOutput(
        torch.randn(count, frames, 7).log_softmax(-1),
        torch.full((count,), frames),
        layer=2,
    )
    return ExitView(output, nbest=found)


def by_name(found: Sequence[NBest]) -> dict[str, list[float]]:
    """All measures of a batch, as lists."""
    measured = measure_all(view_found(found), decoded=True)
    return {name: values_B.tolist() for name, values_B in measured.items()}


def expected_of(nbest: NBest) -> dict[str, float]:
    """The definitions, from the first hypothesis that says something."""
    best = nbest.hypotheses[0]
    said = len(best.tokens) + (1 if best.complete else 0)
    shares = [math.exp(one.score) for one in nbest.hypotheses]
    return {
        "beam_score": best.score / said,
        "beam_posterior": shares[0] / sum(shares),
        "token_confidence": math.prod(map(math.exp, best.log_probs))
        ** (1 / len(best.log_probs)),
        "token_confidence_min": min(map(math.exp, best.log_probs)),
    }


def test_values_by_hand():
    found = by_name([SURE, CUT, LONG])
    assert tuple(found) == NAMES
    for row, nbest in enumerate((SURE, CUT, LONG)):
        for name, value in expected_of(nbest).items():
            assert found[name][row] == pytest.approx(value, rel=1e-6), name
    assert found["beam_score"] == pytest.approx([-0.2, -2.5, -0.5])
    assert found["beam_posterior"][1] == 1.0
    assert found["token_confidence_min"][0] == pytest.approx(math.exp(-0.3))


@pytest.mark.parametrize("nothing", [EMPTY, UNKNOWN, BROKEN])
@pytest.mark.parametrize("name", NAMES)
def test_who_says_nothing_is_least_ready(name, nothing):
    """However sure the decoder is that nothing was said."""
    hopeless = NBest(
        (
            Scored((3,), -150.0, (-75.0, -75.0)),
            Scored((4,), 0.0, (0.0, 0.0)),
        )
    )
    values = by_name([nothing, SURE, CUT, LONG, hopeless])[name]
    scores_NE = get_criterion(name).scores(
        Evidence(
            np.array([2]),
            [f"u{row}" for row in range(5)],
            {name: np.array(values)[:, None]},
        )
    )
    assert np.isfinite(scores_NE).all()
    assert (scores_NE[0] < scores_NE[1:4]).all()
    assert scores_NE[0] <= scores_NE[4]


def test_they_are_taken_only_where_something_was_decoded():
    without, found = view_found(None), view_found([SURE, CUT])
    assert tuple(measure_all(found, decoded=True)) == NAMES
    assert measure_all(without, decoded=True) == {}
    for view in (without, found):
        cheap = measure_all(view)
        assert "entropy" in cheap and not {*cheap} & {*NAMES}
    assert NAMES == tuple(
        n for n in criterion_names() if get_criterion(n).decodes
    )
    # asked for by name
    asked = ("entropy", "beam_score")
    assert tuple(measure_all(found, asked)) == asked
    assert tuple(measure_all(without, asked)) == ("entropy",)
