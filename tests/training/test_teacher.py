"""What a teaching exit says reaches the others, and nothing else does.

Protects: gradients that stop at the target, empty and overlong transcripts of
the teacher, divergences that vanish for equals, confidences per utterance.

Authors
 * The speechbrain-ee contributors 2026
"""

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from speechbrain_ee.models.heads import ExitOutput
from speechbrain_ee.training.distillation import (
    Distillation,
    frame_divergences,
    taught_transcripts,
)
from speechbrain_ee.training.losses import (
    ctc_exit_losses,
    ctc_utterance_losses,
    utterance_confidences,
)
from tests.taught import (
    COUNTS,
    TOKENS,
    confidence,
    ctc,
    exits,
    greedy,
    row_of,
    silent,
)


def test_divergence_stops_at_a_target_that_also_learns() -> None:
    """Even where the very same tensor teaches and learns."""
    outputs = exits()
    frame_divergences(outputs[:2], outputs[-1], 2.0).sum().backward()
    assert outputs[-1].log_probs_BTV.grad is None
    assert outputs[0].log_probs_BTV.grad.abs().max() > 0


@pytest.mark.parametrize("kind", ["hard", "self"])
def test_a_silent_teacher_teaches_the_transcript(kind: str) -> None:
    """All blanks: that utterance counts by its own transcript."""
    outputs = exits()
    outputs[-1] = silent(outputs[-1], row=1)
    teacher = outputs if kind == "hard" else None
    distillation = Distillation(kind, alpha=0.0)
    losses = distillation.losses(outputs, TOKENS, COUNTS, teacher)
    taught = [
        [greedy(row_of(outputs[-1], row).log_probs_BTV[0]), [3]][row == 1]
        for row in range(3)
    ]
    for m in range(2):
        rows = [row_of(outputs[m], row).log_probs_BTV[0] for row in range(3)]
        expected = sum(map(ctc, rows, taught)) / 3
        assert losses[m].item() == pytest.approx(expected, rel=1e-5)


def test_silence_everywhere() -> None:
    """Neither transcript has a token: the loss of all blanks, and finite."""
    outputs = exits()
    for row in range(3):
        outputs[-1] = silent(outputs[-1], row)
    nothing = torch.zeros(3, 0, dtype=torch.long), torch.zeros(3).long()
    taught_BS, counts_B = taught_transcripts(outputs[-1], *nothing)
    assert taught_BS.shape == (3, 1) and counts_B.tolist() == [0, 0, 0]
    column = torch.zeros(3, 1, dtype=torch.long), nothing[1]
    losses = Distillation("self").losses(outputs, *column)
    torch.testing.assert_close(losses, ctc_exit_losses(outputs, *column))
    losses.sum().backward()
    assert outputs[0].log_probs_BTV.grad.isfinite().all()


def test_a_transcript_too_long_for_the_frames() -> None:
    """A teacher with more frames: its part is zero, nothing is infinite."""
    outputs = [row_of(output, 1) for output in exits()]
    best = torch.tensor([[1, 2, 3, 4, 5, 1, 2, 3]])
    target = ExitOutput(
        (9.0 * F.one_hot(best, 6)).log_softmax(-1), torch.tensor([8]), layer=2
    )
    losses = Distillation("hard", alpha=0.3).losses(
        outputs, TOKENS[1:2], COUNTS[1:2], [target]
    )
    plain = ctc_exit_losses(outputs, TOKENS[1:2], COUNTS[1:2])
    torch.testing.assert_close(losses, plain * torch.tensor([0.3, 0.3, 1.0]))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 999), st.floats(0.5, 5.0))
def test_divergence_is_zero_for_equals_only(
    seed: int, temperature: float
) -> None:
    """Exactly zero for the same frames, positive for others."""
    exit_, other = exits(2, seed=seed)
    own, others = frame_divergences([exit_, other], exit_, temperature)
    assert own.tolist() == [0, 0, 0]
    assert (others > 0).all()


def test_exit_losses_are_means_of_utterances() -> None:
    """The one is the mean of the other, bit for bit."""
    losses_EB = ctc_utterance_losses(exits(), TOKENS, COUNTS)
    expected = ctc_exit_losses(exits(), TOKENS, COUNTS)
    assert losses_EB.shape == (3, 3)
    assert torch.equal(losses_EB.mean(1), expected)


@pytest.mark.parametrize("sharpness", [0.1, 3.0, 20.0])
def test_confidence(sharpness: float) -> None:
    """Per utterance and exit, at least 0.1 and never a path for gradients."""
    outputs = exits(2, sharpness=sharpness)
    outputs.append(replace(outputs[0], log_probs_BTV=torch.full((3, 9, 6), -9)))
    found = utterance_confidences(outputs)
    for m, row in itertools.product(range(3), range(3)):
        expected = confidence(row_of(outputs[m], row).log_probs_BTV[0])
        assert found[m, row].item() == pytest.approx(expected, rel=1e-5)
    assert found[2].tolist() == pytest.approx([0.1] * 3)
    assert not found.requires_grad
