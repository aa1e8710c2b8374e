"""Rotary attention whose tables are given instead of remembered.

SpeechBrain keeps cosines and sines in a memory that is filled by length;
traced, it would hold the one length that was traced. Here they arrive as
positions, like those of relative attention, and all layers share them.

Axes: B utterances, T frames, D width, H attention heads, W width of a head.

Authors
 * The speechbrain-ee contributors 2026
"""

import torch
from speechbrain.nnet.attention import RoPEMHA
from torch import Tensor, nn

from speechbrain_ee.models.layerwise import shared_copy
from speechbrain_ee.models.model import EarlyExitModel


class TabledRoPE(nn.Module):
    """SpeechBrain's ``RoPEMHA`` with its parameters, tables from outside.

    Arguments
    ---------
    attention : speechbrain.nnet.attention.RoPEMHA
        Whose parameters are used.

    Example
    -------
    >>> from speechbrain_ee.inference.onnx.graphs import RotaryTables
    >>> attention = RoPEMHA(embed_dim=8, num_heads=2)
    >>> x, tables = torch.rand(1, 5, 8), RotaryTables(4)(5)
    >>> same, _ = TabledRoPE(attention)(x, x, x, pos_embs=tables)
    >>> torch.allclose(same, attention(x, x, x)[0], atol=1e-6)
    True
    """

    def __init__(self, attention: RoPEMHA):
        super().__init__()
        self.attention = attention
        pairs = torch.arange(attention.head_dim).view(-1, 2)
        self.register_buffer("swapped", pairs.flip(1).flatten())

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        attn_mask: Tensor | None = None,
        pos_embs: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """Attend within ``query``, shape (B, T, D); tables (2, T, W)."""
        one = self.attention
        heads, width = one.num_heads, one.head_dim
        packed = nn.functional.linear(query, one.in_proj_weight)
        packed = packed.unflatten(-1, (heads, 3 * width)).transpose(1, 2)
        q, k, v = packed.split(width, dim=-1)
        if one.vbias is not None:
            v = v + one.value_bias_weight.view(heads, 1, width)
        out = nn.functional.scaled_dot_product_attention(
            self._turned(q, pos_embs),
            self._turned(k, pos_embs),
            v,
            attn_mask=_seen(key_padding_mask, attn_mask),
            scale=one.scale,
        )
        return one.out_proj(out.transpose(1, 2).flatten(2)), None

    def _turned(self, x: Tensor, tables: Tensor) -> Tensor:
        return x * tables[0] + x.index_select(-1, self.swapped) * tables[1]


def with_tables(model: EarlyExitModel) -> EarlyExitModel:
    """A model whose rotary attention reads tables; parameters are shared."""
    changed = shared_copy(model)
    changed.encoder = shared_copy(model.encoder)
    changed.encoder.layers = nn.ModuleList(
        map(_with_tables, model.encoder.layers)
    )
    return changed


def _with_tables(layer: nn.Module) -> nn.Module:
    found = [
        name
        for name, part in layer.named_children()
        if isinstance(part, RoPEMHA)
    ]
    if not found:
        return layer
    layer = shared_copy(layer)
    for name in found:
        setattr(layer, name, TabledRoPE(getattr(layer, name)))
    return layer


def _seen(padding_BT: Tensor | None, unseen_TT: Tensor | None) -> Tensor | None:
    """Where attention may look, as a mask that broadcasts to (B, H, T, T)."""
    hidden = None
    if padding_BT is not None:
        hidden = padding_BT[:, None, None, :]
    if unseen_TT is not None:
        hidden = unseen_TT if hidden is None else hidden | unseen_TT
    return None if hidden is None else ~hidden
