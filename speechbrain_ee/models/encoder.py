"""SpeechBrain's Conformer, Branchformer and Transformer, layer by layer.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Callable, Sequence

import torch
from speechbrain.lobes.models.transformer.TransformerASR import (
    TransformerASR,
    make_transformer_src_mask,
)
from torch import Tensor, nn

from speechbrain_ee.models.layerwise import LayerwiseEncoder
from speechbrain_ee.models.masking import mask_padding_in
from speechbrain_ee.models.state import EncoderState


class MultiExitEncoder(LayerwiseEncoder):
    """A SpeechBrain encoder stack that can be left after every exit layer.

    Arguments
    ---------
    features : torch.nn.Module
        Waveforms (B, samples) and relative lengths to features and frames;
        see :class:`speechbrain_ee.models.features.LogMel`.
    front_end : torch.nn.Module
        Features and frames to subsampled features and frames; see
        :class:`speechbrain_ee.models.masking.MaskedConvolutionFrontEnd`.
    stack : speechbrain.lobes.models.transformer.TransformerASR.TransformerASR
        Where the input projection, the positional encoding and the encoder
        layers are taken from (Conformer, Branchformer or Transformer; any
        attention type). Layers above the last exit are dropped, and so is
        the stack's final norm: every exit has its own.
    exit_layers : list of int
        Layers that an exit follows, counted from 1.
    mask_padding : bool
        Zero padded frames before every convolution over time (default).
        False is SpeechBrain's own behaviour, where an utterance's result
        depends on the padding around it.
    layerdrop_prob : float
        Probability to skip a layer in training. A skipped layer keeps its
        place, so that exit k always reads the same depth.
    feature_augment : torch.nn.Module, optional
        Augmentation of the features in training (SpecAugment), a
        :class:`speechbrain.augment.augmenter.Augmenter`.
    """

    frame_makers = ("front_end", "input_projection")

    def __init__(
        self,
        features: nn.Module,
        front_end: nn.Module,
        stack: TransformerASR,
        exit_layers: Sequence[int],
        mask_padding: bool = True,
        layerdrop_prob: float = 0.0,
        feature_augment: nn.Module | None = None,
    ):
        layers = [
            mask_padding_in(layer) if mask_padding else layer
            for layer in stack.encoder.layers
        ]
        super().__init__(layers, exit_layers, layerdrop_prob)
        self.features = features
        self.front_end = front_end
        self.input_projection = stack.custom_src_module
        self.positional_encoding = getattr(stack, "positional_encoding", None)
        self.feature_augment = feature_augment
        self.attention_type = stack.attention_type
        self.causal = stack.causal

    def frames(self, samples: int) -> int:
        """Frames of an utterance of so many samples."""
        return self.front_end.frames(self.features.frames(samples))

    def start(self, wavs: Tensor, wav_lens: Tensor) -> EncoderState:
        """Features, front-end, input projection and positions."""
        features_BTF, lengths_B = self.features(wavs, wav_lens)
        if self.training and self.feature_augment is not None:
            frames = features_BTF.shape[1]
            features_BTF, _ = self.feature_augment(
                features_BTF, lengths_B / frames
            )
        hidden_BTD, lengths_B = self.front_end(features_BTF, lengths_B)
        hidden_BTD = self.input_projection(hidden_BTD)
        positions = None
        if self.attention_type == "RelPosMHAXL":
            positions = self.positional_encoding(hidden_BTD)
        elif self.attention_type == "regularMHA":
            hidden_BTD = hidden_BTD + self.positional_encoding(hidden_BTD)
        rows_B = torch.arange(len(lengths_B), device=lengths_B.device)
        return EncoderState(hidden_BTD, lengths_B, rows_B, 0, positions)

    def layer_runner(
        self, state: EncoderState
    ) -> Callable[[nn.Module, Tensor], Tensor]:
        """A layer with the masks and positions of a state."""
        mask_BT = state.padding_mask_BT
        src_mask = make_transformer_src_mask(
            state.hidden_BTD, causal=self.causal
        )

        def run(layer: nn.Module, hidden_BTD: Tensor) -> Tensor:
            hidden_BTD, _ = layer(
                hidden_BTD,
                src_mask=src_mask,
                src_key_padding_mask=mask_BT,
                pos_embs=state.positions,
            )
            return hidden_BTD

        return run
