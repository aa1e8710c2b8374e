"""Exits above the active ones cost nothing, and are not spoken of.

Protects: no layer and no head above the last active exit is run in training,
validation, test or by a model that teaches itself; losses, logs, checkpoints
and traces hold the active exits alone.

Authors
 * The speechbrain-ee contributors 2026
"""

from functools import partial
from pathlib import Path

import pytest
import speechbrain as sb
import torch
from speechbrain.dataio.batch import PaddedBatch

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.training.distillation import Distillation
from speechbrain_ee.training.regimes import Regime
from tests.helpers import (
    fit_tones,
    noise,
    padded,
    shaken,
    tiny_brain,
    tiny_model,
    tone_dataset,
)

EXITS = (1, 2, 4)
fit = partial(fit_tones, utterances=4, first=3, batch_size=2)
FIRST_TWO = Regime(active_exits=2)


def model_of(attention: str | None = None) -> EarlyExitModel:
    return shaken(tiny_model(exit_layers=EXITS, attention=attention), by=0.1)


def counted(model: EarlyExitModel) -> set[str]:
    run: set[str] = set()
    parts = {f"layer {n}": m for n, m in enumerate(model.encoder.layers, 1)}
    parts |= {f"head {n}": m for n, m in enumerate(model.heads.projections, 1)}
    if model.attention is not None:
        decoders = enumerate(model.attention.decoders, 1)
        parts |= {f"decoder {n}": m for n, m in decoders}
    for name, module in parts.items():
        module.register_forward_hook(lambda *_, name=name: run.add(name))
    return run


def test_the_first_exits_are_those_of_all() -> None:
    """The same bits, as far as asked for; encoder and model alike."""
    model = model_of("shared")
    batch = padded([noise(7000, 1), noise(5000, 2)])
    tokens_BS = torch.tensor([[1, 3, 4], [1, 5, 0]])
    every = model(*batch, tokens_BS)
    states = model.encoder(*batch)
    for exits in (1, 2, 3):
        outputs = model(*batch, tokens_BS, exits=exits)
        assert [out.layer for out in outputs] == list(EXITS[:exits])
        for one, other in zip(outputs, every):
            assert torch.equal(one.log_probs_BTV, other.log_probs_BTV)
            assert torch.equal(one.attention_BSV, other.attention_BSV)
        for one, other in zip(model.encoder(*batch, exits), states):
            assert torch.equal(one.hidden_BTD, other.hidden_BTD)
        assert len(model.encoder(*batch, exits)) == exits


@pytest.mark.parametrize(
    "attention, kind",
    [(None, "none"), (None, "soft"), (None, "self"), ("separate", "none")],
)
def test_nothing_above_is_run(
    attention: str | None, kind: str, tmp_path: Path
) -> None:
    """Layers, heads, decoders, over an epoch with its validation."""
    model = model_of(attention)
    run = counted(model)
    brain = tiny_brain(
        tmp_path, model, regime=FIRST_TWO, distillation=Distillation(kind)
    )
    fit(brain)
    expected = {"layer 1", "layer 2", "head 1", "head 2"}
    if attention is not None:
        expected |= {"decoder 1", "decoder 2"}
    assert run == expected
    log = (tmp_path / "train_log.txt").read_text()
    assert "valid WER L2: " in log and "train CTC loss L2: " in log
    assert "L4" not in log
    assert brain.error_rates.exit_layers == (1, 2)


def test_it_trains_as_the_truncated_model_does(tmp_path: Path) -> None:
    """Weights and losses to the last bit; the rest has not moved."""
    whole, small = model_of(), model_of().truncated(2)
    weights = {"exit_weights": [0.3, 1.0]}
    before = {n: p.clone() for n, p in whole.state_dict().items()}
    keep_all = Regime(freeze_convolutions=False, active_exits=2)
    one = fit(
        tiny_brain(
            tmp_path / "whole",
            whole,
            regime=keep_all,
            exit_weights=[0.3, 1.0, 0.7],
        )
    )
    other = fit(
        tiny_brain(
            tmp_path / "small",
            small,
            regime=Regime(freeze_convolutions=False),
            **weights,
        )
    )
    trained = small.state_dict()
    for name, value in whole.state_dict().items():
        assert torch.equal(value, trained.get(name, before[name])), name
    assert one.train_stats == other.train_stats
    assert one.loss_weights == {"CTC": [0.3, 1.0]}


@pytest.mark.parametrize(
    "options, exits", [({}, [1, 2]), ({"decoded_exits": [1, 3]}, [1, 3])]
)
def test_evaluation(options: dict, exits: list[int], tmp_path: Path) -> None:
    """The active exits, or those of ``decoded_exits``; nothing above."""
    model = model_of()
    options = {"average_checkpoints": 0, **options}
    brain = tiny_brain(tmp_path, model, regime=FIRST_TWO, **options)
    run = counted(model)
    trace = brain.evaluate_exits("tones", tone_dataset(3), {"batch_size": 3})
    layers = tuple(EXITS[k - 1] for k in exits)
    assert trace.header.exit_layers == layers
    assert len(trace.header.macs) == len(trace.header.parameters) == 2
    assert {len(record.exits) for record in trace.records} == {2}
    layers_run = {name for name in run if name.startswith("layer")}
    assert layers_run == {f"layer {n}" for n in range(1, layers[-1] + 1)}


def test_the_last_active_exit_teaches(tmp_path: Path) -> None:
    """Above it nothing is learned, so that nothing can be taught."""
    model = model_of()
    distillation = Distillation("soft", alpha=[0.4, 1.0])
    brain = tiny_brain(
        tmp_path, model, regime=FIRST_TWO, distillation=distillation
    )
    batch = PaddedBatch(list(tone_dataset(2)))
    FIRST_TWO.apply(model, 1)
    modes = [module.training for module in model.modules()]
    brain.compute_forward(batch, sb.Stage.TRAIN)
    assert [output.layer for output in brain.taught] == [1, 2]
    assert modes == [module.training for module in model.modules()]


def test_resumed_with_other_active_exits(tmp_path: Path) -> None:
    """Its losses are of other exits, and its optimiser of other weights."""
    fit(tiny_brain(tmp_path, model_of(), regime=FIRST_TWO))
    other = tiny_brain(
        tmp_path, model_of(), regime=Regime(active_exits=1), epochs=2
    )
    with pytest.raises(InputError, match="regime|active_exits"):
        fit(other)
