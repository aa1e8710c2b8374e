"""Tiny Brains with regimes and two optimisers, for several tests.

Authors
 * The speechbrain-ee contributors 2026
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.training.regimes import Regime
from speechbrain_ee.training.schedules import WarmupCooldown
from speechbrain_ee.training.systems import CTCEarlyExitBrain
from tests.helpers import tiny_brain, tiny_model

STEPS = 2  # of an epoch: 8 utterances, 4 in a batch
ADAM = partial(torch.optim.AdamW, lr=1.0, weight_decay=0.1)
SGD = partial(torch.optim.SGD, lr=1.0)


class Tuned(CTCEarlyExitBrain):
    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.rates: list[dict[str, float]] = []

    def on_fit_batch_start(self, batch: Any, should_step: bool) -> None:
        super().on_fit_batch_start(batch, should_step)
        self.rates.append(self.learning_rates())


def schedule(lr: float) -> WarmupCooldown:
    return WarmupCooldown(lr, warmup_share=0.25, cooldown_share=0.5)


def tuned(
    folder: Path,
    model: EarlyExitModel | None = None,
    regime: Regime | None = None,
    split: bool = True,
    brain_class: type = Tuned,
    **overrides: Any,
) -> Tuned:
    folder.mkdir(parents=True, exist_ok=True)
    if split:
        overrides = {
            "backbone_opt_class": ADAM,
            "lr_annealing_backbone": schedule(0.002),
        } | overrides
    model = tiny_model() if model is None else model
    return tiny_brain(
        folder, model, brain_class=brain_class, regime=regime, **overrides
    )


def weights(model: EarlyExitModel) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> set[str]:
    return {name for name in one if torch.equal(one[name], other[name])}
