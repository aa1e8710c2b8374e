"""The layer-wise encoder: one implementation for training and inference.

``start`` turns waveforms into the state below the first layer, ``advance``
runs the layers up to the next exit, ``EncoderState.select`` lets utterances
leave in between. ``forward`` is the loop over all exits, and nothing else in
the project runs an encoder layer.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from speechbrain.lobes.models.transformer.TransformerASR import (
    TransformerASR,
    make_transformer_src_mask,
)
from torch import Tensor, nn

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.masking import mask_padding_in
from speechbrain_ee.models.state import EncoderState


def check_exit_layers(
    exit_layers: Sequence[int], num_layers: int
) -> tuple[int, ...]:
    """Validate the positions of the exits.

    Arguments
    ---------
    exit_layers : sequence of int
        Encoder layers that an exit follows, counted from 1.
    num_layers : int
        Layers that the encoder has.

    Returns
    -------
    tuple of int
        The same positions.

    Raises
    ------
    InputError
        If they are not strictly increasing within 1..num_layers.

    Example
    -------
    >>> check_exit_layers([2, 4], 4)
    (2, 4)
    """
    layers = tuple(exit_layers) if isinstance(exit_layers, Sequence) else ()
    valid = all(isinstance(layer, int) for layer in layers) and (
        list(layers) == sorted({*layers} & {*range(1, num_layers + 1)})
    )
    if not layers or not valid:
        raise InputError(
            f"exit_layers: {exit_layers!r} must be strictly increasing layer "
            f"numbers between 1 and {num_layers} (num_encoder_layers), for "
            "example [2, 4, 6]; a single-exit model is [12]."
        )
    return layers


class MultiExitEncoder(nn.Module):
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
        super().__init__()
        layers = stack.encoder.layers
        self.exit_layers = check_exit_layers(exit_layers, len(layers))
        layers = layers[: self.exit_layers[-1]]
        self.features = features
        self.front_end = front_end
        self.input_projection = stack.custom_src_module
        self.positional_encoding = getattr(stack, "positional_encoding", None)
        self.layers = nn.ModuleList(
            mask_padding_in(layer) if mask_padding else layer
            for layer in layers
        )
        self.feature_augment = feature_augment
        self.layerdrop_prob = layerdrop_prob
        self.attention_type = stack.attention_type
        self.causal = stack.causal

    @property
    def num_exits(self) -> int:
        """Number of exits."""
        return len(self.exit_layers)

    def start(self, wavs: Tensor, wav_lens: Tensor) -> EncoderState:
        """Features, front-end, input projection and positions.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms, shape (B, samples).
        wav_lens : torch.Tensor
            Lengths relative to the longest, shape (B,).

        Returns
        -------
        EncoderState
            The state at depth 0.
        """
        features_BTF, lengths_B = self.features(wavs, wav_lens)
        if self.training and self.feature_augment is not None:
            frames = features_BTF.shape[1]
            features_BTF, _ = self.feature_augment(
                features_BTF, lengths_B / frames
            )
        return self.start_from_features(features_BTF, lengths_B)

    def start_from_features(
        self, features_BTF: Tensor, lengths_B: Tensor
    ) -> EncoderState:
        """As :meth:`start`, from features of shape (B, T, F)."""
        hidden_BTD, lengths_B = self.front_end(features_BTF, lengths_B)
        hidden_BTD = self.input_projection(hidden_BTD)
        positions = None
        if self.attention_type == "RelPosMHAXL":
            positions = self.positional_encoding(hidden_BTD)
        elif self.attention_type == "regularMHA":
            hidden_BTD = hidden_BTD + self.positional_encoding(hidden_BTD)
        rows_B = torch.arange(len(lengths_B), device=lengths_B.device)
        return EncoderState(hidden_BTD, lengths_B, rows_B, 0, positions)

    def advance(self, state: EncoderState) -> EncoderState:
        """Run one segment: the layers up to the next exit.

        Arguments
        ---------
        state : EncoderState
            A state below the last exit.

        Returns
        -------
        EncoderState
            The state at the next exit.
        """
        target = next(k for k in self.exit_layers if k > state.depth)
        hidden_BTD = state.hidden_BTD
        mask_BT = state.padding_mask_BT
        src_mask = make_transformer_src_mask(hidden_BTD, causal=self.causal)
        for layer in self.layers[state.depth : target]:
            if self._skips_layer():
                continue
            hidden_BTD, _ = layer(
                hidden_BTD,
                src_mask=src_mask,
                src_key_padding_mask=mask_BT,
                pos_embs=state.positions,
            )
        return replace(state, hidden_BTD=hidden_BTD, depth=target)

    def forward(self, wavs: Tensor, wav_lens: Tensor) -> list[EncoderState]:
        """The states at all exits.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms, shape (B, samples).
        wav_lens : torch.Tensor
            Lengths relative to the longest, shape (B,).

        Returns
        -------
        list of EncoderState
            One state per exit, from the first to the last.
        """
        states = [self.start(wavs, wav_lens)]
        for _ in self.exit_layers:
            states.append(self.advance(states[-1]))
        return states[1:]

    def truncated(self, exits: int) -> "MultiExitEncoder":
        """The encoder up to an exit, sharing its parameters.

        Arguments
        ---------
        exits : int
            How many exits stay.

        Returns
        -------
        MultiExitEncoder
            An encoder that ends at exit ``exits``.
        """
        encoder = MultiExitEncoder.__new__(MultiExitEncoder)
        nn.Module.__init__(encoder)
        encoder.exit_layers = self.exit_layers[:exits]
        encoder.features = self.features
        encoder.front_end = self.front_end
        encoder.input_projection = self.input_projection
        encoder.positional_encoding = self.positional_encoding
        encoder.layers = self.layers[: encoder.exit_layers[-1]]
        encoder.feature_augment = self.feature_augment
        encoder.layerdrop_prob = self.layerdrop_prob
        encoder.attention_type = self.attention_type
        encoder.causal = self.causal
        encoder.train(self.training)
        return encoder

    def _skips_layer(self) -> bool:
        if not self.training or self.layerdrop_prob == 0.0:
            return False
        return bool(torch.rand(()) < self.layerdrop_prob)
