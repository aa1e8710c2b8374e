"""SpeechBrain's convolutions, made blind to padding.

SpeechBrain's Conformer and Branchformer layers convolve over time without
clearing the padded frames first, and two of their convolutions pad by
reflection. An utterance is then transcribed differently alone and in a batch,
which no early-exit decision survives. The classes below are the same layers
with the same parameters, that zero the padded frames before every convolution
over time and pad with zeros, so that what follows the last frame of an
utterance never matters.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from speechbrain.lobes.models.convolution import ConvolutionFrontEnd
from speechbrain.lobes.models.transformer.Branchformer import (
    BranchformerEncoderLayer,
)
from speechbrain.lobes.models.transformer.Conformer import (
    ConformerEncoderLayer,
    ConvolutionModule,
)
from speechbrain.nnet.CNN import Conv2d, get_padding_elem
from torch import Tensor, nn

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.padding import padding_in, without_padding


class MaskedConvolutionFrontEnd(nn.Module):
    """SpeechBrain's convolutional front-end with exact lengths.

    Arguments
    ---------
    input_shape : tuple
        (batch, time, features) of the input; batch and time may be None.
    mask_padding : bool
        Zero the padded frames before every convolution (default). Without
        it the result of an utterance depends on its neighbours in the batch.
    **kwargs
        The arguments of
        :class:`speechbrain.lobes.models.convolution.ConvolutionFrontEnd`
        except ``residuals``, ``padding`` and ``conv_module``.

    Example
    -------
    >>> front_end = MaskedConvolutionFrontEnd(
    ...     input_shape=(None, None, 80),
    ...     num_blocks=2,
    ...     num_layers_per_block=1,
    ...     out_channels=[8, 4],
    ...     kernel_sizes=[3, 3],
    ...     strides=[2, 2],
    ... )
    >>> out, lengths = front_end(torch.rand(2, 101, 80), torch.tensor([101, 7]))
    >>> out.shape, lengths
    (torch.Size([2, 26, 80]), tensor([26,  2]))
    """

    def __init__(self, input_shape: tuple, mask_padding: bool = True, **kwargs):
        num_blocks = kwargs.get("num_blocks", 3)
        for key in ("residuals", "padding", "conv_module"):
            if key in kwargs:
                raise InputError(
                    f"front_end: `{key}` is fixed here, because the lengths "
                    "after the convolutions are exact only for zero-padded "
                    "convolutions without residual; remove it from the YAML."
                )
        super().__init__()
        self.blocks = ConvolutionFrontEnd(
            input_shape=input_shape,
            residuals=[False] * num_blocks,
            conv_module=partial(Conv2d, padding_mode="constant"),
            **kwargs,
        )
        self.mask_padding = mask_padding

    def forward(
        self, features_BTF: Tensor, lengths_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Convolve and subsample: channels and frequencies flattened, shape
        (B, T', D), and their valid frames.
        """
        hidden = features_BTF
        for layer in self._layers():
            if not isinstance(layer, Conv2d):
                hidden = layer(hidden)
                continue
            if self.mask_padding:
                mask_BT = padding_in(lengths_B, hidden.shape[1])
                hidden = without_padding(hidden, mask_BT)
            hidden = _convolved(layer, hidden)
            lengths_B = _strided(layer, lengths_B)
        return hidden.flatten(start_dim=2), lengths_B

    def frames(self, frames: int) -> int:
        """What becomes of so many frames of features."""
        for layer in self._layers():
            if isinstance(layer, Conv2d):
                frames = _strided(layer, frames)
        return frames

    def _layers(self) -> Iterator[nn.Module]:
        for block in self.blocks.children():
            yield from block.convs.children()


def _strided(layer: Conv2d, frames: int | Tensor) -> int | Tensor:
    stride = layer.stride[0]
    return (frames + stride - 1) // stride


def _convolved(layer: Conv2d, hidden: Tensor) -> Tensor:
    """What the layer gives, on channels that stay innermost.

    SpeechBrain transposes time with channels before and after, which leaves
    the norm and the next layer a tensor in the wrong order.
    """
    padding = [
        get_padding_elem(layer.in_channels, stride, size, dilation)[0]
        for stride, size, dilation in zip(
            layer.stride, layer.kernel_size, layer.dilation
        )
    ]
    if layer.unsqueeze:
        hidden = hidden.unsqueeze(-1)
    out = F.conv2d(
        hidden.permute(0, 3, 1, 2),
        layer.conv.weight.transpose(2, 3),  # over time first
        layer.conv.bias,
        stride=layer.stride[::-1],
        padding=padding[::-1],
        dilation=layer.dilation[::-1],
        groups=layer.conv.groups,
    ).permute(0, 2, 3, 1)
    return out.squeeze(-1) if layer.unsqueeze else out


