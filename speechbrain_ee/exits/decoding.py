"""From what an exit put out to what was said: all ways of decoding, by name.

==============  =========================================================
``ctc_greedy``  CTC's best path
``ctc_beam``    the most probable tokens of CTC, all alignments summed
``attention``   beam search over the attention head alone
``joint``       beam search over attention and CTC together (Hori et al.
                2017, ACL, "Joint CTC/attention decoding")
``rescoring``   CTC's N best, rescored by the attention head in one pass
==============  =========================================================

The search is SpeechBrain's ``S2STransformerBeamSearcher`` with its
``CTCScorer`` and, if wanted, its language model scorers. Four things are
added, so that an utterance is decoded alike alone and in any batch, and at
the price of its own length: the decoder reads one token per step instead of
the whole hypothesis; an utterance is cut at a length of its own instead of
the longest one's; a hypothesis that was cut says so; and the search goes on
while one that has not ended is better than all that have, where SpeechBrain's
stops as soon as K have ended, however bad they are.

Rescoring is the second pass of Zhang et al. 2020 (arXiv 2012.05481), there with
the two weights not bound to add up to one: the attention head reads all N
hypotheses of an utterance in one teacher-forced pass, without a search; the
score is

    w log p_CTC(y) + (1 - w) log p_attention(y).

Axes: B utterances, K hypotheses of each (the beam), N = B K, S tokens.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, get_type_hints

import torch
from msgspec import Meta
from speechbrain.decoders.scorer import (
    BaseScorerInterface,
    CTCScorer,
    KenLMScorer,
    ScorerBuilder,
)
from speechbrain.decoders.seq2seq import (
    AlivedHypotheses,
    S2STransformerBeamSearcher,
)
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.beam import NBest, Scored, beam_search
from speechbrain_ee.models.attention import AttentionHeads, DecoderState
from speechbrain_ee.models.heads import ExitOutput
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.schema import Positive, Share, convert

GREEDY = "ctc_greedy"
BY_CTC = (GREEDY, "ctc_beam")
BY_ATTENTION = ("attention", "joint", "rescoring")
DECODINGS = (*BY_CTC, *BY_ATTENTION)
# SpeechBrain forbids by adding -1e20 times a weight. Below this total a
# hypothesis only fills a beam that is wider than there are choices.
_IMPOSSIBLE = -1e10
_Above0 = Annotated[float, Meta(gt=0, le=sys.float_info.max)]


@dataclass(frozen=True)
class SearchOptions:
    """How transcripts are searched for.

    Arguments
    ---------
    beam_size : int
        Hypotheses K kept at every step.
    ctc_weight : float
        Share of CTC in joint decoding and in rescoring, between 0 and 1.
    max_decode_ratio : float
        A hypothesis is cut at so many tokens per encoder frame; with CTC,
        which has no path for more tokens than frames, at most there.
    temperature : float
        Of the attention head's softmax.
    using_eos_threshold : bool
        End a hypothesis only where the end is nearly as probable as the best
        token.
    eos_threshold : float
        How nearly: ratio of their log-probabilities.
    scorer_beam_scale : float
        CTC looks at so many times ``beam_size`` tokens per hypothesis.
    scorers : sequence of BaseScorerInterface
        Further SpeechBrain scorers, for example ``TransformerLMScorer`` or
        ``KenLMScorer``, over the same tokens.
    scorer_weights : mapping of str to float
        Their weights by SpeechBrain's names, ``transformerlm``, ``kenlm``.

    Example
    -------
    >>> SearchOptions(beam_size=0)
    Traceback (most recent call last):
    ...
    speechbrain_ee.errors.InputError: search, key beam_size: 0 does not ...
    """

    beam_size: Positive = 10
    ctc_weight: Share = 0.4
    max_decode_ratio: _Above0 = 1.0
    temperature: _Above0 = 1.0
    using_eos_threshold: bool = True
    eos_threshold: _Above0 = 1.5
    scorer_beam_scale: _Above0 = 1.5
    scorers: Sequence[BaseScorerInterface] = ()
    scorer_weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, kind in _NUMBERS.items():
            convert(
                {name: getattr(self, name)},
                dict[str, kind],
                "search",
                "numbers are positive, and ctc_weight is between 0 and 1: for "
                "the attention head alone use the decoding `attention`, for "
                "CTC alone `ctc_beam`",
            )
        names = [
            type(scorer).__name__.lower().removesuffix("scorer")
            for scorer in self.scorers
        ]
        listed = ", ".join(names) or "none"
        if sorted(names) != sorted(self.scorer_weights):
            raise InputError(
                f"search: scorer_weights: {dict(self.scorer_weights)} must "
                f"give one weight to each of the scorers: {listed}."
            )
        if {"ctc", "length"} & set(names):
            raise InputError(
                f"search: scorers: {listed}: leave out `ctc`, which is the "
                "exit's own and weighted by ctc_weight, and `length`, because "
                "scores are compared per token."
            )


_NUMBERS = {
    name: kind
    for name, kind in get_type_hints(SearchOptions, include_extras=True).items()
    if hasattr(kind, "__metadata__")
}


class Decoding:
    """One way of decoding the exits of a model."""

    def __init__(
        self,
        name: str,
        model: EarlyExitModel,
        options: SearchOptions | None = None,
    ):
        check_decodings([name], model)
        self.name = name
        self.attention = model.attention
        self.options = options or SearchOptions()
        self.search = None
        if name in ("attention", "joint"):
            self.search = AttentionBeamSearch(
                model.attention, self.options, joint=name == "joint"
            )

    @property
    def uses_attention(self) -> bool:
        """Whether the attention head takes part."""
        return self.name in BY_ATTENTION

    def __call__(self, exit: int, output: ExitOutput) -> list[NBest]:
        """Decode a batch at an exit, counted from 1."""
        if self.name == GREEDY:
            best = greedy_tokens(output)
            return [NBest((Scored(tuple(tokens)),)) for tokens in best]
        if self.search is not None:
            return self.search.search(exit, output)
        special = ()
        if self.attention is not None:
            special = (self.attention.bos_index, self.attention.eos_index)
        found = ctc_nbest(output, self.options.beam_size, special)
        if self.name == "ctc_beam":
            return [NBest(tuple(row)) for row in found]
        weight = self.options.ctc_weight
        return rescore(exit, output, found, self.attention, weight)


def check_decodings(
    names: Sequence[str], model: EarlyExitModel, key: str = "decodings"
) -> None:
    """Raise InputError, naming the key, for ways that a model cannot decode."""
    valid = DECODINGS if model.attention is not None else BY_CTC
    is_list = isinstance(names, list | tuple)
    if not is_list or not names or len({*map(str, names)}) < len(names):
        raise InputError(
            f"{key}: {names!r} must be a list of different ways of decoding, "
            f"for example [{valid[-1]}, {GREEDY}]."
        )
    for name in names:
        if name in valid:
            continue
        why = "is unknown"
        if name in DECODINGS:
            why = "needs attention heads, and the model has none"
        raise InputError(
            f"{key}: {name!r} {why}; valid here: {', '.join(valid)}."
        )


def greedy_tokens(output: ExitOutput) -> list[list[int]]:
    """Tokens of every utterance: the best of each frame, repetitions merged."""
    # One transfer, then numpy: a dozen operations on integers this few cost
    # PyTorch more than the argmax.
    best_BT = output.log_probs_BTV.argmax(dim=-1).cpu().numpy()
    keep_BT = best_BT != output.blank_index
    keep_BT[:, 1:] &= best_BT[:, 1:] != best_BT[:, :-1]
    lengths = output.lengths_B.tolist()
    return [
        best_T[:length][keep_T[:length]].tolist()
        for best_T, keep_T, length in zip(best_BT, keep_BT, lengths)
    ]


def ctc_nbest(
    output: ExitOutput, size: int, special: Sequence[int] = ()
) -> list[list[Scored]]:
    """CTC's N best hypotheses of every utterance, the best first.

    ``special`` are tokens that are no piece of a transcript; CTC never learns
    them. An empty hypothesis stands where the output is NaN.
    """
    log_probs_BTV = output.log_probs_BTV.detach().float().cpu().clone()
    log_probs_BTV[..., list(special)] = -torch.inf
    found = beam_search(
        log_probs_BTV, output.lengths_B, output.blank_index, size
    )
    for row, frames in enumerate(output.lengths_B.tolist()):
        if log_probs_BTV[row, :frames].isnan().any() or not found[row]:
            found[row] = [Scored((), math.nan)]
    return found


@torch.no_grad()
def rescore(
    exit: int,
    output: ExitOutput,
    found: Sequence[Sequence[Scored]],
    attention: AttentionHeads,
    ctc_weight: float,
) -> list[NBest]:
    """Rank every utterance's hypotheses by CTC and attention together."""
    # As many rows for each utterance: the surplus repeats its first one.
    width = max(len(hypotheses) for hypotheses in found)
    texts = [
        one.tokens
        for row in found
        for one in ([*row] + [row[0]] * width)[:width]
    ]
    # What the decoder reads and what it should say, shape (N, S).
    bos, eos = attention.bos_index, attention.eos_index
    read = [torch.tensor([bos, *tokens]) for tokens in texts]
    said = [torch.tensor([*tokens, eos]) for tokens in texts]
    device = output.lengths_B.device
    tokens_NS = pad_sequence(read, True, bos).to(device)
    targets_NS = pad_sequence(said, True, eos).to(device)
    logits_NSV, _, _ = attention.decoder(exit).extend(
        tokens_NS, attention.start(exit, output)
    )
    log_probs_NSV = logits_NSV.float().log_softmax(-1)
    log_probs = log_probs_NSV.gather(-1, targets_NS.unsqueeze(-1)).squeeze(-1)
    by_token = log_probs.tolist()
    results = []
    for place, row in enumerate(found):
        scored = []
        for one, values in zip(row, by_token[place * width :]):
            values = values[: len(one.tokens) + 1]
            score = ctc_weight * one.score + (1 - ctc_weight) * sum(values)
            scored.append(Scored(one.tokens, score, tuple(values)))
        scored.sort(key=lambda one: -one.score)
        steps = max(len(one.tokens) for one in scored) + 1
        results.append(NBest(tuple(scored), steps))
    return results


class AttentionBeamSearch(S2STransformerBeamSearcher):
    """Search for transcripts at the exits of a model."""

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
        """The best hypotheses of a batch at an exit."""
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


# Earlier YAMLs name `exits.decoding.search_options.SearchOptions`.
search_options = sys.modules[__name__]
