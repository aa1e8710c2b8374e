"""What distillation adds to an exit's loss, and that it adds no more.

Protects: every kind of loss against a reference written as loops over
utterances and frames; gradients that stop at the target; a plain CTC that
stays what it was, bit for bit; a teacher that is neither optimised nor saved;
what does not fit, refused before training.

Authors
 * The speechbrain-ee contributors 2026
"""

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import speechbrain as sb
import torch
from speechbrain.augment.augmenter import Augmenter
from speechbrain.dataio.batch import PaddedBatch
from torch import Tensor, nn
from torch.nn import functional as F

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.heads import ExitOutput
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.training.distillation import (
    Distillation,
)
from speechbrain_ee.training.frozen_teacher import FrozenTeacher
from speechbrain_ee.training.losses import (
    ctc_exit_losses,
)
from tests.helpers import (
    SAMPLE_RATE,
    VOCAB,
    fit_tones,
    shaken,
    tiny_brain,
    tiny_model,
    tone_dataset,
)

FRAMES = torch.tensor([9, 5, 7])
TOKENS = torch.tensor([[1, 2, 2], [3, 0, 0], [4, 1, 0]])
COUNTS = torch.tensor([3, 1, 2])


def exits(count: int = 3, seed: int = 0, sharpness: float = 2.0) -> list:
    generator = torch.Generator().manual_seed(seed)
    return [
        ExitOutput(
            (sharpness * torch.randn(3, 9, 6, generator=generator))
            .log_softmax(-1)
            .requires_grad_(),
            FRAMES,
            layer=2 * k + 2,
        )
        for k in range(count)
    ]


def row_of(output: ExitOutput, row: int) -> ExitOutput:
    frames = output.lengths_B[row]
    return replace(
        output,
        log_probs_BTV=output.log_probs_BTV[row : row + 1, :frames],
        lengths_B=frames[None],
    )


def silent(output: ExitOutput, row: int) -> ExitOutput:
    log_probs_BTV = output.log_probs_BTV.detach().clone()
    blank = torch.tensor([9.0, 0, 0, 0, 0, 0]).log_softmax(-1)
    log_probs_BTV[row] = blank
    return replace(output, log_probs_BTV=log_probs_BTV.requires_grad_())


def greedy(log_probs_TV: Tensor) -> list[int]:
    best = [token for token, _ in itertools.groupby(log_probs_TV.argmax(-1))]
    return [int(token) for token in best if token != 0]


def ctc(log_probs_TV: Tensor, tokens: list[int]) -> float:
    loss = F.ctc_loss(
        log_probs_TV[:, None],
        torch.tensor([tokens]),
        torch.tensor([len(log_probs_TV)]),
        torch.tensor([len(tokens)]),
        reduction="sum",
    )
    return loss.item() / len(tokens)


def divergence(p_TV: Tensor, q_TV: Tensor, temperature: float) -> float:
    total = 0.0
    for p_V, q_V in zip(p_TV.double().exp(), q_TV.double().exp()):
        p_V = p_V ** (1 / temperature) / (p_V ** (1 / temperature)).sum()
        q_V = q_V ** (1 / temperature) / (q_V ** (1 / temperature)).sum()
        total += float((q_V * (q_V / p_V).log()).sum())
    return temperature**2 * total / len(p_TV)


def confidence(log_probs_TV: Tensor) -> float:
    largest = [
        float(frame.exp().max()) for frame in log_probs_TV.detach().double()
    ]
    return max(0.1, math.prod(largest) ** (1 / len(largest)))


TAUGHT = ("hard", "self", "soft")
WEIGHINGS = ("none", "multiply", "divide")


def reference(
    distillation: Distillation, outputs: list, teacher: list
) -> Tensor:
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


TRAIN, VALID = sb.Stage.TRAIN, sb.Stage.VALID


class Louder(nn.Module):
    def forward(self, wavs: Tensor, lengths: Tensor) -> Tensor:
        return 2.0 * wavs[:, :8000]


def student(attention: str | None = None, seed: int = 0) -> EarlyExitModel:
    model = tiny_model(attention=attention, layerdrop_prob=0.2, seed=seed)
    model.heads.dropout.p = 0.2
    return shaken(model, by=0.05)


def teacher_model() -> EarlyExitModel:
    model = shaken(tiny_model(exit_layers=(1, 2, 3), seed=3), seed=5)
    model.heads.dropout.p = 0.5
    return model.train()


def frozen(**other: Any) -> FrozenTeacher:
    run = {
        "model": teacher_model(),
        "pieces": [f"tone{token}" for token in range(VOCAB)],
        "sample_rate": SAMPLE_RATE,
        "folder": "elsewhere",
    }
    return FrozenTeacher(**run | other)


def given(kind: str, **options: Any) -> dict[str, Any]:
    teacher = frozen() if kind == "hard" else None
    return {"distillation": Distillation(kind, **options), "teacher": teacher}


