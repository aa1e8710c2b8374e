"""The Brain trains every exit, notices trouble, and resumes where it was.

Protects: that a joint model can learn a few utterances by heart at every
exit, that collapse and non-finite losses are said aloud, and that a run in two
parts ends with the weights of a run in one.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
import re
from pathlib import Path

import pytest
import speechbrain as sb
import torch
from speechbrain.augment.augmenter import Augmenter

from speechbrain_ee.errors import InputError
from speechbrain_ee.training.systems import CTCEarlyExitBrain
from tests.helpers import (
    EXITS,
    VOCAB,
    repeated,
    tiny_brain,
    tiny_model,
    tone_dataset,
)

LOADER = {"batch_size": 4, "shuffle": True}


def fit(
    brain: CTCEarlyExitBrain, utterances: int = 8, times: int = 1
) -> CTCEarlyExitBrain:
    """Train on tones, several times an epoch; validate on the same tones."""
    data = tone_dataset(utterances)
    brain.fit(
        brain.hparams.epoch_counter,
        repeated(data, times),
        data,
        train_loader_kwargs=dict(LOADER),
        valid_loader_kwargs={"batch_size": 8},
    )
    return brain


def test_overfits_eight_utterances_at_every_exit(tmp_path: Path) -> None:
    """Word error rate 0 at every exit, found by the real fit and decoding."""
    model = tiny_model(attention_type="RoPEMHA", d_model=32)
    brain = fit(tiny_brain(tmp_path, model, epochs=10, lr=0.005), times=4)
    assert brain.error_rates.words == 39
    assert brain.error_rates.wer == (0.0,) * len(EXITS)
    log = (tmp_path / "train_log.txt").read_text().splitlines()
    assert len(log) == 10
    for layer in EXITS:
        assert f"valid WER L{layer}: 0.00e+00" in log[-1]
        assert f"train CTC loss L{layer}: " in log[-1]
    assert "valid WER L2: 0.00e+00" not in log[0]


def test_an_exit_without_weight_does_not_learn(tmp_path: Path) -> None:
    """``exit_weights`` reach the optimiser: head 1 stays as it was."""
    model = tiny_model()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    fit(tiny_brain(tmp_path, model, exit_weights=[0.0, 1.0]))
    changed = {
        name
        for name, parameter in model.named_parameters()
        if not torch.equal(parameter, before[name])
    }
    untouched = before.keys() - changed
    assert {"heads.projections.0.weight", "heads.norms.0.weight"} <= untouched
    assert {
        "heads.projections.1.weight",
        "encoder.front_end.blocks.convblock_0.convs.conv_0.conv.weight",
    } <= changed


def test_blank_collapse_is_said_aloud(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Heads that can only say blank are named after the given epoch."""
    model = tiny_model()
    for linear in model.heads.projections:
        torch.nn.init.zeros_(linear.weight)
        linear.bias.data = torch.tensor([50.0] + [0.0] * 6)
    with caplog.at_level(logging.WARNING, logger="speechbrain_ee"):
        fit(tiny_brain(tmp_path, model, epochs=2, blank_collapse_epochs=2))
    lines = [r.getMessage() for r in caplog.records]
    warnings = [line for line in lines if "BLANK COLLAPSE" in line]
    assert len(warnings) == 1
    assert "after 2 epochs" in warnings[0] and str(list(EXITS)) in warnings[0]


class NonFiniteOnce(CTCEarlyExitBrain):
    """The loss of the second batch of every epoch is not a number."""

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
        fit(brain)
    warnings = [
        r.getMessage() for r in caplog.records if "NON-FINITE" in r.message
    ]
    assert len(warnings) == 1 and "epoch 1, batch 2" in warnings[0]
    model = brain.modules.model
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_non_finite_loss_again_and_again_stops(tmp_path: Path) -> None:
    """Beyond the patience, training ends instead of running idle."""

    class Never(CTCEarlyExitBrain):
        def exit_losses(self, outputs, batch) -> dict[str, torch.Tensor]:
            losses_E = super().exit_losses(outputs, batch)["CTC"]
            return {"CTC": losses_E * float("inf")}

    brain = tiny_brain(tmp_path, brain_class=Never, nonfinite_patience=1)
    with pytest.raises(ValueError, match="not finite"):
        fit(brain)


