"""Exit heads: what is read off the encoder at an exit.

Axes: B utterances, T frames, D width of the encoder, W width of a head's body
(D without one), V tokens.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.head_bodies import head_body
from speechbrain_ee.models.layerwise import shared_copy
from speechbrain_ee.models.state import EncoderState

SHARING = ("separate", "projection", "all")


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
        The body: ``linear`` (none), ``two_layer``, ``feed_forward`` or
        ``self_attention``; see :mod:`speechbrain_ee.models.head_bodies`.
    width : int, optional
        Width of the body; by default the encoder's. ``linear`` has none.
    nhead : int
        Attention heads of ``self_attention``.

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
        self.sharing = _sharing(tied)
        self.blank_index = blank_index
        self.norms = nn.ModuleList(nn.LayerNorm(d_model) for _ in exit_layers)
        bodies = [
            head_body(head, d_model, width, nhead, dropout)
            for _ in range(1 if self.sharing == "all" else exits)
        ]
        # Without bodies the names in a checkpoint are those of linear heads.
        self.bodies = nn.ModuleList(b for b in bodies if b is not None)
        self.projections = nn.ModuleList(
            nn.Linear(width, vocab_size)
            for _ in range(exits if self.sharing == "separate" else 1)
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
        """Every module that an exit's head runs: norm, body, projection.

        Arguments
        ---------
        exit : int
            Number of the exit, from 1.

        Returns
        -------
        tuple of torch.nn.Module
            What the cost of the head is counted over; shared modules are
            named by every exit that uses them.
        """
        body = self.body(exit)
        bodies = () if body is None else (body,)
        return (self.norms[exit - 1], *bodies, self.projection(exit))

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
        """The first heads alone, sharing their parameters.

        Arguments
        ---------
        exits : int
            How many exits stay.

        Returns
        -------
        CTCHeads
            Heads of the same class for the exits 1 to ``exits``.
        """
        # A shared module is the only one of its list, so it always stays.
        return shared_copy(self, norms=exits, bodies=exits, projections=exits)


def _sharing(tied: bool | str) -> str:
    if isinstance(tied, bool):
        return "projection" if tied else "separate"
    if tied not in SHARING:
        raise InputError(
            f"tied_heads: {tied!r} is unknown; use one of "
            f"{', '.join(SHARING)}, or False (separate) or True (projection)."
        )
    return tied
