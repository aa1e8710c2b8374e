"""An attention decoder that can be run whole or token by token.

Training runs SpeechBrain's Transformer decoder over whole transcripts. A
beam search extends many hypotheses by one token at a time; run whole for
every token, the decoder would project the encoder's frames and the past again
at each step. :meth:`TokenDecoder.extend` runs the same layers over the new
tokens only and keeps what later tokens attend to.

Axes: B utterances, K hypotheses of each, S tokens, T frames, D width, H
attention heads, V vocabulary entries; N = B K.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from dataclasses import dataclass, replace

import torch
from speechbrain.lobes.models.transformer.Transformer import (
    NormalizedEmbedding,
    PositionalEncoding,
    TransformerDecoder,
    TransformerDecoderLayer,
    get_lookahead_mask,
)
from torch import Tensor, nn

from speechbrain_ee.models.padding import padding_mask


@dataclass(frozen=True)
class DecoderState:
    """Hypotheses of a batch of utterances, half decoded.

    Arguments
    ---------
    memory : tuple of pairs of torch.Tensor
        By layer, keys and values of the encoder's frames, (B, H, T, D / H);
        the hypotheses of an utterance share them.
    past : tuple of pairs of torch.Tensor
        By layer, keys and values of the tokens so far, (N, H, S, D / H).
    mask_BT : torch.Tensor
        True where a frame is padding.
    offset_D : torch.Tensor or float
        Added to every token's embedding: where the decoder reads.
    """

    memory: tuple[tuple[Tensor, Tensor], ...]
    past: tuple[tuple[Tensor, Tensor], ...]
    mask_BT: Tensor
    offset_D: Tensor | float

    @property
    def length(self) -> int:
        """Tokens so far."""
        return self.past[0][0].shape[2] if self.past else 0

    def reordered(self, index_N: Tensor) -> "DecoderState":
        """Continue other hypotheses of the same utterances.

        Arguments
        ---------
        index_N : torch.Tensor
            For every hypothesis the one whose past it takes, shape (N,); of
            the same utterance.

        Returns
        -------
        DecoderState
        """
        past = tuple(
            (keys[index_N], values[index_N]) for keys, values in self.past
        )
        return replace(self, past=past)


class TokenDecoder(nn.Module):
    """SpeechBrain's Transformer decoder with embedding and output layer.

    Arguments
    ---------
    vocab_size : int
        Tokens, those for beginning and end included.
    d_model : int
        Width, that of the encoder.
    num_layers : int
        Decoder layers.
    nhead : int
        Attention heads.
    d_ffn : int
        Width of the feed-forward layers.
    dropout : float
        Dropout in training.
    max_tokens : int
        Longest transcript, in tokens, that positions are kept for.

    Example
    -------
    >>> decoder = TokenDecoder(vocab_size=7, d_model=8, num_layers=1, nhead=2)
    >>> memory_BTD, lengths_B = torch.rand(2, 5, 8), torch.tensor([5, 3])
    >>> tokens_BS = torch.tensor([[1, 4, 3], [1, 6, 0]])
    >>> decoder(tokens_BS, memory_BTD, lengths_B).shape
    torch.Size([2, 3, 7])
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        num_layers: int,
        nhead: int,
        d_ffn: int = 1024,
        dropout: float = 0.1,
        max_tokens: int = 2500,
    ):
        super().__init__()
        self.embedding = NormalizedEmbedding(d_model, vocab_size)
        self.positions = PositionalEncoding(d_model, max_tokens)
        self.decoder = TransformerDecoder(
            num_layers=num_layers,
            nhead=nhead,
            d_ffn=d_ffn,
            d_model=d_model,
            dropout=dropout,
            activation=nn.GELU,
            normalize_before=True,
        )
        self.output = nn.Linear(d_model, vocab_size)
        self.max_tokens = max_tokens
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_normal_(parameter)

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder layers."""
        return self.decoder.layers

    def forward(
        self,
        tokens_BS: Tensor,
        memory_BTD: Tensor,
        lengths_B: Tensor,
        offset_D: Tensor | float = 0.0,
    ) -> Tensor:
        """Predict every next token of whole transcripts.

        Arguments
        ---------
        tokens_BS : torch.Tensor
            Tokens behind the one for the beginning, shape (B, S); what
            follows a transcript's end may be anything.
        memory_BTD : torch.Tensor
            Encoder frames, shape (B, T, D).
        lengths_B : torch.Tensor
            Valid frames, shape (B,).
        offset_D : torch.Tensor, optional
            Added to every embedding, shape (D,).

        Returns
        -------
        torch.Tensor
            Logits of shape (B, S, V).
        """
        # A token never sees a later one, so padding behind it cannot matter.
        hidden_BSD, _, _ = self.decoder(
            self._embedded(tokens_BS, 0) + offset_D,
            memory_BTD,
            tgt_mask=get_lookahead_mask(tokens_BS),
            memory_key_padding_mask=padding_mask(
                lengths_B, memory_BTD.shape[1]
            ),
        )
        return self.output(hidden_BSD)

    def start(
        self,
        memory_BTD: Tensor,
        lengths_B: Tensor,
        offset_D: Tensor | float = 0.0,
    ) -> DecoderState:
        """Prepare for hypotheses of a batch of utterances.

        Arguments
        ---------
        memory_BTD : torch.Tensor
            Encoder frames, shape (B, T, D).
        lengths_B : torch.Tensor
            Valid frames, shape (B,).
        offset_D : torch.Tensor, optional
            Added to every embedding, shape (D,).

        Returns
        -------
        DecoderState
            Without any token yet.
        """
        memory = tuple(
            _keys_values(layer.multihead_attn.att, memory_BTD)
            for layer in self.layers
        )
        mask_BT = padding_mask(lengths_B, memory_BTD.shape[1])
        return DecoderState(memory, (), mask_BT, offset_D)

    def extend(
        self, tokens_NS: Tensor, state: DecoderState
    ) -> tuple[Tensor, Tensor, DecoderState]:
        """Read further tokens of every hypothesis, in evaluation mode.

        Arguments
        ---------
        tokens_NS : torch.Tensor
            One or more tokens of each hypothesis, shape (N, S); the K
            hypotheses of an utterance are neighbours.
        state : DecoderState
            What has been read.

        Returns
        -------
        logits_NSV : torch.Tensor
            Of every next token.
        attention_NST : torch.Tensor
            Where the last layer looked, averaged over its heads.
        state : DecoderState
            The tokens included.
        """
        hidden = self._embedded(tokens_NS, state.length) + state.offset_D
        past, attention = [], None
        for index, layer in enumerate(self.layers):
            before = state.past[index] if state.past else None
            hidden, now = _self_attention(layer, hidden, before)
            past.append(now)
            hidden, attention = _cross_attention(
                layer, hidden, state.memory[index], state.mask_BT
            )
            hidden = hidden + layer.pos_ffn(layer.norm3(hidden))
        logits_NSV = self.output(self.decoder.norm(hidden))
        return logits_NSV, attention, replace(state, past=tuple(past))

    def _embedded(self, tokens_NS: Tensor, start: int) -> Tensor:
        end = start + tokens_NS.shape[1]
        return self.embedding(tokens_NS) + self.positions.pe[:, start:end]


def _keys_values(
    attention: nn.MultiheadAttention, hidden_NSD: Tensor
) -> tuple[Tensor, Tensor]:
    width = attention.embed_dim
    projected = nn.functional.linear(
        hidden_NSD,
        attention.in_proj_weight[width:],
        attention.in_proj_bias[width:],
    )
    keys, values = projected.chunk(2, dim=-1)
    return _heads(keys, attention), _heads(values, attention)


def _queries(attention: nn.MultiheadAttention, hidden_NSD: Tensor) -> Tensor:
    width = attention.embed_dim
    projected = nn.functional.linear(
        hidden_NSD,
        attention.in_proj_weight[:width],
        attention.in_proj_bias[:width],
    )
    return _heads(projected, attention) / math.sqrt(attention.head_dim)


def _heads(hidden_NSD: Tensor, attention: nn.MultiheadAttention) -> Tensor:
    """(N, S, D) to (N, H, S, D / H)."""
    return hidden_NSD.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)


def _self_attention(
    layer: TransformerDecoderLayer,
    hidden_NSD: Tensor,
    past: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Attend to the past and to the new tokens that are not later."""
    attention = layer.self_attn.att
    normed_NSD = layer.norm1(hidden_NSD)
    now = _keys_values(attention, normed_NSD)
    if past is not None:
        now = tuple(torch.cat(pair, dim=2) for pair in zip(past, now))
    keys, values = now
    scores = _queries(attention, normed_NSD) @ keys.transpose(2, 3)
    new, total = scores.shape[2:]
    if new > 1:
        later = torch.ones(new, total, dtype=torch.bool, device=scores.device)
        scores = scores.masked_fill(later.triu(total - new + 1), -math.inf)
    mixed = scores.softmax(-1) @ values
    out = attention.out_proj(mixed.transpose(1, 2).flatten(2))
    return hidden_NSD + out, now


