"""A checkpoint is whole or it is none.

Protects: what a kill at any moment of saving or deleting leaves, what a full
disk leaves and says, the choice of the newest in spite of a wrong clock, and
the errors about checkpoints that cannot be gone on from.

Authors
 * The speechbrain-ee contributors 2026
"""

import errno
import logging
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from speechbrain.utils.epoch_loop import EpochCounter
from speechbrain.utils.train_logger import FileTrainLogger

from speechbrain_ee.errors import InputError, exits_on_input_error
from speechbrain_ee.training.checkpoints import AtomicCheckpointer
from speechbrain_ee.training.monitor import forget_later_epochs
from tests.helpers import tiny_brain, tone_dataset
from tests.soak.killing import (
    KILLED,
    Change,
    die_in_half_a_file,
    forked,
    note_changes,
    status_of,
)

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
LIMIT_BYTES = 4096  # of a file: less than the weights need


def saver(folder: Path, epoch: int = 0) -> AtomicCheckpointer:
    """A checkpointer whose state shows the epoch everywhere."""
    net = torch.nn.Linear(50, 50)
    with torch.no_grad():
        net.weight.fill_(epoch)
    optimizer = torch.optim.SGD(net.parameters(), lr=float(epoch))
    counter = EpochCounter(10)
    counter.current = epoch
    things = {"net": net, "optimizer": optimizer, "counter": counter}
    return AtomicCheckpointer(folder, things)


def save(folder: Path, epoch: int, keep: int = 1) -> None:
    """As a Brain does behind an epoch; every epoch is better."""
    saver(folder, epoch).save_and_keep_only(
        meta={"WER": 50.0 - epoch, "epoch": epoch},
        min_keys=["WER"],
        num_to_keep=keep,
    )


def recovered(folder: Path) -> int:
    """The epoch that a new run goes on from, 0 without a checkpoint."""
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
    """A copy that was interrupted."""
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


def test_folders_of_the_user_stay(tmp_path: Path) -> None:
    """What is removed are names of SpeechBrain's with its files alone."""
    stay = [tmp_path / "CKPT_backup", tmp_path / "CKPT+mine"]
    for folder in stay:
        folder.mkdir()
        (folder / "notes.txt").touch()
    (tmp_path / "CKPT+2026-01-01+00-00-00+00").mkdir()
    recovered(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(stay)


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


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    """A real limit of the system, in a program: status 2, no traceback."""
    save(tmp_path / "save", 1)
    log = tmp_path / "log.txt"

    @exits_on_input_error
    def program() -> None:
        limits = (LIMIT_BYTES, LIMIT_BYTES)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        save(tmp_path / "save", 2)

    assert status_of(forked(program, log)) == 2
    text = log.read_text("utf-8")
    assert "Traceback" not in text
    assert f"{tmp_path / 'save'}: a checkpoint could not be saved" in text
    assert len(list((tmp_path / "save").iterdir())) == 1
    assert recovered(tmp_path / "save") == 1


def test_other_errors_stay_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not every failure is the disk's."""

    def wrong(*args, **kwargs) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(torch, "save", wrong)
    with pytest.raises(RuntimeError, match="a bug"):
        saver(tmp_path, 1).save_checkpoint()


def test_something_of_the_run_is_not_in_it(tmp_path: Path) -> None:
    """Saved by a YAML with one optimiser, say; the error names what lacks."""
    save(tmp_path, 1)
    new = saver(tmp_path)
    new.add_recoverable("optimizer_backbone", torch.nn.Linear(1, 1))
    new.add_recoverable("losses", torch.nn.Linear(1, 1), optional_load=True)
    with pytest.raises(InputError, match="new output_folder") as error:
        new.recover_if_possible()
    assert "no optimizer_backbone.ckpt;" in str(error.value)


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
    """Train on tones up to an epoch; the model."""
    brain = tiny_brain(folder, epochs=epochs, keep_checkpoints=5)
    data = tone_dataset(4)
    options = {"batch_size": 4}
    brain.fit(
        brain.hparams.epoch_counter,
        data,
        data,
        train_loader_kwargs=options,
        valid_loader_kwargs=options,
    )
    return brain.modules.model


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
