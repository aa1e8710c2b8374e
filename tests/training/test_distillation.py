"""What distillation adds to an exit's loss, and that it adds no more.

Protects: every kind of loss against a reference written as loops over
utterances and frames, independence of padding and batch, a last exit that
learns the transcript alone, and the checks of the YAML.

Authors
 * The speechbrain-ee contributors 2026
"""

import itertools
from dataclasses import replace

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from torch import Tensor

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.heads import ExitOutput
from speechbrain_ee.training.distillation import Distillation
from speechbrain_ee.training.losses import (
    ctc_exit_losses,
    utterance_confidences,
)
from tests.taught import (
    COUNTS,
    FRAMES,
    TOKENS,
    confidence,
    ctc,
    divergence,
    exits,
    greedy,
    row_of,
)

TAUGHT = ("hard", "self", "soft")
WEIGHINGS = ("none", "multiply", "divide")


def reference(
    distillation: Distillation, outputs: list, teacher: list
) -> Tensor:
    """The losses by loops over exits and utterances."""
    alphas = distillation.exit_alphas(len(outputs))
    losses = torch.zeros(len(outputs))
    for m, row in itertools.product(range(len(outputs)), range(3)):
        student_TV = row_of(outputs[m], row).log_probs_BTV[0].detach()
        target_TV = row_of(teacher[-1], row).log_probs_BTV[0].detach()
        loss = ctc(student_TV, TOKENS[row, : COUNTS[row]].tolist())
        if alphas[m] < 1:
            if distillation.kind == "soft":
                tau = distillation.temperature
                taught = divergence(student_TV, target_TV, tau)
            else:
                taught = ctc(student_TV, greedy(target_TV))
            loss = alphas[m] * loss + (1 - alphas[m]) * taught
        if distillation.confidence == "multiply":
            loss *= confidence(student_TV)
        elif distillation.confidence == "divide":
            loss /= confidence(student_TV)
        losses[m] += loss / 3
    return losses


def teacher_of(kind: str, outputs: list) -> list | None:
    """What a Brain would hand over: its own pass, or a teacher's."""
    return None if kind == "self" else exits(2 if kind == "hard" else 3, seed=7)


@pytest.mark.parametrize("weighing", WEIGHINGS)
@pytest.mark.parametrize("alpha", [None, 0.0, 0.4, [0.2, 0.9, 1.0]])
@pytest.mark.parametrize("kind", TAUGHT)
def test_equals_loops(
    kind: str, alpha: float | list[float] | None, weighing: str
) -> None:
    """Every kind, every way to say alpha, every confidence."""
    outputs = exits()
    teacher = teacher_of(kind, outputs)
    distillation = Distillation(kind, alpha, 2.0, weighing)
    torch.testing.assert_close(
        distillation.losses(outputs, TOKENS, COUNTS, teacher),
        reference(distillation, outputs, teacher or outputs),
    )


def test_the_teacher_may_teach_the_last_exit() -> None:
    """A teacher is another model: its transcript is news to every exit."""
    outputs, teacher = exits(), exits(1, seed=7)
    distillation = Distillation("hard", [0.3, 0.3, 0.3])
    losses = distillation.losses(outputs, TOKENS, COUNTS, teacher)
    expected = reference(distillation, outputs, teacher)
    torch.testing.assert_close(losses, expected)
    assert losses[2] != ctc_exit_losses(outputs, TOKENS, COUNTS)[2]


@pytest.mark.parametrize("kind", ["none", *TAUGHT])
def test_alpha_one_is_plain_ctc(kind: str) -> None:
    """Bit for bit, losses and gradients; nobody has to teach."""
    outputs, plain = exits(), exits()
    losses = Distillation(kind, alpha=1).losses(outputs, TOKENS, COUNTS)
    expected = ctc_exit_losses(plain, TOKENS, COUNTS)
    assert torch.equal(losses, expected)
    losses.sum().backward()
    expected.sum().backward()
    for output, other in zip(outputs, plain):
        assert torch.equal(output.log_probs_BTV.grad, other.log_probs_BTV.grad)


@pytest.mark.parametrize("kind", TAUGHT)
def test_no_gradient_through_the_target(kind: str) -> None:
    """The last exit learns the transcript and nothing else."""
    outputs, plain = exits(), exits()
    teacher = teacher_of(kind, outputs)
    Distillation(kind).losses(outputs, TOKENS, COUNTS, teacher).sum().backward()
    ctc_exit_losses(plain, TOKENS, COUNTS).sum().backward()
    assert torch.equal(
        outputs[-1].log_probs_BTV.grad, plain[-1].log_probs_BTV.grad
    )
    assert not torch.equal(
        outputs[0].log_probs_BTV.grad, plain[0].log_probs_BTV.grad
    )
    for output in teacher or ():
        assert output.log_probs_BTV.grad is None


