"""The Brains train every exit by its own weights, and notice trouble.

Protects: that CTC and attention heads learn a few utterances by heart at
every exit; that every weight and option reaches the optimiser or is refused
before training; that collapse and non-finite losses are said aloud; that the
best checkpoint is kept, and one of another model refused.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import speechbrain as sb
import torch
from speechbrain.augment.augmenter import Augmenter
from speechbrain.dataio.batch import PaddedBatch

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.decoding import AttentionBeamSearch, SearchOptions
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.training.losses import LossTerm
from speechbrain_ee.training.systems import (
    CTCAttentionEarlyExitBrain,
    CTCEarlyExitBrain,
)
from tests.helpers import (
    EXITS,
    fit_tones,
    shaken,
    tiny_brain,
    tiny_model,
    tone_dataset,
)

KINDS = ("shared", "separate")
fit = partial(fit_tones, first=3)


class NonFiniteOnce(CTCEarlyExitBrain):
    def exit_losses(self, outputs, batch) -> dict[str, torch.Tensor]:
        losses_E = super().exit_losses(outputs, batch)["CTC"]
        training = self.modules.model.training
        factor = float("nan") if training and self.step == 2 else 1
        return {"CTC": losses_E * factor}


def test_non_finite_loss_is_said_aloud_and_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its place is named, and the weights stay finite."""
    brain = tiny_brain(tmp_path, brain_class=NonFiniteOnce)
    with caplog.at_level(logging.WARNING, logger="speechbrain_ee"):
        fit_tones(brain)
    warnings = [
        r.getMessage() for r in caplog.records if "NON-FINITE" in r.message
    ]
    assert len(warnings) == 1 and "epoch 1, batch 2" in warnings[0]
    model = brain.modules.model
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_best_checkpoint_is_kept_by_the_rule(tmp_path: Path) -> None:
    """The checkpoint that evaluation loads is the best one, not the last."""
    wers = iter([0.5, 0.2, 0.9])

    class Scripted(CTCEarlyExitBrain):
        def _end_of_epoch(self, stats: dict, epoch: int) -> None:
            self.error_rates.words = 10
            wer = next(wers)
            self.error_rates.errors_E[:] = [0, round(10 * wer)]
            self.kept = getattr(self, "kept", [])
            self.kept.append(
                {
                    n: p.clone()
                    for n, p in self.modules.model.state_dict().items()
                }
            )
            super()._end_of_epoch(stats, epoch)

    brain = fit_tones(tiny_brain(tmp_path, epochs=3, brain_class=Scripted))
    brain.on_evaluate_start(min_key="WER")
    for name, value in brain.modules.model.state_dict().items():
        assert torch.equal(value, brain.kept[1][name])
    assert not all(
        torch.equal(brain.kept[1][n], brain.kept[2][n]) for n in brain.kept[1]
    )


def test_checkpoint_of_other_exits(tmp_path: Path) -> None:
    """As many exits at other layers: the weights fit, the meaning does not."""
    fit_tones(tiny_brain(tmp_path, tiny_model(exit_layers=(2, 4))))
    other = tiny_brain(tmp_path, tiny_model(exit_layers=(1, 4)), epochs=2)
    with pytest.raises(InputError, match=r"exit_layers: \[1, 4\].*\[2, 4\]"):
        fit_tones(other)


def changed(model: EarlyExitModel, train: Any) -> set[str]:
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
    name = "own"

    def losses(self, outputs, batch, brain) -> torch.Tensor:
        return torch.stack([o.log_probs_BTV[..., 0].mean() for o in outputs])


class Scalar(Own):
    def losses(self, outputs, batch, brain) -> torch.Tensor:
        return super().losses(outputs, batch, brain).sum()


class Nameless(Own):
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
