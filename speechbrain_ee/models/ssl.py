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

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.downsampling import (
    at_least_one,
    waveform_downsampler,
)
from speechbrain_ee.models.layerwise import LayerwiseEncoder
from speechbrain_ee.models.padding import padding_mask, without_padding
from speechbrain_ee.models.state import EncoderState

FAMILIES = ("wav2vec2", "hubert", "wavlm")


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

    frame_makers = ("convolutions",)
    without_depth = ("final_norm", "feature_augment", "downsampler")

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
        if sample_rate not in (None, backbone.sample_rate):
            raise InputError(
                f"sample_rate: {sample_rate} Hz, but {source} was trained on "
                f"audio of {backbone.sample_rate} Hz; set sample_rate to "
                f"{backbone.sample_rate} and resample the audio."
            )
        super().__init__(model.encoder.layers, exit_layers, layerdrop_prob)
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
        """Frames of an utterance of so many samples; at least 1, as shorter
        audio is padded to the first frame.
        """
        if self.downsampler is not None:
            samples = self.downsampler.samples(samples)
        for kernel, stride in self._kernels:
            samples = (samples - kernel) // stride + 1
        return at_least_one(samples)

    @property
    def shortest(self) -> int:
        """Samples that the first frame takes, after any down-sampling."""
        samples = 1
        for kernel, stride in reversed(self._kernels):
            samples = (samples - 1) * stride + kernel
        return samples

    @property
    def _kernels(self) -> list[tuple[int, int]]:
        return list(zip(self.config.conv_kernel, self.config.conv_stride))

    def start(self, wavs: Tensor, wav_lens: Tensor) -> EncoderState:
        """Down-sample, normalise, convolve, project, add positions."""
        samples_B = (wav_lens * wavs.shape[1]).round().long()
        lengths_B = self.frames(samples_B)
        if self.downsampler is not None:
            wavs, samples_B = self.downsampler(wavs, samples_B)
        wavs = self._prepared(wavs, samples_B)
        hidden_BTD = self.projection(self._convolved(wavs, samples_B))
        if isinstance(hidden_BTD, tuple):  # beside what quantisers read
            hidden_BTD = hidden_BTD[0]
        frames = hidden_BTD.shape[1]
        if self.training and self.feature_augment is not None:
            hidden_BTD, _ = self.feature_augment(hidden_BTD, lengths_B / frames)
        mask_BT = padding_mask(lengths_B, frames)
        hidden_BTD = without_padding(hidden_BTD, mask_BT)
        hidden_BTD = hidden_BTD + self.positions(hidden_BTD)
        hidden_BTD = self.dropout(self.input_norm(hidden_BTD))
        rows_B = torch.arange(len(lengths_B), device=lengths_B.device)
        attention = self.layers[0].attention
        context = None
        if hasattr(attention, "compute_bias"):  # WavLM's, for all layers
            context = PositionBias(attention.compute_bias(frames, frames))
        return EncoderState(hidden_BTD, lengths_B, rows_B, 0, context=context)

    def layer_runner(
        self, state: EncoderState
    ) -> Callable[[nn.Module, Tensor], Tensor]:
        """A layer with the masks and position biases of a state."""
        masks: dict[str, Any] = {}
        scores = state.hidden_BTD
        if state.context is not None:
            scores = state.context.bias_HTT
            batch = len(state.lengths_B)
            masks["position_bias"] = scores.repeat(batch, 1, 1)
        mask_BT = state.padding_mask_BT
        # Without padding no mask, for the kernels that take none.
        if mask_BT is not None and mask_BT.any():
            # Added to the scores, which every attention of transformers takes.
            added_BT = torch.zeros_like(mask_BT, dtype=scores.dtype)
            lowest = torch.finfo(scores.dtype).min
            added_BT = added_BT.masked_fill(mask_BT, lowest)
            if state.context is not None:
                masks["attention_mask"] = _Added(added_BT)
            else:
                frames = added_BT.shape[1]
                mask_B1TT = added_BT[:, None, None].expand(-1, 1, frames, -1)
                masks["attention_mask"] = mask_B1TT

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
        wavs = without_padding(wavs, mask_BS)
        if not self.normalise:
            return wavs
        count_B1 = samples_B.clamp(min=1).unsqueeze(1)
        centred = wavs - wavs.sum(1, keepdim=True) / count_B1
        centred = without_padding(centred, mask_BS)
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


