"""A run that was killed and started again is the run that was not.

Bit by bit, on one CPU thread, with speed perturbation, SpecAugment, dropout
and gradient accumulation on. A driver script outside the recipe does the
killing, so that the recipe needs no hooks for it.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml

Run = Callable[..., subprocess.CompletedProcess[str]]

DRIVER = '''
"""Run train.py; note every loss; die at a given place."""
import json, os, signal, sys
import torch
import train
from speechbrain_ee.training.systems import CTCEarlyExitBrain

plan = json.loads(sys.argv.pop(1))
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True, warn_only=True)
# A test started in the background may have inherited a deaf ear for it.
signal.signal(signal.SIGINT, signal.default_int_handler)
on_fit_batch_end = CTCEarlyExitBrain.on_fit_batch_end
save = torch.save


def die():
    os.kill(os.getpid(), plan["signal"])


def noting(brain, batch, outputs, loss, should_step):
    on_fit_batch_end(brain, batch, outputs, loss, should_step)
    place = [brain.hparams.epoch_counter.current, brain.step]
    rate = brain.optimizer.param_groups[0]["lr"]
    with open(plan["notes"], "a", encoding="utf-8") as file:
        ids = sorted(batch.id)
        file.write(json.dumps([*place, float(loss).hex(), rate, ids]) + "\\n")
    if place == plan["place"]:
        if plan["while_saving"]:
            torch.save = half
        else:
            die()


def half(content, path, *args, **kwargs):
    save(content, path, *args, **kwargs)
    os.truncate(path, os.path.getsize(path) // 2)
    die()


CTCEarlyExitBrain.on_fit_batch_end = noting
train.main()
'''
EPOCHS = 3
OPTIONS = (
    f"--number_of_epochs={EPOCHS}",
    "--dynamic_batching={max_batch_length: 4, num_buckets: 3}",
    "--dropout=0.1",
    "--grad_accumulation_factor=2",
    "--average_checkpoints=2",
    "--exit_layers=[1,3,6]",
    "--ckpt_interval_minutes=0",
    "--ckpt_interval_steps=1",
)


@dataclass
class Experiment:
    """One output folder and the runs it has seen."""

    folder: Path
    start: Callable[..., subprocess.CompletedProcess[str]]

    def run(
        self,
        place: tuple[int, int] | None = None,
        by: signal.Signals = signal.SIGKILL,
        while_saving: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Start or resume; die after the step at ``place``."""
        plan = {
            "place": place and list(place),
            "signal": int(by),
            "while_saving": while_saving,
            "notes": str(self.folder) + ".notes",
        }
        done = self.start(json.dumps(plan), self.folder)
        log = done.stdout[-2000:] + done.stderr[-2000:]
        if place is None:
            assert done.returncode == 0, log
        elif by == signal.SIGKILL:
            assert done.returncode == -signal.SIGKILL, log
        else:
            assert done.returncode != 0, log
        return done

    def notes(self) -> dict[tuple[int, int], list]:
        """Loss, learning rate and utterances by epoch and step.

        A step that was computed twice must have been the same twice.
        """
        notes: dict[tuple[int, int], list] = {}
        text = Path(f"{self.folder}.notes").read_text("utf-8")
        for line in text.splitlines():
            epoch, step, *facts = json.loads(line)
            assert notes.setdefault((epoch, step), facts) == facts, (
                epoch,
                step,
            )
        return notes

    def epochs(self) -> list[str]:
        """The lines of the train log."""
        return self.text("train_log.txt").splitlines()

    def text(self, name: str) -> str:
        """A file of the output folder."""
        return (self.folder / name).read_text("utf-8")

    def saved(self, name: str) -> dict:
        """What the newest checkpoint holds under a name."""
        metas = [
            (yaml.safe_load(path.read_text("utf-8")), path)
            for path in self.folder.glob("save/CKPT*/CKPT.yaml")
        ]
        meta, newest = max(metas, key=lambda pair: pair[0]["unixtime"])
        assert meta["end-of-epoch"] and meta["epoch"] == EPOCHS
        return torch.load(newest.parent / name, weights_only=True)


