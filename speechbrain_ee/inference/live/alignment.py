"""When tokens were said: CTC's best path, or the best that spells a text.

Axes: B utterances, T frames, V tokens.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchaudio.functional import forced_align

from speechbrain_ee.inference.live.hypothesis import TimedToken, timed_runs
from speechbrain_ee.models.heads import ExitOutput


def timed_tokens(
    output: ExitOutput,
    tokens: Sequence[Sequence[int]] | None,
    pieces: Sequence[str],
) -> list[list[TimedToken]]:
    """Tokens of every utterance with their frames and probabilities.

    Arguments
    ---------
    output : ExitOutput
        An exit of B utterances.
    tokens : sequence of B sequences of int, or None
        What was recognised; None for CTC's own best path. Otherwise the most
        probable path that spells the tokens is taken, and tokens that do not
        fit into the frames have no times: the list is then empty.
    pieces : sequence of str
        What the tokens write, by index; those beyond write nothing.

    Returns
    -------
    list of B lists of TimedToken

    Example
    -------
    >>> frames = torch.tensor([[[0.1, 0.9], [0.2, 0.8], [0.7, 0.3]]])
    >>> output = ExitOutput(frames.log(), torch.tensor([3]), layer=2)
    >>> timed_tokens(output, None, ["", "a"])[0][0]
    TimedToken(token=1, piece='a', first=0, last=1, confidence=0.8500000238418579)
    """
    lengths = output.lengths_B.tolist()
    blank = output.blank_index
    if tokens is None:
        best = output.log_probs_BTV.max(-1)
        path_BT = best.indices.cpu().numpy()
        prob_BT = best.values.float().exp().cpu().numpy()
        paths = list(zip(path_BT, prob_BT))
    else:
        # On the CPU, utterance by utterance: alignments are short.
        log_probs = output.log_probs_BTV.float().cpu()
        paths = [
            _aligned(one[:length], wanted, blank)
            for one, length, wanted in zip(log_probs, lengths, tokens)
        ]
    return [
        timed_runs(path_T[:length], prob_T[:length], blank, pieces)
        for (path_T, prob_T), length in zip(paths, lengths)
    ]


def _aligned(
    log_probs_TV: Tensor, tokens: Sequence[int], blank: int
) -> tuple[NDArray[np.integer], NDArray[np.floating]]:
    """The best path that spells some tokens, and its probabilities."""
    repeats = sum(a == b for a, b in zip(tokens, tokens[1:]))
    if not tokens or len(tokens) + repeats > len(log_probs_TV):
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    wanted = torch.tensor([list(tokens)], dtype=torch.int32)
    finite = log_probs_TV.clamp(min=-1e4).unsqueeze(0)
    path, score = forced_align(finite, wanted, blank=blank)
    return path[0].numpy(), score[0].exp().numpy()