class Backbone(NamedTuple):
    """A pre-trained model without heads, in fp32, and what it listens to."""

    model: nn.Module
    normalise: bool  # waveforms to zero mean and unit variance
    sample_rate: int


def load_backbone(
    source: str, save_path: str | None = None, pretrained: bool = True
) -> Backbone:
    """Load a pre-trained encoder from a folder or from the hub; without
    ``pretrained`` the same model of random weights.
    """
    try:
        library = importlib.import_module("transformers")
    except ImportError as error:
        raise InputError(
            "pre-trained encoders need the package transformers, which is "
            f"not installed or does not import ({error}); install the extra "
            "`ssl`: pip install 'speechbrain-ee[ssl]'."
        ) from error
    source = str(source)
    folder = Path(source).expanduser()
    local = folder.is_dir()
    name, where = source, {"cache_dir": save_path}
    if local:
        name, where = str(folder), {"local_files_only": True}
        for file in ("config.json", "preprocessor_config.json"):
            if not (folder / file).is_file():
                raise InputError(
                    f"source: {folder} has no {file}; a model folder is what "
                    "save_pretrained() of transformers writes, for the model "
                    "and for its feature extractor."
                )
    elif source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise InputError(
            f"source: {source} does not exist, and no hub name has that form; "
            "give the folder of a model, or a name such as "
            "facebook/wav2vec2-base."
        )
    try:
        with _quiet(library.utils.logging, local):
            return _loaded(library, source, name, where, pretrained)
    except InputError:
        raise
    except Exception as error:  # of a dozen kinds: libraries, network, files
        # One sentence: what follows is advice for callers of transformers.
        cause = " ".join(str(error).split()).partition(". ")[0][:200]
        cause = cause.rstrip(".") or type(error).__name__
        problem, remedy = (
            (
                f"the model in {source} cannot be loaded",
                "fetch it again, or write it with save_pretrained()",
            )
            if local
            else (
                f"{source} could not be had from the hub",
                "check the name and the connection, or fetch the model "
                "elsewhere and give its folder (HF_HUB_OFFLINE=1 looks for "
                "fetched models alone)",
            )
        )
        raise InputError(f"source: {problem} ({cause}); {remedy}.") from error


def _loaded(
    library: ModuleType,
    source: str,
    name: str,
    where: Mapping[str, Any],
    pretrained: bool,
) -> Backbone:
    config = library.AutoConfig.from_pretrained(name, **where)
    _check_family(source, config.to_dict())
    # Layers are skipped by this project, in place.
    config.layerdrop = 0.0
    if pretrained:
        model, report = library.AutoModel.from_pretrained(
            name,
            config=config,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, by name
            **where,
        )
        _check_weights(source, report)
    else:
        model = library.AutoModel.from_config(config)
    extractor = library.AutoFeatureExtractor.from_pretrained(name, **where)
    if not isinstance(extractor, library.Wav2Vec2FeatureExtractor):
        raise InputError(
            f"source: preprocessor_config.json of {source} is of type "
            f"{type(extractor).__name__}; this encoder reads waveforms, as "
            "prepared by Wav2Vec2FeatureExtractor."
        )
    # Files may hold half precision.
    return Backbone(
        model.float(), extractor.do_normalize, extractor.sampling_rate
    )


@contextmanager
def _quiet(log: ModuleType, local: bool) -> Iterator[None]:
    """No bars where nothing is fetched, no reports on heads left out."""
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    if local:
        log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if local and bars:
            log.enable_progress_bar()


def _check_family(source: str, config: Mapping[str, Any]) -> None:
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise InputError(
            f"source: {source} is a model of type {kind!r}; this encoder "
            f"knows {', '.join(FAMILIES)}."
        )
    if config.get("add_adapter", False):
        raise InputError(
            f"source: {source} has adapters behind its layers (add_adapter), "
            "which an early exit would not pass; use a model without."
        )


def _check_weights(source: str, report: Mapping[str, Any]) -> None:
    """Weights that the file lacks would be random: refuse them."""
    unfit = [
        *sorted(
            name
            for name in report["missing_keys"]
            if not name.endswith("masked_spec_embed")
        ),
        # transformers 4 names them; 5 says the two shapes beside every name.
        *sorted(
            key if isinstance(key, str) else key[0]
            for key in report["mismatched_keys"]
        ),
    ]
    if unfit:
        raise InputError(
            f"source: the weights in {source} are incomplete: {len(unfit)} of "
            "the model's parameters are not there or of another shape, "
            f"{unfit[0]} among them; fetch the model again."
        )
