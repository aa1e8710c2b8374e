"""SpeechBrain's beam search cuts by the longest utterance and stops too soon.

Trap avoided: its searcher allows every hypothesis as many steps as the
longest utterance of the batch, strips the last real token of a hypothesis
that was cut as if it were the end, fails if there is no step at all, and stops
as soon as the beam is full of hypotheses that have ended, however improbable
they are. Tests first show that the trap is there, so that the fix can go once
SpeechBrain has closed it.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from speechbrain_ee.exits.decoding import (
    AttentionBeamSearch,
    NBest,
    SearchOptions,
    ctc_nbest,
    rescore,
)
from speechbrain_ee.models.attention import AttentionHeads
from speechbrain_ee.models.heads import ExitOutput
from tests.exits.exit_outputs import (
    BOS,
    EOS,
    NEVER,
    chosen,
    random_output,
    sure_attention,
)
from tests.exits.test_beam_search import speechbrain_search

LENGTHS = (4, 16, 7, 1)


def decoded(
    name: str, attention: AttentionHeads, output: ExitOutput
) -> list[NBest]:
    """By one of the ways in which the attention head takes part."""
    if name == "rescoring":
        found = ctc_nbest(output, 4, (BOS, EOS))
        return rescore(1, output, found, attention, 0.4)
    options = SearchOptions(beam_size=4)
    search = AttentionBeamSearch(attention, options, name == "joint")
    return search.search(1, output)


def assert_same(one: NBest, other: NBest) -> None:
    """Tokens and steps are equal, scores but for rounding."""
    assert one.steps == other.steps
    assert [h.tokens for h in one.hypotheses] == [
        h.tokens for h in other.hypotheses
    ]
    for a, b in zip(one.hypotheses, other.hypotheses):
        assert a.complete == b.complete
        assert a.score == pytest.approx(b.score, abs=1e-4)
        assert a.log_probs == pytest.approx(b.log_probs, abs=1e-4)


@pytest.mark.parametrize("name", ["attention", "joint", "rescoring"])
@pytest.mark.parametrize("end", [0.0, NEVER])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 0, 1)])
def test_alone_as_in_any_batch(
    name: str, end: float, order: Sequence[int]
) -> None:
    """Whether hypotheses end themselves or are cut, in any order."""
    attention = sure_attention(5, vocab=9, end=end)
    output = random_output(LENGTHS, 5, vocab=9)
    together = decoded(name, attention, chosen(output, order))
    for row, nbest in zip(order, together):
        (alone,) = decoded(name, attention, chosen(output, [row]))
        assert_same(nbest, alone)


def test_limit_is_the_utterance_s_own() -> None:
    """SpeechBrain writes as many tokens for 4 frames as for 16."""
    attention = sure_attention(0, end=NEVER)
    output = random_output([4, 16], 0)
    options = SearchOptions(beam_size=2)
    theirs, _ = speechbrain_search(attention, output, options, joint=False)
    assert [len(tokens) for tokens in theirs] == [15, 15]
    search = AttentionBeamSearch(attention, options, joint=False)
    ours = search.search(2, output)
    assert [len(nbest.tokens) for nbest in ours] == [4, 16]


def test_cut_hypothesis_keeps_its_last_token() -> None:
    """SpeechBrain takes the last token of a cut hypothesis for its end."""
    attention = sure_attention(0, end=NEVER)
    output = random_output([6], 0)
    options = SearchOptions(beam_size=2)
    (theirs,), _ = speechbrain_search(attention, output, options, joint=False)
    (ours,) = AttentionBeamSearch(attention, options, False).search(2, output)
    assert len(ours.tokens) == 6
    assert list(ours.tokens[:-1]) == theirs


def test_one_step_at_least() -> None:
    """A limit below one token is an unbound variable for SpeechBrain."""
    attention = sure_attention(0)
    output = random_output([3], 0)
    options = SearchOptions(beam_size=2, max_decode_ratio=0.2)
    with pytest.raises(UnboundLocalError):
        speechbrain_search(attention, output, options, joint=False)
    (ours,) = AttentionBeamSearch(attention, options, False).search(2, output)
    assert ours.steps == 1


SCRIPT = (4, 5, 5, 5, 5, 3, 4)
VOCAB = 7


@dataclass(frozen=True)
class Place:
    """How many tokens were read."""

    read: int = 0

    def reordered(self, index_N: Tensor) -> "Place":
        """All hypotheses stand at the same place."""
        return self


class Scripted:
    """Sure of the next token of a script, else inclined to end."""

    bos_index, eos_index, vocab_size, max_tokens = BOS, EOS, VOCAB, 50

    def decoder(self, exit: int) -> "Scripted":
        """The same at every exit."""
        return self

    def start(self, exit: int, output: ExitOutput) -> Place:
        """Nothing was read."""
        return Place()

    def extend(
        self, tokens_NS: Tensor, state: Place
    ) -> tuple[Tensor, Tensor, Place]:
        """Logits, where it looked, and the next place."""
        wanted = (*SCRIPT, EOS)[min(state.read, len(SCRIPT))]
        probs_V = torch.full((VOCAB,), 1e-4)
        probs_V[EOS] = 0.01
        probs_V[wanted] = 0.99
        logits_NSV = probs_V.log().expand(len(tokens_NS), 1, VOCAB).clone()
        looked_NST = torch.zeros(len(tokens_NS), 1, 20)
        return logits_NSV, looked_NST, replace(state, read=state.read + 1)


@pytest.mark.parametrize("beam", [1, 2, 3, 5])
def test_the_sure_transcript_is_found(beam: int) -> None:
    """With as many early ends as the beam has places."""
    output = ExitOutput(torch.zeros(2, 20, VOCAB), torch.tensor([20, 15]), 2, 0)
    options = SearchOptions(beam_size=beam, using_eos_threshold=False)
    search = AttentionBeamSearch(Scripted(), options, joint=False)
    for nbest in search.search(1, output):
        assert nbest.tokens == SCRIPT and nbest.best.complete
        assert nbest.steps == len(SCRIPT) + 1
        assert len(nbest.hypotheses) == beam
