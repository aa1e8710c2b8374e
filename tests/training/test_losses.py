"""The loss of every exit is that of plain libraries over true lengths.

Protects: equality with torch, one utterance at a time; padding that counts
for nothing; weights that act linearly and only on their exit; an utterance
that counts the same in any company, in any order.

Axes: B utterances, E exits, T frames, S tokens, V vocabulary entries.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.heads import ExitOutput
from speechbrain_ee.training.distillation import Distillation
from speechbrain_ee.training.losses import (
    attention_exit_losses,
    ctc_exit_losses,
    ctc_utterance_losses,
    exit_weights,
    joint_loss,
)


@pytest.mark.parametrize(
    "weights", [[1.0], [1, 1, 1], [1, -1], [0, 0], []], ids=str
)
def test_wrong_weights(weights: list[float]) -> None:
    """The error names the key and what it needs."""
    with pytest.raises(InputError, match="exit_weights: .* hold 2"):
        exit_weights(weights, 2)


VOCAB, EOS = 6, 2
FEW = settings(max_examples=30, deadline=None, derandomize=True)
KINDS = ("none", "hard", "self", "soft")


class Batch:
    def __init__(self, frames: list[int], counts: list[int], seed: int):
        random = torch.Generator().manual_seed(seed)
        rows, length, width = len(frames), max(frames), max(*counts, 1)
        self.frames_B, self.counts_B = torch.tensor([frames, counts])
        self.tokens_BS = torch.randint(
            1, VOCAB, (rows, width), generator=random
        )
        log_probs, attention = (
            (2 * torch.randn(4, rows, n, VOCAB, generator=random)).log_softmax(
                -1
            )
            for n in (length, width + 1)
        )
        self.outputs = [
            ExitOutput(
                log_probs[k].requires_grad_(),
                self.frames_B,
                layer=2 * k + 2,
                attention_BSV=attention[k].requires_grad_(),
            )
            for k in range(3)
        ]
        self.teacher = [
            replace(self.outputs[0], log_probs_BTV=log_probs[3].detach())
        ]

    @property
    def targets(self) -> tuple[Tensor, Tensor]:
        return self.tokens_BS, self.counts_B

    def rows(self, places: list[int]) -> "Batch":
        part = object.__new__(Batch)
        part.frames_B = self.frames_B[places]
        part.counts_B = self.counts_B[places]
        width = max(int(part.counts_B.max()), 1)
        part.tokens_BS = self.tokens_BS[places, :width]
        length = int(part.frames_B.max())
        part.outputs, part.teacher = (
            [
                replace(
                    output,
                    log_probs_BTV=output.log_probs_BTV[places, :length],
                    lengths_B=part.frames_B,
                    attention_BSV=output.attention_BSV[places, : width + 1],
                )
                for output in outputs
            ]
            for outputs in (self.outputs, self.teacher)
        )
        return part


@st.composite
def batches(draw) -> Batch:
    sizes = st.tuples(st.integers(1, 9), st.integers(0, 4))
    drawn = draw(st.lists(sizes, min_size=1, max_size=4))
    frames, counts = zip(*drawn)
    return Batch(list(frames), list(counts), draw(st.integers(0, 10**6)))


def losses_of(kind: str, batch: Batch) -> Tensor:
    if kind == "attention":
        return attention_exit_losses(
            batch.outputs, *batch.targets, EOS, label_smoothing=0.1
        )
    if kind == "ctc":
        return ctc_exit_losses(batch.outputs, *batch.targets)
    kind, _, confidence = kind.partition("/")
    return Distillation(kind, confidence=confidence or "none").losses(
        batch.outputs,
        *batch.targets,
        None if kind in ("none", "self") else batch.teacher,
    )


LOSSES = (
    "ctc",
    "attention",
    *KINDS[1:],
    "none/multiply",
    "none/divide",
    "self/divide",
)


@FEW
@given(batches())
def test_ctc_is_torchs_one_utterance_at_a_time(batch: Batch) -> None:
    """Cut to its own frames and tokens; nothing where it cannot fit."""
    found_EB = ctc_utterance_losses(batch.outputs, *batch.targets)
    for k, output in enumerate(batch.outputs):
        for row, (frames, count) in enumerate(
            zip(batch.frames_B.tolist(), batch.counts_B.tolist())
        ):
            tokens = batch.tokens_BS[row, :count]
            needed = count + int((tokens[1:] == tokens[:-1]).sum())
            expected = 0.0
            if frames >= needed:
                expected = F.ctc_loss(
                    output.log_probs_BTV[row, :frames],
                    tokens,
                    (frames,),
                    (count,),
                    reduction="sum",
                ).item() / max(count, 1)
            found = found_EB[k, row].item()
            assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("kind", LOSSES)
@FEW
@given(batches())
def test_a_batch_is_the_mean_of_its_utterances(kind: str, batch: Batch) -> None:
    """Whoever else is in it, and however long."""
    rows = range(len(batch.frames_B))
    alone = [losses_of(kind, batch.rows([row])) for row in rows]
    torch.testing.assert_close(
        losses_of(kind, batch),
        torch.stack(alone).mean(0),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("kind", LOSSES)
@FEW
@given(batches(), st.tuples(*[st.sampled_from([0, 0.5, 2])] * 3))
def test_a_weight_of_zero_stops_the_gradient(
    kind: str, batch: Batch, weights: tuple[float, ...]
) -> None:
    """And another weight scales it; no exit learns from another's loss."""
    assume(any(weights))
    part = "attention_BSV" if kind == "attention" else "log_probs_BTV"
    inputs = [getattr(output, part) for output in batch.outputs]
    plain = torch.autograd.grad(
        joint_loss(losses_of(kind, batch), (1.0, 1.0, 1.0)), inputs
    )
    weighted = torch.autograd.grad(
        joint_loss(losses_of(kind, batch), exit_weights(weights, 3)), inputs
    )
    for weight, one, other in zip(weights, plain, weighted):
        torch.testing.assert_close(other, weight * one)
        assert torch.isfinite(other).all()


SPOKEN = torch.tensor([[5, 6, 3], [4, 0, 0], [7, 7, 0], [0, 0, 0]])
LENGTHS = torch.tensor([3, 1, 2, 0])


def predictions(
    count: int = 3, tokens: int = 4, seed: int = 0
) -> list[ExitOutput]:
    generator = torch.Generator().manual_seed(seed)
    return [
        output_of(
            torch.randn(4, tokens, 8, generator=generator).log_softmax(-1)
        )
        for _ in range(count)
    ]


def output_of(attention_BSV: Tensor) -> ExitOutput:
    rows = len(attention_BSV)
    return ExitOutput(
        torch.zeros(rows, 9, 8),
        torch.full((rows,), 9),
        layer=2,
        attention_BSV=attention_BSV,
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_equals_torch_utterance_by_utterance(smoothing: float) -> None:
    """Every transcript alone, its end behind it; then the mean."""
    outputs = predictions()
    expected = torch.zeros(3)
    for k, output in enumerate(outputs):
        for row, count in enumerate(LENGTHS.tolist()):
            target = torch.tensor([*SPOKEN[row, :count], EOS])
            loss = F.cross_entropy(
                output.attention_BSV[row, : count + 1],
                target,
                label_smoothing=smoothing,
            )
            expected[k] += loss / 4
    losses = attention_exit_losses(outputs, SPOKEN, LENGTHS, EOS, smoothing)
    torch.testing.assert_close(losses, expected)
