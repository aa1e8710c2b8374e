"""What holds for every loss, whatever the batch.

Protects: that weights act linearly and only on their exit, that an utterance
counts the same in any company, and that the losses are those of plain
libraries, one utterance at a time.

Axes: B utterances, E exits, T frames, S tokens, V vocabulary entries.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from speechbrain_ee.models.heads import ExitOutput
from speechbrain_ee.training.distillation import Distillation, frame_divergences
from speechbrain_ee.training.losses import (
    attention_exit_losses,
    ctc_exit_losses,
    ctc_utterance_losses,
    exit_weights,
    joint_loss,
    utterance_confidences,
)

VOCAB, EOS = 6, 2
FEW = settings(max_examples=30, deadline=None, derandomize=True)
WEIGHT = st.floats(0, 4, allow_subnormal=False)
KINDS = ("none", "hard", "self", "soft")


class Batch:
    """Random outputs of some exits, with the transcripts."""

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
        """Tokens and their number."""
        return self.tokens_BS, self.counts_B

    def rows(self, places: list[int]) -> "Batch":
        """Some of the utterances, no longer than they have to be."""
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
    """Up to four utterances, some too short for what they say, some mute."""
    sizes = st.tuples(st.integers(1, 9), st.integers(0, 4))
    drawn = draw(st.lists(sizes, min_size=1, max_size=4))
    frames, counts = zip(*drawn)
    return Batch(list(frames), list(counts), draw(st.integers(0, 10**6)))


def losses_of(kind: str, batch: Batch) -> Tensor:
    """Losses of every exit, by the name of the loss."""
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
@given(batches(), st.data())
def test_order_in_the_batch_means_nothing(
    kind: str, batch: Batch, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(batch.frames_B))))
    torch.testing.assert_close(
        losses_of(kind, batch),
        losses_of(kind, batch.rows(order)),
        rtol=1e-4,
        atol=1e-5,
    )


@FEW
@given(
    st.lists(st.tuples(WEIGHT, WEIGHT, WEIGHT), min_size=1, max_size=6),
    WEIGHT,
    WEIGHT,
)
def test_joint_loss_is_linear(
    exits: list[tuple[float, float, float]], one: float, other: float
) -> None:
    """In the weights and in the losses."""
    losses, first, second = (list(values) for values in zip(*exits))
    losses_E = torch.tensor(losses, dtype=torch.float64)
    both = [one * a + other * b for a, b in zip(first, second)]
    parts = one * joint_loss(losses_E, first) + other * joint_loss(
        losses_E, second
    )
    assert joint_loss(losses_E, both).item() == pytest.approx(parts.item())
    assert joint_loss(one * losses_E, first).item() == pytest.approx(
        one * joint_loss(losses_E, first).item()
    )
    uniform = exit_weights(None, len(exits))
    assert joint_loss(losses_E, uniform).item() == pytest.approx(sum(losses))


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


@pytest.mark.parametrize("kind", KINDS[1:])
@FEW
@given(batches(), st.floats(0, 1))
def test_a_share_lies_between_transcript_and_teacher(
    kind: str, batch: Batch, alpha: float
) -> None:
    """The loss is linear in ``alpha``; the last exit has the transcript."""

    def at(share: float) -> Tensor:
        teacher = None if kind == "self" else batch.teacher
        return Distillation(kind, alpha=share).losses(
            batch.outputs, *batch.targets, teacher
        )

    transcript, teacher = at(1.0), at(0.0)
    expected = alpha * transcript + (1 - alpha) * teacher
    torch.testing.assert_close(at(alpha), expected, rtol=1e-4, atol=1e-5)
    plain = ctc_exit_losses(batch.outputs, *batch.targets)
    torch.testing.assert_close(transcript, plain)
    assert at(alpha)[-1] == plain[-1]


@FEW
@given(batches(), st.sampled_from([0.5, 1.0, 3.0]))
def test_divergence_is_positive_and_no_distance(
    batch: Batch, temperature: float
) -> None:
    """Zero to itself, never negative, and that of every frame averaged."""
    one, other, _ = batch.outputs
    own_EB = frame_divergences([one], one, temperature)
    assert own_EB.abs().max() < 1e-5
    found_EB = frame_divergences([one], other, temperature)
    assert (found_EB > -1e-5).all()
    for row, frames in enumerate(batch.frames_B.tolist()):
        p, q = (
            torch.softmax(
                each.log_probs_BTV[row, :frames].double() / temperature, -1
            )
            for each in (one, other)
        )
        expected = (q * (q / p).log()).sum(-1).mean() * temperature**2
        assert found_EB[0, row].item() == pytest.approx(
            expected.item(), rel=1e-3, abs=1e-5
        )


def test_distillation_is_plain_unless_asked_for() -> None:
    """Hinton's temperature of 1, no confidence, the transcript alone."""
    asked = Distillation()
    assert (asked.kind, asked.confidence) == ("none", "none")
    assert asked.temperature == 1.0
    assert asked.exit_alphas(3) == (1.0, 1.0, 1.0)


@FEW
@given(batches())
def test_confidence_is_a_geometric_mean(batch: Batch) -> None:
    """Between the smallest and the largest of its frames, above a tenth."""
    found_EB = utterance_confidences(batch.outputs)
    alone_EB = utterance_confidences(batch.outputs[:1])
    torch.testing.assert_close(alone_EB, found_EB[:1])
    for output, found_B in zip(batch.outputs, found_EB):
        for row, frames in enumerate(batch.frames_B.tolist()):
            best_T = output.log_probs_BTV[row, :frames].amax(-1).exp()
            mean = math.prod(best_T.tolist()) ** (1 / frames)
            assert found_B[row].item() == pytest.approx(
                max(mean, 0.1), rel=1e-4
            )


@FEW
@given(batches(), st.floats(0, 0.9))
def test_smoothing_blends_in_all_tokens(batch: Batch, share: float) -> None:
    """Linear between the targets and a uniform target."""

    def at(smoothing: float) -> Tensor:
        return attention_exit_losses(
            batch.outputs, *batch.targets, EOS, smoothing
        )

    expected = (1 - share) * at(0.0) + share * at(1.0)
    torch.testing.assert_close(at(share), expected, rtol=1e-4, atol=1e-5)
