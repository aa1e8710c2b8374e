"""The worked examples of extending.md do what the page claims.

Axes: B utterances of a batch, T frames.

Authors
 * The speechbrain-ee contributors 2026
"""

import importlib.util
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from speechbrain_ee.evaluation.cost import CostModel
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.policy import ThresholdPolicy
from speechbrain_ee.inference.live import LivePolicy
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.training.options import load_options
from tests.helpers import (
    VOCAB,
    ToneTokenizer,
    noise,
    padded,
    shaken,
    tiny_brain,
    tiny_model,
    tone_dataset,
    valid,
)
from tests.inference.live_runs import (
    LayerCounter,
    runner_of,
    thresholds_between,
    trace_of,
    waves,
)

EXAMPLES = Path(__file__).resolve().parent.parent / "docs" / "examples"
EXITS = (1, 2, 3, 4)


def example(name: str) -> ModuleType:
    """An example file as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def new_model(new: str) -> EarlyExitModel:
    """A tiny model with the examples that are named."""
    model = tiny_model(exit_layers=EXITS, seed=1)
    parts = model.encoder
    if "encoder" in new:
        stack = {"d_model": 16, "kernel_size": 5, "num_layers": 4}
        stack["input_size"] = parts.input_projection.layers[0].w.in_features
        parts = example("new_encoder").ConvolutionEncoder(
            parts.features, parts.front_end, stack, exit_layers=EXITS
        )
    heads = model.heads
    kind = EarlyExitModel
    if "head" in new:
        heads = example("new_head").ConvolutionHeads(EXITS, 16, VOCAB)
    if "model" in new:
        examples = example("new_model")
        heads = examples.ConditioningHeads(EXITS, 16, VOCAB)
        kind = examples.ConditionedModel
    return shaken(kind(parts, heads)).eval()


NEW = pytest.mark.parametrize(
    "new", ["encoder", "head", "encoder, head", "model", "encoder, model"]
)


@NEW
@torch.no_grad()
def test_new_parts_keep_the_contract(new):
    """Forward is the walk; who leaves changes nothing for who stays."""
    model = new_model(new)
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
    for exit, output in enumerate(outputs, start=1):
        cut = model.truncated(exit)
        assert (type(cut), type(cut.heads)) == (type(model), type(model.heads))
        last = cut(*padded(wavs, extra=900))[-1]
        assert torch.equal(last.log_probs_BTV, output.log_probs_BTV)


@NEW
def test_new_parts_live_as_in_their_trace(new):
    """Decisions, texts and costs."""
    model = new_model(new)
    trace = trace_of(model, waves())
    scores_NE = get_criterion("entropy").scores(trace.evidence)
    # Half of the utterances are ready at each exit.
    rule = ThresholdPolicy("entropy", tuple(np.median(scores_NE, axis=0)))
    columns = rule.choose(scores_NE)
    assert len({*columns}) > 2
    policy = LivePolicy.of(rule, EXITS)
    heard = runner_of(model).run(*padded(waves()), policy)
    for one, record, column in zip(heard, trace.records, columns):
        said = record.exits[column]
        assert (one.exit, one.text) == (column + 1, said.hyp)
        assert one.macs == pytest.approx(said.macs, rel=5e-3)


@NEW
@pytest.mark.parametrize("exit", EXITS)
def test_new_parts_at_one_exit_are_the_truncated_model(new, exit):
    """Tokens, words, costs; heads below run only for a step of one's own."""
    model = new_model(new)
    counter = LayerCounter(model)
    fixed = LivePolicy.fixed(exit, EXITS)
    heard = runner_of(model).run(*padded(waves()), fixed)
    below = len(waves()) if "model" in new else 0
    assert counter.heads[: exit - 1] == [below] * (exit - 1)
    assert not any(counter.layers[exit:] + counter.heads[exit:])
    fixed = LivePolicy.fixed(exit, EXITS[:exit])
    cut = runner_of(model.truncated(exit)).run(*padded(waves()), fixed)
    for one, other in zip(heard, cut, strict=True):
        assert replace(one, score=0.0) == replace(other, score=0.0)


@NEW
def test_new_parts_learn_and_are_measured(new, tmp_path):
    """The Brain of the recipe trains every parameter and evaluates."""
    model = new_model(new).train()
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
    plain, convolution, conditioning = (
        CostModel(new_model(new)).head(1, frames=10)
        for new in ("", "head", "model")
    )
    assert convolution - plain == 10 * (16 * 5 + 16 * 16)
    assert conditioning - plain == 10 * 16 * VOCAB


