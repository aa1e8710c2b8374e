"""Exits in Whisper's encoder: CTC heads on an encoder that begins differently.

Axes: B utterances, T frames, D width, F mel bands.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import WhisperModel

from speechbrain_ee.models.layerwise import LayerwiseEncoder
from speechbrain_ee.models.padding import padding_mask, without_padding
from speechbrain_ee.models.state import EncoderState


class WhisperEncoder(LayerwiseEncoder):
    """Whisper's encoder up to any layer; ``features`` has its mel bands."""

    frame_makers = ("conv1", "conv2")  # what `freeze_convolutions` freezes

    def __init__(
        self, source: str, features: nn.Module, exit_layers: list[int]
    ):
        whisper = WhisperModel.from_pretrained(source).encoder
        super().__init__(whisper.layers, exit_layers)
        self.features = features
        self.conv1, self.conv2 = whisper.conv1, whisper.conv2
        self.positions = whisper.embed_positions

    def frames(self, samples: int) -> int:
        """Frames of an utterance of so many samples."""
        return (self.features.frames(samples) + 1) // 2

    def start(self, wavs: Tensor, wav_lens: Tensor) -> EncoderState:
        """Features, two convolutions, positions; no padding is read."""
        hidden_BTD, lengths_B = self.features(wavs, wav_lens)
        for convolution in (self.conv1, self.conv2):
            mask_BT = padding_mask(lengths_B, hidden_BTD.shape[1])
            hidden_BDT = without_padding(hidden_BTD, mask_BT).transpose(1, 2)
            hidden_BTD = nn.functional.gelu(convolution(hidden_BDT)).mT
            stride = convolution.stride[0]
            lengths_B = (lengths_B + stride - 1) // stride
        hidden_BTD = hidden_BTD + self.positions.weight[: hidden_BTD.shape[1]]
        return EncoderState(hidden_BTD, lengths_B, torch.arange(len(wavs)), 0)

    def layer_runner(self, state: EncoderState) -> Callable[..., Tensor]:
        """From a layer and hidden states to hidden states."""
        mask_BT = padding_mask(state.lengths_B, state.hidden_BTD.shape[1])
        mask_B11T = mask_BT[:, None, None] * torch.finfo(torch.float32).min

        def run(layer: nn.Module, hidden_BTD: Tensor) -> Tensor:
            out = layer(hidden_BTD, attention_mask=mask_B11T)
            return out[0] if isinstance(out, tuple) else out

        return run
