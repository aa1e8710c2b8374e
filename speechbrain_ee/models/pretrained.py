"""Exits in any pre-trained encoder of transformers.

The layers are those of transformers, run one after the other, so that an
utterance can leave after any of them. Families of models share that loop and
differ in how they begin, in what a layer is passed and in what follows it:
:data:`speechbrain_ee.models.families.FAMILIES` says how.

What depends on the batch in the original is removed. Waveforms are normalised
over their true lengths; mel bands are computed here, as a model's own feature
extractor does alone; Whisper hears an utterance as long as it is, instead of 30
seconds. Where the architecture mixes the padding in, rows of one length run at
a time: convolutions with a group norm over all of the audio (base models of
wav2vec2, Moonshine), and layers that take no mask (Wav2Vec2-Conformer, Granite
speech). What an utterance gives alone and in a batch then agrees to 1e-5 of
states of unit scale, at every exit: the rounding of batched kernels. Which
parts learn is not said here but by
:class:`speechbrain_ee.training.regimes.Regime`.

Axes: B utterances, T frames, D width, F features, H attention heads.

Authors
 * The speechbrain-ee contributors 2026
"""

import importlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.downsampling import waveform_downsampler
from speechbrain_ee.models.families import (
    FAMILIES,
    Backbone,
    Family,
    by_length,
    first,
    kernels,
)
from speechbrain_ee.models.layerwise import LayerwiseEncoder
from speechbrain_ee.models.padding import padding_mask, without_padding
from speechbrain_ee.models.state import EncoderState


