"""Pre-trained encoders read padding; ours do not.

Traps avoided: the group norm of base models averages over all of the audio,
padding included, whatever mask transformers is given; SpeechBrain's wrappers
normalise the waveform over its padded length, which large models feel as well.
Each test first shows that the trap is there.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from speechbrain_ee.models.pretrained import SSLEncoder
from tests.helpers import noise, padded
from tests.models.ssl_models import (
    FAMILIES,
    LAYERS,
    MODELS,
    TOLERANCE,
    original,
    prepared,
    write_ssl_model,
)

# Of PyTorch, at the masks that transformers hands over for WavLM.
pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched")

# 0.05 to 0.7 was measured for states of unit scale.
LEAK = 1e-2
WAVS = [noise(7000, 1), noise(12000, 2)]


def apart(alone: Tensor, batch: Tensor) -> float:
    return float((alone[0] - batch[0, : alone.shape[1]]).abs().max())


def original_difference(folder: Path) -> float:
    rows = [prepared(folder, wav)[0] for wav in WAVS]
    values, lens = padded(rows)
    mask = torch.arange(values.shape[1]) < (lens * values.shape[1])[:, None]
    model = original(folder)
    batch = model(values, attention_mask=mask.long()).last_hidden_state
    return apart(model(rows[0][None]).last_hidden_state, batch)


def our_difference(folder: Path) -> float:
    encoder = SSLEncoder(str(folder), range(1, LAYERS + 1)).eval()
    alone, batch = encoder(*padded(WAVS[:1])), encoder(*padded(WAVS))
    return max(
        apart(one.hidden_BTD, many.hidden_BTD)
        for one, many in zip(alone, batch)
    )


@pytest.mark.parametrize("model", MODELS, ids="-".join)
@torch.no_grad()
def test_group_norm_of_base_models(
    tmp_path: Path, model: tuple[str, str]
) -> None:
    """Transformers' base models leak, its large ones do not; ours neither."""
    folder = write_ssl_model(tmp_path, *model)
    theirs = original_difference(folder)
    assert theirs > LEAK if model[1] == "base" else theirs < TOLERANCE
    assert our_difference(folder) < TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_normalisation_over_the_padded_length(
    tmp_path: Path, family: str
) -> None:
    """SpeechBrain's wrapper on a large model, lengths given."""
    wrappers = pytest.importorskip("speechbrain.integrations.huggingface")
    names = {"wav2vec2": "Wav2Vec2", "hubert": "HuBERT", "wavlm": "WavLM"}
    folder = write_ssl_model(tmp_path / "model", family, "large")
    wrapper = getattr(wrappers, names[family])(
        str(folder), str(tmp_path / "save"), freeze=True
    )
    alone = wrapper(*padded(WAVS[:1]))
    assert apart(alone, wrapper(*padded(WAVS))) > LEAK
    assert our_difference(folder) < TOLERANCE