def test_a_yaml_names_the_new_model(repository, tmp_path, monkeypatch):
    """In place of the library's classes, with the same arguments."""
    monkeypatch.syspath_prepend(EXAMPLES)
    text = (repository / "hparams/digits.yaml").read_text("utf-8")
    for old, new in (
        ("speechbrain_ee.models.heads.CTCHeads", "ConditioningHeads"),
        ("speechbrain_ee.models.model.EarlyExitModel", "ConditionedModel"),
    ):
        assert text.count(f"!new:{old}\n") == 1
        text = text.replace(f"!new:{old}\n", f"!new:new_model.{new}\n")
    path = tmp_path / "mine.yaml"
    path.write_text(text, "utf-8")
    given = f"data_folder: none\noutput_folder: {tmp_path}\n"
    model = load_options(str(path), given)["model"]
    named = [type(model).__name__, type(model.heads).__name__]
    assert named == ["ConditionedModel", "ConditioningHeads"]


@pytest.fixture
def own_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The demo's YAML with what the page says of a loss and a key."""
    monkeypatch.syspath_prepend(EXAMPLES)
    page = (EXAMPLES.parent / "extending.md").read_text("utf-8")
    (own,) = re.findall(r"```yaml\n(penalty_epochs.*?)```", page, re.S)
    text = (EXAMPLES.parent.parent / "hparams/demo.yaml").read_text("utf-8")
    text = re.sub(r"(?m)^(losses|brain_class):.*\n", "", text)
    path = tmp_path / "own.yaml"
    path.write_text(text + own, "utf-8")
    yield path
    sys.modules.pop("new_loss", None)


def test_a_loss_and_a_key_of_ones_own(own_yaml, tmp_path):
    """They train, are logged and resumed; live runs are as traced."""

    def trained(epochs: int):
        hparams = load_options(
            str(own_yaml),
            f"data_folder: x\noutput_folder: {tmp_path}/run\n"
            f"d_model: 16\nnhead: 2\nd_ffn: 32\noutput_neurons: {VOCAB}\n"
            f"number_of_epochs: {epochs}\nseed: {epochs}\n",
        )
        seen = []

        brain = hparams["brain_class"](
            modules=hparams["modules"],
            opt_class=hparams["opt_class"],
            hparams={**hparams, "noprogressbar": True},
            run_opts={"device": "cpu"},
            checkpointer=hparams["checkpointer"],
            tokenizer=ToneTokenizer(),
        )
        as_ever = brain.sharder.over_processes

        def noted(loss, losses, rows):
            epoch = brain.hparams.epoch_counter.current
            seen.append((epoch, loss.item(), losses))
            return as_ever(loss, losses, rows)

        brain.sharder.over_processes = noted
        data = tone_dataset(4)
        brain.fit(
            hparams["epoch_counter"],
            data,
            data,
            train_loader_kwargs={"batch_size": 2},
            valid_loader_kwargs={"batch_size": 2},
        )
        return brain, seen, data

    first = trained(1)[1]
    brain, second, data = trained(2)  # goes on where it stopped
    assert [epoch for epoch, *_ in first + second] == [1, 1, 2, 2]
    plain = brain.loss_terms["penalty"]
    assert brain.loss_weights == {"CTC": [1.0] * 6, "penalty": [0.1] * 6}
    for epoch, loss, losses in first + second:
        assert losses.keys() == {"CTC", "penalty"}
        assert -epoch / 3 * torch.tensor(VOCAB).log() <= losses["penalty"].min()
        expected = losses["CTC"].sum() + 0.1 * losses["penalty"].sum()
        assert loss == pytest.approx(expected.item(), rel=1e-5)
    log = (tmp_path / "run" / "train_log.txt").read_text("utf-8")
    assert log.count("valid penalty loss L6: ") == 2
    # padding counts for nothing
    model = brain.modules.model.eval()
    wavs = [noise(9000, 1), noise(5500, 2), noise(7000, 3)]
    with torch.no_grad():
        alone = [plain.losses(model(*padded([w])), None, brain) for w in wavs]
        together = plain.losses(model(*padded(wavs, extra=900)), None, brain)
    torch.testing.assert_close(torch.stack(alone).mean(0), together)
    # live == trace
    trace = brain.evaluate_exits("test", data, {"batch_size": 2})
    model.eval()
    wavs = [row["sig"] for row in data.data.values()]
    scores_NE = get_criterion("entropy").scores(trace.evidence)
    chosen = set()
    for threshold in thresholds_between(scores_NE):
        rule = ThresholdPolicy("entropy", threshold)
        policy = LivePolicy.of(rule, model.exit_layers)
        heard = runner_of(model).run(*padded(wavs), policy)
        expected = policy.rule.choose(scores_NE)
        assert [one.exit - 1 for one in heard] == expected.tolist()
        chosen |= {*expected.tolist()}
    assert len(chosen) > 1


def test_examples_are_short():
    for path in EXAMPLES.glob("*.py"):
        assert path.read_text("utf-8").count("\n") < 60, path.name
