"""Frozen parts of a pre-trained encoder learn nothing and stay as they are.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path

import pytest
import torch

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.ssl import SSLEncoder
from tests.helpers import noise, padded, tiny_brain, tone_dataset, valid
from tests.models.ssl_models import MODELS, ssl_model, write_ssl_model

FROZEN = {
    "freeze_convolutions": ("encoder.convolutions.",),
    "freeze_backbone": ("encoder.",),
}


@pytest.fixture(scope="module", params=MODELS, ids="-".join)
def folder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A model folder of every family and style."""
    family, style = request.param
    target = tmp_path_factory.mktemp("-".join(request.param))
    return write_ssl_model(target, family, style)


@pytest.fixture(scope="module")
def one_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A single model folder, where the family does not matter."""
    return write_ssl_model(tmp_path_factory.mktemp("wav2vec2"))


@pytest.mark.parametrize("key", FROZEN)
def test_frozen_parts_get_no_gradient(folder: Path, key: str) -> None:
    """Exactly they do not; the norm that is never run does not either."""
    model = ssl_model(folder, **{key: True}).train()
    prefixes = (*FROZEN[key], "encoder.final_norm.")
    outputs = model(*padded([noise(7000, 1), noise(5000, 2)]))
    sum(out.log_probs_BTV.square().sum() for out in outputs).backward()
    for name, parameter in model.named_parameters():
        frozen = name.startswith(prefixes)
        assert parameter.requires_grad != frozen, name
        assert (parameter.grad is None) == frozen, name


@pytest.mark.parametrize("key", FROZEN)
def test_frozen_parts_stay_in_evaluation_mode(folder: Path, key: str) -> None:
    """Whatever mode is asked of the model; all others follow."""
    model = ssl_model(folder, **{key: True})
    for mode in (True, False, True):
        model.train(mode)
        for name, module in model.named_modules():
            frozen = f"{name}.".startswith(FROZEN[key])
            inner = name != "encoder" and "final_norm" not in name
            if inner:
                assert module.training == (mode and not frozen), name
    truncated = model.truncated(2).train()
    assert not truncated.encoder.convolutions.training


def test_a_frozen_backbone_is_the_same_in_training(folder: Path) -> None:
    """No dropout, and nothing recorded for a backward pass."""
    encoder = SSLEncoder(str(folder), [2, 4], freeze_backbone=True).eval()
    batch = padded([noise(7000, 1), noise(5000, 2)])
    expected = encoder(*batch)
    for state, other in zip(expected, encoder.train()(*batch)):
        assert torch.equal(state.hidden_BTD, other.hidden_BTD)
        assert not other.hidden_BTD.requires_grad


@pytest.mark.parametrize("key", FROZEN)
def test_training_leaves_frozen_parts_as_they_are(
    one_folder: Path, tmp_path: Path, key: str
) -> None:
    """Bit for bit after an epoch; all else has moved."""
    model = ssl_model(one_folder, **{key: True})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    brain = tiny_brain(tmp_path, model, lr=0.01)
    brain.fit(
        brain.hparams.epoch_counter,
        tone_dataset(4),
        tone_dataset(2, seed=1),
        train_loader_kwargs={"batch_size": 2},
        valid_loader_kwargs={"batch_size": 2},
    )
    prefixes = (*FROZEN[key], "encoder.final_norm.")
    for name, value in model.state_dict().items():
        frozen = name.startswith(prefixes)
        if name.endswith("k_proj.bias"):
            continue  # learns nothing: it moves all scores of a query alike
        assert torch.equal(value, before[name]) == frozen, name


@torch.no_grad()
def test_freezing_changes_no_result(folder: Path) -> None:
    """Only what is learnt."""
    batch = padded([noise(7000, 1)])
    for key in FROZEN:
        outputs = ssl_model(folder, **{key: True})(*batch)
        for one, other in zip(ssl_model(folder)(*batch), outputs):
            assert torch.equal(valid(one), valid(other))


def test_a_frozen_backbone_drops_no_layers(one_folder: Path) -> None:
    """It could not learn to do without one."""
    with pytest.raises(InputError, match="^layerdrop_prob: 0.1 .* to 0"):
        SSLEncoder(
            str(one_folder), [4], layerdrop_prob=0.1, freeze_backbone=True
        )


def test_sample_rate_of_another_kind_of_audio(one_folder: Path) -> None:
    """Audio of 8 kHz would pass for slow speech."""
    SSLEncoder(str(one_folder), [4], sample_rate=16000)
    with pytest.raises(InputError, match="^sample_rate: 8000 Hz.* to 16000"):
        SSLEncoder(str(one_folder), [4], sample_rate=8000)
