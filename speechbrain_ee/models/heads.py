"""Exit heads: what is read off the encoder at an exit.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from speechbrain_ee.models.state import EncoderState


@dataclass(frozen=True)
class ExitOutput:
    """What one exit says about a batch.

    Arguments
    ---------
    log_probs_BTV : torch.Tensor
        Log-probabilities of the tokens, shape (B, T, V).
    lengths_B : torch.Tensor
        Valid frames, shape (B,).
    layer : int
        Encoder layer that the exit follows.
    blank_index : int
        Index of CTC's blank token.
    hidden_BTD : torch.Tensor, optional
        Hidden states that the exit read, shape (B, T, D).
    attention_BSV : torch.Tensor, optional
        Log-probabilities of an attention decoder for every next token of
        given transcripts, shape (B, S, V).
    """

    log_probs_BTV: Tensor
    lengths_B: Tensor
    layer: int
    blank_index: int = 0
    hidden_BTD: Tensor | None = None
    attention_BSV: Tensor | None = None


class CTCHeads(nn.Module):
    """One CTC head per exit: norm, projection, log-softmax.

    Arguments
    ---------
    exit_layers : list of int
        The encoder's exit layers; there is one head for each.
    d_model : int
        Width of the encoder.
    vocab_size : int
        Tokens, blank included.
    tied : bool
        Share one projection between the exits. The norm stays an exit's own,
        because the scale of the states differs from depth to depth.
    dropout : float
        Dropout before the projection.
    blank_index : int
        Index of CTC's blank token.

    Example
    -------
    >>> heads = CTCHeads(exit_layers=[2, 4], d_model=8, vocab_size=5)
    >>> state = EncoderState(
    ...     hidden_BTD=torch.rand(3, 7, 8),
    ...     lengths_B=torch.tensor([7, 7, 2]),
    ...     rows_B=torch.arange(3),
    ...     depth=4,
    ... )
    >>> heads(2, state).log_probs_BTV.shape
    torch.Size([3, 7, 5])
    """

    def __init__(
        self,
        exit_layers: Sequence[int],
        d_model: int,
        vocab_size: int,
        tied: bool = False,
        dropout: float = 0.0,
        blank_index: int = 0,
    ):
        super().__init__()
        self.tied = tied
        self.blank_index = blank_index
        self.norms = nn.ModuleList(nn.LayerNorm(d_model) for _ in exit_layers)
        self.projections = nn.ModuleList(
            nn.Linear(d_model, vocab_size)
            for _ in range(1 if tied else len(exit_layers))
        )
        self.dropout = nn.Dropout(dropout)

    @property
    def num_exits(self) -> int:
        """Number of exits."""
        return len(self.norms)

    @property
    def vocab_size(self) -> int:
        """Number of tokens, blank included."""
        return self.projections[0].out_features

    def projection(self, exit: int) -> nn.Linear:
        """The projection of an exit, counted from 1."""
        return self.projections[0 if self.tied else exit - 1]

    def forward(self, exit: int, state: EncoderState) -> ExitOutput:
        """Read an exit.

        Arguments
        ---------
        exit : int
            Number of the exit, from 1.
        state : EncoderState
            The encoder's state at that exit.

        Returns
        -------
        ExitOutput
            Log-probabilities in fp32, whatever the autocast type is: CTC and
            every criterion sum many of them.
        """
        normed_BTD = self.norms[exit - 1](state.hidden_BTD)
        logits_BTV = self.projection(exit)(self.dropout(normed_BTD))
        return ExitOutput(
            log_probs_BTV=torch.log_softmax(logits_BTV.float(), dim=-1),
            lengths_B=state.lengths_B,
            layer=state.depth,
            blank_index=self.blank_index,
            hidden_BTD=state.hidden_BTD,
        )

    def truncated(self, exits: int) -> "CTCHeads":
        """The first heads alone, sharing their parameters.

        Arguments
        ---------
        exits : int
            How many exits stay.

        Returns
        -------
        CTCHeads
            Heads for the exits 1 to ``exits``.
        """
        heads = CTCHeads.__new__(CTCHeads)
        nn.Module.__init__(heads)
        heads.tied = self.tied
        heads.blank_index = self.blank_index
        heads.norms = self.norms[:exits]
        heads.projections = self.projections[: 1 if self.tied else exits]
        heads.dropout = self.dropout
        heads.train(self.training)
        return heads
