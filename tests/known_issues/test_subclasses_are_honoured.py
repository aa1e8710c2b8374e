"""Known issue: a subclass counted in training only.

Live inference, teachers and ONNX graphs ran the encoder and the heads
themselves, past the model's ``step``; truncated models and heads were built
from the base classes, so that what a subclass had changed was lost.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from speechbrain_ee.inference.asr import EarlyExitASR
from speechbrain_ee.inference.live import LivePolicy
from speechbrain_ee.models.attention import AttentionHeads
from speechbrain_ee.models.heads import CTCHeads
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.models.state import EncoderState
from speechbrain_ee.training.frozen_teacher import FrozenTeacher
from tests.helpers import padded
from tests.inference.live_runs import (
    EXITS,
    folder_of,
    live_model,
    runner_of,
    waves,
)


class LouderModel(EarlyExitModel):
    """Every segment is given what the exit before it has heard, amplified."""

    steps = 0

    def step(self, state):
        self.steps += 1
        state, output = super().step(state)
        return replace(state, hidden_BTD=2 * state.hidden_BTD), output


class BlanklessHeads(CTCHeads):
    """Blanks cost something."""

    def forward(self, exit, state):
        output = super().forward(exit, state)
        scores_BTV = output.log_probs_BTV.clone()
        scores_BTV[..., self.blank_index] -= self.penalty * exit
        return replace(output, log_probs_BTV=scores_BTV.log_softmax(-1))


class TimidHeads(AttentionHeads):
    """Decoders that never say their last token."""

    def forward(self, exit, output, tokens_BS):
        said_BSV = super().forward(exit, output, tokens_BS).clone()
        said_BSV[..., -1] = -9.0
        return said_BSV


def own_model() -> LouderModel:
    """A model of which everything is somebody's own, in evaluation mode."""
    model = live_model(attention="shared")
    model.heads.__class__, model.heads.penalty = BlanklessHeads, 0.7
    model.attention.__class__ = TimidHeads
    return LouderModel(model.encoder, model.heads, model.attention).eval()


@torch.no_grad()
@pytest.mark.parametrize("exit", EXITS)
def test_truncated_is_the_same_class_with_the_same_outputs(exit: int) -> None:
    """Model, CTC heads and attention heads, bit for bit."""
    model = own_model()
    tokens_BS = torch.tensor([[1, 4, 3]] * len(waves()))
    wanted = model(*padded(waves()), tokens_BS)[exit - 1]
    cut = model.truncated(exit)
    kinds = [type(each) for each in (cut, cut.heads, cut.attention)]
    assert kinds == [LouderModel, BlanklessHeads, TimidHeads]
    found = cut(*padded(waves()), tokens_BS)[-1]
    assert torch.equal(found.log_probs_BTV, wanted.log_probs_BTV)
    assert torch.equal(found.attention_BSV, wanted.attention_BSV)


def test_truncating_changes_no_mode() -> None:
    """What is frozen stays in evaluation mode; it was put into training."""
    model = own_model().train()
    model.encoder.layers[0].eval()
    before = [module.training for module in model.modules()]
    cut = model.truncated(2)
    assert [module.training for module in model.modules()] == before
    assert cut.training and not cut.encoder.layers[0].training


@torch.no_grad()
@pytest.mark.parametrize("exit", EXITS)
def test_everybody_takes_the_own_step(exit: int) -> None:
    """As often as there are exits on the way, with the same result."""
    model, batch = own_model(), padded(waves())
    wanted = model(*batch, exits=exit)[-1]
    assert model.steps == exit
    _, output = model.walk(model.start(*batch), exit)
    assert torch.equal(output.log_probs_BTV, wanted.log_probs_BTV)
    assert model.steps == 2 * exit
    heard = runner_of(model).run(*batch, LivePolicy.fixed(exit, EXITS))
    cut = model.truncated(exit)
    cut.steps = 0
    same = runner_of(cut).run(*batch, LivePolicy.fixed(exit, EXITS[:exit]))
    assert [one.tokens for one in heard] == [one.tokens for one in same]
    assert (model.steps, cut.steps) == (3 * exit, exit)
    (taught,) = FrozenTeacher(cut, (), 16000, ".")(*batch)
    assert torch.equal(taught.log_probs_BTV, wanted.log_probs_BTV)
    assert cut.steps == 2 * exit
    hidden = EarlyExitASR(folder_of(model)).encode_batch(*batch, exit=exit)
    assert torch.equal(hidden, 2 * wanted.hidden_BTD)


@torch.no_grad()
def test_graphs_take_the_own_step(tmp_path: Path) -> None:
    """Segments, and the one graph of an exit."""
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    from speechbrain_ee.inference.onnx.export import WholeGraph, export_graphs

    model, batch = own_model(), padded(waves()[:1])
    wanted = model(*batch)
    whole_BTV = WholeGraph(model.truncated(2))(batch[0])
    torch.testing.assert_close(whole_BTV, wanted[1].log_probs_BTV)
    export_graphs(model, tmp_path)
    state = model.start(*batch)
    names = ["hidden", "lengths", "positions"]
    fed = [state.hidden_BTD, state.lengths_B, state.positions]
    given = {name: each.numpy() for name, each in zip(names, fed)}
    for exit, output in enumerate(wanted, start=1):
        path = tmp_path / f"exit_{exit:02}.onnx"
        said = onnxruntime.InferenceSession(path).run(
            ["out", "log_probs"], given
        )
        given["hidden"] = said[0]
        found_BTV = torch.from_numpy(said[1])
        torch.testing.assert_close(
            found_BTV, output.log_probs_BTV, atol=1e-4, rtol=0
        )


@dataclass(frozen=True)
class RememberingState(EncoderState):
    """A state that keeps something for each utterance."""

    said_B: Tensor | None = None

    def select(self, keep_B: Tensor) -> "RememberingState":
        return replace(super().select(keep_B), said_B=self.said_B[keep_B])


def test_a_state_of_another_class_stays_one() -> None:
    """Who leaves takes what was kept for it along."""
    state = RememberingState(
        torch.rand(3, 5, 2),
        torch.tensor([5, 3, 4]),
        torch.arange(3),
        depth=2,
        said_B=torch.tensor([7, 8, 9]),
    )
    left = state.select(torch.tensor([False, True, True]))
    assert isinstance(left, RememberingState)
    assert left.said_B.tolist() == [8, 9]
    assert left.hidden_BTD.shape == (2, 4, 2) and left.depth == 2
