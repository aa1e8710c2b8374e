"""Backbone and heads learn at rates of their own, and every group is clipped.

Protects: the corners of a schedule, learning rates by depth and by optimiser,
warm-up that begins when the backbone joins in; clipping of all groups by one
norm per optimiser, equality with SpeechBrain where it clips everything,
gradient scaling, non-finite gradients.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from functools import partial
from pathlib import Path

import pytest
import speechbrain as sb
import torch
from torch import Tensor

from speechbrain_ee.errors import InputError
from speechbrain_ee.training.regimes import (
    BACKBONE,
    MAIN,
    Regime,
)
from speechbrain_ee.training.schedules import WarmupCooldown
from speechbrain_ee.training.systems import CTCEarlyExitBrain
from tests.helpers import fit_tones, tiny_brain
from tests.models.ssl_models import ssl_model, write_ssl_model
from tests.training.tuned import (
    ADAM,
    SGD,
    STEPS,
    Tuned,
    same,
    schedule,
    tuned,
    weights,
)


def test_without_keys_it_is_speechbrains_optimiser(tmp_path: Path) -> None:
    """Nothing asked for: the bits of training without the mixin."""
    plain = fit_tones(tiny_brain(tmp_path / "plain", epochs=2))
    brain = fit_tones(tuned(tmp_path / "tuned", split=False, epochs=2))
    assert list(brain.optimizers_dict) == [MAIN]
    assert len(brain.optimizer.param_groups) == 1
    one, other = weights(plain.modules.model), weights(brain.modules.model)
    assert same(one, other) == set(one)


@pytest.mark.parametrize("split", [True, False])
def test_learning_rates_by_depth(split: bool, tmp_path: Path) -> None:
    """Every parameter's rate, looked up by name."""
    folder = write_ssl_model(tmp_path / "model", "hubert", "large")
    model = ssl_model(folder, (2, 4))
    brain = tuned(tmp_path, model, Regime(layer_decay=0.5), split)
    brain.tuner.set_total_steps(STEPS, brain.hparams.epoch_counter.limit)
    brain.on_fit_start()
    for optimizer in brain.optimizers_dict.values():
        optimizer.param_groups[0]["lr"] = 7.0  # what the schedule replaces
    brain.hparams.epoch_counter.current = 1
    brain.tuner.start_step(brain.optimizers_dict, True)
    head, top = 0.001, 0.002 if split else 0.001
    # One warm-up step of one, out of two: the plateau.
    found = {
        id(p): group["lr"]
        for optimizer in brain.optimizers_dict.values()
        for group in optimizer.param_groups
        for p in group["params"]
    }
    for name, parameter in model.named_parameters():
        room, part, number, *_ = name.split(".") + ["", ""]
        if room == "heads":
            expected = head
        elif part in ("convolutions", "final_norm"):
            assert id(parameter) not in found
            continue
        else:
            depth = int(number) + 1 if part == "layers" else 0
            expected = top / 2 ** (4 - depth)
        assert found[id(parameter)] == pytest.approx(expected), name
    assert brain.learning_rates()["lr"] == head
    assert brain.learning_rates().get("lr_backbone") == (top if split else None)


def test_backbone_warms_up_when_it_joins_in(tmp_path: Path) -> None:
    """Its schedule waits for it, and ends with the run."""
    regime = Regime(heads_first_epochs=2)
    rate = schedule(0.001)
    brain = fit_tones(
        tuned(tmp_path, regime=regime, epochs=6, lr_annealing=rate)
    )
    optimizer = SGD([torch.zeros(1)])
    for key, lr, waits in (("lr", 0.001, 0), ("lr_backbone", 0.002, 2)):
        reference = schedule(lr)
        reference.set_total_steps(STEPS * (6 - waits))
        expected = [reference(optimizer)[1] for _ in range(STEPS * (6 - waits))]
        rates = [step[key] for step in brain.rates[waits * STEPS :]]
        assert rates == pytest.approx(expected)
        assert rates[-1] == 0.0 and max(rates) == pytest.approx(lr)


@pytest.mark.parametrize("split", [True, False])
def test_epochs_of_a_run(split: bool, tmp_path: Path) -> None:
    """The regime holds while SpeechBrain trains and validates by turns."""
    moved = []

    class Watched(Tuned):
        def on_stage_start(self, stage: sb.Stage, epoch: int = None) -> None:
            super().on_stage_start(stage, epoch)
            if stage == sb.Stage.TRAIN:
                self.before = weights(self.modules.model)
            elif stage == sb.Stage.VALID:
                now = weights(self.modules.model)
                names = set(now) - same(self.before, now)
                moved.append({".".join(n.split(".")[:3]) for n in names})

    regime = Regime(heads_first_epochs=1, unfreeze_per_epoch=2)
    fit_tones(tuned(tmp_path, None, regime, split, Watched, epochs=4))
    layers = [f"encoder.layers.{k}" for k in range(4)]
    heads = {
        f"heads.{part}.{k}" for part in ("norms", "projections") for k in (0, 1)
    }
    # In the last step the rate is 0, but an epoch has two. The Conformer has
    # nothing else below its layers than what is frozen.
    expected = [set(), set(layers[2:]), set(layers), set(layers)]
    assert moved == [heads | each for each in expected]


