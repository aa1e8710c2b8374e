"""Bodies of CTC heads: what stands between an exit's norm and its projection.

An early layer of a pre-trained encoder holds the tokens less linearly than the
last one does. A body gives its exit some depth of its own, at a cost that every
utterance pays at every exit it passes. All bodies begin with a linear layer to
their width, so that a narrow one is cheap on a wide encoder.

Axes: B utterances, T frames, D width of the encoder, W width of the body.

Authors
 * The speechbrain-ee contributors 2026
"""

from speechbrain.lobes.models.transformer.Transformer import (
    TransformerEncoderLayer,
)
from speechbrain.nnet.attention import PositionalwiseFeedForward
from torch import Tensor, nn

from speechbrain_ee.errors import InputError

HEAD_KINDS = ("linear", "two_layer", "feed_forward", "self_attention")

# Inner width of a body's feed-forward network, as a multiple of its width.
_FFN_RATIO = 2


class TwoLayerBody(nn.Module):
    """A hidden layer; with the projection it makes a head of two layers.

    The activation is that of SpeechBrain's wav2vec 2.0 recipes; dropout before
    the projection is the head's.

    Arguments
    ---------
    d_model : int
        Width of the encoder.
    width : int
        Width of the hidden layer.

    Example
    -------
    >>> import torch
    >>> body = TwoLayerBody(d_model=8, width=6)
    >>> body(torch.rand(2, 5, 8), torch.zeros(2, 5).bool()).shape
    torch.Size([2, 5, 6])
    """

    def __init__(self, d_model: int, width: int):
        super().__init__()
        self.linear = nn.Linear(d_model, width)
        self.activation = nn.LeakyReLU()

    def forward(
        self, hidden_BTD: Tensor, padding_mask_BT: Tensor | None
    ) -> Tensor:
        """Map every frame by itself.

        Arguments
        ---------
        hidden_BTD : torch.Tensor
            Normed hidden states, shape (B, T, D).
        padding_mask_BT : torch.Tensor, optional
            True where a frame is padding, shape (B, T); not needed here.

        Returns
        -------
        torch.Tensor
            Shape (B, T, W).
        """
        return self.activation(self.linear(hidden_BTD))


class FeedForwardBody(nn.Module):
    """A linear layer and a residual feed-forward network.

    After Berrebbi et al. (arXiv 2211.08989), who share the CTC projection
    between their exits: ``tied: projection``.

    Arguments
    ---------
    d_model : int
        Width of the encoder.
    width : int
        Width of the body.
    dropout : float
        Dropout in and behind the network.

    Example
    -------
    >>> import torch
    >>> body = FeedForwardBody(d_model=8, width=6)
    >>> body(torch.rand(2, 5, 8), torch.zeros(2, 5).bool()).shape
    torch.Size([2, 5, 6])
    """

    def __init__(self, d_model: int, width: int, dropout: float = 0.0):
        super().__init__()
        self.linear = nn.Linear(d_model, width)
        self.network = PositionalwiseFeedForward(
            d_ffn=_FFN_RATIO * width,
            input_size=width,
            dropout=dropout,
            activation=nn.GELU,
        )
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, hidden_BTD: Tensor, padding_mask_BT: Tensor | None
    ) -> Tensor:
        """Map every frame by itself.

        Arguments
        ---------
        hidden_BTD : torch.Tensor
            Normed hidden states, shape (B, T, D).
        padding_mask_BT : torch.Tensor, optional
            True where a frame is padding, shape (B, T); not needed here.

        Returns
        -------
        torch.Tensor
            Shape (B, T, W).
        """
        hidden_BTW = self.linear(hidden_BTD)
        return hidden_BTW + self.dropout(self.network(hidden_BTW))


class SelfAttentionBody(nn.Module):
    """A linear layer and a Transformer encoder layer, norms behind its parts.

    After HuBERT-EE (Yoon et al., arXiv 2204.06328). The only body whose frames
    see each other, so the only one whose cost grows with their square.

    Arguments
    ---------
    d_model : int
        Width of the encoder.
    width : int
        Width of the body.
    nhead : int
        Attention heads; must divide the width.
    dropout : float
        Dropout of the layer.

    Example
    -------
    >>> import torch
    >>> body = SelfAttentionBody(d_model=8, width=6, nhead=2)
    >>> body(torch.rand(2, 5, 8), torch.zeros(2, 5).bool()).shape
    torch.Size([2, 5, 6])
    """

    def __init__(
        self, d_model: int, width: int, nhead: int = 4, dropout: float = 0.0
    ):
        super().__init__()
        if nhead < 1 or width % nhead:
            raise InputError(
                f"head_nhead: {nhead} attention heads cannot share a width "
                f"of {width} (head_width, by default the encoder's width); "
                "use a divisor of it, for example 4 or 8."
            )
        self.linear = nn.Linear(d_model, width)
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
        """Map the frames of every utterance together.

        Arguments
        ---------
        hidden_BTD : torch.Tensor
            Normed hidden states, shape (B, T, D).
        padding_mask_BT : torch.Tensor, optional
            True where a frame is padding, shape (B, T): nothing attends to it.

        Returns
        -------
        torch.Tensor
            Shape (B, T, W).
        """
        hidden_BTW, _ = self.layer(
            self.linear(hidden_BTD), src_key_padding_mask=padding_mask_BT
        )
        return hidden_BTW


def head_body(
    kind: str, d_model: int, width: int, nhead: int = 4, dropout: float = 0.0
) -> nn.Module | None:
    """A body by its name.

    Arguments
    ---------
    kind : str
        One of ``HEAD_KINDS``.
    d_model : int
        Width of the encoder.
    width : int
        Width of the body.
    nhead : int
        Attention heads of ``self_attention``.
    dropout : float
        Dropout within the body.

    Returns
    -------
    torch.nn.Module, optional
        The body; None for ``linear``, a head without one.

    Raises
    ------
    InputError
        If the name is unknown or the width impossible.

    Example
    -------
    >>> type(head_body("two_layer", d_model=8, width=6)).__name__
    'TwoLayerBody'
    """
    if kind not in HEAD_KINDS:
        raise InputError(
            f"head: {kind!r} is unknown; use one of {', '.join(HEAD_KINDS)}."
        )
    if not isinstance(width, int) or width < 1:
        raise InputError(
            f"head_width: {width!r} is not a width; use a number of units "
            "such as 512, or null for the encoder's width."
        )
    if kind == "two_layer":
        return TwoLayerBody(d_model, width)
    if kind == "feed_forward":
        return FeedForwardBody(d_model, width, dropout)
    if kind == "self_attention":
        return SelfAttentionBody(d_model, width, nhead, dropout)
    return None
