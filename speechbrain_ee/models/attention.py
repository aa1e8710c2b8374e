"""Attention heads: decoders that read the encoder at its exits.

Training runs SpeechBrain's Transformer decoder over whole transcripts. A
beam search extends many hypotheses by one token at a time;
:meth:`TokenDecoder.extend` runs the same layers over the new tokens only and
keeps what later tokens attend to.

Axes: B utterances, K hypotheses of each, S tokens, T frames, D width, H
attention heads, V vocabulary entries; N = B K.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from collections.abc import Sequence
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

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.heads import ExitOutput
from speechbrain_ee.models.layerwise import shared_copy
from speechbrain_ee.models.padding import padding_mask

DECODER_KINDS = ("shared", "separate")


class AttentionHeads(nn.Module):
    """One attention decoder for all exits, or one for each.

    Every exit has a norm of its own in front of the decoder, because the
    scale of the states differs from depth to depth. A shared decoder is told
    where it reads by that norm and by an embedding of the exit, added to its
    tokens (zero before training).

    Arguments
    ---------
    exit_layers : list of int
        The encoder's exit layers.
    d_model : int
        Width of the encoder.
    vocab_size : int
        Tokens; the CTC heads have the same.
    bos_index : int
        Token that begins every transcript.
    eos_index : int
        Token that ends it.
    decoders : str
        ``shared`` or ``separate``, the latter with one decoder per exit as in
        Wright et al. (arXiv 2309.09546).
    num_layers : int
        Layers of a decoder.
    nhead : int
        Its attention heads.
    d_ffn : int
        Width of its feed-forward layers.
    dropout : float
        Dropout in training.

    Example
    -------
    >>> heads = AttentionHeads([2, 4], d_model=8, vocab_size=7, nhead=2)
    >>> output = ExitOutput(
    ...     log_probs_BTV=torch.zeros(2, 5, 7),
    ...     lengths_B=torch.tensor([5, 3]),
    ...     layer=4,
    ...     hidden_BTD=torch.rand(2, 5, 8),
    ... )
    >>> heads(2, output, torch.tensor([[1, 4, 3], [1, 6, 0]])).shape
    torch.Size([2, 3, 7])
    """

    def __init__(
        self,
        exit_layers: Sequence[int],
        d_model: int,
        vocab_size: int,
        bos_index: int = 1,
        eos_index: int = 2,
        decoders: str = "shared",
        num_layers: int = 4,
        nhead: int = 4,
        d_ffn: int = 1024,
        dropout: float = 0.1,
    ):
        super().__init__()
        if decoders not in DECODER_KINDS:
            raise InputError(
                f"attention_decoders: {decoders!r} is unknown; use one of "
                f"{', '.join(DECODER_KINDS)}."
            )
        special = (bos_index, eos_index)
        if not 0 < min(special) < max(special) < vocab_size:
            raise InputError(
                f"bos_index, eos_index: {bos_index} and {eos_index} must be "
                f"different tokens between 1 and {vocab_size - 1}; 0 is "
                "CTC's blank. The recipes use 1 and 2."
            )
        exits = len(exit_layers)
        self.shared = decoders == "shared"
        self.bos_index = bos_index
        self.eos_index = eos_index
        self.norms = nn.ModuleList(nn.LayerNorm(d_model) for _ in range(exits))
        self.decoders = nn.ModuleList(
            TokenDecoder(vocab_size, d_model, num_layers, nhead, d_ffn, dropout)
            for _ in range(1 if self.shared else exits)
        )
        # A decoder of its own need not be told its exit.
        self.places = nn.ParameterList(
            torch.zeros(d_model) for _ in exit_layers if self.shared
        )

    @property
    def num_exits(self) -> int:
        """Number of exits."""
        return len(self.norms)

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return self.decoders[0].output.out_features

    def decoder(self, exit: int) -> "TokenDecoder":
        """The decoder of an exit, counted from 1."""
        return self.decoders[0 if self.shared else exit - 1]

    def parts(self, exit: int) -> tuple[nn.Module, ...]:
        """What an exit reads by; a shared decoder is part of every exit."""
        place = self.places[exit - 1 : exit]
        return (self.norms[exit - 1], self.decoder(exit), place)

    def forward(
        self, exit: int, output: ExitOutput, tokens_BS: Tensor
    ) -> Tensor:
        """Log-probabilities of every next token of the transcripts, (B, S, V),
        in fp32, from what an exit read and BOS with the transcripts.
        """
        logits_BSV = self.decoder(exit)(tokens_BS, *self._read(exit, output))
        return torch.log_softmax(logits_BSV.float(), dim=-1)

    def start(self, exit: int, output: ExitOutput) -> "DecoderState":
        """Prepare to decode a batch at an exit by :meth:`TokenDecoder.extend`
        of its :meth:`decoder`.
        """
        return self.decoder(exit).start(*self._read(exit, output))

    def truncated(self, exits: int) -> "AttentionHeads":
        """What the first exits need, of the same class and parameters."""
        # A shared decoder is the only one of its list, so it always stays.
        return shared_copy(self, norms=exits, decoders=exits, places=exits)

    def _read(
        self, exit: int, output: ExitOutput
    ) -> tuple[Tensor, Tensor, Tensor | float]:
        """Normed frames, their number, and the embedding of the exit."""
        place = self.places[exit - 1] if self.shared else 0.0
        hidden_BTD = self.norms[exit - 1](output.hidden_BTD)
        return hidden_BTD, output.lengths_B, place


@dataclass(frozen=True)
class DecoderState:
    """Hypotheses of a batch of utterances, half decoded.

    ``memory`` has by layer the keys and values of the encoder's frames,
    (B, H, T, D / H), ``past`` those of the tokens so far, (N, H, S, D / H).
    """

    memory: tuple[tuple[Tensor, Tensor], ...]
    past: tuple[tuple[Tensor, Tensor], ...]
    mask_BT: Tensor  # true where a frame is padding
    offset_D: Tensor | float  # added to every token's embedding

    @property
    def length(self) -> int:
        """Tokens so far."""
        return self.past[0][0].shape[2] if self.past else 0

    def reordered(self, index_N: Tensor) -> "DecoderState":
        """Continue other hypotheses of the same utterances."""
        past = tuple(
            (keys[index_N], values[index_N]) for keys, values in self.past
        )
        return replace(self, past=past)


class TokenDecoder(nn.Module):
    """SpeechBrain's Transformer decoder with embedding and output layer."""

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
        """Logits of every next token of whole transcripts, (B, S, V)."""
        # A token never sees a later one, so padding after it cannot matter.
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
        """Prepare for hypotheses of a batch; no token has been read."""
        memory = tuple(
            _projected(layer.multihead_attn.att, memory_BTD, 1, 3)
            for layer in self.layers
        )
        mask_BT = padding_mask(lengths_B, memory_BTD.shape[1])
        return DecoderState(memory, (), mask_BT, offset_D)

    def extend(
        self, tokens_NS: Tensor, state: DecoderState
    ) -> tuple[Tensor, Tensor, DecoderState]:
        """Read further tokens of every hypothesis, in evaluation mode; the K
        hypotheses of an utterance are neighbours.

        Returns the logits of every next token, (N, S, V), where the last
        layer looked, averaged over its heads, (N, S, T), and the new state.
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


def _projected(
    attention: nn.MultiheadAttention, hidden_NSD: Tensor, first: int, last: int
) -> tuple[Tensor, ...]:
    """Some of queries (0), keys (1) and values (2), (N, H, S, D / H) each."""
    width = attention.embed_dim
    rows = slice(first * width, last * width)
    projected = nn.functional.linear(
        hidden_NSD, attention.in_proj_weight[rows], attention.in_proj_bias[rows]
    )
    return tuple(
        each.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        for each in projected.chunk(last - first, dim=-1)
    )


def _queries(attention: nn.MultiheadAttention, hidden_NSD: Tensor) -> Tensor:
    (queries,) = _projected(attention, hidden_NSD, 0, 1)
    return queries / math.sqrt(attention.head_dim)


def _self_attention(
    layer: TransformerDecoderLayer,
    hidden_NSD: Tensor,
    past: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Attend to the past and to the new tokens that are not later."""
    attention = layer.self_attn.att
    normed_NSD = layer.norm1(hidden_NSD)
    now = _projected(attention, normed_NSD, 1, 3)
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
    # Finite: the softmax of an utterance without a frame must not be NaN.
    lowest = torch.finfo(scores.dtype).min
    scores = scores.masked_fill(mask_BT[:, None, None], lowest)
    weights = scores.softmax(-1)
    mixed = (weights @ values_BHTd).unflatten(2, (-1, new))
    mixed = mixed.permute(0, 2, 3, 1, 4).reshape(rows, new, -1)
    looked = weights.mean(1).unflatten(1, (-1, new)).flatten(0, 1)
    return hidden_NSD + attention.out_proj(mixed), looked
