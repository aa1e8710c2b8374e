"""CTC and attention are trained together, each exit by its own weights.

Protects: that both kinds of head learn a few utterances by heart at every
exit, that every weight and option reaches the optimiser or is refused before
training, and that log and checkpoints hold both losses.

Authors
 * The speechbrain-ee contributors 2026
"""

import re
from pathlib import Path
from typing import Any

import pytest
import speechbrain as sb
import torch
from speechbrain.augment.augmenter import Augmenter
from speechbrain.dataio.batch import PaddedBatch

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.decoding.beam_search import AttentionBeamSearch
from speechbrain_ee.exits.decoding.search_options import SearchOptions
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.training.distillation import Distillation
from speechbrain_ee.training.losses import LossTerm
from speechbrain_ee.training.systems import CTCAttentionEarlyExitBrain
from tests.helpers import (
    EXITS,
    repeated,
    shaken,
    tiny_brain,
    tiny_model,
    tone_dataset,
)

KINDS = ("shared", "separate")


def fit(
    brain: CTCAttentionEarlyExitBrain, batch_size: int = 4, times: int = 1
) -> CTCAttentionEarlyExitBrain:
    """Train on tones, several times an epoch; validate on the same tones."""
    data = tone_dataset(8, first=3)
    brain.fit(
        brain.hparams.epoch_counter,
        repeated(data, times),
        data,
        train_loader_kwargs={"batch_size": batch_size, "shuffle": True},
        valid_loader_kwargs={"batch_size": 8},
    )
    return brain


def changed(model: EarlyExitModel, train: Any) -> set[str]:
    """Modules, by the first three parts of the names, that training moves."""
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    train()
    return {
        ".".join(name.split(".")[:3])
        for name, parameter in model.named_parameters()
        if not torch.equal(parameter, before[name])
    }


@pytest.mark.parametrize("kind", KINDS)
def test_overfits_eight_utterances_with_both_heads(
    kind: str, tmp_path: Path
) -> None:
    """No error at any exit: greedy CTC, and the search by attention alone."""
    model = tiny_model(attention=kind, attention_type="RoPEMHA", d_model=32)
    brain = fit(tiny_brain(tmp_path, model, epochs=24, lr=0.005), times=8)
    assert brain.error_rates.words == 39
    assert brain.error_rates.wer == (0.0,) * len(EXITS)
    assert brain.token_accuracy.tokens == 39 + 8
    assert brain.token_accuracy.percent == (100.0,) * len(EXITS)
    model.eval()
    batch = PaddedBatch(list(tone_dataset(8, first=3)))
    expected = [tuple(row["tokens"].tolist()) for row in tone_dataset(8, 0, 3)]
    search = AttentionBeamSearch(
        model.attention, SearchOptions(beam_size=3), joint=False
    )
    with torch.no_grad():
        outputs = model(*batch.sig)
    for k, output in enumerate(outputs, start=1):
        found = search.search(k, output)
        assert [nbest.tokens for nbest in found] == expected
        assert all(nbest.best.complete for nbest in found)


@pytest.mark.parametrize(
    ("ctc_weight", "still"), [(1, "attention"), (0, "CTC")]
)
def test_a_kind_of_head_without_weight_does_not_learn(
    ctc_weight: float, still: str, tmp_path: Path
) -> None:
    """``ctc_weight`` 1 leaves the decoders as they were, 0 the CTC heads."""
    model = tiny_model(attention="separate")
    brain = tiny_brain(tmp_path, model, ctc_weight=ctc_weight)
    moved = changed(model, lambda: fit(brain))
    kinds = {"attention": False, "heads": False, "encoder": False}
    kinds |= {name.split(".")[0]: True for name in moved}
    assert kinds == {
        "attention": still != "attention",
        "heads": still != "CTC",
        "encoder": True,
    }


@pytest.mark.parametrize("option", ["exit_weights", "attention_exit_weights"])
def test_an_exit_without_weight_does_not_learn(
    option: str, tmp_path: Path
) -> None:
    """Each list weighs its own kind of head, and that one alone."""
    model = tiny_model(attention="separate")
    brain = tiny_brain(tmp_path, model, **{option: [0.0, 1.0]})
    moved = changed(model, lambda: fit(brain))
    ctc = {"heads.projections.1", "heads.norms.1"}
    attention = {"attention.decoders.1", "attention.norms.1"}
    if option == "exit_weights":
        attention |= {"attention.decoders.0", "attention.norms.0"}
    else:
        ctc |= {"heads.projections.0", "heads.norms.0"}
    heads = {name for name in moved if not name.startswith("encoder")}
    assert heads == ctc | attention


