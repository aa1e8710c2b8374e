"""The loss of every exit is that of plain libraries over true lengths.

Protects: equality with torch, one utterance at a time; padding that counts
for nothing; weights that act linearly and only on their exit; an utterance
that counts the same in any company, in any order.

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

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.decoding import greedy_tokens
from speechbrain_ee.models.heads import ExitOutput
from speechbrain_ee.training.distillation import Distillation, frame_divergences
from speechbrain_ee.training.losses import (
    attention_exit_losses,
    attention_hits,
    ctc_exit_losses,
    ctc_utterance_losses,
    exit_weights,
    joint_loss,
    utterance_confidences,
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


@pytest.mark.parametrize(
    "weights", [[1.0], [1, 1, 1], [1, -1], [0, 0], []], ids=str
)
def test_wrong_weights(weights: list[float]) -> None:
    """The error names the key and what it needs."""
    with pytest.raises(InputError, match="exit_weights: .* hold 2"):
        exit_weights(weights, 2)


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


@FEW
@given(batches())
def test_confidence_is_a_geometric_mean(batch: Batch) -> None:
    """Between the smallest and the largest of its frames, above a tenth."""
    found_EB = utterance_confidences(batch.outputs)
    assert not found_EB.requires_grad
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


SPOKEN = torch.tensor([[5, 6, 3], [4, 0, 0], [7, 7, 0], [0, 0, 0]])
LENGTHS = torch.tensor([3, 1, 2, 0])
SAID = torch.arange(4) <= LENGTHS[:, None]


def predictions(
    count: int = 3, tokens: int = 4, seed: int = 0
) -> list[ExitOutput]:
    """Random predictions for four utterances."""
    generator = torch.Generator().manual_seed(seed)
    return [
        output_of(
            torch.randn(4, tokens, 8, generator=generator).log_softmax(-1)
        )
        for _ in range(count)
    ]


def output_of(attention_BSV: Tensor) -> ExitOutput:
    """An exit whose attention head says this."""
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


@pytest.mark.parametrize("pad", [0, EOS, 1, 6])
def test_padding_of_transcripts_is_ignored(pad: int) -> None:
    """Padded tokens and the predictions for them: same loss, no gradient."""
    outputs = predictions()
    expected = attention_exit_losses(outputs, SPOKEN, LENGTHS, EOS, 0.1)
    dirty = []
    for output in outputs:
        longer = F.pad(output.attention_BSV, (0, 0, 0, 2))
        said = F.pad(SAID, (0, 2))[..., None]
        longer = longer.masked_fill(~said, -float("inf")).requires_grad_()
        dirty.append(output_of(longer))
    tokens = torch.full((4, 5), pad)
    for row, count in enumerate(LENGTHS):
        tokens[row, :count] = SPOKEN[row, :count]
    losses = attention_exit_losses(dirty, tokens, LENGTHS, EOS, 0.1)
    torch.testing.assert_close(losses, expected)
    losses.sum().backward()
    padding = ~F.pad(SAID, (0, 2))
    for output in dirty:
        gradient = output.attention_BSV.grad
        assert gradient[padding].abs().max() == 0
        assert gradient[~padding].abs().amax(-1).min() > 0


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
    outputs = [output_of(F.one_hot(best, 8).float()) for best in said]
    expected, total = [0, 0], 0
    for n, row in enumerate(rows):
        for place, token in enumerate([*row, EOS]):
            total += 1
            for k in range(2):
                expected[k] += int(said[k, n, place]) == token
    hits_E, number = attention_hits(outputs, tokens, counts, EOS)
    assert (hits_E.tolist(), number) == (expected, total)
