"""Whenever a run is killed, it goes on from a whole checkpoint, bit for bit.

Protects: a checkpoint that appears when it is complete, whatever the disk and
the clock do; errors that name the file; a run killed anywhere in training that
ends with the bits of one that was not. Everything that has a state or draws
random numbers is on there: two optimisers with schedules of their own, parts
that join in by epoch, dropout, layer-drop, augmentation, distillation,
attention heads, gradient accumulation, bf16, a gradient scaler.

Authors
 * The speechbrain-ee contributors 2026
"""

import errno
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import speechbrain as sb
import torch
import yaml
from speechbrain.augment.augmenter import Augmenter
from speechbrain.augment.time_domain import DropChunk
from speechbrain.utils.epoch_loop import EpochCounter
from speechbrain.utils.train_logger import FileTrainLogger

from speechbrain_ee.errors import InputError
from speechbrain_ee.training.checkpoints import AtomicCheckpointer
from speechbrain_ee.training.distillation import Distillation
from speechbrain_ee.training.monitor import forget_later_epochs
from speechbrain_ee.training.regimes import Regime
from speechbrain_ee.training.systems import (
    CTCAttentionEarlyExitBrain,
    CTCEarlyExitBrain,
)
from tests.helpers import (
    fit_tones,
    shaken,
    tiny_brain,
    tiny_model,
    tone_dataset,
)
from tests.soak.killing import (
    KILLED,
    Change,
    die_in_half_a_file,
    forked,
    note_changes,
    status_of,
)
from tests.training.tuned import ADAM, schedule

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def saver(folder: Path, epoch: int = 0) -> AtomicCheckpointer:
    net = torch.nn.Linear(50, 50)
    with torch.no_grad():
        net.weight.fill_(epoch)
    optimizer = torch.optim.SGD(net.parameters(), lr=float(epoch))
    counter = EpochCounter(10)
    counter.current = epoch
    things = {"net": net, "optimizer": optimizer, "counter": counter}
    return AtomicCheckpointer(folder, things)


def save(folder: Path, epoch: int, keep: int = 1) -> None:
    saver(folder, epoch).save_and_keep_only(
        meta={"WER": 50.0 - epoch, "epoch": epoch},
        min_keys=["WER"],
        num_to_keep=keep,
    )


def recovered(folder: Path) -> int:
    new = saver(folder)
    new.recover_if_possible()
    net, optimizer, counter = new.recoverables.values()
    epoch = counter.current
    assert (net.weight == epoch).all()
    assert optimizer.param_groups[0]["lr"] == epoch
    return epoch