def _cross_attention(
    layer: TransformerDecoderLayer,
    hidden_NSD: Tensor,
    memory: tuple[Tensor, Tensor],
    mask_BT: Tensor,
) -> tuple[Tensor, Tensor]:
    """Attend to the frames, which the hypotheses of an utterance share."""
    attention = layer.multihead_attn.att
    keys_BHTd, values_BHTd = memory
    batch = keys_BHTd.shape[0]
    rows, new, _ = hidden_NSD.shape
    queries = _queries(attention, layer.norm2(hidden_NSD))
    # (N, H, S, d) to (B, H, K S, d): one product for all hypotheses.
    queries = queries.unflatten(0, (batch, -1)).transpose(1, 2).flatten(2, 3)
    scores = queries @ keys_BHTd.transpose(2, 3)
    # Finite: an utterance without a frame must not make numbers of none.
    lowest = torch.finfo(scores.dtype).min
    scores = scores.masked_fill(mask_BT[:, None, None], lowest)
    weights = scores.softmax(-1)
    mixed = (weights @ values_BHTd).unflatten(2, (-1, new))
    mixed = mixed.permute(0, 2, 3, 1, 4).reshape(rows, new, -1)
    looked = weights.mean(1).unflatten(1, (-1, new)).flatten(0, 1)
    return hidden_NSD + attention.out_proj(mixed), looked
