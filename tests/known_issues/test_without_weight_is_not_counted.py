"""What has no weight in the joint loss adds nothing, not even NaN.

Trap avoided: 0 times NaN is NaN, and 0 times infinity, too.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path

import pytest
import speechbrain as sb
import torch
from speechbrain.dataio.batch import PaddedBatch

from speechbrain_ee.training.distillation import Distillation
from speechbrain_ee.training.losses import LossTerm, joint_loss
from tests.helpers import shaken, tiny_brain, tiny_model, tone_dataset


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_exit_without_weight(value: float) -> None:
    """Neither its loss nor a gradient."""
    losses = torch.tensor([3.0, value, 5.0], requires_grad=True)
    total = joint_loss(losses, (1.0, 0.0, 2.0))
    total.backward()
    assert total.item() == 13.0
    assert losses.grad.tolist() == [1.0, 0.0, 2.0]


class Broken(LossTerm):
    """Of no use, and expensive."""

    name = "broken"
    calls = 0

    def losses(self, outputs, batch, brain):
        Broken.calls += 1
        return outputs[0].log_probs_BTV.new_full((len(outputs),), float("nan"))


def step_of(folder: Path, **hparams: object) -> tuple[dict, set[str]]:
    """A step's gradients by kind of module, and what is logged of it."""
    model = shaken(tiny_model(attention="shared"), by=0.05)
    brain = tiny_brain(folder, model, **hparams)
    batch = PaddedBatch(list(tone_dataset(3, first=3)))
    brain.on_stage_start(sb.Stage.TRAIN)
    outputs = brain.compute_forward(batch, sb.Stage.TRAIN)
    loss = brain.compute_objectives(outputs, batch, sb.Stage.TRAIN)
    assert torch.isfinite(loss)
    loss.backward()
    for name, parameter in model.named_parameters():
        # DDP waits for all of them
        assert torch.isfinite(parameter.grad).all(), name
    assert brain.exit_loss_means.keys() == brain.loss_weights.keys()
    moved = {
        name.split(".")[0]
        for name, parameter in model.named_parameters()
        if parameter.grad.any()
    }
    return moved, set(brain.loss_weights)


def test_a_term_without_weight_is_not_computed(tmp_path) -> None:
    Broken.calls = 0
    _, terms = step_of(tmp_path, losses=["ctc", "attention", Broken(0.0)])
    assert terms == {"CTC", "attention"} and Broken.calls == 0


@pytest.mark.parametrize(
    "given, learns",
    [
        ({"ctc_weight": 1}, "CTC"),
        ({"ctc_weight": 0}, "attention"),
        ({"losses": ["ctc"]}, "CTC"),
        ({"losses": ["attention"]}, "attention"),
    ],
)
def test_a_kind_of_head_without_weight(given, learns, tmp_path) -> None:
    """Its gradient is zero, not absent; nobody teaches it."""
    if learns == "attention" and "losses" not in given:
        given = given | {"distillation": Distillation("soft")}
    moved, terms = step_of(tmp_path, **given)
    assert terms == {learns}
    heads = "heads" if learns == "CTC" else "attention"
    assert moved == {"encoder", heads}