def test_loss_is_the_weighted_sum(tmp_path: Path) -> None:
    """``w sum_m a_m CTC_m + (1 - w) sum_m b_m CE_m``."""
    brain = tiny_brain(
        tmp_path,
        shaken(tiny_model(attention="shared"), by=0.05),
        ctc_weight=0.2,
        exit_weights=[0.5, 2.0],
        attention_exit_weights=[3.0, 1.0],
    )
    brain.modules.eval()
    brain.on_stage_start(sb.Stage.VALID)
    batch = PaddedBatch(list(tone_dataset(3, first=3)))
    with torch.no_grad():
        outputs = brain.compute_forward(batch, sb.Stage.VALID)
        loss = brain.compute_objectives(outputs, batch, sb.Stage.VALID)
        losses = brain.exit_losses(outputs, batch)
    ctc, attention = losses["CTC"], losses["attention"]
    assert float(loss) == pytest.approx(
        float(
            0.2 * (0.5 * ctc[0] + 2.0 * ctc[1])
            + 0.8 * (3.0 * attention[0] + attention[1])
        ),
        rel=1e-5,
    )


def test_log_has_both_losses_and_what_was_recognised(tmp_path: Path) -> None:
    """By exit: losses of training and validation, error rate, accuracy."""
    model = tiny_model(attention="shared")
    brain = fit(tiny_brain(tmp_path, model, epochs=2))
    names = {
        f"{name} L{layer}" for name in ("WER", "accuracy") for layer in EXITS
    }
    stats = brain.valid_stats()
    assert stats.keys() == names
    assert {type(value) for value in stats.values()} == {float}
    lines = (tmp_path / "train_log.txt").read_text().splitlines()
    assert len(lines) == 2
    for line in lines:
        logged = re.findall(r"(train|valid) ([^:,]+): ([-+.\de]+)", line)
        named = {f"{stage} {name}" for stage, name, _ in logged}
        assert named >= {f"valid {name}" for name in names} | {
            f"{stage} {head} loss L{layer}"
            for stage in ("train", "valid")
            for head in ("CTC", "attention")
            for layer in EXITS
        }
    # Of 8 transcripts: neither above all tokens nor a share of one.
    assert 0 <= stats["accuracy L4"] <= 100 and brain.token_accuracy.tokens


def test_smoothing_reaches_the_loss(tmp_path: Path) -> None:
    """Each Brain uses its own ``label_smoothing``."""
    model = shaken(tiny_model(attention="shared"))
    batch = PaddedBatch(list(tone_dataset(3, first=3)))
    losses = []
    for smoothing in (0.0, 0.3):
        folder = tmp_path / str(smoothing)
        brain = tiny_brain(folder, model, label_smoothing=smoothing)
        brain.modules.eval()
        with torch.no_grad():
            outputs = brain.compute_forward(batch, sb.Stage.VALID)
            losses.append(brain.exit_losses(outputs, batch))
    assert torch.equal(losses[0]["CTC"], losses[1]["CTC"])
    difference = losses[0]["attention"] - losses[1]["attention"]
    assert difference.abs().min() > 1e-3


def test_augmented_copies_have_their_transcripts(tmp_path: Path) -> None:
    """An augmenter that doubles the batch doubles what decoders read."""
    augment = Augmenter(
        augmentations=[torch.nn.Identity()],
        concat_original=True,
        enable_augmentations=[True],
    )
    model = shaken(tiny_model(attention="shared"), by=0.05)
    brain = tiny_brain(tmp_path, model, wav_augment=augment)
    batch = PaddedBatch(list(tone_dataset(3, first=3)))
    brain.modules.train()
    with torch.no_grad():
        doubled = brain.compute_forward(batch, sb.Stage.TRAIN)
        plain = brain.compute_forward(batch, sb.Stage.VALID)
    assert len(doubled[0].lengths_B) == len(doubled[0].attention_BSV) == 6
    torch.testing.assert_close(
        dict(brain.exit_losses(doubled, batch)),
        dict(brain.exit_losses(plain, batch)),
    )


def test_transcripts_are_not_given_in_a_test(tmp_path: Path) -> None:
    """Evaluation searches; there is no teacher, and so no such loss."""
    brain = tiny_brain(tmp_path, tiny_model(attention="shared"))
    brain.modules.eval()
    batch = PaddedBatch(list(tone_dataset(3, first=3)))
    with torch.no_grad():
        outputs = brain.compute_forward(batch, sb.Stage.TEST)
    assert all(output.attention_BSV is None for output in outputs)
    assert brain.exit_losses(outputs, batch).keys() == {"CTC"}