class MaskedConvolutionModule(ConvolutionModule):
    """Conformer's convolution module, padding zeroed before the convolution.

    It takes the parts of an existing module, so that parameters and their
    names stay SpeechBrain's. Chunked (streaming) training is left to the
    original module. Channels stay the innermost axis throughout: on a CPU the
    depthwise convolution is then tens of times faster than
    ``torch.nn.Conv1d`` on channels that are outermost.
    """

    def __init__(self, module: ConvolutionModule):
        nn.Module.__init__(self)
        vars(self).update(vars(module))

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        dynchunktrain_config: None = None,
    ) -> Tensor:
        """Apply the module to ``x``, shape (B, T, D); ``mask`` is (B, T, 1)."""
        if dynchunktrain_config is not None:
            return super().forward(x, mask, dynchunktrain_config)
        pointwise = self.bottleneck[0]  # then a gated linear unit
        out = F.linear(
            self.layer_norm(x), pointwise.weight.squeeze(-1), pointwise.bias
        )
        out = F.glu(out, dim=-1)
        if mask is not None:
            out = out.masked_fill(mask, 0.0)
        out = self._over_time(out)
        if self.causal:
            out = out[:, : -self.padding]
        out = self.after_conv(out)
        return out if mask is None else out.masked_fill(mask, 0.0)

    def _over_time(self, hidden_BTD: Tensor) -> Tensor:
        conv, hidden_BDT = self.conv, hidden_BTD.transpose(1, 2)
        if hidden_BTD.device.type != "cpu":
            return conv(hidden_BDT).transpose(1, 2)
        # In two dimensions PyTorch sees that channels are innermost.
        return (
            F.conv2d(
                hidden_BDT.unsqueeze(2),
                conv.weight.unsqueeze(2),
                conv.bias,
                padding=(0, *conv.padding),
                dilation=(1, *conv.dilation),
                groups=conv.groups,
            )
            .squeeze(2)
            .transpose(1, 2)
        )


class MaskedBranchformerLayer(BranchformerEncoderLayer):
    """Branchformer layer whose convolution branch does not see padding."""

    def __init__(self, layer: BranchformerEncoderLayer):
        nn.Module.__init__(self)
        vars(self).update(vars(layer))
        # Reflection mirrors whatever follows the utterance in its batch.
        self.convolution_branch.csgu.conv.padding_mode = "constant"

    def forward(
        self,
        x: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        pos_embs: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run the layer on ``x``, shape (B, T, D)."""
        x1 = self.norm_mhsa(x)
        x1, attention = self.mha_layer(
            x1,
            x1,
            x1,
            attn_mask=src_mask,
            key_padding_mask=src_key_padding_mask,
            pos_embs=pos_embs,
        )
        x1 = self.dropout(x1)
        x2 = self._convolve(self.norm_conv(x), src_key_padding_mask)
        x2 = self.dropout(x2)
        merged = self.merge_proj(torch.cat([x1, x2], dim=-1))
        return x + self.dropout(merged), attention

    def _convolve(self, x: Tensor, mask_BT: Tensor | None) -> Tensor:
        branch = self.convolution_branch
        gate = branch.csgu
        x = branch.activation(branch.pre_channel_proj(x))
        x1, x2 = x.chunk(2, dim=-1)
        x2 = gate.conv(without_padding(gate.norm(x2), mask_BT))
        if gate.use_linear_after_conv:
            x2 = gate.linear(x2)
        x = gate.dropout(gate.activation(x2) * x1)
        return branch.post_channel_proj(x)


def mask_padding_in(layer: nn.Module) -> nn.Module:
    """The layer with the same parameters, blind to padding; Transformer
    layers as they are, whose attention masks its keys already.
    """
    if isinstance(layer, ConformerEncoderLayer):
        layer.convolution_module = MaskedConvolutionModule(
            layer.convolution_module
        )
    elif isinstance(layer, BranchformerEncoderLayer):
        return MaskedBranchformerLayer(layer)
    return layer
