"""N-best posterior: how far the best transcript is ahead of its rivals.

    P = exp(s_1) / sum_(j <= N) exp(s_j),

with s_j the log-probability of the j-th best hypothesis of a beam search
over CTC outputs, no lexicon and no language model (Wright et al. 2024, arXiv
2309.09546). A hypothesis is a token sequence; its score sums over all its
alignments that the beam has kept.

A 10 s utterance (250 frames, beam 10, one thread of a server CPU) takes 5 ms in
a batch of sixteen and 30 to 50 ms alone. The declared cost counts the additions
of the search only, which is far less than that time suggests.

Axes: B utterances, T frames, V vocabulary entries.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.criteria.beam import Hypothesis, beam_search
from speechbrain_ee.exits.criteria.registry import measure
from speechbrain_ee.exits.criteria.view import ExitView

SIZE = 10
BEAM = 10


@dataclass(frozen=True)
class NBestPosterior:
    """Posterior of the best hypothesis among the N best.

    Arguments
    ---------
    size : int
        Hypotheses N, at least 2.
    beam : int
        Width of the search, at least ``size``. Each frame extends the
        hypotheses by its ``beam`` most probable tokens.

    Example
    -------
    >>> from types import SimpleNamespace
    >>> output = SimpleNamespace(
    ...     log_probs_BTV=torch.tensor([[[0.2, 0.7, 0.1]]]).log(),
    ...     lengths_B=torch.tensor([1]),
    ...     blank_index=0,
    ... )
    >>> posterior = NBestPosterior(size=2)
    >>> posterior.measure(ExitView(output)).round(decimals=3)  # 0.7 / 0.9
    tensor([0.7780])
    """

    size: int = SIZE
    beam: int = BEAM

    def __post_init__(self) -> None:
        if self.size < 2:
            raise InputError(
                f"nbest_posterior: size={self.size} is not possible: the "
                f"posterior among fewer than two hypotheses is always 1; "
                f"choose a size of at least 2 ({SIZE} is usual)."
            )
        if self.beam < self.size:
            raise InputError(
                f"nbest_posterior: beam={self.beam} cannot hold "
                f"size={self.size} hypotheses; choose a beam of at least "
                f"{self.size}."
            )

    def measure(self, view: ExitView) -> Tensor:
        """Posterior of each utterance's best hypothesis.

        Arguments
        ---------
        view : ExitView
            A batch at an exit.

        Returns
        -------
        tensor of shape (B,)
            From 0 to 1; 0 where the best hypothesis is empty or there is no
            frame, NaN where the model's output is not a number.
        """
        output = view.output
        found = beam_search(
            view.log_probs_BTV, output.lengths_B, view.blank, self.beam
        )
        values_B = torch.tensor(
            [_posterior(each[: self.size]) for each in found]
        )
        broken_BT = view.log_probs_BTV.detach().isnan().any(-1)
        frames_T = torch.arange(broken_BT.shape[1], device=broken_BT.device)
        broken_BT &= frames_T < output.lengths_B.to(broken_BT.device)[:, None]
        values_B = values_B.to(broken_BT.device)
        return values_B.masked_fill(broken_BT.any(1), torch.nan)


def _posterior(found: Sequence[Hypothesis]) -> float:
    # An exit that emits only blanks has not learnt anything yet.
    if not found or not found[0].tokens:
        return 0.0
    log_probs = np.array([one.log_prob for one in found])
    return float(1 / np.exp(log_probs - log_probs[0]).sum())


def _candidates(frames: Any, vocab: int) -> Any:
    """Cost with the usual beam: find its best tokens, extend by each."""
    return frames * (vocab + BEAM * min(vocab, BEAM))


@measure(
    "nbest_posterior",
    higher_is_ready=True,
    cost=_candidates,
    formula="exp(s_1) / sum_(j<=N) exp(s_j), s: scores of a beam's N best",
    source="Wright et al. 2024, arXiv 2309.09546, N-best posterior",
)
def nbest_posterior(
    view: ExitView, *, size: int = SIZE, beam: int = BEAM
) -> Tensor:
    """Posterior of the best hypothesis among the N best of a beam search.

    Arguments
    ---------
    view : ExitView
        A batch at an exit.
    size : int
        Hypotheses N.
    beam : int
        Width of the search.

    Returns
    -------
    tensor of shape (B,)
    """
    return NBestPosterior(size, beam).measure(view)
