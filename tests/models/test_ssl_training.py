"""The SSL encoder in training: nothing is masked, dropped or frozen unasked.

Protects: masking, layer-drop and half precision of the file left aside;
gradients that reach what is run; frozen convolutions that cost no memory.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path

import pytest
import torch
from speechbrain.augment.augmenter import Augmenter
from speechbrain.augment.freq_domain import SpectrogramDrop

from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.models.ssl import SSLEncoder
from speechbrain_ee.training.losses import ctc_exit_losses
from tests.helpers import VOCAB, noise, padded, valid
from tests.models.ssl_models import MODELS, close, ssl_model, write_ssl_model


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


@pytest.fixture(scope="module")
def wavlm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with position biases."""
    return write_ssl_model(tmp_path_factory.mktemp("wavlm"), "wavlm")


def test_training_mode_masks_and_drops_nothing_by_itself(
    folder: Path,
) -> None:
    """Masking and layer-drop of the file are off: training == evaluation."""
    model = ssl_model(folder)
    batch = padded([noise(7000, 1), noise(4100, 2)])
    expected = model(*batch)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    for one, other in zip(expected, model(*batch)):
        assert close(valid(one), valid(other))


@torch.no_grad()
def test_skipped_layers_keep_their_place(wavlm_folder: Path) -> None:
    """All layers skipped: every exit reads the start, at its own depth."""
    encoder = SSLEncoder(str(wavlm_folder), [1, 3], layerdrop_prob=1.0)
    batch = padded([noise(5000, 1)])
    encoder.eval()
    start = encoder.start(*batch).hidden_BTD
    assert not torch.equal(encoder(*batch)[0].hidden_BTD, start)
    encoder.train()
    encoder.dropout.p = 0.0
    for module in encoder.projection.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    states = encoder(*batch)
    assert [state.depth for state in states] == [1, 3]
    assert all(torch.equal(state.hidden_BTD, start) for state in states)


@torch.no_grad()
def test_feature_augment_in_training_alone(one_folder: Path) -> None:
    """Our augmentation of the features, not transformers' masking."""
    drop = SpectrogramDrop(
        drop_length_low=3,
        drop_length_high=4,
        drop_count_low=2,
        drop_count_high=3,
        dim=1,
    )
    augment = Augmenter(min_augmentations=1, augmentations=[drop])
    plain = SSLEncoder(str(one_folder), [1]).eval()
    encoder = SSLEncoder(str(one_folder), [1], feature_augment=augment)
    batch = padded([noise(7000, 1)])
    expected = plain.start(*batch).hidden_BTD
    assert torch.equal(encoder.eval().start(*batch).hidden_BTD, expected)
    encoder.dropout.p = 0.0
    encoder.projection.dropout.p = 0.0
    changed = encoder.train().start(*batch).hidden_BTD
    assert not close(changed, expected, 1e-2)


def trained(model: EarlyExitModel) -> set[str]:
    """Names of parameters that a loss at all exits reaches."""
    model.train().zero_grad()
    outputs = model(*padded([noise(7000, 1), noise(5000, 2)]))
    tokens_BS = torch.tensor([[1, 2, 3], [4, 5, 0]])
    losses_E = ctc_exit_losses(outputs, tokens_BS, torch.tensor([3, 2]))
    losses_E.sum().backward()
    return {
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and parameter.grad.abs().max() > 0
    }


def test_gradients_reach_what_is_run(folder: Path) -> None:
    """Everything but the norm above the last layer of large models."""
    model = ssl_model(folder)
    learning = {
        name for name, each in model.named_parameters() if each.requires_grad
    }
    # The bias of keys moves all scores of a query alike: it learns nothing.
    idle = {name for name in learning if name.endswith("k_proj.bias")}
    assert trained(model) | idle == learning
    frozen = {name for name, _ in model.named_parameters()} - learning
    assert all(name.startswith("encoder.final_norm") for name in frozen)


def test_a_step_lowers_the_loss(folder: Path) -> None:
    """A few steps on one batch; no dropout, to compare losses."""
    model = ssl_model(folder)
    batch = padded([noise(7000, 1), noise(5000, 2)])
    tokens_BS = torch.tensor([[1, 2, 3], [4, 5, 0]])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(4):
        outputs = model(*batch)
        loss = ctc_exit_losses(outputs, tokens_BS, torch.tensor([3, 2])).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_frozen_convolutions_keep_no_activations(folder: Path) -> None:
    """Nothing is recorded for what cannot learn, in training mode too."""
    encoder = SSLEncoder(str(folder), [1]).train()
    outputs = []
    encoder.convolutions.register_forward_hook(
        lambda _module, _args, out: outputs.append(out)
    )
    batch = padded([noise(3000, 1)])
    encoder(*batch)
    encoder.convolutions.requires_grad_(False)
    states = encoder(*batch)
    assert [out.requires_grad for out in outputs] == [True, False]
    assert states[0].hidden_BTD.requires_grad


def test_autocast_runs(folder: Path) -> None:
    """bf16 on a CPU, forward and backward, near to fp32."""
    model = ssl_model(folder)
    batch = padded([noise(7000, 1), noise(4100, 2)])
    expected = model(*batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(*batch)
    for one, other in zip(expected, outputs):
        assert other.log_probs_BTV.dtype == torch.float32
        assert other.log_probs_BTV.shape[-1] == VOCAB
        assert close(valid(one, 1), valid(other, 1), 0.5)
    outputs[-1].log_probs_BTV.sum().backward()
