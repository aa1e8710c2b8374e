"""Every group of parameters is clipped, scaled or not.

Protects: clipping of all groups by one norm per optimiser, equality with
SpeechBrain where it clips everything, gradient scaling, non-finite gradients.

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

from speechbrain_ee.training.regimes import (
    FineTuning,
    Regime,
)
from tests.training.tuned import (
    SGD,
    STEPS,
    Tuned,
    fit,
    same,
    tuned,
    weights,
)


def stepped(brain: Tuned, seed: int = 0, by: float = 10.0) -> dict[str, Tensor]:
    """Put made-up gradients on a model, step, and return them unclipped."""
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
    for number, step in enumerate((FineTuning, sb.Brain)):
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


@pytest.mark.parametrize(
    "regime", [Regime(heads_first_epochs=1), Regime(freeze_backbone=True)]
)
def test_a_gradient_scaler_changes_nothing(
    regime: Regime, tmp_path: Path
) -> None:
    """Scaled, unscaled, clipped: the same steps; a frozen backbone is fine."""
    results = []
    for number, enabled in enumerate((False, True)):
        brain = tuned(tmp_path / str(number), regime=regime, epochs=2)
        brain.scaler = torch.GradScaler("cpu", 2.0**10, enabled=enabled)
        fit(brain)
        results.append(weights(brain.modules.model))
        assert brain.optimizer_step == 2 * STEPS
    for name, one in results[0].items():
        assert torch.allclose(one, results[1][name], atol=1e-6), name
