"""The loss of every exit is its CTC loss over true lengths, and no more.

Protects: the stacked call against a plain loop, padding of targets and of
frames, utterances too short for their transcript, and the joint weighting.

Authors
 * The speechbrain-ee contributors 2026
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.decoding import greedy_tokens
from speechbrain_ee.models.heads import ExitOutput
from speechbrain_ee.training.losses import (
    ctc_exit_losses,
    exit_weights,
    joint_loss,
)

FRAMES = torch.tensor([9, 5, 7])
TOKENS = torch.tensor([[1, 2, 2], [3, 0, 0], [4, 1, 0]])
COUNTS = torch.tensor([3, 1, 2])


def exits(count: int = 3, seed: int = 0, blank: int = 0) -> list[ExitOutput]:
    """Random outputs of three utterances."""
    generator = torch.Generator().manual_seed(seed)
    return [
        ExitOutput(
            torch.randn(3, 9, 6, generator=generator).log_softmax(-1),
            FRAMES,
            layer=2 * k + 2,
            blank_index=blank,
        )
        for k in range(count)
    ]


@pytest.mark.parametrize("blank", [0, 5])
def test_equals_a_loop(blank: int) -> None:
    """One call per exit and utterance, each cut to its true lengths."""
    outputs = exits(blank=blank)
    tokens = TOKENS if blank == 0 else TOKENS.clamp(max=4)
    expected = torch.zeros(3)
    for k, output in enumerate(outputs):
        for row in range(3):
            loss = F.ctc_loss(
                output.log_probs_BTV[row, : FRAMES[row], None],
                tokens[row, : COUNTS[row]][None],
                FRAMES[row][None],
                COUNTS[row][None],
                blank=blank,
                reduction="sum",
            )
            expected[k] += loss / COUNTS[row] / 3
    torch.testing.assert_close(
        ctc_exit_losses(outputs, tokens, COUNTS), expected
    )


def test_one_exit_is_the_mean_of_torch() -> None:
    """With one exit: torch's own ``reduction="mean"``."""
    output = exits(1)[0]
    expected = F.ctc_loss(
        output.log_probs_BTV.transpose(0, 1), TOKENS, FRAMES, COUNTS
    )
    torch.testing.assert_close(
        ctc_exit_losses([output], TOKENS, COUNTS), expected[None]
    )


def test_padding_is_ignored() -> None:
    """Neither padded frames nor padded targets change loss or gradient."""
    outputs = exits()
    expected = ctc_exit_losses(outputs, TOKENS, COUNTS)
    padding = torch.arange(9) >= FRAMES[:, None]
    dirty = [
        ExitOutput(
            output.log_probs_BTV.masked_fill(padding[..., None], -77.0)
            .clone()
            .requires_grad_(),
            FRAMES,
            output.layer,
        )
        for output in outputs
    ]
    tokens = torch.cat([TOKENS, torch.full((3, 2), 3)], dim=1)
    tokens[1, 1:], tokens[2, 2:] = 5, 2
    losses = ctc_exit_losses(dirty, tokens, COUNTS)
    torch.testing.assert_close(losses, expected)
    losses.sum().backward()
    for output in dirty:
        gradient = output.log_probs_BTV.grad
        assert gradient[padding].abs().max() == 0
        assert gradient[~padding].abs().max() > 0


def test_too_short_utterance_counts_as_zero() -> None:
    """Three tokens in two frames: no infinity, no gradient, others count."""
    output = exits(1)[0]
    frames = torch.tensor([2, 5, 7])
    log_probs = output.log_probs_BTV.clone().requires_grad_()
    losses = ctc_exit_losses([ExitOutput(log_probs, frames, 2)], TOKENS, COUNTS)
    rest = ctc_exit_losses(
        [ExitOutput(output.log_probs_BTV[1:], frames[1:], 2)],
        TOKENS[1:],
        COUNTS[1:],
    )
    torch.testing.assert_close(losses, rest * 2 / 3)
    losses.sum().backward()
    assert torch.isfinite(log_probs.grad).all()
    assert log_probs.grad[0].abs().max() == 0


def test_empty_transcript_is_finite() -> None:
    """No token: the loss of all blanks, not a division by zero."""
    output = exits(1)[0]
    losses = ctc_exit_losses(
        [output], torch.zeros(3, 1, dtype=torch.long), torch.zeros(3).long()
    )
    blanks = [
        -output.log_probs_BTV[row, : FRAMES[row], 0].sum() for row in range(3)
    ]
    torch.testing.assert_close(losses, torch.stack(blanks).mean()[None])


def test_exits_do_not_mix() -> None:
    """Changing one exit changes that exit's loss alone."""
    outputs = exits()
    before = ctc_exit_losses(outputs, TOKENS, COUNTS)
    outputs[1] = exits(1, seed=9)[0]
    after = ctc_exit_losses(outputs, TOKENS, COUNTS)
    assert (before != after).tolist() == [False, True, False]


@pytest.mark.parametrize(
    "weights", [[1.0], [1, 1, 1], [1, -1], [0, 0], []], ids=str
)
def test_wrong_weights(weights: list[float]) -> None:
    """The error names the key and what it needs."""
    with pytest.raises(InputError, match="exit_weights: .* hold 2"):
        exit_weights(weights, 2)


def test_joint_loss() -> None:
    """The weighted sum, with the weights' gradients."""
    assert exit_weights(None, 2) == (1.0, 1.0)
    losses = torch.tensor([3.0, 5.0], requires_grad=True)
    total = joint_loss(losses, exit_weights([0, 2], 2))
    total.backward()
    assert total.item() == 10.0
    assert losses.grad.tolist() == [0.0, 2.0]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    rows=st.lists(
        st.lists(st.integers(0, 3), min_size=1, max_size=12),
        min_size=1,
        max_size=4,
    ),
    padding=st.integers(0, 3),
    blank=st.integers(0, 3),
)
def test_greedy_tokens_equal_a_naive_loop(
    rows: list[list[int]], padding: int, blank: int
) -> None:
    """Merge repetitions, then drop blanks, within the true length."""
    expected = []
    for row in rows:
        merged = [
            token
            for n, token in enumerate(row)
            if n == 0 or token != row[n - 1]
        ]
        expected.append([token for token in merged if token != blank])
    lengths = [len(row) for row in rows]
    best = torch.full((len(rows), max(lengths) + 2), padding)
    for frames, row in zip(best, rows):
        frames[: len(row)] = torch.tensor(row)
    scores = F.one_hot(best, 4).float()
    output = ExitOutput(scores, torch.tensor(lengths), 2, blank_index=blank)
    assert greedy_tokens(output) == expected
