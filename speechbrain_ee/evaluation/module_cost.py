"""What modules cost: multiply-accumulates (MACs) in closed form.

A weight of a linear or convolutional layer is used once per frame, so its cost
per frame is the size of its weights; attention adds a term that grows with the
square of the frames. Element-wise work (norms, activations, softmax) is not
counted, as is usual.

Authors
 * The speechbrain-ee contributors 2026
"""

from speechbrain.nnet.attention import (
    MultiheadAttention,
    RelPosMHAXL,
    RoPEMHA,
)
from torch import nn

from speechbrain_ee.errors import InputError


def module_macs(module: nn.Module, frames: int) -> int:
    """MACs of a layer, a head or a part of them.

    Arguments
    ---------
    module : torch.nn.Module
        A module that keeps the number of frames.
    frames : int
        Frames it is run on.

    Returns
    -------
    int
        Weights times frames, and the products of attention.

    Example
    -------
    >>> module_macs(nn.Linear(4, 3), frames=5)
    60
    """
    macs = frames * weights(module)
    return macs + sum(_attention(part, frames) for part in module.modules())


def weights(module: nn.Module) -> int:
    """Weights that are multiplied once per frame, biases left out."""
    total = 0
    for child in module.modules():
        if isinstance(child, nn.Linear | nn.Conv1d):
            total += child.weight.numel()
        in_projection = getattr(child, "in_proj_weight", None)
        if in_projection is not None:
            total += in_projection.numel()
    return total


def convolution_macs(layer: nn.Conv1d, frames: int) -> tuple[int, int]:
    """MACs of a convolution over time.

    Arguments
    ---------
    layer : torch.nn.Conv1d
        The convolution; its padding is a number.
    frames : int
        Frames, or samples, that it reads.

    Returns
    -------
    macs : int
        Output frames times kernel times channels in and out, these by groups.
    frames : int
        Output frames.

    Example
    -------
    >>> convolution_macs(nn.Conv1d(4, 6, kernel_size=3, groups=2), frames=10)
    (288, 8)
    """
    kernel, padding = layer.kernel_size[0], layer.padding[0]
    frames = (frames + 2 * padding - kernel) // layer.stride[0] + 1
    # Not `weight.numel()`: where a weight is a norm times a direction, as in
    # pre-trained encoders, reading it computes it.
    pairs = layer.out_channels * layer.in_channels // layer.groups
    return frames * kernel * pairs, frames


def parameter_count(module: nn.Module) -> int:
    """Parameters of a module, weights and biases, trained or not."""
    return sum(parameter.numel() for parameter in module.parameters())


def _attention(module: nn.Module, frames: int) -> int:
    """The part of attention that is not weights times frames."""
    if isinstance(module, RelPosMHAXL):
        # Scores, values, and the scores of 2 T - 1 relative positions, which
        # are projected once; `weights` has counted that for T of them.
        positions = 2 * frames - 1
        scores = (2 * frames + positions) * frames * module.embed_dim
        return scores + (positions - frames) * module.linear_pos.weight.numel()
    if isinstance(module, RoPEMHA):
        return 2 * frames**2 * module.embed_dim
    if isinstance(module, MultiheadAttention):
        return 2 * frames**2 * module.att.embed_dim
    if type(module).__name__ == "HyperMixing":
        raise InputError(
            "attention_type: the cost of hypermixing is not known; use "
            "regularMHA, RelPosMHAXL or RoPEMHA."
        )
    if hasattr(module, "q_proj") and hasattr(module, "k_proj"):
        return _pretrained_attention(module, frames)
    return 0


def _pretrained_attention(module: nn.Module, frames: int) -> int:
    """Attention of transformers' wav2vec2, HuBERT and WavLM."""
    macs = 2 * frames**2 * module.embed_dim
    gate = getattr(module, "gru_rel_pos_linear", None)
    if gate is not None:
        # WavLM gates its position biases by every head: `weights` has counted
        # one of them.
        macs += frames * (module.num_heads - 1) * gate.weight.numel()
    return macs
