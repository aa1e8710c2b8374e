"""Times of tokens and words.

Authors
 * The speechbrain-ee contributors 2026
"""

import pytest
import torch

from speechbrain_ee.exits.decoding.methods import greedy_tokens
from speechbrain_ee.inference.live.alignment import timed_tokens
from speechbrain_ee.inference.live.hypothesis import TimedToken, words_of
from speechbrain_ee.models.heads import ExitOutput

PIECES = ("", "\u2581a", "b", "\u2581c")


def output_of(path: list[int], sure: float = 0.91) -> ExitOutput:
    """An exit whose best path is known."""
    probs = torch.full((len(path), 4), (1 - sure) / 3)
    probs[torch.arange(len(path)), torch.tensor(path)] = sure
    return ExitOutput(probs.log()[None], torch.tensor([len(path)]), layer=1)


def random_output(seed: int) -> ExitOutput:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(3, 40, 4, generator=generator)
    return ExitOutput(
        logits.log_softmax(-1), torch.tensor([40, 17, 1]), layer=1
    )


def test_runs_of_the_best_path():
    (tokens,) = timed_tokens(
        output_of([0, 1, 1, 0, 0, 2, 3, 0, 3]), None, PIECES
    )
    assert [(t.piece, t.first, t.last) for t in tokens] == [
        ("\u2581a", 1, 2),
        ("b", 5, 5),
        ("\u2581c", 6, 6),
        ("\u2581c", 8, 8),
    ]
    assert all(t.confidence == pytest.approx(0.91) for t in tokens)


@pytest.mark.parametrize("seed", range(5))
def test_tokens_are_those_of_greedy_decoding(seed):
    output = random_output(seed)
    for timed, tokens in zip(
        timed_tokens(output, None, PIECES), greedy_tokens(output), strict=True
    ):
        assert [t.piece for t in timed] == [PIECES[k] for k in tokens]
        for one, next_ in zip(timed, timed[1:]):
            assert one.first <= one.last < next_.first


@pytest.mark.parametrize("seed", range(5))
def test_forced_alignment_of_any_text(seed):
    """The path spells the text, and no frame is better assigned."""
    output = random_output(seed)
    wanted = [[1, 2, 2, 3], [3], []]
    found = timed_tokens(output, wanted, PIECES)
    for timed, tokens, length in zip(found, wanted, (40, 17, 1), strict=True):
        assert [t.piece for t in timed] == [PIECES[k] for k in tokens]
        assert all(t.last < length for t in timed)
    # A single token covers the stretch that gains most over blanks.
    probs = output.log_probs_BTV[1, :17].exp()
    (one,) = found[1]
    gains = output.log_probs_BTV[1, :17, 3] - output.log_probs_BTV[1, :17, 0]
    stretches = [(a, b) for a in range(17) for b in range(a, 17)]
    best = max(stretches, key=lambda ab: float(gains[ab[0] : ab[1] + 1].sum()))
    assert (one.first, one.last) == best
    share = probs[one.first : one.last + 1, 3].mean()
    assert one.confidence == pytest.approx(float(share), abs=1e-5)


def test_a_text_that_does_not_fit_has_no_times():
    assert timed_tokens(output_of([1, 1]), [[1, 1]], PIECES) == [[]]
    assert timed_tokens(output_of([1]), [[1, 2]], PIECES) == [[]]


def test_tokens_beyond_the_vocabulary_write_nothing():
    first, second = timed_tokens(output_of([3, 2]), None, PIECES[:3])[0]
    assert (first.piece, second.piece) == ("", "b")


def test_words():
    tokens = [
        TimedToken(1, "\u2581a", 1, 2, 0.5),
        TimedToken(2, "b", 5, 5, 1.0),
        TimedToken(3, "\u2581c", 9, 30, 0.25),
    ]
    first, second = words_of(tokens, 0.04, 1.0)
    assert (first.text, first.start_s, first.end_s) == ("ab", 0.04, 0.24)
    assert first.confidence == pytest.approx(0.75)
    assert (second.text, second.start_s, second.end_s) == ("c", 0.36, 1.0)
    assert words_of([], 0.04, 1.0) == ()


def test_a_word_mark_alone_is_no_word():
    assert words_of([TimedToken(1, "\u2581", 0, 1, 0.9)], 0.04, 1.0) == ()
