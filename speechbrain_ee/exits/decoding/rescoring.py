"""CTC's N best hypotheses, rescored by an exit's attention head.

The attention head reads all N hypotheses of an utterance in one
teacher-forced pass, without a search; the score is

    w log p_CTC(y) + (1 - w) log p_attention(y),

the second pass of Zhang et al. 2020 (arXiv 2012.05481), there with the two
weights not bound to add up to one.

Axes: B utterances, K hypotheses of each, N = B K, S tokens.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from speechbrain_ee.exits.criteria.beam import Hypothesis, beam_search
from speechbrain_ee.exits.decoding.nbest import NBest, Scored
from speechbrain_ee.models.attention import AttentionHeads
from speechbrain_ee.models.heads import ExitOutput


def ctc_nbest(
    output: ExitOutput, size: int, special: Sequence[int] = ()
) -> list[list[Hypothesis]]:
    """CTC's N best hypotheses of a batch.

    Arguments
    ---------
    output : ExitOutput
        What an exit put out.
    size : int
        Hypotheses N, and the width of the search.
    special : sequence of int
        Tokens that are no piece of a transcript; CTC never learns them.

    Returns
    -------
    list of list of Hypothesis
        For every utterance, the best first; an empty one where the output
        is not a number.
    """
    log_probs_BTV = output.log_probs_BTV.detach().float().cpu().clone()
    log_probs_BTV[..., list(special)] = -torch.inf
    found = beam_search(
        log_probs_BTV, output.lengths_B, output.blank_index, size
    )
    # Of an output that is not a number nothing can be said.
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
    """Rank hypotheses by CTC and attention together.

    Arguments
    ---------
    exit : int
        Number of the exit, from 1.
    output : ExitOutput
        What was read there, hidden states included.
    found : sequence of sequence of Hypothesis
        For every utterance; see :func:`ctc_nbest`.
    attention : AttentionHeads
        Of the model.
    ctc_weight : float
        Weight w of CTC.

    Returns
    -------
    list of NBest
        For every utterance, the best score first.
    """
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
