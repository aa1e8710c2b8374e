"""Greedy CTC decoding of an exit, without a loop over frames.

Authors
 * The speechbrain-ee contributors 2026
"""

import torch

from speechbrain_ee.models.heads import ExitOutput
from speechbrain_ee.models.padding import padding_mask


def greedy_tokens(output: ExitOutput) -> list[list[int]]:
    """Best token of every frame, repetitions merged, blanks removed.

    Arguments
    ---------
    output : ExitOutput
        An exit's log-probabilities.

    Returns
    -------
    list of list of int
        Tokens of every utterance.

    Example
    -------
    >>> frames = torch.tensor([[1, 1, 0, 1, 2], [2, 2, 2, 0, 1]])
    >>> one_hot = torch.nn.functional.one_hot(frames, 3).float()
    >>> greedy_tokens(ExitOutput(one_hot, torch.tensor([5, 3]), layer=2))
    [[1, 1, 2], [2]]
    """
    best_BT = output.log_probs_BTV.argmax(dim=-1)
    starts_BT = torch.ones_like(best_BT, dtype=torch.bool)
    starts_BT[:, 1:] = best_BT[:, 1:] != best_BT[:, :-1]
    padded_BT = padding_mask(output.lengths_B, best_BT.shape[1])
    keep_BT = starts_BT & (best_BT != output.blank_index) & ~padded_BT
    counts = keep_BT.sum(dim=1).tolist()
    return [row.tolist() for row in best_BT[keep_BT].cpu().split(counts)]
