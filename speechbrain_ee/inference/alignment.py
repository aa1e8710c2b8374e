"""When tokens were said: CTC's best path, or the best that spells a text.

Axes: B utterances, T frames, V tokens.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchaudio.functional import forced_align

from speechbrain_ee.inference.hypothesis import TimedToken
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
        What the tokens write, by index; others write nothing.

    Returns
    -------
    list of B lists of TimedToken

    Example
    -------
    >>> frames = torch.tensor([[[0.1, 0.9], [0.2, 0.8], [0.7, 0.3]]])
    >>> output = ExitOutput(frames.log(), torch.tensor([3]), layer=2)
    >>> timed_tokens(output, None, ["", "a"])[0][0]
    TimedToken(piece='a', first=0, last=1, confidence=0.8500000238418579)
    """
    lengths = output.lengths_B.tolist()
    if tokens is None:
        best = output.log_probs_BTV.max(-1)
        paths = list(zip(best.indices.cpu(), best.values.exp().cpu()))
    else:
        # Fp32 on the CPU, utterance by utterance: alignments are short.
        log_probs = output.log_probs_BTV.float().cpu()
        paths = [
            _aligned(one[:length], wanted, output.blank_index)
            for one, length, wanted in zip(log_probs, lengths, tokens)
        ]
    return [
        _runs(path_T[:length], prob_T[:length], output.blank_index, pieces)
        for (path_T, prob_T), length in zip(paths, lengths)
    ]


def _aligned(
    log_probs_TV: Tensor, tokens: Sequence[int], blank: int
) -> tuple[Tensor, Tensor]:
    """The best path that spells some tokens, and its probabilities."""
    repeats = sum(a == b for a, b in zip(tokens, tokens[1:]))
    nothing = torch.zeros(0, dtype=torch.long), torch.zeros(0)
    if not tokens or len(tokens) + repeats > len(log_probs_TV):
        return nothing
    wanted = torch.tensor([list(tokens)], dtype=torch.int32)
    finite = log_probs_TV.clamp(min=-1e4).unsqueeze(0)
    path, score = forced_align(finite, wanted, blank=blank)
    return path[0].long(), score[0].exp()


def _runs(
    path_T: Tensor, prob_T: Tensor, blank: int, pieces: Sequence[str]
) -> list[TimedToken]:
    """Stretches of equal tokens, blanks left out."""
    tokens, counts = torch.unique_consecutive(path_T, return_counts=True)
    ends = counts.cumsum(0)
    sums = torch.cat([prob_T.new_zeros(1), prob_T.cumsum(0)])
    rows = zip(
        tokens.tolist(),
        (ends - counts).tolist(),
        ends.tolist(),
        ((sums[ends] - sums[ends - counts]) / counts).tolist(),
    )
    return [
        TimedToken(pieces[token], first, end - 1, share)
        for token, first, end, share in rows
        if token != blank and token < len(pieces)
    ]