@pytest.mark.parametrize("weighing", WEIGHINGS)
@pytest.mark.parametrize("kind", TAUGHT)
def test_neither_batch_nor_padding_matters(kind: str, weighing: str) -> None:
    """A batch with garbage behind the ends: the mean of its utterances."""
    outputs, distillation = exits(), Distillation(kind, 0.4, 2.0, weighing)
    teacher = teacher_of(kind, outputs) or outputs
    padding = torch.arange(9) >= FRAMES[:, None]
    garbage = torch.tensor([-99.0, -1.0, -99.0, 0.0, -50.0, -7.0])

    def dirty(output: ExitOutput) -> ExitOutput:
        log_probs = output.log_probs_BTV.detach().clone()
        log_probs[padding] = garbage
        return replace(output, log_probs_BTV=log_probs.requires_grad_())

    polluted = [dirty(output) for output in outputs]
    losses = distillation.losses(
        polluted, TOKENS, COUNTS, [dirty(output) for output in teacher]
    )
    alone = [
        distillation.losses(
            [row_of(output, row) for output in outputs],
            TOKENS[row : row + 1, : COUNTS[row]],
            COUNTS[row : row + 1],
            [row_of(output, row) for output in teacher],
        )
        for row in range(3)
    ]
    torch.testing.assert_close(losses, torch.stack(alone).mean(0))
    losses.sum().backward()
    for output in polluted:
        assert output.log_probs_BTV.grad[padding].abs().max() == 0
        assert output.log_probs_BTV.grad[~padding].isfinite().all()


def test_confidence_is_a_weight_not_an_aim() -> None:
    """The gradient of an utterance is scaled, its direction is CTC's."""
    outputs, plain = exits(1), exits(1)
    weights_B = utterance_confidences(plain)[0]
    for weighing, factor_B in (
        ("multiply", weights_B),
        ("divide", 1 / weights_B),
    ):
        outputs[0].log_probs_BTV.grad = plain[0].log_probs_BTV.grad = None
        Distillation(confidence=weighing).losses(
            outputs, TOKENS, COUNTS
        ).sum().backward()
        ctc_exit_losses(plain, TOKENS, COUNTS).sum().backward()
        torch.testing.assert_close(
            outputs[0].log_probs_BTV.grad,
            plain[0].log_probs_BTV.grad * factor_B[:, None, None],
        )


def test_shares_of_the_published_code() -> None:
    """0.3 for a teacher; 0.65 to 0.85 for the model itself."""
    assert Distillation("hard").exit_alphas(6) == (0.3,) * 5 + (1.0,)
    assert Distillation("self").exit_alphas(6) == pytest.approx(
        (0.65, 0.70, 0.75, 0.80, 0.85, 1.0)
    )
    assert Distillation("self").exit_alphas(2) == (0.65, 1.0)
    assert Distillation("none", alpha=0.3).exit_alphas(2) == (1.0, 1.0)
    for kind in TAUGHT:
        assert Distillation(kind).exit_alphas(1) == (1.0,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "teacher"}, "kind: 'teacher' .*none, hard, self, soft"),
        ({"confidence": True}, "confidence: True .*none, multiply, divide"),
        ({"alpha": -0.1}, "alpha: -0.1 must"),
        ({"alpha": "0.3"}, "alpha: '0.3' must"),
        ({"alpha": True}, "alpha: True must"),
        ({"alpha": float("nan")}, "alpha: nan must"),
        ({"alpha": []}, r"alpha: \[\] must"),
        ({"alpha": [0.3, 1.1, 1.0]}, r"alpha: \[0.3, 1.1, 1.0\] must be"),
        ({"temperature": 0}, "temperature: 0 must"),
        ({"temperature": float("inf")}, "temperature: inf must"),
    ],
    ids=str,
)
def test_wrong_options(options: dict, message: str) -> None:
    """Refused when the YAML is read, by the name of the key."""
    with pytest.raises(InputError, match=f"distillation: {message}"):
        Distillation(**{"kind": "hard", **options})


@pytest.mark.parametrize(
    ("kind", "alpha", "message"),
    [
        ("hard", [0.3, 0.3], "must hold 3 numbers"),
        ("self", [0.6, 0.7, 0.8], "must end in 1.0"),
        ("soft", [0.6, 0.7, 0.8], "must end in 1.0"),
    ],
)
def test_alphas_that_do_not_fit_the_exits(
    kind: str, alpha: list[float], message: str
) -> None:
    """Refused as soon as the number of exits is known."""
    with pytest.raises(InputError, match=f"distillation: alpha: .*{message}"):
        Distillation(kind, alpha).exit_alphas(3)


def test_a_teacher_that_does_not_fit() -> None:
    """Other tokens are the user's mistake, other audio is the Brain's."""
    outputs = exits()
    wider = replace(outputs[0], log_probs_BTV=torch.zeros(3, 9, 7))
    with pytest.raises(InputError, match="7 tokens .* the model 6"):
        Distillation("hard").losses(outputs, TOKENS, COUNTS, [wider])
    shorter = replace(outputs[0], log_probs_BTV=torch.zeros(3, 8, 6))
    with pytest.raises(ValueError, match="same augmented"):
        Distillation("soft").losses(outputs, TOKENS, COUNTS, [shorter])
    with pytest.raises(ValueError, match="same augmented"):
        alone = [row_of(outputs[0], 0)]
        Distillation("hard").losses(outputs, TOKENS, COUNTS, alone)
    for kind in ("hard", "soft"):
        with pytest.raises(ValueError, match="evaluation mode"):
            Distillation(kind).losses(outputs, TOKENS, COUNTS)


def test_in_a_yaml() -> None:
    """Numbers and lists arrive as they were written."""
    found = load_hyperpyyaml(
        "distillation: !new:speechbrain_ee.training.distillation.Distillation\n"
        "    kind: soft\n"
        "    alpha: [0.5, 0.6, 1]\n"
        "    confidence: none\n"
    )["distillation"]
    assert found == Distillation("soft", (0.5, 0.6, 1.0))
    assert found.exit_alphas(3) == (0.5, 0.6, 1.0)
