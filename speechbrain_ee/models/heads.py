"""Exit heads: what is read off the encoder at an exit.

Axes: B utterances, T frames, D width of the encoder, W width of a head's body
(D without one), V tokens.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from speechbrain.lobes.models.transformer.Transformer import (
    TransformerEncoderLayer,
)
from speechbrain.nnet.attention import PositionalwiseFeedForward
from torch import Tensor, nn

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.layerwise import shared_copy
from speechbrain_ee.models.state import EncoderState

HEAD_KINDS = ("linear", "two_layer", "feed_forward", "self_attention")
SHARING = ("separate", "projection", "all")
# Inner width of a body's feed-forward network, as a multiple of its width.
_FFN_RATIO = 2


class Head(Protocol):
    """What every kind of head has: one place for each exit, from 1."""

    num_exits: int
    vocab_size: int

    def parts(self, exit: int) -> tuple[nn.Module, ...]:
        """Every module that an exit reads by; of shared ones, each exit."""

    def truncated(self, exits: int) -> "Head":
        """What the first exits need, of the same class and parameters."""


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
    """One CTC head per exit: norm, body, projection, log-softmax.

    An early layer of a pre-trained encoder holds the tokens less linearly
    than the last one does. A body gives its exit some depth of its own, at a
    cost that every utterance pays at every exit it passes.

    Arguments
    ---------
    exit_layers : list of int
        The encoder's exit layers; there is one head for each.
    d_model : int
        Width of the encoder.
    vocab_size : int
        Tokens, blank included.
    tied : bool or str
        What the exits share: nothing (``separate`` or False), the projection
        (``projection`` or True), or the body as well (``all``). The norm
        stays an exit's own, because the scale of the states differs from
        depth to depth.
    dropout : float
        Dropout before the projection and within the body.
    blank_index : int
        Index of CTC's blank token.
    head : str
        The body, after a linear layer to its width: none (``linear``), the
        activation of SpeechBrain's wav2vec 2.0 recipes (``two_layer``), a
        residual feed-forward network as in Berrebbi et al., arXiv 2211.08989
        (``feed_forward``), or a Transformer layer as in HuBERT-EE, arXiv
        2204.06328 (``self_attention``), the only one whose frames see each
        other and whose cost grows with their square.
    width : int, optional
        Width of the body; by default the encoder's. ``linear`` has none.
    nhead : int
        Attention heads of ``self_attention``; must divide the width.

    Example
    -------
    >>> heads = CTCHeads([2, 4], d_model=8, vocab_size=5, head="two_layer")
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
        tied: bool | str = False,
        dropout: float = 0.0,
        blank_index: int = 0,
        head: str = "linear",
        width: int | None = None,
        nhead: int = 4,
    ):
        super().__init__()
        exits = len(exit_layers)
        width = d_model if width is None or head == "linear" else width
        if isinstance(tied, bool):
            tied = "projection" if tied else "separate"
        if tied not in SHARING:
            raise InputError(
                f"tied_heads: {tied!r} is unknown; use one of "
                f"{', '.join(SHARING)}, or False (separate) or True "
                "(projection)."
            )
        if head not in HEAD_KINDS:
            raise InputError(
                f"head: {head!r} is unknown; use one of "
                f"{', '.join(HEAD_KINDS)}."
            )
        self.sharing = tied
        self.blank_index = blank_index
        self.norms = nn.ModuleList(nn.LayerNorm(d_model) for _ in exit_layers)
        # Without bodies the names in a checkpoint are those of linear heads.
        bodies = 0 if head == "linear" else 1 if tied == "all" else exits
        self.bodies = nn.ModuleList(
            HeadBody(head, d_model, width, nhead, dropout)
            for _ in range(bodies)
        )
        self.projections = nn.ModuleList(
            nn.Linear(width, vocab_size)
            for _ in range(exits if tied == "separate" else 1)
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
        return self.projections[exit - 1 if self.sharing == "separate" else 0]

    def body(self, exit: int) -> nn.Module | None:
        """The body of an exit, counted from 1; None for linear heads."""
        if not self.bodies:
            return None
        return self.bodies[0 if self.sharing == "all" else exit - 1]

    def parts(self, exit: int) -> tuple[nn.Module, ...]:
        """Every module that an exit's head runs, which its cost is counted
        over: norm, body, projection.
        """
        body = self.body(exit)
        bodies = () if body is None else (body,)
        return (self.norms[exit - 1], *bodies, self.projection(exit))

    def forward(self, exit: int, state: EncoderState) -> ExitOutput:
        """Read an exit, counted from 1. Log-probabilities are fp32, whatever
        the autocast type is: CTC and every criterion sum many of them.
        """
        read_BTW = self.norms[exit - 1](state.hidden_BTD)
        body = self.body(exit)
        if body is not None:
            read_BTW = body(read_BTW, state.padding_mask_BT)
        logits_BTV = self.projection(exit)(self.dropout(read_BTW))
        return ExitOutput(
            log_probs_BTV=torch.log_softmax(logits_BTV.float(), dim=-1),
            lengths_B=state.lengths_B,
            layer=state.depth,
            blank_index=self.blank_index,
            hidden_BTD=state.hidden_BTD,
        )

    def truncated(self, exits: int) -> "CTCHeads":
        """The heads of the first exits, of the same class and parameters."""
        # A shared module is the only one of its list, so it always stays.
        return shared_copy(self, norms=exits, bodies=exits, projections=exits)


class HeadBody(nn.Module):
    """What stands between an exit's norm and its projection."""

    def __init__(
        self, kind: str, d_model: int, width: int, nhead: int, dropout: float
    ):
        super().__init__()
        if not isinstance(width, int) or width < 1:
            raise InputError(
                f"head_width: {width!r} is not a width; use a number of units "
                "such as 512, or null for the encoder's width."
            )
        self.kind = kind
        self.linear = nn.Linear(d_model, width)
        if kind == "two_layer":
            self.activation = nn.LeakyReLU()
        elif kind == "feed_forward":
            self.network = PositionalwiseFeedForward(
                d_ffn=_FFN_RATIO * width,
                input_size=width,
                dropout=dropout,
                activation=nn.GELU,
            )
            self.dropout = nn.Dropout(dropout)
        elif nhead < 1 or width % nhead:
            raise InputError(
                f"head_nhead: {nhead} attention heads cannot share a width "
                f"of {width} (head_width, by default the encoder's width); "
                "use a divisor of it, for example 4 or 8."
            )
        else:
            self.layer = TransformerEncoderLayer(
                d_ffn=_FFN_RATIO * width,
                nhead=nhead,
                d_model=width,
                dropout=dropout,
                activation=nn.GELU,
                normalize_before=False,
            )

    def forward(
        self, hidden_BTD: Tensor, padding_mask_BT: Tensor | None
    ) -> Tensor:
        """Normed hidden states to the width of the body, (B, T, W)."""
        hidden_BTW = self.linear(hidden_BTD)
        if self.kind == "two_layer":
            return self.activation(hidden_BTW)
        if self.kind == "feed_forward":
            return hidden_BTW + self.dropout(self.network(hidden_BTW))
        return self.layer(hidden_BTW, src_key_padding_mask=padding_mask_BT)[0]
