"""Tiny pre-trained models with random weights, written to a folder.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from speechbrain_ee.models.heads import CTCHeads
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.models.pretrained import SSLEncoder
from tests.helpers import VOCAB, noise, padded, shaken

transformers = pytest.importorskip("transformers")

FAMILIES = ("wav2vec2", "hubert", "wavlm")
STYLES = ("base", "large")
MODELS = [(family, style) for family in FAMILIES for style in STYLES]
LAYERS = 4
# Samples that the first frame takes, and those to the next.
FIRST, HOP = 400, 320

# States have unit scale; at most 4e-6 was measured on a CPU.
TOLERANCE = 1e-5

STYLE_OPTIONS = {
    "base": {
        "feat_extract_norm": "group",
        "do_stable_layer_norm": False,
        "conv_bias": False,
    },
    "large": {
        "feat_extract_norm": "layer",
        "do_stable_layer_norm": True,
        "conv_bias": True,
    },
}
TINY = {
    "hidden_size": 16,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": [8, 8, 8, 10, 8, 8, 12],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    # In the file, to see that they are left alone.
    "layerdrop": 0.9,
    "mask_time_prob": 0.9,
    "mask_time_length": 2,
}
WAVLM = {"num_buckets": 16, "max_bucket_distance": 20}


def close(one: Tensor, other: Tensor, tolerance: float = TOLERANCE) -> bool:
    return one.shape == other.shape and bool(
        ((one - other).abs() < tolerance).all()
    )


def write_ssl_model(
    folder: Path,
    family: str = "wav2vec2",
    style: str = "base",
    normalise: bool = True,
    seed: int = 0,
    **options: Any,
) -> Path:
    names = {"wav2vec2": "Wav2Vec2", "hubert": "Hubert", "wavlm": "WavLM"}
    settings = TINY | STYLE_OPTIONS[style] | options
    if family == "wavlm":
        settings = WAVLM | settings
    torch.manual_seed(seed)
    config = getattr(transformers, f"{names[family]}Config")(**settings)
    model = shaken(transformers.AutoModel.from_config(config), seed, by=0.1)
    model.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(
        do_normalize=normalise, return_attention_mask=style == "large"
    ).save_pretrained(folder)
    return folder


def original(folder: Path) -> nn.Module:
    return transformers.AutoModel.from_pretrained(folder).eval()


def prepared(folder: Path, wav: Tensor) -> Tensor:
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    batch = extractor(wav.numpy(), sampling_rate=16000, return_tensors="pt")
    return batch.input_values


@torch.no_grad()
def original_states(folder: Path, wav: Tensor) -> list[Tensor]:
    model, states = original(folder), []
    for layer in model.encoder.layers:
        layer.register_forward_hook(
            lambda _module, _args, out: states.append(
                out[0] if isinstance(out, tuple) else out
            )
        )
    states.append(model(prepared(folder, wav)).last_hidden_state)
    return states


def ssl_model(
    folder: Path, exit_layers: tuple[int, ...] = (1, 2, 4), **options: Any
) -> EarlyExitModel:
    encoder = SSLEncoder(str(folder), exit_layers, **options)
    torch.manual_seed(1)
    heads = CTCHeads(exit_layers, encoder.d_model, VOCAB)
    return EarlyExitModel(encoder, heads).eval()


def check_truncations(model: EarlyExitModel) -> None:
    """The model left at exit k, of layers 1, 2 and 4, is the one that ends
    there, bit for bit.
    """
    batch = padded([noise(7000, 1), noise(4100, 2)], extra=300)
    joint = model(*batch)
    for exits in (1, 2, 3):
        small = model.truncated(exits)
        assert len(small.encoder.layers) == (1, 2, 4)[exits - 1]
        for expected, output in zip(joint, small(*batch)):
            assert torch.equal(output.log_probs_BTV, expected.log_probs_BTV)
