"""Tiny models with random weights of every family that can have exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from speechbrain_ee.models.heads import CTCHeads
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.models.pretrained import PretrainedEncoder
from tests.helpers import VOCAB, shaken

transformers = pytest.importorskip("transformers")

LAYERS = 4
_SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
_CONVOLVED = _SIZES | {
    "conv_dim": [8, 8, 8, 10, 8, 8, 12],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
_STABLE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
_CONFORMER = _SIZES | {
    "conv_kernel_size": 5,
    "subsampling_conv_channels": 16,
    "num_mel_bins": 16,
    "num_key_value_heads": 2,
}
# Name of the test: class of the configuration, its values, extractor and its.
MODELS: dict[str, tuple[str, dict, str, dict]] = {
    "wav2vec2": ("Wav2Vec2Config", _CONVOLVED, "Wav2Vec2", {}),
    "hubert": ("HubertConfig", _CONVOLVED | _STABLE, "Wav2Vec2", {}),
    "wavlm": ("WavLMConfig", _CONVOLVED, "Wav2Vec2", {}),
    "data2vec-audio": (
        "Data2VecAudioConfig",
        _CONVOLVED | {"num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 5},
        "Wav2Vec2",
        {},
    ),
    "unispeech": ("UniSpeechConfig", _CONVOLVED, "Wav2Vec2", {}),
    "unispeech-large": (
        "UniSpeechConfig",
        _CONVOLVED | _STABLE,
        "Wav2Vec2",
        {},
    ),
    "unispeech-sat": ("UniSpeechSatConfig", _CONVOLVED, "Wav2Vec2", {}),
    "sew": (
        "SEWConfig",
        _CONVOLVED
        | {
            "conv_dim": [8, 8, 8, 12],
            "conv_stride": [5, 4, 4, 4],
            "conv_kernel": [10, 3, 2, 1],
            "squeeze_factor": 2,
        },
        "Wav2Vec2",
        {},
    ),
    "wav2vec2-conformer": (
        "Wav2Vec2ConformerConfig",
        _CONVOLVED | {"conv_depthwise_kernel_size": 5, "layerdrop": 0.9},
        "Wav2Vec2",
        {},
    ),
    "wav2vec2-conformer-rotary": (
        "Wav2Vec2ConformerConfig",
        _CONVOLVED
        | _STABLE
        | {
            "conv_depthwise_kernel_size": 5,
            "position_embeddings_type": "rotary",
        },
        "Wav2Vec2",
        {},
    ),
    "wav2vec2-bert": (
        "Wav2Vec2BertConfig",
        _SIZES
        | {
            "feature_projection_input_dim": 32,
            "conv_depthwise_kernel_size": 5,
            "left_max_position_embeddings": 6,
            "right_max_position_embeddings": 3,
        },
        "SeamlessM4T",
        {"feature_size": 16, "num_mel_bins": 16},
    ),
    "parakeet": (
        "ParakeetEncoderConfig",
        _CONFORMER,
        "Parakeet",
        {"feature_size": 16},
    ),
    "lasr": ("LasrEncoderConfig", _CONFORMER, "Lasr", {"feature_size": 16}),
    "granite_speech": (
        "GraniteSpeechEncoderConfig",
        {
            "input_dim": 160,
            "num_layers": LAYERS,
            "hidden_dim": 16,
            "feedforward_mult": 2,
            "num_heads": 2,
            "dim_head": 8,
            "output_dim": 5,
            "context_size": 8,
            "max_pos_emb": 12,
            "conv_kernel_size": 5,
        },
        "GraniteSpeech",
        {},
    ),
    "whisper": (
        "WhisperConfig",
        {
            "d_model": 16,
            "encoder_layers": LAYERS,
            "decoder_layers": 2,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 24,
            "decoder_ffn_dim": 24,
            "num_mel_bins": 16,
            "vocab_size": 60,
            "max_source_positions": 50,  # one second
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
        },
        "Whisper",
        {"feature_size": 16, "chunk_length": 1},
    ),
    "moonshine": (
        "MoonshineConfig",
        {
            "hidden_size": 16,
            "intermediate_size": 24,
            "encoder_num_hidden_layers": LAYERS,
            "decoder_num_hidden_layers": 2,
            "encoder_num_attention_heads": 2,
            "decoder_num_attention_heads": 2,
            "vocab_size": 60,
        },
        "Wav2Vec2",
        {"do_normalize": False},
    ),
}


def write_model(folder: Path, name: str, **options: Any) -> Path:
    """A folder as ``save_pretrained`` writes it."""
    config_class, values, extractor_class, extracted = MODELS[name]
    if not hasattr(transformers, config_class):
        pytest.skip(f"this version of transformers has no {config_class}")
    kind = getattr(transformers, f"{extractor_class}FeatureExtractor")
    try:
        extractor = kind(**extracted)
    except ImportError as error:  # librosa, for some in transformers 4
        pytest.skip(" ".join(str(error).split()))
    torch.manual_seed(0)
    config = getattr(transformers, config_class)(**values | options)
    if name == "granite_speech":
        model = transformers.GraniteSpeechCTCEncoder(config)
        if not hasattr(model, "save_pretrained"):
            pytest.skip("transformers 4 cannot save it alone")
    else:
        model = transformers.AutoModel.from_config(config)
    model = shaken(model, 0, by=0.1)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.running_mean.uniform_(-0.2, 0.2)
            part.running_var.uniform_(0.8, 1.2)
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return folder


def pretrained_model(
    folder: Path, exit_layers: tuple[int, ...] = (1, 2, 4), **options: Any
) -> EarlyExitModel:
    """Exits on a folder's encoder."""
    encoder = PretrainedEncoder(str(folder), exit_layers, **options)
    torch.manual_seed(1)
    heads = CTCHeads(exit_layers, encoder.d_model, VOCAB)
    return EarlyExitModel(encoder, heads).eval()


@torch.no_grad()
def original_states(folder: Path, name: str, wav: Tensor) -> list[Tensor]:
    """What transformers has after every layer, for an utterance alone."""
    if name == "granite_speech":
        kind = transformers.GraniteSpeechCTCEncoder
    else:
        kind = transformers.AutoModel
    model = kind.from_pretrained(folder).eval()
    encoder = getattr(model, "encoder", model)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    if name == "granite_speech":
        heard = {"hidden_states": extractor(wav).input_features}
    else:
        given = {"sampling_rate": 16000, "return_tensors": "pt"}
        heard = dict(extractor(np.array(wav), **given))
    states: list[Tensor] = []
    for layer in encoder.layers:
        layer.register_forward_hook(
            lambda _module, _args, out: states.append(
                out[0] if isinstance(out, tuple) else out
            )
        )
    decoded = name in ("whisper", "moonshine")
    (encoder if decoded else model)(**heard)
    return states
