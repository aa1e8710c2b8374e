"""Which frames of a batch are padding.

Authors
 * The speechbrain-ee contributors 2026
"""

import torch
from torch import Tensor


def padding_mask(lengths_B: Tensor, frames: int) -> Tensor:
    """Mark the padded frames of a batch.

    Arguments
    ---------
    lengths_B : torch.Tensor
        Valid frames of every utterance, shape (B,).
    frames : int
        Padded number of frames, T.

    Returns
    -------
    torch.Tensor
        Boolean mask of shape (B, T), True where there is padding (the
        convention of SpeechBrain's ``src_key_padding_mask``).

    Example
    -------
    >>> padding_mask(torch.tensor([1, 3]), 3)
    tensor([[False,  True,  True],
            [False, False, False]])
    """
    time_T = torch.arange(frames, device=lengths_B.device)
    return time_T >= lengths_B.unsqueeze(1)


def padding_in(lengths_B: Tensor, frames: int) -> Tensor | None:
    """As :func:`padding_mask`, but None where nothing is known to be padded.

    Layers that take no mask are faster. Neither an accelerator, which would
    have to be waited for, nor a tracer is asked.
    """
    asked = lengths_B.device.type == "cpu" and not (
        torch.jit.is_tracing() or torch.compiler.is_compiling()
    )
    if asked and int(lengths_B.min()) >= frames:
        return None
    return padding_mask(lengths_B, frames)


def without_padding(hidden: Tensor, mask_BT: Tensor | None) -> Tensor:
    """The same of shape (B, T, ...), with zeros where there is padding."""
    if mask_BT is None:
        return hidden
    shape = mask_BT.shape + (1,) * (hidden.ndim - 2)
    return hidden.masked_fill(mask_BT.view(shape), 0.0)
