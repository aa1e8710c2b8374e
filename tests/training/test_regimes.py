"""What a regime freezes does not learn, does not move and does not vary.

Protects: which parts learn in which epoch, on pre-trained models and on the
Conformer; that frozen parts have no gradient, the same bits after a step of an
optimiser that decays weights, and no dropout or moving statistics; a
down-sampler that learns with the heads.

Authors
 * The speechbrain-ee contributors 2026
"""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.training.losses import ctc_exit_losses
from speechbrain_ee.training.regimes import BACKBONE, MAIN, Regime
from tests.helpers import fit_tones, noise, padded, shaken, tiny_model
from tests.models.ssl_models import ssl_model, write_ssl_model
from tests.training.tuned import same, tuned, weights

EXITS = (1, 2, 4)
ALL = {0, 1, 2, 3, 4}
BOTTOM = ("convolutions", "front_end", "input_projection")
TRAIN_ALL = {"freeze_convolutions": False}
# Options, epoch, depths that learn, exits whose heads learn.
CASES = [
    ({}, 1, ALL, {1, 2, 3}),
    (TRAIN_ALL, 1, ALL | {"frames"}, {1, 2, 3}),
    ({"freeze_backbone": True}, 7, set(), {1, 2, 3}),
    ({"heads_first_epochs": 2}, 2, set(), {1, 2, 3}),
    ({"heads_first_epochs": 2}, 3, ALL, {1, 2, 3}),
    ({"unfreeze_per_epoch": 1}, 1, {4}, {1, 2, 3}),
    ({"unfreeze_per_epoch": 1}, 4, {1, 2, 3, 4}, {1, 2, 3}),
    ({"unfreeze_per_epoch": 1} | TRAIN_ALL, 4, {1, 2, 3, 4}, {1, 2, 3}),
    (
        {"unfreeze_per_epoch": 1} | TRAIN_ALL,
        5,
        ALL | {"frames"},
        {1, 2, 3},
    ),
    (
        {"heads_first_epochs": 1, "unfreeze_per_epoch": 3},
        2,
        {2, 3, 4},
        {1, 2, 3},
    ),
    ({"active_exits": 2}, 1, {0, 1, 2}, {1, 2}),
    ({"active_exits": 2, "unfreeze_per_epoch": 1}, 1, {2}, {1, 2}),
    ({"active_exits": 1, "freeze_backbone": True}, 1, set(), {1}),
]
MODELS = ("wav2vec2-base", "hubert-large", "wavlm-base", "conformer")


@pytest.fixture(scope="module", params=MODELS)
def build(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    if request.param == "conformer":
        return lambda **options: shaken(
            tiny_model(exit_layers=EXITS, **options), by=0.1
        )
    folder = tmp_path_factory.mktemp(request.param)
    write_ssl_model(folder, *request.param.split("-"))
    return lambda **options: ssl_model(folder, EXITS, **options)


def is_trained(name: str, depths: set, exits: set) -> bool:
    room, part, *rest = name.split(".")
    if room == "heads":
        return int(rest[0]) + 1 in exits
    if part == "layers":
        return int(rest[0]) + 1 in depths
    return part != "final_norm" and (
        ("frames" if part in BOTTOM else 0) in depths
    )


def step(model: EarlyExitModel, exits: int = len(EXITS)) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), 0.01, weight_decay=1.0)
    outputs = model(*padded([noise(7000, 1), noise(5000, 2)]))[:exits]
    tokens_BS = torch.tensor([[1, 2, 3], [4, 5, 0]])
    ctc_exit_losses(outputs, tokens_BS, torch.tensor([3, 2])).sum().backward()
    optimizer.step()