@pytest.fixture(scope="module")
def make(
    corpus: Path,
    shrink: tuple[str, ...],
    run_python: Run,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[], Experiment]:
    """A new experiment, always with the same options."""
    root = tmp_path_factory.mktemp("resume")
    driver = root / "driver.py"
    driver.write_text(DRIVER, encoding="utf-8")

    def start(plan: str, folder: Path) -> subprocess.CompletedProcess[str]:
        return run_python(
            driver,
            plan,
            "hparams/demo.yaml",
            f"--data_folder={corpus}",
            f"--output_folder={folder}",
            *shrink,
            *OPTIONS,
        )

    def make() -> Experiment:
        number = len(list(root.glob("*.notes")))
        return Experiment(root / f"experiment{number}", start)

    return make


@pytest.fixture(scope="module")
def whole(make: Callable[[], Experiment]) -> Experiment:
    """Not interrupted."""
    experiment = make()
    experiment.run()
    notes = experiment.notes()
    assert {epoch for epoch, _ in notes} == set(range(1, EPOCHS + 1))
    # Enough steps to die in, and at odd ones with half a step's gradients.
    assert {(1, 3), (2, 2), (3, 1)} <= set(notes)
    return experiment


@pytest.fixture(scope="module")
def broken(whole: Experiment, make: Callable[[], Experiment]) -> Experiment:
    """Killed in each epoch, in one of them by Ctrl-C."""
    experiment = make()
    experiment.run((1, 3))
    assert experiment.notes().keys() == {(1, 1), (1, 2), (1, 3)}
    interrupted = experiment.run((2, 2), by=signal.SIGINT)
    assert "KeyboardInterrupt" in interrupted.stdout + interrupted.stderr
    experiment.run((3, 1))
    experiment.run()
    return experiment


def test_every_loss_is_the_same_bit_by_bit(
    whole: Experiment, broken: Experiment
) -> None:
    """And so are the batches and the learning rates."""
    assert broken.notes() == whole.notes()


def test_the_final_state_is_the_same_bit_by_bit(
    whole: Experiment, broken: Experiment
) -> None:
    """Weights and the optimiser's moments."""
    weights, same = whole.saved("model.ckpt"), broken.saved("model.ckpt")
    assert weights.keys() == same.keys() and len(weights) > 100
    for name, tensor in weights.items():
        assert torch.equal(tensor, same[name]), name
    moments = whole.saved("optimizer.ckpt")["state"]
    same = broken.saved("optimizer.ckpt")["state"]
    for key, state in moments.items():
        for name, tensor in state.items():
            assert torch.equal(tensor, same[key][name]), (key, name)


def test_the_train_log_is_the_same(
    whole: Experiment, broken: Experiment
) -> None:
    """One line per epoch, the losses of every exit included."""
    assert len(whole.epochs()) == EPOCHS
    assert broken.epochs() == whole.epochs()


def test_the_evaluation_is_the_same(
    whole: Experiment, broken: Experiment
) -> None:
    for name in ("report/report.json", "wer_test-clean.txt"):
        assert broken.text(name) == whole.text(name)


def test_a_finished_run_is_only_evaluated_again(whole: Experiment) -> None:
    """Nothing is trained or saved, and the report is the same."""
    notes, epochs = whole.notes(), whole.epochs()
    report = whole.text("report/report.json")
    checkpoints = {
        path: path.stat().st_mtime_ns for path in whole.folder.glob("save/**/*")
    }
    whole.run()
    assert (whole.notes(), whole.epochs()) == (notes, epochs)
    assert whole.text("report/report.json") == report
    assert checkpoints == {
        path: path.stat().st_mtime_ns for path in whole.folder.glob("save/**/*")
    }


def test_a_kill_while_saving_leaves_the_checkpoint_before(
    whole: Experiment, make: Callable[[], Experiment]
) -> None:
    """A half-written checkpoint is not taken for one."""
    experiment = make()
    experiment.run((2, 2), while_saving=True)
    experiment.run()
    assert experiment.notes() == whole.notes()
    assert experiment.epochs()[-1] == whole.epochs()[-1]
