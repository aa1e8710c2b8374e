"""A Brain trains with distillation, and a teacher leaves nothing behind.

Protects: that plain CTC stays what it was, bit for bit, that every kind of
distillation reaches the loss of training and only that, that a teacher is
neither optimised nor saved nor a reason not to resume, and that what does not
fit is refused before training.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import speechbrain as sb
import torch
from speechbrain.augment.augmenter import Augmenter
from speechbrain.dataio.batch import PaddedBatch
from torch import Tensor, nn

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.training.distillation import Distillation
from speechbrain_ee.training.frozen_teacher import FrozenTeacher
from speechbrain_ee.training.losses import ctc_exit_losses
from speechbrain_ee.training.systems import CTCEarlyExitBrain
from tests.helpers import (
    SAMPLE_RATE,
    VOCAB,
    ToneTokenizer,
    shaken,
    tiny_brain,
    tiny_model,
    tone_dataset,
)

TRAIN, VALID = sb.Stage.TRAIN, sb.Stage.VALID
KINDS = ("hard", "self", "soft")
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


def fit(brain: CTCEarlyExitBrain) -> CTCEarlyExitBrain:
    """Train on tones, validate on the same tones."""
    data = tone_dataset(8, first=3)
    brain.fit(
        brain.hparams.epoch_counter,
        data,
        data,
        train_loader_kwargs={"batch_size": 4, "shuffle": True},
        valid_loader_kwargs={"batch_size": 8},
    )
    return brain


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
        fit(tiny_brain(tmp_path / name, student(), **options))
        for name, options in {
            "plain": {"brain_class": Plain},
            "absent": {},
            "null": {"distillation": None, "teacher": None},
            "none": given("none"),
        }.items()
    ]
    for run in runs[1:]:
        assert_same_weights(runs[0].modules, run.modules)
    distilled = fit(tiny_brain(tmp_path / "self", student(), **given("self")))
    with pytest.raises(AssertionError):
        assert_same_weights(runs[0].modules, distilled.modules)


@pytest.mark.parametrize("attention", [None, "shared"])
@pytest.mark.parametrize("confidence", ["none", "divide"])
@pytest.mark.parametrize("kind", KINDS)
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


@pytest.mark.parametrize("kind", KINDS)
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


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_resumed_equals_uninterrupted(kind: str, tmp_path: Path) -> None:
    """Killed in epoch 2 and started again: the same bits at the end."""

    class Killed(CTCEarlyExitBrain):
        def on_fit_batch_end(self, *arguments) -> None:
            super().on_fit_batch_end(*arguments)
            if self.hparams.epoch_counter.current == 2:
                raise KeyboardInterrupt

    def run(folder: str, seed: int = 0, **options: Any) -> CTCEarlyExitBrain:
        options |= {"epochs": 2, **given(kind)}
        return fit(
            tiny_brain(tmp_path / folder, student(None, seed), **options)
        )

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("parts", brain_class=Killed)
    torch.rand(5)
    assert_same_weights(whole.modules, run("parts", seed=7).modules)


def test_a_teacher_is_neither_optimised_nor_saved(tmp_path: Path) -> None:
    """After an epoch it is as it was, and no file knows of it."""
    hparams = given("hard")
    teacher = hparams["teacher"]
    before = {n: v.clone() for n, v in teacher.state_dict().items()}
    model = student()
    brain = fit(tiny_brain(tmp_path / "hard", model, **hparams))
    fit(tiny_brain(tmp_path / "plain", student()))
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