def learning(model: EarlyExitModel) -> set[str]:
    return {n for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("options, epoch, depths, exits", CASES)
def test_what_learns(
    build: Any, options: dict, epoch: int, depths: set, exits: set
) -> None:
    """A step moves what the regime says, and no bit of anything else."""
    model = build()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    Regime(**options).apply(model, epoch)
    expected = {n for n in before if is_trained(n, depths, exits)}
    assert learning(model) == expected
    check_modes(model, depths, exits)
    step(model, len(exits))
    after = dict(model.named_parameters())
    moved = {n for n in before if not torch.equal(before[n], after[n])}
    assert moved == expected
    assert all(after[n].grad is None for n in before if n not in expected)


def check_modes(model: EarlyExitModel, depths: set, exits: set) -> None:
    for name, module in model.named_modules():
        own = [name for name, _ in module.named_parameters(recurse=False)]
        if own and "final_norm" not in name:
            expected = is_trained(f"{name}.{own[0]}", depths, exits)
            assert module.training == expected, name
    for module in model.encoder.modules():
        assert depths or not module.training
    assert model.training and model.heads.dropout.training
    assert model.encoder.training == bool(depths)


@torch.no_grad()
def states(model: EarlyExitModel) -> list[torch.Tensor]:
    outputs = model(*padded([noise(7000, 1), noise(5000, 2)]))
    return [output.hidden_BTD for output in outputs]


def test_frozen_layers_do_not_vary(tmp_path: Path) -> None:
    """Below what learns, training gives the bits of evaluation."""
    folder = write_ssl_model(tmp_path, hidden_dropout=0.5)
    model = ssl_model(folder, EXITS)
    expected = states(model)
    for frozen, regime in (
        (3, Regime(freeze_backbone=True)),
        (2, Regime(unfreeze_per_epoch=2)),
        (1, Regime(unfreeze_per_epoch=3)),
        (0, Regime()),
    ):
        regime.apply(model, 1)
        same = [torch.equal(*each) for each in zip(states(model), expected)]
        assert same == [k < frozen for k in range(3)]


def test_nothing_is_recorded_below_what_learns(build: Any) -> None:
    """No graph, hence no memory and no backward pass, for frozen parts."""
    model = build()
    batch = padded([noise(7000, 1)])
    Regime(freeze_backbone=True).apply(model, 1)
    assert not any(output.hidden_BTD.requires_grad for output in model(*batch))
    Regime(unfreeze_per_epoch=2).apply(model, 1)
    recorded = [output.hidden_BTD.requires_grad for output in model(*batch)]
    assert recorded == [False, False, True]


class BatchNorm(nn.BatchNorm1d):
    def forward(self, hidden_BTD: torch.Tensor) -> torch.Tensor:
        return super().forward(hidden_BTD.transpose(1, 2)).transpose(1, 2)


@pytest.mark.parametrize(
    "options, moves",
    [(TRAIN_ALL, True), ({}, False), ({"freeze_backbone": True}, False)],
)
def test_moving_statistics_stand_still(options: dict, moves: bool) -> None:
    """A batch norm behind a frozen front-end counts no batch."""
    model = tiny_model(exit_layers=EXITS)
    norm = BatchNorm(16)
    model.encoder.input_projection = nn.Sequential(
        model.encoder.input_projection, norm
    )
    Regime(**options).apply(model, 1)
    states(model)
    assert bool(norm.running_mean.any()) == moves
    assert norm.num_batches_tracked == int(moves)


@pytest.mark.parametrize(
    "options", [case[0] for case in CASES], ids=lambda options: str(options)
)
def test_prepare_opens_what_any_epoch_trains(build: Any, options: dict) -> None:
    """The union over the epochs: what optimisers and DDP must know."""
    model, regime = tiny_model(exit_layers=EXITS), Regime(**options)
    union = set()
    for epoch in range(1, 9):
        regime.apply(model, epoch)
        trained = learning(model)
        assert regime.changes or epoch == 1 or trained == union
        union |= trained
    regime.prepare(model)
    assert learning(model) == union


@pytest.mark.parametrize("tied, learns", [("projection", True), (False, False)])
def test_shared_heads_learn_with_any_exit(tied: Any, learns: bool) -> None:
    """An inactive exit does not freeze what an active one reads by."""
    model = tiny_model(exit_layers=EXITS, tied=tied)
    Regime(active_exits=1).apply(model, 1)
    heads = model.heads
    assert heads.projection(1).weight.requires_grad
    assert heads.projection(3).weight.requires_grad == learns
    assert not heads.norms[2].weight.requires_grad


@pytest.mark.parametrize("kind", ["shared", "separate"])
def test_decoders_of_inactive_exits(kind: str) -> None:
    """Attention decoders are heads, too."""
    model = tiny_model(exit_layers=EXITS, attention=kind)
    Regime(active_exits=2, freeze_backbone=True).apply(model, 1)
    attention = model.attention
    by_exit = [p.requires_grad for p in attention.norms.parameters()]
    assert by_exit == [True] * 4 + [False] * 2
    trained = [
        {p.requires_grad for p in decoder.parameters()}
        for decoder in attention.decoders
    ]
    places = [place.requires_grad for place in attention.places]
    if kind == "shared":
        assert trained == [{True}] and places == [True, True, False]
    else:
        assert trained == [{True}, {True}, {False}]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"freeze_convolutions": "yes"}, "freeze_convolutions: 'yes'"),
        ({"freeze_backbone": 1}, "freeze_backbone: 1 must be True or False"),
        ({"heads_first_epochs": -1}, "heads_first_epochs: -1"),
        ({"unfreeze_per_epoch": 0.5}, "unfreeze_per_epoch: 0.5"),
        ({"unfreeze_per_epoch": True}, "unfreeze_per_epoch: True"),
        ({"layer_decay": 0}, "layer_decay: 0"),
        ({"layer_decay": 1.5}, "layer_decay: 1.5"),
        ({"layer_decay": float("nan")}, "layer_decay: nan"),
        ({"active_exits": 0}, "active_exits: 0"),
        ({"freeze_backbone": True, "heads_first_epochs": 2}, "must be 0"),
        ({"freeze_backbone": True, "layer_decay": 0.9}, "must be 0"),
    ],
)
def test_wrong_values(options: dict, message: str) -> None:
    """Refused when the YAML is read, by the name of the key."""
    with pytest.raises(InputError, match=re.escape(message)):
        Regime(**options)


