"""Killed anywhere in training, a run ends with the bits of one that was not.

Everything that has a state or draws random numbers is on: two optimisers with
schedules of their own, parts that join in by epoch, dropout, layer-drop,
augmentation, distillation, attention heads, gradient accumulation, bf16, a
gradient scaler.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path
from typing import Any

import pytest
import speechbrain as sb
import torch
from speechbrain.augment.augmenter import Augmenter
from speechbrain.augment.time_domain import DropChunk

from speechbrain_ee.errors import InputError
from speechbrain_ee.training.distillation import Distillation
from speechbrain_ee.training.regimes import Regime
from speechbrain_ee.training.systems import (
    CTCAttentionEarlyExitBrain,
    CTCEarlyExitBrain,
)
from tests.helpers import shaken, tiny_brain, tiny_model, tone_dataset
from tests.training.tuned import ADAM, schedule

EPOCHS = 3
UTTERANCES, BATCH = 8, 2  # four batches, two optimiser steps in an epoch
REGIME = Regime(heads_first_epochs=1, unfreeze_per_epoch=3, layer_decay=0.7)
SYSTEMS = {
    "two optimisers, regime": {
        "regime": REGIME,
        "backbone_opt_class": ADAM,
        "lr_annealing_backbone": 0.002,
    },
    "attention, bf16": {"attention": "shared", "precision": "bf16"},
    "regime, one optimiser, distilled": {
        "regime": REGIME,
        "distillation": Distillation("soft", alpha=0.5),
    },
}
# Where it dies: epoch, stage, batch of the stage. In the first epoch, and
# behind the last checkpoint of one; twice in the same epoch; in validation.
TRAIN, VALID = sb.Stage.TRAIN, sb.Stage.VALID
PLACES = [(1, TRAIN, 3), (1, VALID, 1), (2, TRAIN, 1), (2, TRAIN, 3)]
PLACES += [(3, TRAIN, 4), (3, VALID, 2)]


class Run:
    """One output folder, whatever number of processes it takes."""

    def __init__(self, folder: Path, system: str):
        self.folder, self.system = folder, system
        self.steps: dict[tuple[int, int], tuple] = {}
        self.starts = 0

    def start(self, place: tuple | None = None) -> CTCEarlyExitBrain:
        """Train to the end, or to a place."""
        self.starts += 1
        brain = self._brain()
        as_ever = brain.on_fit_batch_end, brain.evaluate_batch

        def on_fit_batch_end(batch: Any, outputs: Any, loss: Any, *rest: Any):
            as_ever[0](batch, outputs, loss, *rest)
            epoch = brain.hparams.epoch_counter.current
            rates = tuple(brain.learning_rates().values())
            fact = (float(loss.detach()).hex(), rates, tuple(batch.id))
            # A step that was done twice was the same twice.
            assert self.steps.setdefault((epoch, brain.step), fact) == fact
            if place == (epoch, TRAIN, brain.step):
                raise KeyboardInterrupt

        def evaluate_batch(batch: Any, stage: sb.Stage):
            epoch = brain.hparams.epoch_counter.current
            if place == (epoch, stage, brain.step):
                raise KeyboardInterrupt
            return as_ever[1](batch, stage=stage)

        brain.on_fit_batch_end = on_fit_batch_end
        brain.evaluate_batch = evaluate_batch
        data = tone_dataset(UTTERANCES, first=3)
        brain.fit(
            brain.hparams.epoch_counter,
            data,
            data,
            train_loader_kwargs={"batch_size": BATCH, "shuffle": True},
            valid_loader_kwargs={"batch_size": UTTERANCES // 2},
        )
        return brain

    def _brain(self) -> CTCEarlyExitBrain:
        options = dict(SYSTEMS[self.system])
        attention = options.pop("attention", None)
        # Every process begins with other weights and other random numbers.
        model = shaken(
            tiny_model(attention=attention, layerdrop_prob=0.2),
            seed=self.starts,
            by=0.1,
        )
        torch.manual_seed(self.starts)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.2
        if "lr_annealing_backbone" in options:
            rate = options["lr_annealing_backbone"]
            options["lr_annealing_backbone"] = schedule(rate)
        kind = CTCAttentionEarlyExitBrain if attention else CTCEarlyExitBrain
        drop = DropChunk(drop_length_low=100, drop_length_high=900)
        brain = tiny_brain(
            self.folder,
            model,
            brain_class=kind,
            epochs=EPOCHS,
            keep_checkpoints=2,
            grad_accumulation_factor=2,
            ckpt_interval_minutes=0,
            ckpt_interval_steps=1,
            wav_augment=Augmenter(augmentations=[drop]),
            **options,
        )
        # As SpeechBrain's of fp16, which it has on GPUs alone.
        brain.scaler = torch.GradScaler("cpu", 2.0**4, growth_interval=3)
        brain.checkpointer.add_recoverable("scaler", brain.scaler)
        return brain


def state(brain: CTCEarlyExitBrain) -> dict[str, Any]:
    """Weights, moments, learning rates."""
    found = dict(brain.modules.model.state_dict())
    for name, value in brain.scaler.state_dict().items():
        found[f"scaler {name}"] = torch.tensor(value)
    for name, optimizer in brain.optimizers_dict.items():
        saved = optimizer.state_dict()
        for key, moments in saved["state"].items():
            for moment, value in moments.items():
                found[f"{name} {key} {moment}"] = value
        for number, group in enumerate(saved["param_groups"]):
            found[f"{name} lr {number}"] = torch.tensor(group["lr"])
    return found


@pytest.mark.parametrize("system", SYSTEMS)
def test_killed_in_training_and_validation(system: str, tmp_path: Path) -> None:
    """Six kills; every loss, rate and batch, the log, the final state."""
    whole, parts = Run(tmp_path / "w", system), Run(tmp_path / "p", system)
    whole.folder.mkdir()
    parts.folder.mkdir()
    expected = state(whole.start())
    assert len(whole.steps) == EPOCHS * UTTERANCES // BATCH
    for place in PLACES:
        with pytest.raises(KeyboardInterrupt):
            parts.start(place)
    resumed = state(parts.start())
    assert parts.steps == whole.steps
    assert len(set(whole.steps.values())) == len(whole.steps)
    assert resumed.keys() == expected.keys()
    wrong = [n for n in expected if not torch.equal(expected[n], resumed[n])]
    assert not wrong
    # The scale has grown, at steps counted across the kills.
    assert resumed["scaler scale"] > 2.0**4
    log = (parts.folder / "train_log.txt").read_text("utf-8")
    assert log == (whole.folder / "train_log.txt").read_text("utf-8")
    assert len(log.splitlines()) == EPOCHS


def test_other_parameter_groups(tmp_path: Path) -> None:
    """A YAML that has changed since says so, in one paragraph."""
    one = Run(tmp_path, "regime, one optimiser, distilled")
    with pytest.raises(KeyboardInterrupt):
        one.start((1, TRAIN, 3))
    one.system = "two optimisers, regime"
    with pytest.raises(InputError, match="new output_folder") as error:
        one.start()
    message = str(error.value)
    assert str(tmp_path) in message and "\n" not in message
