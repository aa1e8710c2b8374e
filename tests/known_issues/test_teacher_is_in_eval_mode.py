"""A teacher teaches in evaluation mode, and teaching leaves no trace.

Trap avoided: a teacher that is left in training mode. With dropout it says
something else every time, its running statistics drift towards the student's
batches, and it uses up random numbers. Setting the whole model back to
training mode afterwards is no better: parts that are frozen on purpose wake
up with it.

Authors
 * The speechbrain-ee contributors 2026
"""

import pytest
import torch
from torch import Tensor, nn

from speechbrain_ee.models.heads import ExitOutput
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.training.distillation import Distillation, run_teacher
from tests.helpers import noise, padded, tiny_model

BATCH = padded([noise(5000), noise(4000, seed=1)])
TOKENS, COUNTS = torch.tensor([[1, 2], [3, 0]]), torch.tensor([2, 1])


def in_training(seed: int = 0) -> EarlyExitModel:
    model = tiny_model(layerdrop_prob=0.5, seed=seed)
    model.heads.dropout.p = 0.5
    model.train()
    model.encoder.front_end.eval()
    return model


def said(outputs: list[ExitOutput]) -> Tensor:
    return outputs[-1].log_probs_BTV


def test_training_mode_would_be_noticed() -> None:
    """The trap itself: the same audio, another answer every time."""
    model = in_training()
    assert not torch.equal(said(model(*BATCH)), said(model(*BATCH)))


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_targets_are_those_of_evaluation(kind: str) -> None:
    """Whatever mode model and teacher are in; without gradients."""
    model, teacher = in_training(), in_training(seed=1)
    distillation = Distillation(kind)
    found = distillation.observe(model, *BATCH, teacher=teacher)
    again = distillation.observe(model, *BATCH, teacher=teacher)
    taught_by = {"hard": teacher, "soft": model}[kind].eval()
    assert torch.equal(said(found), said(taught_by(*BATCH)))
    assert torch.equal(said(found), said(again))
    assert not any(output.log_probs_BTV.requires_grad for output in found)


def test_every_part_goes_back_to_its_mode() -> None:
    """What was frozen stays in evaluation mode, the rest goes on training."""
    model = in_training()
    before = [module.training for module in model.modules()]
    assert len(set(before)) == 2
    run_teacher(model, *BATCH)
    assert [module.training for module in model.modules()] == before
    with pytest.raises(IndexError):
        run_teacher(model, BATCH[0][0, 0], BATCH[1])
    assert [module.training for module in model.modules()] == before


def test_no_statistic_moves_and_no_random_number_is_drawn() -> None:
    """Training goes on as if nobody had been asked."""
    model = in_training()
    model.heads.norms[-1] = FrameBatchNorm(16).train()
    before = {name: b.clone() for name, b in model.named_buffers()}
    state = torch.get_rng_state()
    run_teacher(model, *BATCH)
    assert torch.equal(torch.get_rng_state(), state)
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name]), name
    model(*BATCH)
    assert not torch.equal(torch.get_rng_state(), state)
    assert model.heads.norms[-1].norm.num_batches_tracked == 1


class FrameBatchNorm(nn.Module):
    def __init__(self, d_model: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(d_model)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        return self.norm(hidden_BTD.transpose(1, 2)).transpose(1, 2)
