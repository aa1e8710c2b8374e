"""The attention heads' loss is cross-entropy over true tokens, and no more.

Protects: label smoothing, the mean over an utterance's own tokens with the
end among them, padding that counts for nothing, and the count of tokens that
were predicted.

Authors
 * The speechbrain-ee contributors 2026
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from speechbrain_ee.models.heads import ExitOutput
from speechbrain_ee.training.losses import (
    after_start,
    attention_exit_losses,
    attention_hits,
)

VOCAB = 8
BOS, EOS = 1, 2
TOKENS = torch.tensor([[5, 6, 3], [4, 0, 0], [7, 7, 0], [0, 0, 0]])
COUNTS = torch.tensor([3, 1, 2, 0])
SAID = torch.arange(4) <= COUNTS[:, None]


def exits(count: int = 3, tokens: int = 4, seed: int = 0) -> list[ExitOutput]:
    """Random predictions for four utterances."""
    generator = torch.Generator().manual_seed(seed)
    return [
        output_of(
            torch.randn(4, tokens, VOCAB, generator=generator).log_softmax(-1)
        )
        for _ in range(count)
    ]


def output_of(attention_BSV: Tensor) -> ExitOutput:
    """An exit whose attention head says this."""
    rows = len(attention_BSV)
    return ExitOutput(
        torch.zeros(rows, 9, VOCAB),
        torch.full((rows,), 9),
        layer=2,
        attention_BSV=attention_BSV,
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_equals_torch_utterance_by_utterance(smoothing: float) -> None:
    """Every transcript alone, its end behind it; then the mean."""
    outputs = exits()
    expected = torch.zeros(3)
    for k, output in enumerate(outputs):
        for row, count in enumerate(COUNTS.tolist()):
            target = torch.tensor([*TOKENS[row, :count], EOS])
            loss = F.cross_entropy(
                output.attention_BSV[row, : count + 1],
                target,
                label_smoothing=smoothing,
            )
            expected[k] += loss / 4
    losses = attention_exit_losses(outputs, TOKENS, COUNTS, EOS, smoothing)
    torch.testing.assert_close(losses, expected)


@pytest.mark.parametrize("pad", [0, EOS, BOS, 6])
def test_padding_is_ignored(pad: int) -> None:
    """Padded tokens and the predictions for them: same loss, no gradient."""
    outputs = exits()
    expected = attention_exit_losses(outputs, TOKENS, COUNTS, EOS, 0.1)
    dirty = []
    for output in outputs:
        longer = F.pad(output.attention_BSV, (0, 0, 0, 2))
        said = F.pad(SAID, (0, 2))[..., None]
        longer = longer.masked_fill(~said, -33.0).requires_grad_()
        dirty.append(output_of(longer))
    tokens = torch.full((4, 5), pad)
    for row, count in enumerate(COUNTS):
        tokens[row, :count] = TOKENS[row, :count]
    losses = attention_exit_losses(dirty, tokens, COUNTS, EOS, 0.1)
    torch.testing.assert_close(losses, expected)
    losses.sum().backward()
    padding = ~F.pad(SAID, (0, 2))
    for output in dirty:
        gradient = output.attention_BSV.grad
        assert gradient[padding].abs().max() == 0
        assert gradient[~padding].abs().amax(-1).min() > 0


def test_infinite_predictions_behind_the_end_are_ignored() -> None:
    """Log-probabilities of -inf for padding make no loss NaN."""
    output = exits(1)[0]
    expected = attention_exit_losses([output], TOKENS, COUNTS, EOS, 0.1)
    log_probs = output.attention_BSV.masked_fill(
        ~SAID[..., None], -float("inf")
    )
    losses = attention_exit_losses(
        [output_of(log_probs)], TOKENS, COUNTS, EOS, 0.1
    )
    torch.testing.assert_close(losses, expected)


def test_certain_and_right_costs_nothing() -> None:
    """And with smoothing, nothing is better than the smoothed target."""
    targets = torch.cat([TOKENS, torch.zeros(4, 1, dtype=torch.long)], 1)
    targets[~SAID] = 3
    targets[torch.arange(4), COUNTS] = EOS
    sure = output_of((50.0 * F.one_hot(targets, VOCAB)).log_softmax(-1))
    assert attention_exit_losses([sure], TOKENS, COUNTS, EOS).item() < 1e-6
    smoothed = 0.9 * F.one_hot(targets, VOCAB) + 0.1 / VOCAB
    best = output_of(smoothed.log())
    losses = attention_exit_losses(
        [best, sure, *exits()], TOKENS, COUNTS, EOS, 0.1
    )
    entropy = -(smoothed * smoothed.log()).sum(-1)[0, 0]
    torch.testing.assert_close(losses[0], entropy)
    assert losses.argmin() == 0


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    rows=st.lists(
        st.lists(st.integers(3, 5), max_size=6), min_size=1, max_size=4
    ),
    extra=st.integers(0, 2),
    seed=st.integers(0, 99),
)
def test_hits_equal_a_naive_loop(
    rows: list[list[int]], extra: int, seed: int
) -> None:
    """Every token and the end, compared one by one."""
    width = max(map(len, rows)) + extra
    tokens = torch.zeros(len(rows), width, dtype=torch.long)
    for padded, row in zip(tokens, rows):
        padded[: len(row)] = torch.tensor(row, dtype=torch.long)
    counts = torch.tensor([len(row) for row in rows])
    generator = torch.Generator().manual_seed(seed)
    said = torch.randint(2, 6, (2, len(rows), width + 1), generator=generator)
    outputs = [output_of(F.one_hot(best, VOCAB).float()) for best in said]
    expected, total = [0, 0], 0
    for n, row in enumerate(rows):
        for place, token in enumerate([*row, EOS]):
            total += 1
            for k in range(2):
                expected[k] += int(said[k, n, place]) == token
    hits_E, number = attention_hits(outputs, tokens, counts, EOS)
    assert (hits_E.tolist(), number) == (expected, total)


def test_after_start() -> None:
    """One token more, nothing lost; the targets stay as they are."""
    before = TOKENS.clone()
    read = after_start(TOKENS, BOS)
    assert read.tolist() == [[BOS, *row] for row in before.tolist()]
    assert torch.equal(TOKENS, before) and read.dtype == TOKENS.dtype
