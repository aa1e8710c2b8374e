"""The Whisper encoder of the docs is Whisper's, trained and left early.

Authors
 * The speechbrain-ee contributors 2026
"""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from speechbrain.lobes.features import Fbank

from speechbrain_ee.models.features import LogMel
from speechbrain_ee.models.heads import CTCHeads
from speechbrain_ee.models.model import EarlyExitModel
from tests.helpers import (
    VOCAB,
    fit_tones,
    noise,
    padded,
    shaken,
    tiny_brain,
    valid,
)

transformers = pytest.importorskip("transformers")
EXITS = (1, 3)


@pytest.fixture(scope="module")
def model(repository: Path, tmp_path_factory: Any) -> EarlyExitModel:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("whisper")
    config = transformers.WhisperConfig(
        d_model=16,
        encoder_layers=4,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        num_mel_bins=20,
        vocab_size=60,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    shaken(transformers.WhisperModel(config), by=0.1).save_pretrained(folder)
    path = repository / "docs/examples/new_whisper.py"
    spec = importlib.util.spec_from_file_location("new_whisper", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    features = LogMel(Fbank(n_mels=20, n_fft=400))
    encoder = module.WhisperEncoder(str(folder), features, EXITS)
    encoder.original = [transformers.WhisperModel.from_pretrained(folder)]
    return EarlyExitModel(encoder, CTCHeads(EXITS, 16, VOCAB)).eval()


@torch.no_grad()
def test_layers_are_whispers(model: EarlyExitModel) -> None:
    """On 30 seconds, which Whisper always hears."""
    wavs, lens = padded([noise(479_990)])
    features, _ = model.encoder.features(wavs, lens)
    whisper = model.encoder.original[0].eval()
    heard = whisper.encoder(features.transpose(1, 2), output_hidden_states=True)
    for state in model.encoder(wavs, lens):
        expected = heard.hidden_states[state.depth]
        torch.testing.assert_close(
            state.hidden_BTD, expected, atol=1e-4, rtol=1e-4
        )


@torch.no_grad()
def test_alone_equals_batch_and_truncated(model: EarlyExitModel) -> None:
    """At every exit; frames are those that were announced."""
    wavs = [noise(9000, 1), noise(4000, 2)]
    batch = model(*padded(wavs, extra=700, fill=0.3))
    small = model.truncated(1)(*padded(wavs, extra=700, fill=0.3))
    assert torch.equal(small[0].log_probs_BTV, batch[0].log_probs_BTV)
    for row, wav in enumerate(wavs):
        for one, many in zip(model(*padded([wav])), batch):
            assert len(valid(one)) == model.encoder.frames(len(wav))
            torch.testing.assert_close(
                valid(one), valid(many, row), atol=1e-4, rtol=1e-4
            )


def test_it_is_trained_as_any_other(
    model: EarlyExitModel, tmp_path: Path
) -> None:
    """By the usual Brain."""
    before = [p.detach().clone() for p in model.encoder.layers.parameters()]
    fit_tones(tiny_brain(tmp_path, model))
    after = model.encoder.layers.parameters()
    assert any(not torch.equal(a, b) for a, b in zip(before, after))
    assert "valid WER L3: " in (tmp_path / "train_log.txt").read_text()