@pytest.mark.parametrize("attention", [None, "shared"])
@pytest.mark.parametrize("confidence", ["none", "divide"])
@pytest.mark.parametrize("kind", TAUGHT)
def test_loss_of_training(
    kind: str, confidence: str, attention: str | None, tmp_path: Path
) -> None:
    """The distilled one, of the augmented audio; with attention, its part."""
    hparams = given(kind, alpha=0.4, confidence=confidence)
    augment = Augmenter(augmentations=[Louder()], enable_augmentations=[True])
    model = student(attention)
    brain = tiny_brain(tmp_path, model, wav_augment=augment, **hparams)
    batch = PaddedBatch(list(tone_dataset(3, first=3)))
    brain.modules.train()
    outputs = brain.compute_forward(batch, TRAIN)
    losses = brain.exit_losses(outputs, batch)
    loss = brain.compute_objectives(outputs, batch, TRAIN)

    wavs, lengths = batch.sig
    teacher = hparams["teacher"] if kind == "hard" else model
    with torch.no_grad():
        # The augmenter hands the lengths on as they are.
        taught = teacher.eval()(2.0 * wavs[:, :8000], lengths)
    targets = brain.targets(batch, 3)
    plain = ctc_exit_losses(outputs, *targets)
    expected = hparams["distillation"].losses(
        outputs, *targets, None if kind == "self" else taught
    )
    assert torch.equal(losses["CTC"], expected)
    assert not torch.isclose(plain[0], expected[0], rtol=1e-3)
    total = expected.sum()
    if attention is not None:
        total = 0.3 * total + 0.7 * losses["attention"].sum()
    torch.testing.assert_close(loss, total)


@pytest.mark.parametrize("kind", TAUGHT)
def test_validation_is_plain_ctc(kind: str, tmp_path: Path) -> None:
    """Also right after a batch of training; nobody is asked to teach."""
    brain = tiny_brain(tmp_path, student(), **given(kind, confidence="divide"))
    batch = PaddedBatch(list(tone_dataset(3, first=3)))
    brain.compute_forward(batch, TRAIN)
    for stage in (VALID, sb.Stage.TEST):
        brain.modules.eval()
        with torch.no_grad():
            outputs = brain.compute_forward(batch, stage)
        expected = ctc_exit_losses(outputs, *brain.targets(batch, 3))
        assert torch.equal(brain.exit_losses(outputs, batch)["CTC"], expected)
        assert brain.taught is None


def test_a_teacher_is_neither_optimised_nor_saved(tmp_path: Path) -> None:
    """After an epoch it is as it was, and no file knows of it."""
    hparams = given("hard")
    teacher = hparams["teacher"]
    before = {n: v.clone() for n, v in teacher.state_dict().items()}
    model = student()
    brain = fit_tones(tiny_brain(tmp_path / "hard", model, **hparams))
    fit_tones(tiny_brain(tmp_path / "plain", student()))
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not any(module.training for module in teacher.modules())
    for parameter in teacher.parameters():
        assert not parameter.requires_grad and parameter.grad is None
    optimised = {
        id(p) for g in brain.optimizer.param_groups for p in g["params"]
    }
    assert optimised == {id(p) for p in model.parameters()}
    assert brain.modules.keys() == {"model"}
    saved, like = (
        {
            path.name: path.stat().st_size
            for path in (tmp_path / name / "save").glob("CKPT*/*.ckpt")
        }
        for name in ("hard", "plain")
    )
    assert saved.keys() == like.keys()
    assert abs(saved["model.ckpt"] - like["model.ckpt"]) < 100


@pytest.mark.parametrize(
    ("hparams", "message"),
    [
        ({"distillation": "self"}, "distillation: 'self' must .*kind: self"),
        ({"distillation": Distillation("self", [1, 1, 1])}, "alpha: .*hold 2"),
        ({"distillation": Distillation("hard")}, "--teacher_folder="),
        (given("hard") | {"distillation": None}, "teacher: .*'none' does not"),
        (given("soft") | {"teacher": frozen()}, "teacher: .*'soft' does not"),
        (given("hard") | {"teacher": "a/folder"}, "teacher: 'a/folder' must"),
        (
            given("hard") | {"teacher": frozen(pieces=["a"])},
            "teacher_folder: the tokenizer of .* Copy",
        ),
        (
            given("hard") | {"teacher": frozen(sample_rate=8000)},
            "teacher_folder: .*8000 Hz, and sample_rate is 16000 Hz",
        ),
        (
            given("hard") | {"teacher": frozen(folder=".")},
            "teacher_folder: .*output_folder of this run",
        ),
    ],
)
def test_wrong_option_stops_before_training(
    hparams: dict, message: str, tmp_path: Path, monkeypatch
) -> None:
    """At construction, by the name of the key."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        tiny_brain(tmp_path, **hparams)
