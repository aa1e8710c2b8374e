"""How families of pre-trained encoders differ, in a few lines for each.

A family says how its encoder begins, what a layer is passed besides hidden
states, what goes up the layers beside them, and what follows a layer. The
table :data:`FAMILIES` at the end has them by the type that a configuration
says.

Axes: B utterances, T frames, D width, F features, H attention heads.

Authors
 * The speechbrain-ee contributors 2026
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.downsampling import at_least_one
from speechbrain_ee.models.features import ExtractorMel
from speechbrain_ee.models.padding import padding_mask, without_padding
from speechbrain_ee.models.state import EncoderState

# A speechbrain_ee.models.pretrained.PretrainedEncoder
Encoder = Any
Count = int | Tensor
Options = dict[str, Any]
Parts = dict[str, nn.Module | Tensor]


class Backbone(NamedTuple):
    """A pre-trained model in fp32, and its feature extractor."""

    model: nn.Module
    extractor: Any


def by_length(
    run: Callable[[Tensor], Tensor], inputs: Tensor, lengths_B: Tensor
) -> Tensor:
    """Rows (B, T, ...) of one length at a time, each as if alone."""
    outputs: list[Tensor] = [inputs] * len(lengths_B)
    for length in lengths_B.unique().tolist():
        rows = (lengths_B == length).nonzero()[:, 0].tolist()
        for row, output in zip(rows, run(inputs[rows, :length])):
            outputs[row] = output
    return pad_sequence(outputs, batch_first=True)


def first(out: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Hidden states of what a layer returns, by version and family."""
    return out[0] if isinstance(out, tuple) else out


def kernels(module: nn.Module) -> list[tuple[int, int]]:
    """Kernel and stride of every convolution over time."""
    return [
        (part.kernel_size[0], part.stride[0])
        for part in module.modules()
        if isinstance(part, nn.Conv1d)
    ]