def test_two_optimisers_without_regime(tmp_path: Path) -> None:
    """Everything learns, front-end included, each parameter once."""
    brain = fit_tones(tuned(tmp_path))
    parameters = [
        id(p)
        for optimizer in brain.optimizers_dict.values()
        for group in optimizer.param_groups
        for p in group["params"]
    ]
    expected = [id(p) for p in brain.modules.parameters()]
    assert sorted(parameters) == sorted(expected)
    encoder = {id(p) for p in brain.modules.model.encoder.parameters()}
    backbone = brain.optimizers_dict[BACKBONE].param_groups
    assert {id(p) for g in backbone for p in g["params"]} == encoder


def test_vectors_are_not_decayed_on_request(tmp_path: Path) -> None:
    """SpeechBrain's option remove_vector_weight_decay, in every group."""
    brain = tuned(tmp_path, regime=Regime(layer_decay=0.5))
    brain.remove_vector_weight_decay = True
    brain.opt_class = ADAM
    brain.on_fit_start()
    for optimizer in brain.optimizers_dict.values():
        assert optimizer.param_groups[0]["lr_scale"] == 1.0
        for group in optimizer.param_groups:
            vectors = {p.dim() == 1 for p in group["params"]}
            assert vectors == {group["weight_decay"] == 0.0}


def test_ddp_is_told_that_parts_join_in(tmp_path: Path) -> None:
    """They have no gradient in the first epochs, and are synchronised."""
    brain = tuned(tmp_path / "two", regime=Regime(heads_first_epochs=1))
    assert brain.find_unused_parameters
    trained = list(brain.modules.model.encoder.layers.parameters())
    assert all(p.requires_grad for p in trained)
    brain = tuned(tmp_path / "one", regime=Regime())
    assert not brain.find_unused_parameters


@pytest.mark.parametrize(
    "options, message",
    [
        ({"lr_annealing_backbone": None}, "give both"),
        ({"backbone_opt_class": None}, "give both"),
        ({"regime": {"freeze_backbone": True}}, "must be built in the YAML"),
        ({"regime": Regime(active_exits=3)}, "this model has 2"),
    ],
)
def test_wrong_options(options: dict, message: str, tmp_path: Path) -> None:
    """Before anything is trained, by the name of the key."""
    with pytest.raises(InputError, match=message):
        tuned(tmp_path, **options)


def stepped(brain: Tuned, seed: int = 0, by: float = 10.0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for parameter in brain.modules.parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.grad = by * noise
    gradients = {
        name: parameter.grad.clone()
        for name, parameter in brain.modules.model.named_parameters()
        if parameter.grad is not None
    }
    brain.optimizers_step()
    return gradients


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("limit", [0.5, 1e9])
def test_all_groups_of_an_optimiser_are_clipped_by_one_norm(
    split: bool, limit: float, tmp_path: Path
) -> None:
    """Against a norm in double precision over named parameters."""
    brain = tuned(
        tmp_path,
        regime=Regime(layer_decay=0.5),
        split=split,
        backbone_opt_class=SGD if split else None,
        max_grad_norm=limit,
    )
    brain.opt_class = SGD
    brain.on_fit_start()
    model = brain.modules.model
    before = weights(model)
    gradients = stepped(brain)
    assert len(brain.optimizers_dict) == 1 + split
    for room in ("encoder.", "heads.") if split else ("",):
        names = [name for name in gradients if name.startswith(room)]
        square = sum(float(gradients[n].double().square().sum()) for n in names)
        factor = min(1.0, limit / math.sqrt(square))
        for name in names:
            # Nothing has set the rates yet: they are the constructor's, 1.
            moved = before[name] - model.get_parameter(name).detach()
            expected = factor * gradients[name]
            assert torch.allclose(moved, expected, rtol=1e-4, atol=2e-6), name


def test_one_group_is_clipped_as_by_speechbrain(tmp_path: Path) -> None:
    """Bit for bit, where SpeechBrain clips everything as well."""
    results = []
    for number, step in enumerate((CTCEarlyExitBrain, sb.Brain)):
        brain = tuned(tmp_path / str(number), split=False, max_grad_norm=0.5)
        brain.on_fit_start()
        brain.optimizers_step = partial(step.optimizers_step, brain)
        stepped(brain)
        results.append(weights(brain.modules.model))
        assert brain.optimizer_step == 1
    assert same(*results) == set(results[0])


def test_gradients_that_are_not_finite_move_nothing(tmp_path: Path) -> None:
    """The optimiser that has them stands still, the other one steps."""
    brain = tuned(tmp_path, regime=Regime())
    brain.on_fit_start()
    model = brain.modules.model
    before = weights(model)
    stepped(brain, by=float("nan"))
    assert same(before, weights(model)) == set(before)
    model.heads.norms[0].weight.grad = torch.ones(16)
    model.encoder.layers[0].norm1.norm.weight.grad = torch.full((16,), math.nan)
    brain.optimizers_step()
    moved = set(before) - same(before, weights(model))
    assert moved == {"heads.norms.0.weight"}


def optimizer_of(lr: float = 0.0) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.zeros(1)], lr=lr)


def make_schedule(steps: int, warmup: float, cooldown: float) -> WarmupCooldown:
    schedule = WarmupCooldown(2.0, warmup, cooldown)
    schedule.set_total_steps(steps)
    return schedule


def test_corners() -> None:
    """10 steps up, 50 flat, 40 down to zero, then zero."""
    schedule, optimizer = make_schedule(100, 0.1, 0.4), optimizer_of()
    rates = [schedule(optimizer)[1] for _ in range(105)]
    for step in range(1, 101):
        expected = 2.0 * min(1.0, step / 10, (100 - step) / 40)
        assert rates[step - 1] == pytest.approx(expected), step
    assert rates[100:] == [0.0] * 5
    assert optimizer.param_groups[0]["lr"] == 0.0
