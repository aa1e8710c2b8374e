"""Beam search over an exit's attention head, with its CTC head beside it.

The search is SpeechBrain's ``S2STransformerBeamSearcher`` with its
``CTCScorer`` and, if wanted, its language model scorers. Four things are
added, so that an utterance is decoded alike alone and in any batch, and at
the price of its own length: the decoder reads one token per step instead of
the whole hypothesis; an utterance is cut at a length of its own instead of
the longest one's; a hypothesis that was cut says so; and the search goes on
while one that has not ended is better than all that have, where SpeechBrain's
stops as soon as K have ended, however bad they are.

Axes: B utterances, K hypotheses of each (the beam), N = B K.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from speechbrain.decoders.scorer import (
    CTCScorer,
    KenLMScorer,
    ScorerBuilder,
)
from speechbrain.decoders.seq2seq import (
    AlivedHypotheses,
    S2STransformerBeamSearcher,
)
from torch import Tensor

from speechbrain_ee.exits.decoding.search_options import SearchOptions
from speechbrain_ee.models.attention import AttentionHeads, DecoderState
from speechbrain_ee.models.heads import ExitOutput

# SpeechBrain forbids by adding -1e20 times a weight. Below this total a
# hypothesis only fills a beam that is wider than there are choices.
_IMPOSSIBLE = -1e10


@dataclass(frozen=True)
class Scored:
    """A hypothesis.

    Arguments
    ---------
    tokens : tuple of int
        Without the tokens for beginning and end.
    score : float
        Its log-probability in nats, of all models that took part, weighted.
    log_probs : tuple of float
        What the attention head gave each token and the end, in nats; empty
        where none was asked.
    complete : bool
        Whether it ended itself; False if it was cut at the greatest length.
    """

    tokens: tuple[int, ...]
    score: float = math.nan
    log_probs: tuple[float, ...] = ()
    complete: bool = True

    @property
    def score_per_token(self) -> float:
        """The score over the number of tokens; an end that was said counts."""
        return self.score / max(len(self.tokens) + self.complete, 1)


@dataclass(frozen=True)
class NBest:
    """The hypotheses of one utterance, the chosen one first.

    Arguments
    ---------
    hypotheses : tuple of Scored
        At least one; the others may come in any order.
    steps : int
        Tokens that the attention decoder read for each hypothesis.

    Example
    -------
    >>> nbest = NBest((Scored((5, 6), -1.0), Scored((5,), -2.0)), steps=3)
    >>> nbest.tokens, round(nbest.posterior, 3)
    ((5, 6), 0.731)
    """

    hypotheses: tuple[Scored, ...]
    steps: int = 0

    @property
    def best(self) -> Scored:
        """The chosen hypothesis."""
        return self.hypotheses[0]

    @property
    def tokens(self) -> tuple[int, ...]:
        """Tokens of the chosen hypothesis."""
        return self.best.tokens

    @property
    def posterior(self) -> float:
        """Share of the chosen hypothesis in the probability of all."""
        scores = np.array([one.score for one in self.hypotheses])
        shares = np.exp(scores - scores.max())
        return float(shares[0] / shares.sum())


class AttentionBeamSearch(S2STransformerBeamSearcher):
    """Search for transcripts at the exits of a model.

    Arguments
    ---------
    attention : AttentionHeads
        Of the model.
    options : SearchOptions
        How to search.
    joint : bool
        Whether the CTC head takes part.
    """

    def __init__(
        self,
        attention: AttentionHeads,
        options: SearchOptions | None = None,
        joint: bool = True,
    ):
        options = options or SearchOptions()
        super().__init__(
            modules=[None, None],  # chosen by exit
            temperature=options.temperature,
            bos_index=attention.bos_index,
            eos_index=attention.eos_index,
            min_decode_ratio=0.0,
            max_decode_ratio=options.max_decode_ratio,
            beam_size=options.beam_size,
            using_eos_threshold=options.using_eos_threshold,
            eos_threshold=options.eos_threshold,
        )
        self.attention = attention
        self.options = options
        self.ctc_weight = options.ctc_weight if joint else 0.0
        self.attn_weight = 1.0 - self.ctc_weight

    @torch.no_grad()
    def search(self, exit: int, output: ExitOutput) -> list[NBest]:
        """The best hypotheses of a batch at an exit.

        Arguments
        ---------
        exit : int
            Number of the exit, from 1.
        output : ExitOutput
            What was read there, hidden states included.

        Returns
        -------
        list of NBest
            For every utterance as many hypotheses as the beam is wide, best
            score per token first.
        """
        frames = output.log_probs_BTV.shape[1]
        self.decoder = self.attention.decoder(exit)
        self.blank_index = output.blank_index
        self.scorer = self._scorers(output)
        self._start = self.attention.start(exit, output)
        # The decoder has its own view of the frames, and CTC its own: what
        # SpeechBrain repeats for every hypothesis holds nothing but a shape.
        shape_BT1 = output.log_probs_BTV.new_zeros(
            (len(output.lengths_B), frames, 1)
        )
        hyps, tokens_N, log_probs_NV, ended, *memory = (
            self.init_beam_search_data(shape_BT1, output.lengths_B / frames)
        )
        limits = self._limits(output.lengths_B)
        found: list[NBest | None] = [None] * len(limits)
        for step in range(max(limits)):
            before = _sequences(hyps)
            hyps, tokens_N, log_probs_NV, ended, *moved, _ = self.search_step(
                hyps, tokens_N, log_probs_NV, ended, *memory, step
            )
            memory[: len(moved)] = moved
            scores_BK = hyps.sequence_scores.view(-1, self.beam_size)
            alive_B = (scores_BK > _IMPOSSIBLE).any(1).tolist()
            hopes_B = (scores_BK.amax(1) / (step + 1)).tolist()
            for row, limit in enumerate(limits):
                if found[row] is not None:
                    continue
                over = step + 1 == limit or not alive_B[row]
                if over:
                    ended[row] += self._cut(row, _sequences(hyps), ended[row])
                    # Nothing can follow: fall back on what could be said.
                    ended[row] = ended[row] or self._cut(row, before)
                full = len(ended[row]) == self.beam_size
                if over or (full and ended[row][0][2] >= hopes_B[row]):
                    found[row] = self._nbest(ended[row], step + 1)
            if None not in found:
                break
        return found

    def set_n_out(self) -> int:
        """Tokens that a step chooses from."""
        return self.attention.vocab_size

    def reset_mem(self, batch_size: int, device: Any) -> DecoderState:
        """The decoder's state before the first token."""
        return self._start

    def permute_mem(self, memory: DecoderState, index: Tensor) -> DecoderState:
        """Continue other hypotheses."""
        return memory.reordered(index)

    def forward_step(
        self,
        inp_tokens: Tensor,
        memory: DecoderState,
        enc_states: Tensor,
        enc_lens: Tensor,
    ) -> tuple[Tensor, DecoderState, Tensor]:
        """One token of every hypothesis; shapes (N,) to (N, V)."""
        logits, attention_NST, memory = self.decoder.extend(
            inp_tokens.unsqueeze(1), memory
        )
        logits_NV = logits[:, -1].float() / self.temperature
        log_probs_NV = logits_NV.log_softmax(-1)
        # Neither is a piece of a transcript.
        log_probs_NV[:, [self.bos_index, self.blank_index]] = self.minus_inf
        return log_probs_NV, memory, attention_NST[:, -1]

    def _scorers(self, output: ExitOutput) -> ScorerBuilder | None:
        options = self.options
        slow = [s for s in options.scorers if isinstance(s, KenLMScorer)]
        fast = [s for s in options.scorers if s not in slow]
        weights = dict(options.scorer_weights)
        if self.ctc_weight:
            # Its log-probabilities are there already.
            ctc = CTCScorer(
                lambda shape_BT1: output.log_probs_BTV.float(),
                output.blank_index,
                self.eos_index,
            )
            slow.append(ctc)
            weights["ctc"] = self.ctc_weight
        if not weights:
            return None
        return ScorerBuilder(weights, fast, slow, options.scorer_beam_scale)

    def _update_hyps_and_scores_if_eos_token(
        self,
        inp_tokens: Tensor,
        alived_hyps: AlivedHypotheses,
        eos_hyps_and_log_probs_scores: list[list[tuple]],
        scores: Tensor,
    ) -> Tensor:
        """Keep the best of what has ended, unless it only filled the beam."""
        possible_N = alived_hyps.sequence_scores > _IMPOSSIBLE
        ended_N = inp_tokens.eq(self.eos_index) & possible_N
        for n in ended_N.nonzero().flatten().tolist():
            kept = eos_hyps_and_log_probs_scores[n // self.beam_size]
            log_probs = alived_hyps.alived_log_probs[n]
            kept.append(
                (alived_hyps.alived_seq[n], log_probs, float(scores[n]))
            )
            kept.sort(key=lambda one: -one[2])
            del kept[self.beam_size :]
        return ended_N

    def _limits(self, lengths_B: Tensor) -> list[int]:
        """Greatest number of steps of every utterance."""
        limits_B = (lengths_B * self.options.max_decode_ratio).long()
        if self.ctc_weight:
            # A token per frame and the end; SpeechBrain's CTC fails beyond.
            limits_B = limits_B.minimum(lengths_B + 1)
        return limits_B.clamp(1, self.decoder.max_tokens - 1).tolist()

    def _cut(
        self,
        row: int,
        sequences: tuple[Tensor, Tensor, Tensor],
        ended: Sequence[tuple] = (),
    ) -> list[tuple]:
        """Hypotheses of a row that have not ended, as many as have room."""
        tokens_NS, log_probs_NS, scores_N = sequences
        # The mean over no token is NaN: nothing is known of the utterance.
        means_N = scores_N / tokens_NS.shape[1]
        first = row * self.beam_size
        alive_K = scores_N[first : first + self.beam_size] > _IMPOSSIBLE
        places = (first + alive_K.nonzero().flatten()).tolist()
        return [
            (tokens_NS[n], log_probs_NS[n], float(means_N[n]))
            for n in places[: self.beam_size - len(ended)]
        ]

    def _nbest(self, found: Sequence[tuple], steps: int) -> NBest:
        hypotheses = []
        for sequence, log_probs, mean in found:
            tokens = sequence.tolist()
            complete = tokens[-1:] == [self.eos_index]
            hypotheses.append(
                Scored(
                    tokens=tuple(tokens[:-1] if complete else tokens),
                    score=mean * len(tokens),
                    log_probs=tuple((log_probs / self.attn_weight).tolist()),
                    complete=complete,
                )
            )
        hypotheses.sort(key=lambda one: -one.score_per_token)
        return NBest(tuple(hypotheses), steps)


def _sequences(hyps: AlivedHypotheses) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, their log-probabilities and scores, which a step replaces."""
    return hyps.alived_seq, hyps.alived_log_probs, hyps.sequence_scores
