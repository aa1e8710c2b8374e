"""Pre-trained encoders layer by layer: wav2vec2, HuBERT and WavLM.

The layers are those of transformers, run one after the other, so that an
utterance can leave after any of them. What depends on the batch in the
original is removed: waveforms are normalised over their true lengths, and the
convolutions of the base models, whose group norm averages over all of the
audio, padding included, run utterance by utterance. What an utterance gives
alone and in a batch then agrees to 1e-5 of states of unit scale, at every
exit: the rounding of batched kernels. Which parts learn is not said here but by
:class:`speechbrain_ee.training.regimes.Regime`.

Axes: B utterances, T frames, D width, H attention heads.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.downsampling import waveform_downsampler
from speechbrain_ee.models.layerwise import LayerwiseEncoder
from speechbrain_ee.models.padding import padding_mask
from speechbrain_ee.models.ssl_loading import load_backbone
from speechbrain_ee.models.ssl_masks import layer_masks
from speechbrain_ee.models.state import EncoderState


class SSLEncoder(LayerwiseEncoder):
    """A pre-trained encoder that can be left after every exit layer.

    Arguments
    ---------
    source : str
        Folder of the model, or its name on the hub.
    exit_layers : list of int
        Layers that an exit follows, counted from 1; those above the last one
        are dropped. States are those of transformers' ``hidden_states``:
        models with a norm behind their last layer (large) have it in
        ``final_norm``, which is not run here, since every exit head brings
        a norm of its own.
    save_path : str, optional
        Where what is fetched from the hub is kept.
    pretrained : bool
        False makes the same encoder of random weights: to train it from
        scratch, or where a checkpoint follows. The weights need not be there.
    layerdrop_prob : float
        Probability to skip a layer in training; a skipped layer keeps its
        place, and a frozen one is never skipped. The model's own setting is
        ignored.
    feature_augment : torch.nn.Module, optional
        Augmentation of the projected features in training, a
        :class:`speechbrain.augment.augmenter.Augmenter`. It takes the place
        of the masking that transformers applies, which is not run.
    downsampling : mapping, optional
        ``method``, ``factor`` and ``kernel_size`` of a
        :class:`speechbrain_ee.models.downsampling.WaveformDownsampler`.
    sample_rate : int, optional
        Samples per second of the audio, to be compared with the model's.

    Raises
    ------
    InputError
        If the model cannot be loaded, has no layer for an exit, or was
        trained at another sample rate; or if an option cannot be used.
    """

    def __init__(
        self,
        source: str,
        exit_layers: Sequence[int],
        save_path: str | None = None,
        pretrained: bool = True,
        layerdrop_prob: float = 0.0,
        feature_augment: nn.Module | None = None,
        downsampling: Mapping[str, Any] | None = None,
        sample_rate: int | None = None,
    ):
        downsampler = waveform_downsampler(downsampling)
        backbone = load_backbone(source, save_path, pretrained)
        model = backbone.model
        layers = model.encoder.layers
        _check_depth(source, exit_layers, len(layers))
        _check_rate(source, sample_rate, backbone.sample_rate)
        super().__init__(layers, exit_layers, layerdrop_prob)
        self.config = model.config
        self.normalise = backbone.normalise
        self.sample_rate = backbone.sample_rate
        self.convolutions = model.feature_extractor
        # Else transformers asks for the gradient of the audio in training:
        # frozen convolutions would keep their activations, and a learned
        # down-sampler in front of them would not be allowed.
        self.convolutions._requires_grad = False
        self.projection = model.feature_projection
        self.positions = model.encoder.pos_conv_embed
        self.dropout = model.encoder.dropout
        # One norm, below the layers of base models and above those of large.
        norms = [model.encoder.layer_norm, nn.Identity()]
        if model.config.do_stable_layer_norm:
            norms.reverse()
        self.input_norm, self.final_norm = norms
        # Never run: DDP would wait for its gradients.
        self.final_norm.requires_grad_(False)
        self.feature_augment = feature_augment
        self.downsampler = downsampler

    @property
    def d_model(self) -> int:
        """Width of the states."""
        return self.config.hidden_size

    def frames(self, samples: int | Tensor) -> int | Tensor:
        """Frames of an utterance of so many samples.

        Arguments
        ---------
        samples : int or torch.Tensor
            Length of its audio.

        Returns
        -------
        int or torch.Tensor
            At least 1: shorter audio is padded to the first frame.
        """
        if self.downsampler is not None:
            samples = self.downsampler.samples(samples)
        sizes = zip(self.config.conv_kernel, self.config.conv_stride)
        for kernel, stride in sizes:
            samples = (samples - kernel) // stride + 1
        if isinstance(samples, Tensor):
            return samples.clamp(min=1)
        return max(samples, 1)

    @property
    def shortest(self) -> int:
        """Samples that the first frame takes, after any down-sampling."""
        sizes = list(zip(self.config.conv_kernel, self.config.conv_stride))
        samples = 1
        for kernel, stride in reversed(sizes):
            samples = (samples - 1) * stride + kernel
        return samples

    def start(self, wavs: Tensor, wav_lens: Tensor) -> EncoderState:
        """Down-sample, normalise, convolve, project, add positions.

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
        samples_B = (wav_lens * wavs.shape[1]).round().long()
        lengths_B = self.frames(samples_B)
        if self.downsampler is not None:
            wavs, samples_B = self.downsampler(wavs, samples_B)
        wavs = self._prepared(wavs, samples_B)
        features_BTC = self._convolved(wavs, samples_B)
        hidden_BTD = self.projection(features_BTC)
        if isinstance(hidden_BTD, tuple):  # beside what quantisers read
            hidden_BTD = hidden_BTD[0]
        if self.training and self.feature_augment is not None:
            hidden_BTD, _ = self.feature_augment(
                hidden_BTD, lengths_B / hidden_BTD.shape[1]
            )
        mask_BT = padding_mask(lengths_B, hidden_BTD.shape[1])
        hidden_BTD = hidden_BTD.masked_fill(mask_BT.unsqueeze(-1), 0.0)
        hidden_BTD = hidden_BTD + self.positions(hidden_BTD)
        hidden_BTD = self.input_norm(hidden_BTD)
        rows_B = torch.arange(len(lengths_B), device=lengths_B.device)
        return EncoderState(
            self.dropout(hidden_BTD),
            lengths_B,
            rows_B,
            0,
            bias_HTT=self._position_bias(hidden_BTD.shape[1]),
        )

    def layer_runner(
        self, state: EncoderState
    ) -> Callable[[nn.Module, Tensor], Tensor]:
        """A layer with the masks and position biases of a state.

        Arguments
        ---------
        state : EncoderState
            Where the batch stands.

        Returns
        -------
        callable
            From layer and hidden states to hidden states.
        """
        masks = layer_masks(state)

        def run(layer: nn.Module, hidden_BTD: Tensor) -> Tensor:
            out = layer(hidden_BTD, **masks)
            return out[0] if isinstance(out, tuple) else out

        return run

    def _prepared(self, wavs: Tensor, samples_B: Tensor) -> Tensor:
        """Zero padding, and zero mean and unit variance of the audio."""
        short = self.shortest - wavs.shape[1]
        if short > 0:
            wavs = nn.functional.pad(wavs, (0, short))
        mask_BS = padding_mask(samples_B, wavs.shape[1])
        wavs = wavs.masked_fill(mask_BS, 0.0)
        if not self.normalise:
            return wavs
        count_B1 = samples_B.clamp(min=1).unsqueeze(1)
        centred = wavs - wavs.sum(1, keepdim=True) / count_B1
        centred = centred.masked_fill(mask_BS, 0.0)
        variance_B1 = centred.square().sum(1, keepdim=True) / count_B1
        # The constant of transformers' feature extractor.
        return centred / (variance_B1 + 1e-7).sqrt()

    def _convolved(self, wavs: Tensor, samples_B: Tensor) -> Tensor:
        """What the convolutions make of the audio, (B, T, channels)."""
        if self.config.feat_extract_norm != "group":
            return self.convolutions(wavs).transpose(1, 2)
        shortest = self.shortest
        rows = [
            self.convolutions(wav[None, : max(samples, shortest)])
            for wav, samples in zip(wavs, samples_B.tolist())
        ]
        rows = [row[0].transpose(0, 1) for row in rows]
        return pad_sequence(rows, batch_first=True)

    def _position_bias(self, frames: int) -> Tensor | None:
        """WavLM's: made by the first layer, used by all."""
        attention = self.layers[0].attention
        if not hasattr(attention, "compute_bias"):
            return None
        return attention.compute_bias(frames, frames)


def _check_depth(source: str, exit_layers: Sequence[int], layers: int) -> None:
    numbers = exit_layers if isinstance(exit_layers, Sequence) else ()
    beyond = [k for k in numbers if isinstance(k, int) and k > layers]
    if beyond:
        raise InputError(
            f"exit_layers: {beyond} lie beyond the {layers} layers of "
            f"{source}; exits follow the layers 1 to {layers}."
        )


def _check_rate(source: str, rate: int | None, trained: int) -> None:
    if rate is not None and rate != trained:
        raise InputError(
            f"sample_rate: {rate} Hz, but {source} was trained on audio of "
            f"{trained} Hz; set sample_rate to {trained} and resample the "
            "audio."
        )