def test_resumed_epoch_has_both_mean_losses(tmp_path: Path) -> None:
    """Killed inside epoch 2 and started again: the same log, both losses."""

    class Killed(CTCAttentionEarlyExitBrain):
        def on_fit_batch_start(self, batch, should_step: bool) -> None:
            if self.hparams.epoch_counter.current == 2 and self.step == 3:
                raise KeyboardInterrupt
            super().on_fit_batch_start(batch, should_step)

    def run(folder: str, **options: Any) -> str:
        brain = tiny_brain(
            tmp_path / folder,
            tiny_model(attention="shared"),
            epochs=2,
            ckpt_interval_minutes=0,
            ckpt_interval_steps=2,
            **options,
        )
        fit(brain, batch_size=2)
        log = (tmp_path / folder / "train_log.txt").read_text()
        return log.splitlines()[-1]

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("parts", brain_class=Killed)
    saved = sorted((tmp_path / "parts" / "save").iterdir())[-1]
    assert {"CTC_losses.ckpt", "attention_losses.ckpt"} <= {
        file.name for file in saved.iterdir()
    }
    assert run("parts") == whole
    assert "train attention loss L2: " in whole


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("ctc_weight", -0.1),
        ("ctc_weight", 1.01),
        ("label_smoothing", 1.0),
        ("label_smoothing", -0.1),
        ("attention_exit_weights", [1.0]),
        ("attention_exit_weights", [0.0, 0.0]),
        ("exit_weights", [1.0, -1.0]),
    ],
)
def test_wrong_option_stops_before_training(
    option: str, value: object, tmp_path: Path
) -> None:
    """The message begins with the key and holds the value."""
    model = tiny_model(attention="shared")
    with pytest.raises(InputError, match=f"^{option}: ") as error:
        tiny_brain(tmp_path, model, **{option: value})
    assert str(value) in str(error.value)


@pytest.mark.parametrize(
    "option", ["ctc_weight", "label_smoothing", "attention_exit_weights"]
)
def test_missing_option_stops_before_training(
    option: str, tmp_path: Path
) -> None:
    """A YAML of a CTC system with the other Brain: which keys it lacks."""

    class Without(CTCAttentionEarlyExitBrain):
        def __init__(self, *arguments, hparams, **options):
            left = {k: v for k, v in hparams.items() if k != option}
            super().__init__(*arguments, hparams=left, **options)

    model = tiny_model(attention="shared")
    with pytest.raises(InputError, match=option):
        tiny_brain(tmp_path, model, brain_class=Without)


def test_model_without_decoders_is_refused(tmp_path: Path) -> None:
    """The message names the Brain that such a model is for."""
    with pytest.raises(InputError, match=r"^model: .*CTCEarlyExitBrain"):
        tiny_brain(tmp_path, brain_class=CTCAttentionEarlyExitBrain)


class Own(LossTerm):
    """A term of a user's own."""

    name = "own"

    def losses(self, outputs, batch, brain) -> torch.Tensor:
        return torch.stack([o.log_probs_BTV[..., 0].mean() for o in outputs])


class Scalar(Own):
    """Not one loss per exit."""

    def losses(self, outputs, batch, brain) -> torch.Tensor:
        return super().losses(outputs, batch, brain).sum()


class Nameless(Own):
    """A name that no log can hold."""

    name = "two words"


def test_terms_of_a_list(tmp_path: Path) -> None:
    """Each with its weights, in the order of the list; CTC is there once."""
    own = Own(0.5, exit_weights=[1.0, 3.0])
    model = shaken(tiny_model(attention="shared"), by=0.05)
    brain = tiny_brain(tmp_path, model, losses=[own, "distillation", "ctc"])
    assert list(brain.loss_weights) == ["own", "CTC"]
    assert brain.loss_weights["own"] == [0.5, 1.5]
    brain.modules.eval()
    brain.on_stage_start(sb.Stage.VALID)
    batch = PaddedBatch(list(tone_dataset(3, first=3)))
    with torch.no_grad():
        outputs = brain.compute_forward(batch, sb.Stage.VALID)
        loss = brain.compute_objectives(outputs, batch, sb.Stage.VALID)
        losses = brain.exit_losses(outputs, batch)
    expected = 0.3 * losses["CTC"].sum()
    expected += losses["own"] @ torch.tensor([0.5, 1.5])
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ("ctcc", "'ctcc' is no term"),
        (["ctcc"], "'ctcc' is no term .*ctc, distillation, attention, or"),
        ([Own], "is no term"),
        (["ctc", Own(), Own()], "Own has the name 'own'"),
        ([Nameless()], "Nameless has the name 'two words'"),
        ([Own(-1.0)], "the weight of own, -1.0, must be"),
        ([Own(0.0)], "has a weight at an exit"),
        ([], "has a weight at an exit"),
    ],
)
def test_wrong_list_of_losses(
    losses: object, message: str, tmp_path: Path
) -> None:
    """At construction, by what is wrong with it."""
    model = tiny_model(attention="shared")
    with pytest.raises(InputError, match=f"losses.*{message}"):
        tiny_brain(tmp_path, model, losses=losses)


def test_a_term_of_the_wrong_shape(tmp_path: Path) -> None:
    brain = tiny_brain(tmp_path, losses=["ctc", Scalar()])
    with pytest.raises(InputError, match=r"losses: own returns .*\[2\]"):
        fit(brain)


def test_distillation_that_is_not_listed(tmp_path: Path) -> None:
    """It would do nothing."""
    given = {"losses": ["ctc"], "distillation": Distillation("self")}
    with pytest.raises(InputError, match="^distillation: .*not among the"):
        tiny_brain(tmp_path, **given)
    tiny_brain(tmp_path, losses=["ctc"], distillation=Distillation())
