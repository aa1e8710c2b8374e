"""Greedy CTC decoding of an exit, without a loop over frames.

Authors
 * The speechbrain-ee contributors 2026
"""

from speechbrain_ee.models.heads import ExitOutput


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
