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
from types import SimpleNamespace
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
    frame_divergences,
    taught_transcripts,
)
from speechbrain_ee.training.frozen_teacher import FrozenTeacher
from speechbrain_ee.training.losses import (
    ctc_exit_losses,
    utterance_confidences,
)
from speechbrain_ee.training.systems import CTCEarlyExitBrain
from tests.helpers import (
    SAMPLE_RATE,
    VOCAB,
    ToneTokenizer,
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
    """Random outputs of three utterances, with gradients."""
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
    """One utterance alone, without padding."""
    frames = output.lengths_B[row]
    return replace(
        output,
        log_probs_BTV=output.log_probs_BTV[row : row + 1, :frames],
        lengths_B=frames[None],
    )


def silent(output: ExitOutput, row: int) -> ExitOutput:
    """The same, with nothing but blanks in one utterance."""
    log_probs_BTV = output.log_probs_BTV.detach().clone()
    blank = torch.tensor([9.0, 0, 0, 0, 0, 0]).log_softmax(-1)
    log_probs_BTV[row] = blank
    return replace(output, log_probs_BTV=log_probs_BTV.requires_grad_())


def greedy(log_probs_TV: Tensor) -> list[int]:
    """Best tokens, repetitions merged, blanks removed: in plain Python."""
    best = [token for token, _ in itertools.groupby(log_probs_TV.argmax(-1))]
    return [int(token) for token in best if token != 0]


def ctc(log_probs_TV: Tensor, tokens: list[int]) -> float:
    """CTC loss of one utterance per token."""
    loss = F.ctc_loss(
        log_probs_TV[:, None],
        torch.tensor([tokens]),
        torch.tensor([len(log_probs_TV)]),
        torch.tensor([len(tokens)]),
        reduction="sum",
    )
    return loss.item() / len(tokens)


def divergence(p_TV: Tensor, q_TV: Tensor, temperature: float) -> float:
    """Mean KL(q || p) of the frames, by its definition, in probabilities."""
    total = 0.0
    for p_V, q_V in zip(p_TV.double().exp(), q_TV.double().exp()):
        p_V = p_V ** (1 / temperature) / (p_V ** (1 / temperature)).sum()
        q_V = q_V ** (1 / temperature) / (q_V ** (1 / temperature)).sum()
        total += float((q_V * (q_V / p_V).log()).sum())
    return temperature**2 * total / len(p_TV)


def confidence(log_probs_TV: Tensor) -> float:
    """Geometric mean of the frames' largest probabilities, at least 0.1."""
    largest = [
        float(frame.exp().max()) for frame in log_probs_TV.detach().double()
    ]
    return max(0.1, math.prod(largest) ** (1 / len(largest)))


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


TRAIN, VALID = sb.Stage.TRAIN, sb.Stage.VALID
PIECES = tuple(f"tone{token}" for token in range(VOCAB))


class Louder(nn.Module):
    """An augmentation that can be repeated: twice as loud, cut short."""

    def forward(self, wavs: Tensor, lengths: Tensor) -> Tensor:
        return 2.0 * wavs[:, :8000]


def student(attention: str | None = None, seed: int = 0) -> EarlyExitModel:
    """A model with dropout, so that a teacher in training mode shows."""
    model = tiny_model(attention=attention, layerdrop_prob=0.2, seed=seed)
    model.heads.dropout.p = 0.2
    return shaken(model, by=0.05)


def teacher_model() -> EarlyExitModel:
    """Another model that says something, in training mode."""
    model = shaken(tiny_model(exit_layers=(1, 2, 3), seed=3), seed=5)
    model.heads.dropout.p = 0.5
    return model.train()


def given(kind: str, **options: Any) -> dict[str, Any]:
    """Hyper-parameters of a kind of distillation."""
    teacher = teacher_model() if kind == "hard" else None
    return {"distillation": Distillation(kind, **options), "teacher": teacher}


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    """Bit for bit."""
    weights = other.state_dict()
    for name, value in one.state_dict().items():
        assert torch.equal(value, weights[name]), name


class Plain(CTCEarlyExitBrain):
    """CTC as it is without any distillation."""

    def exit_losses(self, outputs, batch) -> dict[str, Tensor]:
        tokens, counts = self.targets(batch, len(outputs[0].lengths_B))
        return {"CTC": ctc_exit_losses(outputs, tokens, counts)}


def test_without_distillation_it_is_plain_ctc(tmp_path: Path) -> None:
    """An epoch ends with the same bits, whether absent, null or none."""
    runs = [
        fit_tones(tiny_brain(tmp_path / name, student(), **options))
        for name, options in {
            "plain": {"brain_class": Plain},
            "absent": {},
            "null": {"distillation": None, "teacher": None},
            "none": given("none"),
        }.items()
    ]
    for run in runs[1:]:
        assert_same_weights(runs[0].modules, run.modules)
    distilled = fit_tones(
        tiny_brain(tmp_path / "self", student(), **given("self"))
    )
    with pytest.raises(AssertionError):
        assert_same_weights(runs[0].modules, distilled.modules)


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


def test_the_model_teaches_outside_its_ddp_wrapper(tmp_path: Path) -> None:
    """A second pass through the wrapper would confuse its reducer."""

    class Wrapper(nn.Module):
        calls = 0

        def __init__(self, module: nn.Module):
            super().__init__()
            self.module = module

        def forward(self, *arguments):
            Wrapper.calls += 1
            return self.module(*arguments)

    brain = tiny_brain(tmp_path, student(), **given("soft"))
    brain.modules["model"] = Wrapper(brain.modules.model)
    batch = PaddedBatch(list(tone_dataset(3, first=3)))
    brain.compute_forward(batch, TRAIN)
    assert Wrapper.calls == 1 and brain.taught is not None


def brain_taught_by(root: Path, **other: Any) -> CTCEarlyExitBrain:
    """A Brain whose teacher is of another run, and knows its tokens."""
    run = {
        "model": teacher_model(),
        "pieces": PIECES,
        "sample_rate": SAMPLE_RATE,
        "folder": root / "teacher",
        **other,
    }

    class Worded(CTCEarlyExitBrain):
        def __init__(self, *args, tokenizer, **kwargs):
            known = vars(ToneTokenizer.sp)
            tokenizer.sp = SimpleNamespace(
                **{**known, "id_to_piece": lambda ids: [PIECES[i] for i in ids]}
            )
            super().__init__(*args, tokenizer=tokenizer, **kwargs)

    return tiny_brain(
        root / "run",
        brain_class=Worded,
        distillation=Distillation("hard"),
        teacher=FrozenTeacher(**run),
    )


def test_a_run_that_cannot_teach(tmp_path: Path) -> None:
    """Refused at construction; one that can is not."""
    assert brain_taught_by(tmp_path).teacher is not None
    for other, message in (
        ({"pieces": PIECES[::-1]}, "the tokenizer of .* Copy"),
        ({"sample_rate": 8000}, "8000 Hz, and sample_rate is 16000 Hz"),
        ({"folder": tmp_path / "run"}, "output_folder of this run"),
    ):
        with pytest.raises(InputError, match=f"^teacher_folder: .*{message}"):
            brain_taught_by(tmp_path, **other)


OWN = tiny_model()
OTHER_BLANK = teacher_model()
OTHER_BLANK.heads.blank_index = 6


@pytest.mark.parametrize(
    ("hparams", "message"),
    [
        ({"distillation": "self"}, "distillation: 'self' must .*kind: self"),
        ({"distillation": Distillation("self", [1, 1, 1])}, "alpha: .*hold 2"),
        ({"distillation": Distillation("hard")}, "--teacher_folder="),
        (given("hard") | {"distillation": None}, "teacher: .*'none' does not"),
        (given("soft") | {"teacher": teacher_model()}, "'soft' does not"),
        (given("hard") | {"teacher": "a/folder"}, "teacher: 'a/folder' is no"),
        (given("hard") | {"teacher": OWN}, "teacher: it shares weights"),
        (given("hard") | {"teacher": OTHER_BLANK}, "7 tokens with blank 6"),
    ],
)
def test_wrong_option_stops_before_training(
    hparams: dict, message: str, tmp_path: Path
) -> None:
    """At construction, by the name of the key."""
    with pytest.raises(InputError, match=message):
        tiny_brain(tmp_path, OWN, **hparams)
    assert all(p.requires_grad for p in OWN.parameters())