class Family:
    """Encoders of waveforms as wav2vec2's, and what others say otherwise.

    HuBERT, UniSpeech and UniSpeech-SAT differ from wav2vec2 in weights alone.
    """

    # Where a configuration says how many layers; None: all are kept there.
    depth: str | None = "num_hidden_layers"
    # What a configuration says of parts that are not used.
    unused: Mapping[str, int] = {}
    loader = "AutoModel"
    extractors = "Wav2Vec2FeatureExtractor"
    rows_of_one_length = False  # layers that take no mask

    def stack(self, model: nn.Module) -> nn.Module:
        """The part of a model that has the layers."""
        return model.encoder

    def layers(self, stack: nn.Module) -> Sequence[nn.Module]:
        """The layers, and whatever follows one of them."""
        return stack.layers

    def parts(self, backbone: Backbone) -> Parts:
        """What else is run, by the name it has in checkpoints."""
        model, stack = backbone.model, self.stack(backbone.model)
        # Else transformers asks for the gradient of the audio in training:
        # frozen convolutions would keep their activations, and a learned
        # down-sampler in front of them would not be allowed.
        model.feature_extractor._requires_grad = False
        # One norm, below the layers of base models and above those of large.
        stable = getattr(stack.config, "do_stable_layer_norm", False)
        return {
            "convolutions": model.feature_extractor,
            "projection": self.projection(model),
            "positions": stack.pos_conv_embed,
            "dropout": stack.dropout,
            "final_norm" if stable else "input_norm": stack.layer_norm,
        }

    def projection(self, model: nn.Module) -> nn.Module:
        """From convolved channels to the width of the layers."""
        return model.feature_projection

    def squeeze(self, encoder: Encoder) -> int:
        """Convolved frames that become one."""
        return 1

    def frames(self, encoder: Encoder, samples: Count) -> Count:
        """Frames of so many samples, at least 1."""
        convolved = self.convolved(encoder, samples)
        return at_least_one(convolved // self.squeeze(encoder))

    def convolved(self, encoder: Encoder, samples: Count) -> Count:
        """Frames that the convolutions make."""
        for kernel, stride in kernels(encoder.convolutions):
            samples = (samples - kernel) // stride + 1
        return samples

    def begin(
        self, encoder: Encoder, wavs: Tensor, samples_B: Tensor
    ) -> Tensor:
        """From waveforms to what the first layer reads, before its norm and
        dropout.
        """
        wavs = encoder.prepared(wavs, samples_B)
        samples_B = samples_B.clamp(min=encoder.shortest)
        hidden_BTD = first(
            encoder.projection(self.convolve(encoder, wavs, samples_B))
        )
        lengths_B = self.convolved(encoder, samples_B)
        hidden_BTD = encoder.augmented(hidden_BTD, lengths_B)
        mask_BT = padding_mask(lengths_B, hidden_BTD.shape[1])
        hidden_BTD = without_padding(hidden_BTD, mask_BT)
        return self.place(encoder, hidden_BTD, mask_BT)

    def convolve(
        self, encoder: Encoder, wavs: Tensor, samples_B: Tensor
    ) -> Tensor:
        """What the convolutions make of the audio, (B, T, channels)."""
        if getattr(encoder.config, "feat_extract_norm", "layer") == "layer":
            return encoder.convolutions(wavs).mT
        return by_length(lambda w: encoder.convolutions(w).mT, wavs, samples_B)

    def place(
        self, encoder: Encoder, hidden_BTD: Tensor, mask_BT: Tensor
    ) -> Tensor:
        """Add positions."""
        return hidden_BTD + encoder.positions(hidden_BTD)

    def carried(self, encoder: Encoder, frames: int) -> "PositionBias | None":
        """What goes up the layers beside hidden states."""
        return None

    def passed(self, encoder: Encoder, state: EncoderState) -> Options:
        """What a layer is passed beside hidden states."""
        return {"attention_mask": self.added(state)}

    def added(self, state: EncoderState) -> Tensor | None:
        """What masks padding when added to scores, (B, 1, T, T): all kinds of
        attention in transformers take that.
        """
        mask_BT = padded(state)
        if mask_BT is None:
            return None
        scores = state.hidden_BTD
        if state.context is not None:
            scores = state.context.bias_HTT
        added_BT = torch.zeros_like(mask_BT, dtype=scores.dtype)
        added_BT = added_BT.masked_fill(mask_BT, torch.finfo(scores.dtype).min)
        frames = added_BT.shape[1]
        return added_BT[:, None, None].expand(-1, 1, frames, -1)


def padded(state: EncoderState) -> Tensor | None:
    """True where a frame is padding, (B, T). Without padding no mask, for the
    kernels that take none.
    """
    mask_BT = state.padding_mask_BT
    return None if mask_BT is None or not mask_BT.any() else mask_BT


class WavLM(Family):
    """Position biases, computed once, go up the layers."""

    def carried(self, encoder: Encoder, frames: int) -> "PositionBias":
        """The biases of the first layer, for all."""
        attention = encoder.layers[0].attention
        return PositionBias(attention.compute_bias(frames, frames))

    def passed(self, encoder: Encoder, state: EncoderState) -> Options:
        """The biases, and a mask that its layers understand."""
        bias_HTT, batch = state.context.bias_HTT, len(state.lengths_B)
        passed = {"position_bias": bias_HTT.repeat(batch, 1, 1)}
        mask_B1TT = self.added(state)
        if mask_B1TT is not None:
            passed["attention_mask"] = _Added(mask_B1TT[:, 0, 0])
        return passed


class Data2Vec(Family):
    """Positions by several convolutions, each of which must see silence."""

    def place(
        self, encoder: Encoder, hidden_BTD: Tensor, mask_BT: Tensor
    ) -> Tensor:
        """Zero the padding between the convolutions."""
        places_BTD = hidden_BTD
        for layer in encoder.positions.layers:
            places_BTD = without_padding(layer(places_BTD.mT).mT, mask_BT)
        return hidden_BTD + places_BTD


class SEW(Family):
    """Two frames become one below the layers."""

    def projection(self, model: nn.Module) -> nn.Module:
        """A norm, and a projection where widths differ."""
        linear = getattr(model, "feature_projection", nn.Identity())
        return nn.Sequential(model.layer_norm, linear, model.feature_dropout)

    def squeeze(self, encoder: Encoder) -> int:
        """Two, in what is published."""
        return encoder.config.squeeze_factor

    def place(
        self, encoder: Encoder, hidden_BTD: Tensor, mask_BT: Tensor
    ) -> Tensor:
        """Means of neighbours, and strided positions."""
        pooled = F.avg_pool1d(hidden_BTD.mT, self.squeeze(encoder)).mT
        places = encoder.positions(hidden_BTD.mT).mT
        frames = min(pooled.shape[1], places.shape[1])
        return pooled[:, :frames] + places[:, :frames]


class Wav2Vec2Conformer(Family):
    """Relative positions are passed; convolutions in layers take no mask."""

    rows_of_one_length = True

    def parts(self, backbone: Backbone) -> Parts:
        """Its convolved positions are never run."""
        model, stack = backbone.model, self.stack(backbone.model)
        model.feature_extractor._requires_grad = False
        return {
            "convolutions": model.feature_extractor,
            "projection": model.feature_projection,
            "positions": stack.embed_positions or nn.Identity(),
            "dropout": stack.dropout,
            "final_norm": stack.layer_norm,
        }

    def place(
        self, encoder: Encoder, hidden_BTD: Tensor, mask_BT: Tensor
    ) -> Tensor:
        """No position is added."""
        return hidden_BTD

    def passed(self, encoder: Encoder, state: EncoderState) -> Options:
        """Relative or rotary positions, if it has any."""
        if isinstance(encoder.positions, nn.Identity):
            return {}
        positions = encoder.positions(state.hidden_BTD)
        return {"relative_position_embeddings": positions}


class Moonshine(Family):
    """Three convolutions with a group norm; rotary positions."""

    depth = "encoder_num_hidden_layers"
    unused = {"decoder_num_hidden_layers": 1}

    def parts(self, backbone: Backbone) -> Parts:
        """No projection: the last convolution has the width."""
        stack = self.stack(backbone.model)
        made = [stack.conv1, stack.groupnorm, stack.conv2, stack.conv3]
        return {
            "convolutions": nn.ModuleList(made),
            "projection": nn.Identity(),
            "positions": stack.rotary_emb,
            "dropout": nn.Identity(),
            "final_norm": stack.layer_norm,
        }

    def convolve(
        self, encoder: Encoder, wavs: Tensor, samples_B: Tensor
    ) -> Tensor:
        """Rows of one length, as the norm averages over all of the audio."""
        conv1, norm, conv2, conv3 = encoder.convolutions

        def run(wavs: Tensor) -> Tensor:
            hidden_BDT = norm(torch.tanh(conv1(wavs.unsqueeze(1))))
            return F.gelu(conv3(F.gelu(conv2(hidden_BDT)))).mT

        return by_length(run, wavs, samples_B)

    def place(
        self, encoder: Encoder, hidden_BTD: Tensor, mask_BT: Tensor
    ) -> Tensor:
        """No position is added."""
        return hidden_BTD

    def passed(self, encoder: Encoder, state: EncoderState) -> Options:
        """Rotations, and what is added to scores."""
        return {
            "attention_mask": self.added(state),
            "position_embeddings": rotations(encoder, state),
        }


def rotations(encoder: Encoder, state: EncoderState) -> Any:
    """Cosines and sines of rotary positions."""
    hidden_BTD = state.hidden_BTD
    numbers_T = torch.arange(hidden_BTD.shape[1], device=hidden_BTD.device)
    return encoder.positions(hidden_BTD, numbers_T.unsqueeze(0))


class MelFamily(Family):
    """Encoders of mel bands; below, Wav2Vec2-BERT, which only stacks them."""

    extractors = "SeamlessM4TFeatureExtractor"

    def parts(self, backbone: Backbone) -> Parts:
        """Bands, a projection, relative positions."""
        model, stack = backbone.model, self.stack(backbone.model)
        return {
            "features": ExtractorMel(backbone.extractor),
            "projection": model.feature_projection,
            "positions": stack.embed_positions or nn.Identity(),
            "dropout": stack.dropout,
        }

    def frames(self, encoder: Encoder, samples: Count) -> Count:
        """Frames of so many samples, at least 1."""
        return self.convolved(encoder, encoder.features.frames(samples))

    def convolved(self, encoder: Encoder, samples: Count) -> Count:
        """What convolutions make of so many frames of bands."""
        return samples

    def begin(
        self, encoder: Encoder, wavs: Tensor, samples_B: Tensor
    ) -> Tensor:
        """Bands, augmented in training, and what the model makes of them."""
        bands_BTF, lengths_B = encoder.features(wavs, samples_B)
        bands_BTF = encoder.augmented(bands_BTF, lengths_B)
        mask_BT = padding_mask(lengths_B, bands_BTF.shape[1])
        bands_BTF = without_padding(bands_BTF, mask_BT)
        return self.subsampled(encoder, bands_BTF, lengths_B)

    def subsampled(
        self, encoder: Encoder, bands_BTF: Tensor, lengths_B: Tensor
    ) -> Tensor:
        """From bands to what the first layer reads."""
        return first(encoder.projection(bands_BTF))

    def passed(self, encoder: Encoder, state: EncoderState) -> Options:
        """Masks of attention and convolution, and positions, if any."""
        positions, mask_BT = None, padded(state)
        if not isinstance(encoder.positions, nn.Identity):
            positions = encoder.positions(state.hidden_BTD)
        return {
            "attention_mask": self.added(state),
            "conv_attention_mask": None if mask_BT is None else ~mask_BT,
            "relative_position_embeddings": positions,
        }


class Parakeet(MelFamily):
    """FastConformer: three convolutions over time and bands."""

    extractors = "ParakeetFeatureExtractor"

    def stack(self, model: nn.Module) -> nn.Module:
        """Of a CTC model its encoder, or the encoder itself."""
        return getattr(model, "encoder", model)

    def parts(self, backbone: Backbone) -> Parts:
        """The convolutions end in a projection."""
        stack = self.stack(backbone.model)
        return {
            "features": ExtractorMel(backbone.extractor),
            "convolutions": stack.subsampling,
            "positions": stack.encode_positions,
            "dropout": nn.Dropout(stack.config.dropout),
        }

    def convolved(self, encoder: Encoder, samples: Count) -> Count:
        """Half of them, three times, rounded up."""
        for part in encoder.convolutions.modules():
            if isinstance(part, nn.Conv2d):
                reach = part.kernel_size[0] - 2 * part.padding[0]
                samples = (samples - reach) // part.stride[0] + 1
        return samples

    def subsampled(
        self, encoder: Encoder, bands_BTF: Tensor, lengths_B: Tensor
    ) -> Tensor:
        """The model's own masked convolutions, and its scale."""
        heard_BT = ~padding_mask(lengths_B, bands_BTF.shape[1])
        hidden_BTD = encoder.convolutions(bands_BTF, heard_BT)
        if encoder.config.scale_input:
            hidden_BTD = hidden_BTD * encoder.d_model**0.5
        return hidden_BTD

    def passed(self, encoder: Encoder, state: EncoderState) -> Options:
        """Which keys are heard, and positions for every row."""
        heard, mask_BT = None, padded(state)
        if mask_BT is not None:
            frames = mask_BT.shape[1]
            heard = ~mask_BT[:, None, None].expand(-1, 1, frames, -1)
        return {
            "attention_mask": heard,
            "position_embeddings": encoder.positions(state.hidden_BTD),
        }


class LASR(Parakeet):
    """Convolutions over time, rotary positions."""

    extractors = "LasrFeatureExtractor"

    def parts(self, backbone: Backbone) -> Parts:
        """The convolutions lie between two projections."""
        stack = self.stack(backbone.model)
        shortest = 1
        for kernel, stride in reversed(kernels(stack.subsampler)):
            shortest = (shortest - 1) * stride + kernel
        return {
            "features": ExtractorMel(backbone.extractor, shortest),
            "convolutions": stack.subsampler,
            "positions": stack.rotary_emb,
            "dropout": nn.Dropout(stack.config.dropout),
            "final_norm": stack.out_norm,
        }

    convolved = Family.convolved

    def subsampled(
        self, encoder: Encoder, bands_BTF: Tensor, lengths_B: Tensor
    ) -> Tensor:
        """They look at no frame outside of an utterance."""
        return encoder.convolutions(bands_BTF)

    def passed(self, encoder: Encoder, state: EncoderState) -> Options:
        """What is added to scores, and rotations."""
        return {
            "attention_mask": self.added(state),
            "position_embeddings": rotations(encoder, state),
        }


class Whisper(MelFamily):
    """Two convolutions; positions are added, for 30 seconds at most."""

    depth = "encoder_layers"
    unused = {"decoder_layers": 1}
    extractors = "WhisperFeatureExtractor"

    def parts(self, backbone: Backbone) -> Parts:
        """Its positions are a table, which does not learn."""
        stack = self.stack(backbone.model)
        return {
            "features": ExtractorMel(backbone.extractor),
            "convolutions": nn.ModuleList([stack.conv1, stack.conv2]),
            "positions_TD": stack.embed_positions.weight.detach().clone(),
            "dropout": nn.Dropout(stack.config.dropout),
            "final_norm": stack.layer_norm,
        }

    def convolved(self, encoder: Encoder, samples: Count) -> Count:
        """One of two, rounded up."""
        for convolution in encoder.convolutions:
            samples = (samples - 1) // convolution.stride[0] + 1
        return samples

    def subsampled(
        self, encoder: Encoder, bands_BTF: Tensor, lengths_B: Tensor
    ) -> Tensor:
        """Padding is zeroed before each convolution; positions are cut."""
        hidden_BTD = bands_BTF
        for convolution in encoder.convolutions:
            mask_BT = padding_mask(lengths_B, hidden_BTD.shape[1])
            hidden_BTD = without_padding(hidden_BTD, mask_BT)
            hidden_BTD = F.gelu(convolution(hidden_BTD.mT)).mT
            lengths_B = (lengths_B - 1) // convolution.stride[0] + 1
        frames, most = hidden_BTD.shape[1], len(encoder.positions_TD)
        if frames > most:
            raise InputError(
                f"audio of {frames} frames is longer than the {most} that "
                "Whisper has positions for, 30 s in what is published; leave "
                "longer utterances out, or cut them (`transcribe` does)."
            )
        return hidden_BTD + encoder.positions_TD[:frames]

    def passed(self, encoder: Encoder, state: EncoderState) -> Options:
        """A mask; transformers 4 asks for one of heads, too."""
        passed = {"attention_mask": self.added(state)}
        asked = inspect.signature(encoder.layers[0].forward).parameters
        if "layer_head_mask" in asked:
            passed["layer_head_mask"] = None
        return passed


class GraniteSpeech(MelFamily):
    """Conformer whose attention sees blocks; half way up, what it would say
    is fed back. The encoder of Granite speech, without its language model.
    """

    depth = None  # what is fed back, and where, depends on it
    loader = "GraniteSpeechCTCEncoder"
    extractors = "GraniteSpeechFeatureExtractor"
    rows_of_one_length = True

    def stack(self, model: nn.Module) -> nn.Module:
        """The encoder is loaded alone."""
        return model

    def layers(self, stack: nn.Module) -> Sequence[nn.Module]:
        """Feeding back follows the middle layer."""
        layers = list(stack.layers)
        middle = len(layers) // 2 - 1
        if middle >= 0:
            layers[middle] = _FedBack(layers[middle], stack.out, stack.out_mid)
        return layers

    def parts(self, backbone: Backbone) -> Parts:
        """Two frames of bands at a time are projected."""
        stack = self.stack(backbone.model)
        return {
            "features": ExtractorMel(backbone.extractor),
            "projection": stack.input_linear,
            "distances": stack.attention_dists,
            "dropout": nn.Identity(),
        }

    def passed(self, encoder: Encoder, state: EncoderState) -> Options:
        """Distances within a block."""
        return {"attention_dists": encoder.distances}


class _FedBack(nn.Module):
    """A layer, and what it would say projected back into its output."""

    def __init__(self, layer: nn.Module, out: nn.Module, back: nn.Module):
        super().__init__()
        self.layer, self.out, self.back = layer, out, back

    def forward(self, hidden_BTD: Tensor, **passed: Any) -> Tensor:
        """As the layer, with its output's tokens added."""
        hidden_BTD = self.layer(hidden_BTD, **passed)
        return hidden_BTD + self.back(self.out(hidden_BTD).softmax(-1))


@dataclass(frozen=True)
class PositionBias:
    """What WavLM adds to attention scores, (H, T, T)."""

    bias_HTT: Tensor

    def select(self, keep: Tensor, frames: int) -> "PositionBias":
        """The same for fewer frames; all utterances share it."""
        return PositionBias(self.bias_HTT[:, :frames, :frames])


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


_WAV2VEC2, _PARAKEET, _LASR = Family(), Parakeet(), LASR()
_GRANITE = GraniteSpeech()
# By the type that a configuration says.
FAMILIES: Mapping[str, Family] = {
    "wav2vec2": _WAV2VEC2,  # also MMS and XLS-R
    "hubert": _WAV2VEC2,
    "wavlm": WavLM(),
    "data2vec-audio": Data2Vec(),
    "unispeech": _WAV2VEC2,
    "unispeech-sat": _WAV2VEC2,
    "sew": SEW(),
    "wav2vec2-conformer": Wav2Vec2Conformer(),
    "wav2vec2-bert": MelFamily(),
    "parakeet_ctc": _PARAKEET,
    "parakeet_encoder": _PARAKEET,
    "lasr_ctc": _LASR,
    "lasr_encoder": _LASR,
    "granite_speech": _GRANITE,
    "granite_speech_encoder": _GRANITE,
    "whisper": Whisper(),
    "moonshine": Moonshine(),
}
