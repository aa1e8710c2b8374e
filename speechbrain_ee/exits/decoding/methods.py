"""All ways of decoding an exit, by name.

==============  =========================================================
``ctc_greedy``  CTC's best path
``ctc_beam``    the most probable tokens of CTC, all alignments summed
``attention``   beam search over the attention head alone
``joint``       beam search over attention and CTC together (Hori et al.
                2017, ACL, "Joint CTC/attention decoding")
``rescoring``   CTC's N best, rescored by the attention head in one pass
==============  =========================================================

Rescoring is the second pass of Zhang et al. 2020 (arXiv 2012.05481), there with
the two weights not bound to add up to one: the attention head reads all N
hypotheses of an utterance in one teacher-forced pass, without a search; the
score is

    w log p_CTC(y) + (1 - w) log p_attention(y).

Axes: B utterances, K hypotheses of each, N = B K, S tokens.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.criteria.beams import Hypothesis, beam_search
from speechbrain_ee.exits.decoding.beam_search import (
    AttentionBeamSearch,
    NBest,
    Scored,
)
from speechbrain_ee.exits.decoding.search_options import SearchOptions
from speechbrain_ee.models.attention import AttentionHeads
from speechbrain_ee.models.heads import ExitOutput
from speechbrain_ee.models.model import EarlyExitModel

GREEDY = "ctc_greedy"
BY_CTC = (GREEDY, "ctc_beam")
BY_ATTENTION = ("attention", "joint", "rescoring")
DECODINGS = (*BY_CTC, *BY_ATTENTION)


class Decoding:
    """One way of decoding the exits of a model.

    Arguments
    ---------
    name : str
        One of :data:`DECODINGS`.
    model : EarlyExitModel
        The model; with attention heads for the last three.
    options : SearchOptions, optional
        Width of the beam, weights.
    """

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
        if self.name == "rescoring":
            weight = self.options.ctc_weight
            return rescore(exit, output, found, self.attention, weight)
        return [
            NBest(tuple(Scored(one.tokens, one.log_prob) for one in row))
            for row in found
        ]


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
    """Tokens of every utterance: the best of each frame, repetitions merged.

    Example
    -------
    >>> import torch
    >>> frames = torch.tensor([[1, 1, 0, 1, 2], [2, 2, 2, 0, 1]])
    >>> one_hot = torch.nn.functional.one_hot(frames, 3).float()
    >>> greedy_tokens(ExitOutput(one_hot, torch.tensor([5, 3]), layer=2))
    [[1, 1, 2], [2]]
    """
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
) -> list[list[Hypothesis]]:
    """CTC's N best hypotheses of every utterance, the best first.

    ``special`` are tokens that are no piece of a transcript; CTC never learns
    them. An empty hypothesis stands where the output is NaN.
    """
    log_probs_BTV = output.log_probs_BTV.detach().float().cpu().clone()
    log_probs_BTV[..., list(special)] = -torch.inf
    found = beam_search(
        log_probs_BTV, output.lengths_B, output.blank_index, size
    )
    unknown = Hypothesis((), math.nan)
    for row, frames in enumerate(output.lengths_B.tolist()):
        if log_probs_BTV[row, :frames].isnan().any() or not found[row]:
            found[row] = [unknown]
    return found


@torch.no_grad()
def rescore(
    exit: int,
    output: ExitOutput,
    found: Sequence[Sequence[Hypothesis]],
    attention: AttentionHeads,
    ctc_weight: float,
) -> list[NBest]:
    """Rank every utterance's hypotheses by CTC and attention together."""
    # As many rows for each utterance: the surplus repeats its first one.
    width = max(len(hypotheses) for hypotheses in found)
    rows = [
        (list(hypotheses) + [hypotheses[0]] * width)[:width]
        for hypotheses in found
    ]
    tokens_NS, targets_NS = _padded(
        [one.tokens for row in rows for one in row], attention
    )
    device = output.lengths_B.device
    logits_NSV, _, _ = attention.decoder(exit).extend(
        tokens_NS.to(device), attention.start(exit, output)
    )
    log_probs_NS = (
        logits_NSV.float()
        .log_softmax(-1)
        .gather(-1, targets_NS.to(device).unsqueeze(-1))
        .squeeze(-1)
    )
    by_token = iter(log_probs_NS.tolist())
    results = []
    for row, hypotheses in zip(rows, found):
        scored = []
        for one, values in zip(row, [next(by_token) for _ in row]):
            values = values[: len(one.tokens) + 1]
            score = ctc_weight * one.log_prob + (1 - ctc_weight) * sum(values)
            scored.append(Scored(one.tokens, score, tuple(values)))
        scored = scored[: len(hypotheses)]
        steps = max(len(one.tokens) for one in scored) + 1
        scored.sort(key=lambda one: -one.score)
        results.append(NBest(tuple(scored), steps))
    return results


def _padded(
    sequences: Sequence[Sequence[int]], attention: AttentionHeads
) -> tuple[Tensor, Tensor]:
    """What the decoder reads and what it should say, shape (N, S)."""
    longest = max(len(sequence) for sequence in sequences) + 1
    shape = (len(sequences), longest)
    tokens_NS = torch.full(shape, attention.bos_index)
    targets_NS = torch.full(shape, attention.eos_index)
    for row, sequence in enumerate(sequences):
        values = torch.tensor(sequence, dtype=torch.long)
        tokens_NS[row, 1 : len(sequence) + 1] = values
        targets_NS[row, : len(sequence)] = values
    return tokens_NS, targets_NS
