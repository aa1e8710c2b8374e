"""Criteria: hand-computed values, padding, and the registry.

Authors
 * The speechbrain-ee contributors 2026
"""

import math

import pytest
import torch

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.criteria import (
    criterion,
    criterion_names,
    get_criterion,
    measure_all,
)
from speechbrain_ee.models.heads import ExitOutput

# three frames of three entries; the middle one is a blank (index 0)
PROBS_TV = torch.tensor([[0.2, 0.7, 0.1], [0.9, 0.05, 0.05], [0.1, 0.3, 0.6]])


def output(probs_TV, frames=None):
    log_probs_BTV = probs_TV.log().unsqueeze(0)
    return ExitOutput(
        log_probs_BTV,
        torch.tensor([len(probs_TV) if frames is None else frames]),
        layer=2,
    )


def entropy_by_hand(probs_TV, rows):
    total = 0.0
    for t in rows:
        for p in probs_TV[t].tolist():
            total -= p * math.log(p) if p else 0.0
    return total / (len(rows) * probs_TV.shape[1])


def test_hand_computed():
    values = {k: v.item() for k, v in measure_all(output(PROBS_TV)).items()}
    assert values["entropy"] == pytest.approx(
        entropy_by_hand(PROBS_TV, [0, 1, 2])
    )
    assert values["entropy_nonblank"] == pytest.approx(
        entropy_by_hand(PROBS_TV, [0, 2])
    )
    assert values["max_prob"] == pytest.approx((0.7 + 0.9 + 0.6) / 3)
    assert values["max_prob_nonblank"] == pytest.approx((0.7 + 0.6) / 2)


def test_certain_frames_have_no_entropy():
    values = measure_all(output(torch.eye(3)))
    assert values["entropy"].item() == 0.0
    assert values["entropy_nonblank"].item() == 0.0
    assert values["max_prob_nonblank"].item() == 1.0


@pytest.mark.parametrize("name", criterion_names())
def test_padding_does_not_count(name):
    measure = get_criterion(name).measure
    torch.manual_seed(0)
    lengths = [7, 4, 1]
    rows = [torch.randn(n, 5).softmax(-1) for n in lengths]
    alone = torch.cat([measure(output(row)) for row in rows])
    for filler in (0.0, float("nan"), float("-inf"), 50.0):
        batch_BTV = torch.full((3, 9, 5), filler)
        for place, row in enumerate(rows):
            batch_BTV[place, : len(row)] = row.log()
        together = measure(ExitOutput(batch_BTV, torch.tensor(lengths), 2))
        assert torch.allclose(alone, together, atol=1e-7)


@pytest.mark.parametrize("name", criterion_names())
def test_without_frames_nothing_is_less_ready(name):
    chosen = get_criterion(name)
    empty = chosen.score(chosen.measure(output(PROBS_TV, frames=0)))
    uniform = chosen.score(chosen.measure(output(torch.full((4, 3), 1 / 3))))
    assert torch.isfinite(empty).all()
    assert empty.item() <= uniform.item() + 1e-6


@pytest.mark.parametrize("name", ["entropy_nonblank", "max_prob_nonblank"])
def test_an_exit_that_emits_nothing_is_not_ready(name):
    chosen = get_criterion(name)
    blank_TV = torch.tensor([[0.998, 0.001, 0.001]] * 3)
    blanks = chosen.score(chosen.measure(output(blank_TV)))
    words = chosen.score(chosen.measure(output(PROBS_TV)))
    assert blanks.item() < words.item()


@pytest.mark.parametrize("name", criterion_names())
def test_sharper_is_more_ready(name):
    torch.manual_seed(1)
    logits_TV = torch.randn(6, 4)
    logits_TV[:, 0] -= 2
    chosen = get_criterion(name)
    scores = [
        chosen.score(chosen.measure(output((s * logits_TV).softmax(-1))))
        for s in (0.5, 1.0, 3.0)
    ]
    assert scores[0] < scores[1] < scores[2]


def test_other_blank_index():
    moved = ExitOutput(
        PROBS_TV[:, [1, 2, 0]].log().unsqueeze(0),
        torch.tensor([3]),
        2,
        blank_index=2,
    )
    there, here = measure_all(moved), measure_all(output(PROBS_TV))
    for name in criterion_names():
        assert there[name].item() == pytest.approx(here[name].item())


def test_half_precision_is_measured_in_single():
    half = ExitOutput(
        PROBS_TV.log().unsqueeze(0).bfloat16(), torch.tensor([3]), 2
    )
    assert all(v.dtype == torch.float32 for v in measure_all(half).values())


def test_registry():
    assert {"entropy", "max_prob"} <= set(criterion_names())
    with pytest.raises(InputError, match="'entropi'.*valid.*entropy"):
        get_criterion("entropi")
    with pytest.raises(ValueError, match="twice"):
        criterion("entropy", higher_is_ready=False, source="", formula="")(
            lambda output: output
        )
    for name in criterion_names():
        chosen = get_criterion(name)
        assert chosen.evidence == name
        assert chosen.macs(250, 32) == 8000 * chosen.operations_per_entry
        assert chosen.formula and chosen.source