@pytest.mark.parametrize("by", ["change", "half a file"])
def test_killed_at_every_moment(by: str, tmp_path: Path) -> None:
    """The checkpoint is the one before or the new one, never a part."""
    before = tmp_path / "before"
    save(before, 1)
    outcomes = []
    for number in range(1, 100):
        folder = tmp_path / f"{number}"
        shutil.copytree(before, folder)

        def child(folder: Path = folder, number: int = number) -> None:
            if by == "change":
                note_changes(folder, Change(".", number))
            else:
                die_in_half_a_file(number)
            save(folder, 2)

        status = status_of(forked(child))
        outcomes.append(recovered(folder))
        # Between saving the new one and deleting the old one there are two.
        known = saver(folder).list_checkpoints()
        assert 1 <= len(known) <= 2 and outcomes[-1] >= len(known)
        assert {each.path for each in known} == set(folder.iterdir())
        if status != KILLED:
            break
    assert status == 0 and outcomes[-1] == 2
    assert outcomes == sorted(outcomes) and outcomes[0] == 1
    changes = {1: outcomes.count(1), 2: outcomes.count(2)}
    assert changes == ({1: 5, 2: 7} if by == "change" else {1: 2, 2: 1})


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [Path.unlink, cut])
@pytest.mark.parametrize("name", ["net.ckpt", "counter.ckpt"])
def test_a_part_is_never_chosen(
    damage: Callable,
    name: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither to go on from nor as the best; the log names it."""
    save(tmp_path, 1, keep=2)
    save(tmp_path, 2, keep=2)
    newest = saver(tmp_path).find_checkpoint().path
    damage(newest / name)
    with caplog.at_level(logging.WARNING):
        assert recovered(tmp_path) == 1
    assert str(newest) in caplog.text and name in caplog.text
    best = saver(tmp_path).find_checkpoint(min_key="WER")
    assert best.meta["epoch"] == 1
    assert newest.is_dir()  # not ours to delete: it may be a copy


def test_the_newest_in_spite_of_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next node's clock is an hour behind."""
    save(tmp_path, 1, keep=3)
    (newest,) = saver(tmp_path).list_checkpoints()
    known = newest.meta["unixtime"]
    monkeypatch.setattr("time.time", lambda: known - 3600.0)
    for epoch in (2, 3):
        save(tmp_path, epoch, keep=3)
        assert recovered(tmp_path) == epoch


@pytest.mark.parametrize(
    "step", ["os.makedirs", "builtins.open", "os.fsync", "os.replace"]
)
def test_full_disk(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it shows: the last checkpoint stays, the message helps."""
    save(tmp_path, 1)
    before = {p: p.stat() for p in tmp_path.rglob("*") if p.is_file()}
    second = saver(tmp_path, 2)

    def full(*args, **kwargs) -> None:
        raise FULL

    with monkeypatch.context() as patch:
        if step == "builtins.open":
            as_ever = open
            patch.setattr(
                step,
                lambda path, mode="r", *args, **kwargs: (
                    full()
                    if "w" in mode
                    else as_ever(path, mode, *args, **kwargs)
                ),
            )
        else:
            patch.setattr(step, full)
        with pytest.raises(InputError) as error:
            second.save_checkpoint(meta={"WER": 1.0, "epoch": 2})
    message = str(error.value)
    name = next(tmp_path.iterdir()).name
    for part in (str(tmp_path), "No space left", "keep_checkpoints", name):
        assert part in message
    assert before == {p: p.stat() for p in tmp_path.rglob("*") if p.is_file()}
    assert recovered(tmp_path) == 1


def test_a_file_that_is_no_state(tmp_path: Path) -> None:
    """As long as it was, but damaged: say which folder to delete."""
    save(tmp_path, 1, keep=2)
    save(tmp_path, 2, keep=2)
    newest = saver(tmp_path).find_checkpoint().path
    path = newest / "net.ckpt"
    path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(InputError, match="Delete this folder") as error:
        recovered(tmp_path)
    assert str(newest) in str(error.value) and "\n" not in str(error.value)
    shutil.rmtree(newest)
    assert recovered(tmp_path) == 1


def fit(folder: Path, epochs: int) -> torch.nn.Module:
    brain = tiny_brain(folder, epochs=epochs, keep_checkpoints=5)
    return fit_tones(brain, 4).modules.model


def test_runs_from_before_the_names_of_heads(tmp_path: Path) -> None:
    """Their means of losses have another name, and no list of files."""
    fit(tmp_path / "new", 1)
    fit(tmp_path / "old", 1)
    (folder,) = (tmp_path / "old/save").glob("CKPT*")
    (folder / "CTC_losses.ckpt").rename(folder / "exit_losses.ckpt")
    meta = yaml.safe_load((folder / "CKPT.yaml").read_text("utf-8"))
    del meta["files"]
    (folder / "CKPT.yaml").write_text(yaml.safe_dump(meta), "utf-8")
    with pytest.warns(UserWarning, match="CTC_losses"):
        old = fit(tmp_path / "old", 2)
    new = fit(tmp_path / "new", 2).state_dict()
    assert all(torch.equal(v, new[n]) for n, v in old.state_dict().items())
    log = "train_log.txt"
    assert (tmp_path / "old" / log).read_text("utf-8") == (
        tmp_path / "new" / log
    ).read_text("utf-8")


def test_an_epoch_is_logged_once(tmp_path: Path) -> None:
    """Killed between the line and the checkpoint, or inside the line."""
    logger = FileTrainLogger(str(tmp_path / "train_log.txt"))
    for epoch in (1, 2, 10):
        logger.log_stats({"epoch": epoch}, {"loss": 1.0}, {"loss": 1.0})
    path = Path(logger.save_file)
    first, second, tenth = path.read_text("utf-8").splitlines(keepends=True)
    forget_later_epochs(logger, 10)
    assert path.read_text("utf-8") == first + second + tenth
    path.write_text(first + second + tenth[:8], "utf-8")
    forget_later_epochs(logger, 10)
    assert path.read_text("utf-8") == first + second
    forget_later_epochs(logger, 1)
    assert path.read_text("utf-8") == first
    forget_later_epochs(object(), 0)  # a logger without a file
    path.unlink()
    forget_later_epochs(logger, 0)
    assert not path.exists()


EPOCHS = 3
UTTERANCES, BATCH = 8, 2  # four batches, two optimiser steps in an epoch
REGIME = Regime(heads_first_epochs=1, unfreeze_per_epoch=3, layer_decay=0.7)
SYSTEMS = {
    "two optimisers, regime": {
        "regime": REGIME,
        "backbone_opt_class": ADAM,
        "lr_annealing_backbone": 0.002,
    },
    "attention, bf16": {"attention": "shared", "precision": "bf16"},
    "regime, one optimiser, distilled": {
        "regime": REGIME,
        "distillation": Distillation("soft", alpha=0.5),
    },
}
# Where it dies: epoch, stage, batch of the stage. In the first epoch, and
# behind the last checkpoint of one; twice in the same epoch; in validation.
TRAIN, VALID = sb.Stage.TRAIN, sb.Stage.VALID
PLACES = [(1, TRAIN, 3), (1, VALID, 1), (2, TRAIN, 1), (2, TRAIN, 3)]
PLACES += [(3, TRAIN, 4), (3, VALID, 2)]


class Run:
    def __init__(self, folder: Path, system: str):
        self.folder, self.system = folder, system
        self.steps: dict[tuple[int, int], tuple] = {}
        self.starts = 0

    def start(self, place: tuple | None = None) -> CTCEarlyExitBrain:
        self.starts += 1
        brain = self._brain()
        as_ever = brain.on_fit_batch_end, brain.evaluate_batch

        def on_fit_batch_end(batch: Any, outputs: Any, loss: Any, *rest: Any):
            as_ever[0](batch, outputs, loss, *rest)
            epoch = brain.hparams.epoch_counter.current
            rates = tuple(brain.learning_rates().values())
            fact = (float(loss.detach()).hex(), rates, tuple(batch.id))
            # A step that was done twice was the same twice.
            assert self.steps.setdefault((epoch, brain.step), fact) == fact
            if place == (epoch, TRAIN, brain.step):
                raise KeyboardInterrupt

        def evaluate_batch(batch: Any, stage: sb.Stage):
            epoch = brain.hparams.epoch_counter.current
            if place == (epoch, stage, brain.step):
                raise KeyboardInterrupt
            return as_ever[1](batch, stage=stage)

        brain.on_fit_batch_end = on_fit_batch_end
        brain.evaluate_batch = evaluate_batch
        data = tone_dataset(UTTERANCES, first=3)
        brain.fit(
            brain.hparams.epoch_counter,
            data,
            data,
            train_loader_kwargs={"batch_size": BATCH, "shuffle": True},
            valid_loader_kwargs={"batch_size": UTTERANCES // 2},
        )
        return brain

    def _brain(self) -> CTCEarlyExitBrain:
        options = dict(SYSTEMS[self.system])
        attention = options.pop("attention", None)
        # Every process begins with other weights and other random numbers.
        model = shaken(
            tiny_model(attention=attention, layerdrop_prob=0.2),
            seed=self.starts,
            by=0.1,
        )
        torch.manual_seed(self.starts)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.2
        if "lr_annealing_backbone" in options:
            rate = options["lr_annealing_backbone"]
            options["lr_annealing_backbone"] = schedule(rate)
        kind = CTCAttentionEarlyExitBrain if attention else CTCEarlyExitBrain
        drop = DropChunk(drop_length_low=100, drop_length_high=900)
        brain = tiny_brain(
            self.folder,
            model,
            brain_class=kind,
            epochs=EPOCHS,
            keep_checkpoints=2,
            grad_accumulation_factor=2,
            ckpt_interval_minutes=0,
            ckpt_interval_steps=1,
            wav_augment=Augmenter(augmentations=[drop]),
            **options,
        )
        # As SpeechBrain's of fp16, which it has on GPUs alone.
        brain.scaler = torch.GradScaler("cpu", 2.0**4, growth_interval=3)
        brain.checkpointer.add_recoverable("scaler", brain.scaler)
        return brain


def state(brain: CTCEarlyExitBrain) -> dict[str, Any]:
    found = dict(brain.modules.model.state_dict())
    for name, value in brain.scaler.state_dict().items():
        found[f"scaler {name}"] = torch.tensor(value)
    for name, optimizer in brain.optimizers_dict.items():
        saved = optimizer.state_dict()
        for key, moments in saved["state"].items():
            for moment, value in moments.items():
                found[f"{name} {key} {moment}"] = value
        for number, group in enumerate(saved["param_groups"]):
            found[f"{name} lr {number}"] = torch.tensor(group["lr"])
    return found


@pytest.mark.parametrize("system", SYSTEMS)
def test_killed_in_training_and_validation(system: str, tmp_path: Path) -> None:
    """Six kills; every loss, rate and batch, the log, the final state."""
    whole, parts = Run(tmp_path / "w", system), Run(tmp_path / "p", system)
    whole.folder.mkdir()
    parts.folder.mkdir()
    expected = state(whole.start())
    assert len(whole.steps) == EPOCHS * UTTERANCES // BATCH
    for place in PLACES:
        with pytest.raises(KeyboardInterrupt):
            parts.start(place)
    resumed = state(parts.start())
    assert parts.steps == whole.steps
    assert len(set(whole.steps.values())) == len(whole.steps)
    assert resumed.keys() == expected.keys()
    wrong = [n for n in expected if not torch.equal(expected[n], resumed[n])]
    assert not wrong
    # The scale has grown, at steps counted across the kills.
    assert resumed["scaler scale"] > 2.0**4
    log = (parts.folder / "train_log.txt").read_text("utf-8")
    assert log == (whole.folder / "train_log.txt").read_text("utf-8")
    assert len(log.splitlines()) == EPOCHS
