"""Combined exits against plain sums; weights as a file and in a YAML.

Axes: B utterances, T frames, V vocabulary entries, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import math
from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.ensemble.ensemble import ExitCombination
from speechbrain_ee.models.heads import ExitOutput

LAYERS = (2, 4, 6)
WEIGHTS = ((1.0,), (0.25, 0.75), (0.5, 0.2, 0.3))
POOLINGS = ("log_linear", "linear")


def outputs_of(seed: int, lengths: tuple[int, ...] = (5, 3), vocab: int = 4):
    """Three exits with random distributions and hidden states."""
    torch.manual_seed(seed)
    shape = (len(lengths), max(lengths), vocab)
    return [
        ExitOutput(
            log_probs_BTV=torch.randn(shape).log_softmax(-1),
            lengths_B=torch.tensor(lengths),
            layer=layer,
            blank_index=1,
            hidden_BTD=torch.randn(*shape[:2], 6),
        )
        for layer in LAYERS
    ]


def pooled_plainly(logs, row, pooling):
    """The pooled distribution of one frame, in plain Python."""
    probs = [[math.exp(log) for log in each] for each in logs]
    if pooling == "linear":
        return [sum(w * p for w, p in zip(row, ps)) for ps in zip(*probs)]
    powers = [math.prod(p**w for w, p in zip(row, ps)) for ps in zip(*probs)]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_frame_by_plain_python(pooling):
    outputs = outputs_of(0)
    combined = ExitCombination(WEIGHTS, pooling).combine(outputs)
    for k, output in enumerate(combined):
        for row in range(2):
            for frame in range(5):
                logs = [
                    each.log_probs_BTV[row, frame].tolist() for each in outputs
                ]
                expected = pooled_plainly(logs, WEIGHTS[k], pooling)
                found = output.log_probs_BTV[row, frame].exp()
                assert found.tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_identity_changes_no_bit(pooling, dtype):
    outputs = outputs_of(1)
    for output in outputs:
        output.log_probs_BTV[1, 3:] = math.nan  # padding
    kind = [
        ExitOutput(o.log_probs_BTV.to(dtype), o.lengths_B, o.layer, 1)
        for o in outputs
    ]
    identity = ExitCombination.identity(3, pooling=pooling)
    for before, after in zip(kind, identity.combine(kind)):
        assert after.log_probs_BTV.dtype == dtype
        view = torch.int32 if dtype is torch.float32 else torch.int16
        assert torch.equal(
            before.log_probs_BTV.view(view), after.log_probs_BTV.view(view)
        )
    assert [identity.macs(exit, 100, 32) for exit in (1, 2, 3)] == [0, 0, 0]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_an_exit_looks_at_no_later_one(pooling):
    combination = ExitCombination(WEIGHTS, pooling)
    outputs, others = outputs_of(2), outputs_of(3)
    whole = combination.combine(outputs)
    mixed = combination.combine([*outputs[:2], others[2]])
    for k in range(3):
        live = combination.combine_at(outputs[: k + 1])
        assert torch.equal(live.log_probs_BTV, whole[k].log_probs_BTV)
        same = torch.equal(mixed[k].log_probs_BTV, whole[k].log_probs_BTV)
        assert same == (k < 2)


def test_all_else_is_carried():
    outputs = outputs_of(4)
    for before, after in zip(
        outputs, ExitCombination(WEIGHTS).combine(outputs)
    ):
        assert after.layer == before.layer
        assert after.blank_index == before.blank_index == 1
        assert torch.equal(after.lengths_B, before.lengths_B)
        assert torch.equal(after.hidden_BTD, before.hidden_BTD)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_batch_and_padding_change_nothing(pooling):
    combination = ExitCombination(WEIGHTS, pooling)
    outputs = outputs_of(5)
    for output in outputs:
        output.log_probs_BTV[1, 3:] = math.nan
    together = combination.combine(outputs)[2].log_probs_BTV[1, :3]
    alone = [
        ExitOutput(o.log_probs_BTV[1:, :3], o.lengths_B[1:], o.layer)
        for o in outputs
    ]
    expected = combination.combine(alone)[2].log_probs_BTV[0]
    assert together.isfinite().all()
    assert torch.allclose(together, expected, atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_probability_zero_gives_no_nan(pooling):
    frames = ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0])
    outputs = [
        ExitOutput(torch.tensor([[p]]).log(), torch.tensor([1]), layer)
        for p, layer in zip(frames, LAYERS)
    ]
    for output in ExitCombination(WEIGHTS, pooling).combine(outputs):
        probs = output.log_probs_BTV.exp()
        assert probs.sum().item() == pytest.approx(1, abs=1e-5)


def test_weight_zero_is_not_looked_at():
    outputs = outputs_of(6)
    outputs[1].log_probs_BTV[:] = math.nan
    rows = [[1], [1, 0], [0.5, 0, 0.5]]
    combination = ExitCombination(rows)
    combined = combination.combine(outputs)
    assert torch.equal(combined[1].log_probs_BTV, outputs[0].log_probs_BTV)
    assert combined[1].layer == 4
    assert combined[2].log_probs_BTV.isfinite().all()
    assert combination.used(3) == (1, 3)
    assert [combination.macs(k, 10, 4) for k in (1, 2, 3)] == [0, 0, 80]


@pytest.mark.parametrize(
    "weights, message",
    [
        ([], "list of rows"),
        ("1", "list of rows"),
        ([[1], [0.5, 0.4]], "row 2.*sum to 1.*0.9"),
        ([[1], [1.5, -0.5]], "row 2.*negative"),
        ([[1], [1]], "row 2.*give 2 numbers"),
        ([[0.5, 0.5], [0, 1]], "row 1.*none after"),
        ([[math.nan]], "row 1.*numbers"),
        ([["1"]], "row 1.*numbers"),
        ([[True]], "row 1.*numbers"),
        ([1], "row 1.*numbers"),
    ],
)
def test_wrong_weights(weights, message):
    with pytest.raises(InputError, match=message):
        ExitCombination(weights)


def test_wrong_options_and_outputs():
    with pytest.raises(InputError, match="'mean'.*log_linear, linear"):
        ExitCombination([[1]], pooling="mean")
    with pytest.raises(InputError, match="3 exits.*2 rows"):
        ExitCombination(WEIGHTS[:2], exit_layers=LAYERS)
    with pytest.raises(InputError, match="increasing"):
        ExitCombination(WEIGHTS[:2], exit_layers=[4, 2])
    outputs = outputs_of(7)
    with pytest.raises(InputError, match="3 exits.*weights for 2"):
        ExitCombination(WEIGHTS[:2]).combine(outputs)
    with pytest.raises(InputError, match=r"\[1, 2\].*\[2, 4\]"):
        ExitCombination(WEIGHTS, exit_layers=[1, 2, 3]).combine_at(outputs[:2])
    shorter = outputs_of(7, lengths=(5,))
    with pytest.raises(InputError, match="different shapes"):
        ExitCombination(WEIGHTS).combine_at([shorter[0], outputs[1]])


def test_full_rows_are_the_same_as_their_triangle():
    full = [[1, 0, 0], [0.25, 0.75, 0], [0.5, 0.2, 0.3]]
    assert ExitCombination(full) == ExitCombination(WEIGHTS)


def test_file_gives_the_same_weights_and_the_same_bytes(tmp_path: Path):
    thirds = ExitCombination.uniform(3, pooling="linear", exit_layers=LAYERS)
    for name in ("one.json", "two.json"):
        thirds.save(tmp_path / name)
    assert ExitCombination.load(tmp_path / "one.json") == thirds
    one, two = ((tmp_path / f"{n}.json").read_bytes() for n in ("one", "two"))
    assert one == two
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "one.json",
        "two.json",
    ]


def test_yaml_takes_plain_lists():
    text = (
        "combination: !new:speechbrain_ee.exits.ensemble.ensemble.ExitCombination\n"
        "  weights: [[1], [0.25, 0.75], [0.5, 0.2, 0.3]]\n"
    )
    assert load_hyperpyyaml(text)["combination"] == ExitCombination(WEIGHTS)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"schema": "exit-combination/2"}, "schema.*exit-combination/2"),
        ({"weights": [[0.5]]}, "row 1.*sum to 1"),
        ({"weights": None}, "list of rows"),
        ({"pooling": "log"}, "pooling: 'log'"),
        ({"pooling": ["linear"]}, "pooling"),
        ({"exit_layers": "24"}, "exit_layers"),
        ({"weight": [[1]]}, "unknown or missing: weight"),
    ],
)
def test_malformed_file_is_named(tmp_path: Path, changes, message):
    path = tmp_path / "weights.json"
    ExitCombination([[1]]).save(path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changes}))
    with pytest.raises(InputError, match=message) as caught:
        ExitCombination.load(path)
    assert str(caught.value).startswith(str(path))


def test_file_that_is_none(tmp_path: Path):
    path = tmp_path / "weights.json"
    for content, message in ((None, "read"), ("[", "JSON"), ("[1]", "schema")):
        if content is not None:
            path.write_text(content)
        with pytest.raises(InputError, match=message):
            ExitCombination.load(path)