class PretrainedEncoder(LayerwiseEncoder):
    """A pre-trained encoder that can be left after every exit layer.

    Arguments
    ---------
    source : str
        Folder of the model, or its name on the hub.
    exit_layers : list of int
        Layers that an exit follows, counted from 1; those above the last one
        are dropped. States are those of transformers' ``hidden_states``:
        models with a norm behind their last layer have it in ``final_norm``,
        which is not run here, since every exit head brings a norm of its own.
        SEW's layers run at half its frame rate (40 ms), and so do its exits.
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
        Augmentation in training, of the mel bands or, in models that hear
        waveforms, of the projected features: a
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
        If the model cannot be loaded, is of a family that is not known, has
        no layer for an exit, or was trained at another sample rate; or if an
        option cannot be used.
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
        extractor = backbone.extractor
        if sample_rate not in (None, extractor.sampling_rate):
            raise InputError(
                f"sample_rate: {sample_rate} Hz, but {source} was trained on "
                f"audio of {extractor.sampling_rate} Hz; set sample_rate to "
                f"{extractor.sampling_rate} and resample the audio."
            )
        family = FAMILIES[backbone.model.config.model_type]
        stack = family.stack(backbone.model)
        super().__init__(family.layers(stack), exit_layers, layerdrop_prob)
        self.family = family
        self.config = stack.config
        self.extractor = json.loads(extractor.to_json_string())
        self.normalise = getattr(extractor, "do_normalize", False)
        self.sample_rate = extractor.sampling_rate
        parts = family.parts(backbone)
        for name in ("input_norm", "final_norm"):
            parts.setdefault(name, nn.Identity())
        for name, part in parts.items():
            if isinstance(part, nn.Module):
                self.add_module(name, part)
            else:
                learnt = part.is_floating_point()
                self.register_buffer(name, part, persistent=learnt)
        # Never run: DDP would wait for its gradients.
        self.final_norm.requires_grad_(False)
        self.feature_augment = feature_augment
        self.downsampler = downsampler

    @property
    def d_model(self) -> int:
        """Width of the states."""
        return encoder_width(self.config.to_dict())

    def frames(self, samples: int | Tensor) -> int | Tensor:
        """Frames of an utterance of so many samples; at least 1, as shorter
        audio is padded to the first frame.
        """
        if self.downsampler is not None:
            samples = self.downsampler.samples(samples)
        return self.family.frames(self, samples)

    @property
    def shortest(self) -> int:
        """Samples that the first frame takes, after any down-sampling; of
        models that hear waveforms.
        """
        samples = self.family.squeeze(self)
        for kernel, stride in reversed(kernels(self.convolutions)):
            samples = (samples - 1) * stride + kernel
        return samples

    def start(self, wavs: Tensor, wav_lens: Tensor) -> EncoderState:
        """Down-sample, make frames, project, add positions."""
        samples_B = (wav_lens * wavs.shape[1]).round().long()
        lengths_B = self.frames(samples_B)
        if self.downsampler is not None:
            wavs, samples_B = self.downsampler(wavs, samples_B)
        hidden_BTD = self.family.begin(self, wavs, samples_B)
        hidden_BTD = self.dropout(self.input_norm(hidden_BTD))
        rows_B = torch.arange(len(lengths_B), device=lengths_B.device)
        context = self.family.carried(self, hidden_BTD.shape[1])
        return EncoderState(hidden_BTD, lengths_B, rows_B, 0, context=context)

    def layer_runner(
        self, state: EncoderState
    ) -> Callable[[nn.Module, Tensor], Tensor]:
        """A layer with the masks and positions of a state."""
        family = self.family

        def run(layer: nn.Module, hidden_BTD: Tensor) -> Tensor:
            return first(layer(hidden_BTD, **passed))

        def run_alone(layer: nn.Module, hidden_BTD: Tensor) -> Tensor:
            frames_B = state.lengths_B.new_full(
                hidden_BTD.shape[:1], hidden_BTD.shape[1]
            )
            rows = replace(state, hidden_BTD=hidden_BTD, lengths_B=frames_B)
            return first(layer(hidden_BTD, **family.passed(self, rows)))

        if family.rows_of_one_length:
            return lambda layer, hidden_BTD: by_length(
                partial(run_alone, layer), hidden_BTD, state.lengths_B
            )
        passed = family.passed(self, state)
        return run

    def augmented(self, features_BTF: Tensor, lengths_B: Tensor) -> Tensor:
        """What training makes of features."""
        if not self.training or self.feature_augment is None:
            return features_BTF
        relative_B = lengths_B / features_BTF.shape[1]
        return self.feature_augment(features_BTF, relative_B)[0]

    def prepared(self, wavs: Tensor, samples_B: Tensor) -> Tensor:
        """Zero padding, and zero mean and unit variance of the audio if that
        is what the model was trained on.
        """
        short = self.shortest - wavs.shape[1]
        if short > 0:
            wavs = F.pad(wavs, (0, short))
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


# The name that YAMLs and folders of models gave it while it knew three
# families.
SSLEncoder = PretrainedEncoder


def encoder_width(config: Mapping[str, Any]) -> int | None:
    """Width of the encoder that a ``config.json`` describes."""
    config = config.get("encoder_config") or config
    found = [
        config[key]
        for key in ("d_model", "hidden_size", "hidden_dim")
        if isinstance(config.get(key), int)
    ]
    return found[0] if found else None


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
    family = _family(source, config.to_dict())
    kind = getattr(library, family.loader, None)
    if not hasattr(kind, "from_pretrained"):
        raise InputError(
            f"source: {source} is of type {config.model_type}, which "
            f"transformers {library.__version__} has no encoder for; update "
            "transformers."
        )
    options = dict(where)
    if kind is not library.AutoModel:
        config = getattr(config, "encoder_config", config)
        # of a file that holds the whole model
        options["key_mapping"] = {r"^(model\.)?encoder\.": ""}
    for each in (config, getattr(config, "encoder_config", None)):
        for key in ("layerdrop", "encoder_layerdrop"):
            if hasattr(each, key):
                # Layers are skipped by this project, in place.
                setattr(each, key, 0.0)
    if pretrained:
        model, report = kind.from_pretrained(
            name,
            config=config,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, by name
            **options,
        )
        _check_weights(source, report)
    elif kind is library.AutoModel:
        config.update(family.unused)
        model = kind.from_config(config)
    else:
        model = kind(config)
    extractor = library.AutoFeatureExtractor.from_pretrained(name, **where)
    if type(extractor).__name__ != family.extractors:
        raise InputError(
            f"source: preprocessor_config.json of {source} is of type "
            f"{type(extractor).__name__}; a model of type "
            f"{config.model_type} hears audio as prepared by "
            f"{family.extractors}."
        )
    # Files may hold half precision.
    return Backbone(model.float(), extractor)


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


def _family(source: str, config: Mapping[str, Any]) -> Family:
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
    return FAMILIES[kind]


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