def dropping_model(seed: int = 0):
    """A model whose training draws random numbers: dropout and LayerDrop."""
    model = tiny_model(layerdrop_prob=0.2, seed=seed)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.1
    return model


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    """Killed in epoch 3 and started again: the same bits at the end."""

    class Killed(CTCEarlyExitBrain):
        def on_fit_batch_end(self, *arguments) -> None:
            super().on_fit_batch_end(*arguments)
            if self.hparams.epoch_counter.current == 3:
                raise KeyboardInterrupt

    whole = fit(tiny_brain(tmp_path / "whole", dropping_model(), epochs=4))
    with pytest.raises(KeyboardInterrupt):
        fit(
            tiny_brain(
                tmp_path / "parts",
                dropping_model(),
                epochs=4,
                brain_class=Killed,
            )
        )
    torch.rand(5)
    resumed = fit(
        tiny_brain(tmp_path / "parts", dropping_model(seed=7), epochs=4)
    )
    for name, expected in whole.modules.state_dict().items():
        assert torch.equal(resumed.modules.state_dict()[name], expected), name
    last = [
        (tmp_path / part / "train_log.txt").read_text().splitlines()[-1]
        for part in ("whole", "parts")
    ]
    assert last[0] == last[1] and last[0].startswith("epoch: 4")


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

    brain = fit(tiny_brain(tmp_path, epochs=3, brain_class=Scripted))
    brain.on_evaluate_start(min_key="WER")
    for name, value in brain.modules.model.state_dict().items():
        assert torch.equal(value, brain.kept[1][name])
    assert not all(
        torch.equal(brain.kept[1][n], brain.kept[2][n]) for n in brain.kept[1]
    )


def test_checkpoint_of_another_model(tmp_path: Path) -> None:
    """Resuming with another vocabulary or depth: which keys, what to do."""
    fit(tiny_brain(tmp_path))
    other = tiny_brain(tmp_path, tiny_model(d_model=32), epochs=2)
    with pytest.raises(InputError, match=re.escape(str(tmp_path))) as error:
        fit(other)
    for key in ("output_neurons", "exit_layers", "d_model"):
        assert key in str(error.value)


def test_checkpoint_of_other_exits(tmp_path: Path) -> None:
    """As many exits at other layers: the weights fit, the meaning does not."""
    fit(tiny_brain(tmp_path, tiny_model(exit_layers=(2, 4))))
    other = tiny_brain(tmp_path, tiny_model(exit_layers=(1, 4)), epochs=2)
    with pytest.raises(InputError, match=r"exit_layers: \[1, 4\].*\[2, 4\]"):
        fit(other)


def test_tokens_beyond_the_vocabulary_are_no_text(tmp_path: Path) -> None:
    """An output that no piece belongs to cannot end a run in decoding."""
    brain = tiny_brain(tmp_path)
    assert brain.decode([1, VOCAB, 2, VOCAB + 5]) == "tone1 tone2"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("checkpoint_rule", "frist_exit"),
        ("exit_weights", [1.0]),
        ("max_grad_norm", -1.0),
    ],
)
def test_wrong_option_stops_before_training(
    tmp_path: Path, option: str, value: object
) -> None:
    """Not after the first epoch of a long run."""
    with pytest.raises(InputError, match=option):
        tiny_brain(tmp_path, **{option: value})


def test_augmented_copies_have_their_transcripts(tmp_path: Path) -> None:
    """An augmenter that doubles the batch doubles the targets with it."""
    augment = Augmenter(
        augmentations=[torch.nn.Identity()],
        concat_original=True,
        enable_augmentations=[True],
    )
    brain = tiny_brain(tmp_path, wav_augment=augment)
    batch = sb.dataio.batch.PaddedBatch(list(tone_dataset(3)))
    brain.modules.train()
    with torch.no_grad():
        doubled = brain.compute_forward(batch, sb.Stage.TRAIN)
        plain = brain.compute_forward(batch, sb.Stage.VALID)
    assert len(doubled[0].lengths_B) == 6
    torch.testing.assert_close(
        brain.exit_losses(doubled, batch), brain.exit_losses(plain, batch)
    )


def test_first_step_is_warmed_up(tmp_path: Path) -> None:
    """Every optimiser step of a run is done at the schedule's rate."""

    class Watched(CTCEarlyExitBrain):
        rates = []

        def optimizers_step(self) -> None:
            self.rates.append(self.optimizer.param_groups[0]["lr"])
            super().optimizers_step()

    brain = tiny_brain(tmp_path, epochs=10, lr=0.001, brain_class=Watched)
    fit(brain)
    cooldown = [0.0001 * n for n in range(9, -1, -1)]
    assert brain.rates == pytest.approx(
        [0.0005] + 9 * [0.001] + cooldown, abs=1e-9
    )
