"""A beam search goes on while something better has not ended.

SpeechBrain's searcher stops as soon as the beam is full of hypotheses that
have ended, however improbable they are: a decoder that is 99 % sure of every
token of a transcript loses it to three that broke off.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from speechbrain_ee.exits.decoding import AttentionBeamSearch, SearchOptions
from speechbrain_ee.models.heads import ExitOutput

SCRIPT = (4, 5, 5, 5, 5, 3, 4)
BOS, EOS, VOCAB = 1, 2, 7


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
