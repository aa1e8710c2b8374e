"""The last batches of an epoch are learned from, however few they are.

Trap avoided: SpeechBrain steps behind every ``grad_accumulation_factor``
batches of an epoch and throws away what is left; a factor larger than the
epoch trains nothing at all, without a word.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path

import pytest
import torch

from speechbrain_ee.errors import InputError
from speechbrain_ee.training.systems import CTCEarlyExitBrain
from tests.helpers import tiny_brain, tone_dataset

EPOCHS = 2
BATCHES = 4  # of an epoch


def trained(folder: Path, factor: int, **options) -> CTCEarlyExitBrain:
    torch.manual_seed(3)
    brain = tiny_brain(
        folder, epochs=EPOCHS, grad_accumulation_factor=factor, **options
    )
    data = tone_dataset(2 * BATCHES)
    brain.fit(
        brain.hparams.epoch_counter,
        data,
        data,
        train_loader_kwargs={"batch_size": 2},
        valid_loader_kwargs={"batch_size": 8},
    )
    return brain


def weights(brain: CTCEarlyExitBrain) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(brain.modules.parameters())


def test_a_factor_beyond_the_epoch_is_one_step_an_epoch(tmp_path: Path) -> None:
    """With the mean gradient of all its batches, and a schedule as long."""
    whole = trained(tmp_path / "whole", BATCHES)
    more = trained(tmp_path / "more", 16 * BATCHES)  # scaled without rounding
    torch.manual_seed(3)
    start = weights(tiny_brain(tmp_path / "start"))
    assert more.optimizer_step == whole.optimizer_step == EPOCHS
    assert (weights(whole) - start).abs().max() > 1e-4
    assert torch.equal(weights(more), weights(whole))
    assert more.learning_rates() == whole.learning_rates()


def gradients(folder: Path, factor: int) -> list[float]:
    sizes = []

    class Brain(CTCEarlyExitBrain):
        def optimizers_step(self) -> None:
            parameters = self.modules.parameters()
            found = [p.grad.flatten() for p in parameters if p.requires_grad]
            sizes.append(float(torch.cat(found).norm()))
            super().optimizers_step()

    brain = trained(folder, factor, brain_class=Brain, lr=1e-9)
    assert brain.optimizer_step == len(sizes)
    assert brain.hparams.lr_annealing.total_steps == len(sizes)
    return sizes


def test_what_is_left_of_an_epoch_is_a_step(tmp_path: Path) -> None:
    """Its gradient is the mean of its batches, not of as many as usual."""
    every = gradients(tmp_path / "every", 1)
    three = gradients(tmp_path / "three", 3)
    assert (len(every), len(three)) == (4 * EPOCHS, 2 * EPOCHS)
    assert three[1::2] == pytest.approx(every[3::4], rel=1e-3)


@pytest.mark.parametrize("factor", [0, -1, 1.5, True])
def test_a_factor_that_is_no_number_of_batches_is_refused(
    tmp_path: Path, factor: object
) -> None:
    """Before the first batch."""
    with pytest.raises(InputError, match="grad_accumulation_factor: .* from 1"):
        trained(tmp_path, factor)
