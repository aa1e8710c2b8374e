"""What the layers of transformers take against padding.

Axes: B utterances, T frames, H attention heads.

Authors
 * The speechbrain-ee contributors 2026
"""

from typing import Any

import torch
from torch import Tensor

from speechbrain_ee.models.state import EncoderState


def layer_masks(state: EncoderState) -> dict[str, Any]:
    """Masks and position biases, by the names that a layer knows them by.

    Arguments
    ---------
    state : EncoderState
        Where the batch stands.

    Returns
    -------
    dict
        Keyword arguments for every layer.
    """
    scores = state.hidden_BTD if state.bias_HTT is None else state.bias_HTT
    added_BT = _added_mask(state, scores.dtype)
    if state.bias_HTT is not None:
        batch = len(state.lengths_B)
        masks = {"position_bias": state.bias_HTT.repeat(batch, 1, 1)}
        if added_BT is not None:
            masks["attention_mask"] = _Added(added_BT)
        return masks
    if added_BT is not None:
        frames = added_BT.shape[1]
        mask_B1TT = added_BT[:, None, None].expand(-1, 1, frames, -1)
        return {"attention_mask": mask_B1TT}
    return {}


class _Added:
    """A padding mask for WavLM's layers, as what is added to the scores.

    They ask their mask where it differs from 1 and hand the answer to PyTorch,
    which deprecates a boolean mask beside position biases.
    """

    def __init__(self, added_BT: Tensor):
        self.added_BT = added_BT

    def ne(self, _: int) -> Tensor:
        """What is added, where a layer asks where padding is."""
        return self.added_BT


def _added_mask(state: EncoderState, dtype: torch.dtype) -> Tensor | None:
    """Nothing for valid frames, the lowest number for padded ones.

    Added to the scores, since that is what every attention of transformers
    takes; None without padding, for the kernels that take no mask.
    """
    mask_BT = state.padding_mask_BT
    if mask_BT is None or not mask_BT.any():
        return None
    added_BT = torch.zeros_like(mask_BT, dtype=dtype)
    return added_BT.masked_fill(mask_BT, torch.finfo(dtype).min)