def test_a_model_that_does_not_fit() -> None:
    """Too few exits, or nothing that makes frames."""
    model = tiny_model(exit_layers=EXITS)
    Regime(active_exits=3).check(model)
    with pytest.raises(InputError, match="active_exits: 4 .* model has 3"):
        Regime(active_exits=4).check(model)
    del model.encoder.front_end, model.encoder.input_projection
    with pytest.raises(InputError, match="freeze_convolutions"):
        Regime().check(model)
    Regime(freeze_convolutions=False).check(model)


@pytest.fixture(scope="module")
def one_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ssl_model(tmp_path_factory.mktemp("wav2vec2"))


@pytest.mark.parametrize(
    "options",
    [{}, {"freeze_backbone": True}, {"heads_first_epochs": 5}],
    ids=str,
)
def test_a_new_down_sampler_learns(
    one_folder: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    """With the heads, at their rate, in front of whatever is frozen."""
    sampler = {"method": "convolution", "factor": 2}
    model = ssl_model(one_folder, downsampling=sampler)
    before = weights(model)
    brain = fit_tones(tuned(tmp_path, model, Regime(**options)))
    new = {n for n in before if n.startswith("encoder.downsampler.")}
    assert new and not new & same(before, weights(model))
    ids = {
        name: {id(p) for g in each.param_groups for p in g["params"]}
        for name, each in brain.optimizers_dict.items()
    }
    sampler_ids = {id(p) for p in model.encoder.downsampler.parameters()}
    assert sampler_ids <= ids[MAIN]
    assert not sampler_ids & ids.get(BACKBONE, set())


def test_frozen_layers_are_never_skipped(one_folder: Path) -> None:
    """Those that learn are, with a probability of one here."""
    model = ssl_model(one_folder, (1, 2, 3, 4), layerdrop_prob=1.0)
    batch = padded([noise(5000, 1)])
    run: list[int] = []
    for number, layer in enumerate(model.encoder.layers, start=1):
        layer.register_forward_hook(lambda *_, n=number: run.append(n))
    for options, epoch, expected in (
        ({"heads_first_epochs": 1}, 1, [1, 2, 3, 4]),
        ({"unfreeze_per_epoch": 1}, 1, [1, 2, 3]),
        ({"unfreeze_per_epoch": 1}, 3, [1]),
        ({}, 1, []),
    ):
        run.clear()
        Regime(**options).apply(model, epoch)
        assert [output.layer for output in model(*batch)] == [1, 2, 3, 4]
        assert run == expected
