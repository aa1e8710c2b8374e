"""What a measure may look at when a batch stands at an exit.

Several measures need the same quantities (probabilities, entropies, the
greedy path); a view computes each of them once.

Axes: B utterances, T frames, V vocabulary entries, D model width.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import ctc_loss

if TYPE_CHECKING:
    from speechbrain_ee.exits.beam import NBest
    from speechbrain_ee.models.heads import ExitOutput

_LOWEST = torch.finfo(torch.float32).min


class ExitView:
    """A batch at an exit: what it put out, and the views of earlier exits.

    Arguments
    ---------
    output : ExitOutput
        log_probs_BTV, lengths_B, layer, blank_index; hidden_BTD if the
        hidden states were kept.
    earlier : sequence of ExitView
        Exits 1 to k - 1 of the same utterances, in order.
    nbest : sequence of NBest, optional
        What an attention decoder found for each utterance.

    Example
    -------
    >>> from types import SimpleNamespace
    >>> output = SimpleNamespace(
    ...     log_probs_BTV=torch.tensor([[[0.5, 0.5], [0.0, 1.0]]]).log(),
    ...     lengths_B=torch.tensor([2]),
    ...     blank_index=0,
    ... )
    >>> view = ExitView(output)
    >>> view.probs_BTV.amax(-1).tolist(), view.emitting_BT.tolist()
    ([[0.5, 1.0]], [[False, True]])
    """

    def __init__(
        self,
        output: "ExitOutput",
        earlier: "Sequence[ExitView]" = (),
        nbest: "Sequence[NBest] | None" = None,
    ):
        self.output = output
        self.earlier = tuple(earlier)
        self.nbest = nbest

    @property
    def vocab(self) -> int:
        """Vocabulary entries V."""
        return self.output.log_probs_BTV.shape[-1]

    @property
    def blank(self) -> int:
        """Index of CTC's blank."""
        return getattr(self.output, "blank_index", 0)

    @cached_property
    def log_probs_BTV(self) -> Tensor:
        """Log-probabilities in fp32: half precision rounds small ones away."""
        return self.output.log_probs_BTV.float()

    @cached_property
    def probs_BTV(self) -> Tensor:
        """Probabilities."""
        return self.log_probs_BTV.exp()

    @cached_property
    def best_BT(self) -> Tensor:
        """Most probable token of every frame."""
        return self._largest.indices

    @cached_property
    def _largest(self) -> Any:
        """Largest log-probability of every frame, and its place."""
        return self.log_probs_BTV.max(-1)

    @cached_property
    def frames_BT(self) -> Tensor:
        """True where a frame is speech, False where it is padding."""
        frames = self.output.log_probs_BTV.shape[1]
        steps_T = torch.arange(frames, device=self.output.log_probs_BTV.device)
        return steps_T < self.output.lengths_B.to(steps_T.device).unsqueeze(1)

    @cached_property
    def full(self) -> bool:
        """Whether no frame is padding, where that is known for free.

        As live, when one utterance is left: half of the operations on masks
        can then be left out.
        """
        lengths_B = self.output.lengths_B
        frames = self.output.log_probs_BTV.shape[1]
        return lengths_B.device.type == "cpu" and all(
            length == frames for length in lengths_B.tolist()
        )

    @cached_property
    def emitting_BT(self) -> Tensor:
        """True where the greedy path emits something other than blank."""
        emitting_BT = self.best_BT != self.blank
        return emitting_BT if self.full else self.frames_BT & emitting_BT

    @cached_property
    def speaks_B1(self) -> Tensor:
        """True where the greedy path emits anything."""
        if self.blank != 0 or "best_BT" in self.__dict__:
            return self.emitting_BT.any(1, keepdim=True)
        # Where the first token is not the largest; which one is takes longer.
        log_probs_BTV = self.log_probs_BTV
        emitting_BT = log_probs_BTV.amax(-1) > log_probs_BTV[..., 0]
        if not self.full:
            emitting_BT = emitting_BT & self.frames_BT
        return emitting_BT.any(1, keepdim=True)

    @cached_property
    def spoken_BT(self) -> Tensor:
        """Frames of the utterances of which the exit emits something.

        Early exits that have learnt nothing yet put out blanks alone, and
        are sure of each of them. That is no readiness: for an utterance of
        which nothing is emitted no frame counts, whatever is averaged.
        """
        if self.full:
            shape = self.log_probs_BTV.shape[:2]
            return self.speaks_B1.expand(shape)
        return self.frames_BT & self.speaks_B1

    @cached_property
    def starts_BT(self) -> Tensor:
        """True at the first frame of every token of the greedy hypothesis."""
        starts_BT = self.emitting_BT.clone()
        starts_BT[:, 1:] &= self.best_BT[:, 1:] != self.best_BT[:, :-1]
        return starts_BT

    @cached_property
    def entropy_BT(self) -> Tensor:
        """Entropy of each frame in nats; probability 0 contributes 0."""
        # finite, for 0 times minus infinity is not a number
        log_probs_BTV = self.log_probs_BTV.clamp(min=_LOWEST)
        return -(self.probs_BTV * log_probs_BTV).sum(-1)

    @cached_property
    def top2_BT2(self) -> Tensor:
        """The two largest probabilities of each frame."""
        first_BT, best_BT = self._largest
        # two passes over the log-probabilities take half the time of topk
        others_BTV = self.log_probs_BTV.scatter(
            -1, best_BT.unsqueeze(-1), -torch.inf
        )
        top_BT2 = torch.stack([first_BT, others_BTV.amax(-1)], -1).exp()
        return top_BT2[..., : self.vocab]

    @cached_property
    def hypothesis_log_prob_B(self) -> Tensor:
        """CTC's log-probability of the greedy hypothesis, all alignments."""
        # padding may hold NaN; not every ctc_loss stops before it
        log_probs_BTV = torch.where(
            self.frames_BT.unsqueeze(-1), self.log_probs_BTV.detach(), 0.0
        )
        rows = self.frames_BT.any(1).nonzero().squeeze(1)
        log_prob_B = log_probs_BTV.new_zeros(len(log_probs_BTV))
        if not len(rows):
            return log_prob_B
        starts_BT = self.starts_BT[rows]
        # the hypothesis has an alignment: the greedy path itself
        log_prob_B[rows] = -ctc_loss(
            log_probs_BTV[rows].transpose(0, 1),
            self.best_BT[rows][starts_BT],
            self.frames_BT[rows].sum(1),
            starts_BT.sum(1),
            blank=self.blank,
            reduction="none",
        )
        return log_prob_B

    def mean(
        self, value_BT: Tensor, count_BT: Tensor, without: float
    ) -> Tensor:
        """Mean (B,) over the frames (B, T) that count.

        ``without`` is the value for an utterance of which no frame counts.
        """
        if self.full and count_BT is self.spoken_BT:
            mean_B = value_BT.sum(1) / max(value_BT.shape[1], 1)
            return torch.where(self.speaks_B1.squeeze(1), mean_B, without)
        # where, not a product: padding may hold NaN or infinities
        total_B = torch.where(count_BT, value_BT, 0.0).sum(1)
        frames_B = count_BT.sum(1)
        mean_B = total_B / frames_B.clamp(min=1)
        return torch.where(frames_B > 0, mean_B, without)

    def quantile(
        self, value_BT: Tensor, count_BT: Tensor, share: float, without: float
    ) -> Tensor:
        """Quantile (B,) over the frames that count, linear between neighbours.

        ``share`` of them are below it; ``without`` as in :meth:`mean`.
        """
        frames_B = count_BT.sum(1)
        if not value_BT.shape[1]:
            return torch.full_like(frames_B, without, dtype=torch.float32)
        # frames that do not count come last, beyond every position looked at
        sorted_BT = torch.where(count_BT, value_BT, torch.inf).sort(1).values
        place_B = share * (frames_B - 1).clamp(min=0).double()
        low_B = place_B.floor().long()
        high_B = torch.minimum(low_B + 1, (frames_B - 1).clamp(min=0))
        below_B = sorted_BT.gather(1, low_B.unsqueeze(1)).squeeze(1)
        above_B = sorted_BT.gather(1, high_B.unsqueeze(1)).squeeze(1)
        weight_B = (place_B - low_B).to(below_B.dtype)
        return torch.where(
            frames_B > 0, torch.lerp(below_B, above_B, weight_B), without
        )
