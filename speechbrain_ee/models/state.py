"""Where a batch stands on its way up the encoder.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor

from speechbrain_ee.models.padding import padding_in


class Context(Protocol):
    """What an encoder's layers share besides hidden states."""

    def select(self, keep: Tensor, frames: int) -> "Context":
        """The same for some rows, by their numbers, and fewer frames."""


@dataclass(frozen=True)
class EncoderState:
    """A batch between two encoder layers.

    Arguments
    ---------
    hidden_BTD : torch.Tensor
        Hidden states, shape (B, T, D). Padded frames hold anything.
    lengths_B : torch.Tensor
        Valid frames, shape (B,).
    rows_B : torch.Tensor
        Row of the original batch that every row is, shape (B,).
    depth : int
        Encoder layers run so far.
    positions : torch.Tensor, optional
        Relative position embeddings, shape (1, 2 T - 1, D), for layers that
        ask for them.
    context : Context, optional
        Whatever else an encoder hands from layer to layer.

    Example
    -------
    >>> import torch
    >>> state = EncoderState(
    ...     hidden_BTD=torch.rand(3, 9, 4),
    ...     lengths_B=torch.tensor([9, 5, 2]),
    ...     rows_B=torch.arange(3),
    ...     depth=2,
    ... )
    >>> short = state.select(torch.tensor([False, True, True]))
    >>> short.hidden_BTD.shape, short.rows_B.tolist()
    (torch.Size([2, 5, 4]), [1, 2])
    """

    hidden_BTD: Tensor
    lengths_B: Tensor
    rows_B: Tensor
    depth: int
    positions: Tensor | None = None
    context: Context | None = None

    @property
    def padding_mask_BT(self) -> Tensor | None:
        """True where a frame is padding, shape (B, T); None without any."""
        return padding_in(self.lengths_B, self.hidden_BTD.shape[1])

    def select(self, keep_B: Tensor) -> "EncoderState":
        """The rows that stay, by a boolean for each, at least one of them;
        time is cut to the longest.
        """
        keep = keep_B.nonzero(as_tuple=True)[0]
        lengths_B = self.lengths_B[keep]
        frames = self.hidden_BTD.shape[1]
        shorter = int(lengths_B.max())
        positions, context = self.positions, self.context
        if positions is not None:
            # Distances -(T'-1) .. T'-1 out of -(T-1) .. T-1.
            positions = positions[:, frames - shorter : frames + shorter - 1]
        if context is not None:
            context = context.select(keep, shorter)
        return replace(
            self,
            hidden_BTD=self.hidden_BTD[keep, :shorter],
            lengths_B=lengths_B,
            rows_B=self.rows_B[keep],
            positions=positions,
            context=context,
        )
