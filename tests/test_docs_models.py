"""The worked examples of an encoder and a head do what the pages claim.

Axes: B utterances of a batch, T frames.

Authors
 * The speechbrain-ee contributors 2026
"""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from speechbrain_ee.evaluation.cost import CostModel
from speechbrain_ee.models.model import EarlyExitModel
from tests.helpers import (
    VOCAB,
    noise,
    padded,
    shaken,
    tiny_brain,
    tiny_model,
    tone_dataset,
    valid,
)

EXAMPLES = Path(__file__).resolve().parent.parent / "docs" / "examples"
EXITS = (1, 2, 3, 4)


def example(name: str) -> ModuleType:
    """An example file as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def new_model(encoder: bool, head: bool) -> EarlyExitModel:
    """A tiny model with the example's encoder, its heads, or both."""
    model = tiny_model(exit_layers=EXITS, seed=1)
    parts = model.encoder
    if encoder:
        stack = {"d_model": 16, "kernel_size": 5, "num_layers": 4}
        stack["input_size"] = parts.input_projection.layers[0].w.in_features
        parts = example("new_encoder").ConvolutionEncoder(
            parts.features, parts.front_end, stack, exit_layers=EXITS
        )
    heads = model.heads
    if head:
        heads = example("new_head").ConvolutionHeads(EXITS, 16, VOCAB)
    return shaken(EarlyExitModel(parts, heads)).eval()


NEW = pytest.mark.parametrize(
    "encoder, head", [(True, False), (False, True), (True, True)]
)


@NEW
@torch.no_grad()
def test_new_parts_keep_the_contract(encoder, head):
    """Forward is the walk; who leaves changes nothing for who stays."""
    model = new_model(encoder, head)
    wavs = [noise(9000, 1), noise(5500, 2), noise(7000, 3)]
    outputs = model(*padded(wavs, extra=900))
    state = model.start(*padded(wavs))
    for exit, together in enumerate(outputs, start=1):
        state, output = model.step(state)
        for row, original in enumerate(state.rows_B.tolist()):
            torch.testing.assert_close(
                valid(output, row), valid(together, original), atol=1e-5, rtol=0
            )
            # alone, and with noise in the padding of a batch
            alone = model(*padded([wavs[original]]))[exit - 1]
            torch.testing.assert_close(
                valid(alone), valid(together, original), atol=1e-5, rtol=0
            )
        if exit < len(outputs) and len(state.rows_B) > 1:
            state = state.select(torch.arange(len(state.rows_B)) != 0)
    (cut,) = model.truncated(2)(*padded(wavs, extra=900))[1:]
    assert torch.equal(cut.log_probs_BTV, outputs[1].log_probs_BTV)


@NEW
def test_new_parts_learn_and_are_measured(encoder, head, tmp_path):
    """The Brain of the recipe trains every parameter and evaluates."""
    model = new_model(encoder, head).train()
    before = {k: v.clone() for k, v in model.named_parameters()}
    brain = tiny_brain(tmp_path, model)
    brain.fit(
        brain.hparams.epoch_counter,
        tone_dataset(4),
        tone_dataset(2),
        {"batch_size": 2},
        {"batch_size": 2},
    )
    same = [k for k, v in model.named_parameters() if torch.equal(v, before[k])]
    assert not same
    trace = brain.evaluate_exits("test", tone_dataset(2), {"batch_size": 2})
    costs = CostModel(model).macs(16000)
    assert trace.evidence.shape == (2, len(EXITS))
    assert len(costs) == len(EXITS) and sorted(costs) == list(costs)


def test_the_cost_of_a_new_head_is_counted():
    plain = CostModel(new_model(False, False)).head(1, frames=10)
    new = CostModel(new_model(False, True)).head(1, frames=10)
    assert new - plain == 10 * (16 * 5 + 16 * 16)


def test_examples_are_short():
    for path in EXAMPLES.glob("*.py"):
        assert path.read_text("utf-8").count("\n") < 60, path.name
