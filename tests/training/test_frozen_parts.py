"""Frozen parts of a pre-trained encoder learn nothing and stay as they are.

Protects: no gradient, evaluation mode and the same bits for what a regime
freezes, in all families and styles and through the Brain; two stages of which
the first moves the heads alone; a down-sampler that learns with the heads.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path
from typing import Any

import pytest
import speechbrain as sb
import torch

from speechbrain_ee.errors import InputError
from speechbrain_ee.training.regimes import BACKBONE, MAIN, Regime
from tests.helpers import noise, padded, valid
from tests.models.ssl_models import MODELS, ssl_model, write_ssl_model
from tests.training.tuned import Tuned, fit, same, tuned, weights

FROZEN = {
    "freeze_convolutions": ("encoder.convolutions.",),
    "freeze_backbone": ("encoder.",),
}


def regime(key: str) -> Regime:
    """One that freezes this, and no more."""
    return Regime(**({"freeze_convolutions": False} | {key: True}))


@pytest.fixture(scope="module", params=MODELS, ids="-".join)
def folder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A model folder of every family and style."""
    target = tmp_path_factory.mktemp("-".join(request.param))
    return write_ssl_model(target, *request.param, hidden_dropout=0.5)


@pytest.fixture(scope="module")
def one_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A single model folder, where the family does not matter."""
    return write_ssl_model(tmp_path_factory.mktemp("wav2vec2"))


@pytest.mark.parametrize("key", FROZEN)
def test_frozen_parts(folder: Path, key: str) -> None:
    """No gradient, and evaluation mode; the opposite for all else."""
    model = ssl_model(folder)
    regime(key).apply(model, 1)
    for name, module in model.named_modules():
        frozen = f"{name}.".startswith(FROZEN[key])
        assert module.training != frozen, name
    outputs = model(*padded([noise(7000, 1), noise(5000, 2)]))
    sum(out.log_probs_BTV.square().sum() for out in outputs).backward()
    prefixes = (*FROZEN[key], "encoder.final_norm.")
    for name, parameter in model.named_parameters():
        frozen = name.startswith(prefixes)
        assert parameter.requires_grad != frozen, name
        assert (parameter.grad is None) == frozen, name


def test_a_frozen_backbone_is_the_same_in_training(folder: Path) -> None:
    """No dropout, and nothing recorded for a backward pass."""
    model = ssl_model(folder)
    batch = padded([noise(7000, 1), noise(5000, 2)])
    Regime(freeze_backbone=True).apply(model, 1)
    expected = model.eval()(*batch)
    Regime(freeze_backbone=True).apply(model, 1)
    for one, other in zip(expected, model(*batch)):
        assert torch.equal(valid(one), valid(other))
        assert not other.hidden_BTD.requires_grad
    Regime(freeze_convolutions=True).apply(model, 1)
    assert not torch.equal(model(*batch)[-1].log_probs_BTV, one.log_probs_BTV)


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("key", FROZEN)
def test_a_run_leaves_frozen_parts_as_they_are(
    one_folder: Path, tmp_path: Path, key: str, split: bool
) -> None:
    """Bit for bit after an epoch of decaying weights; all else has moved."""
    model = ssl_model(one_folder)
    before = weights(model)
    fit(tuned(tmp_path, model, regime(key), split))
    unmoved = same(before, weights(model))
    prefixes = (*FROZEN[key], "encoder.final_norm.")
    frozen = {n for n in before if n.startswith(prefixes)}
    # The bias of keys moves all scores of a query alike: it learns nothing.
    idle = {n for n in before if n.endswith("k_proj.bias")}
    assert frozen <= unmoved <= frozen | idle


def test_two_stages(one_folder: Path, tmp_path: Path) -> None:
    """Nothing below the heads moves in the first; all of it in the second."""
    moved = []

    class Watched(Tuned):
        def on_stage_start(self, stage: sb.Stage, epoch: int = None) -> None:
            super().on_stage_start(stage, epoch)
            if stage == sb.Stage.VALID:
                now = weights(self.modules.model)
                moved.append(now.keys() - same(self.before, now))
            self.before = weights(self.modules.model)

    model = ssl_model(one_folder)
    two = Regime(heads_first_epochs=1)
    fit(tuned(tmp_path, model, two, brain_class=Watched, epochs=2))
    names = weights(model).keys()
    heads = {n for n in names if n.startswith("heads.")}
    frozen = ("encoder.convolutions.", "encoder.final_norm.")
    assert moved == [heads, {n for n in names if not n.startswith(frozen)}]


@pytest.mark.parametrize(
    "options",
    [{}, {"freeze_backbone": True}, {"heads_first_epochs": 5}],
    ids=str,
)
def test_a_new_down_sampler_learns(
    one_folder: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    """With the heads, at their rate, in front of whatever is frozen."""
    sampler = {"method": "convolution", "factor": 2}
    model = ssl_model(one_folder, downsampling=sampler)
    before = weights(model)
    brain = fit(tuned(tmp_path, model, Regime(**options)))
    new = {n for n in before if n.startswith("encoder.downsampler.")}
    assert new and not new & same(before, weights(model))
    ids = {
        name: {id(p) for g in each.param_groups for p in g["params"]}
        for name, each in brain.optimizers_dict.items()
    }
    sampler_ids = {id(p) for p in model.encoder.downsampler.parameters()}
    assert sampler_ids <= ids[MAIN]
    assert not sampler_ids & ids.get(BACKBONE, set())


def test_a_frozen_backbone_drops_no_layers(
    one_folder: Path, tmp_path: Path
) -> None:
    """It could not learn to do without one: said before training."""
    model = ssl_model(one_folder, layerdrop_prob=0.1)
    Regime(heads_first_epochs=1).check(model)
    with pytest.raises(InputError, match="^layerdrop_prob: 0.1 .* to 0"):
        tuned(tmp_path, model, Regime(freeze_backbone=True))


def test_frozen_layers_are_never_skipped(one_folder: Path) -> None:
    """Those that learn are, with a probability of one here."""
    model = ssl_model(one_folder, (1, 2, 3, 4), layerdrop_prob=1.0)
    batch = padded([noise(5000, 1)])
    run: list[int] = []
    for number, layer in enumerate(model.encoder.layers, start=1):
        layer.register_forward_hook(lambda *_, n=number: run.append(n))
    for options, epoch, expected in (
        ({"heads_first_epochs": 1}, 1, [1, 2, 3, 4]),
        ({"unfreeze_per_epoch": 1}, 1, [1, 2, 3]),
        ({"unfreeze_per_epoch": 1}, 3, [1]),
        ({}, 1, []),
    ):
        run.clear()
        Regime(**options).apply(model, epoch)
        assert [output.layer for output in model(*batch)] == [1, 2, 3, 4]
        assert run == expected
