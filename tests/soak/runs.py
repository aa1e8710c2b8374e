"""A miniature of a recipe's training: to run it, to kill it, to compare it.

Authors
 * The speechbrain-ee contributors 2026
"""

import importlib
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from speechbrain_ee.training.systems import CTCEarlyExitBrain
from tests.recipes.conftest import SHRINK, SHRINK_DECODING, write_split
from tests.soak.killing import Change, die, die_in_half_a_file, note_changes

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPE = REPOSITORY / "recipes/LibriSpeech/EarlyExit"
SPLITS = {"train-clean": 12, "dev-clean": 4, "test-clean": 4, "test-other": 3}
# Of a run: what is random is on, and every optimiser step is saved.
OPTIONS = (
    "--dynamic_batching={max_batch_length: 4, num_buckets: 3}",
    "--dropout=0.1",
    "--grad_accumulation_factor=2",
    "--average_checkpoints=2",
    "--exit_layers=[1,3,6]",
    "--ckpt_interval_minutes=0",
    "--ckpt_interval_steps=1",
)
EPOCHS = 3
# Logs with times, and the code.
NOT_COMPARED = ("log.txt", "env.log", "train.py")
# What an export measured with a clock: no two runs agree on it.
MEASURED_TIME = re.compile(rb"takes \d+% of the last exit('|&#39;)s time")
# What a kill may leave behind: names that nothing reads.
LEFT_BEHIND = re.compile(r"(^|/)\.[^/]+\.[0-9a-f]{16}\.(part|new|old)(/|$)")


def write_corpus(root: Path) -> Path:
    """A corpus in LibriSpeech layout, some seconds long."""
    for speaker, (split, number) in enumerate(SPLITS.items(), start=100):
        write_split(root / split, speaker, number)
    return root


@dataclass(frozen=True)
class Kill:
    """Where a training ends before its time; nowhere by default."""

    change: Change | None = None
    half_file: int | None = None
    step: tuple[int, int] | None = None
    interrupt: bool = False


def trainer(
    system: str, corpus: Path, folder: Path, kill: Kill | None = None
) -> Callable[[], None]:
    """A function that runs train.py and notes every step."""
    kill = kill or Kill()
    sys.path.insert(0, str(RECIPE))
    train = importlib.import_module("train")
    sys.path.remove(str(RECIPE))
    shrink = SHRINK + (SHRINK_DECODING if "aed" in system else ())

    def run() -> None:
        # One that was started in the background may be deaf to it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        torch.use_deterministic_algorithms(True, warn_only=True)
        os.chdir(RECIPE)
        sys.argv = [
            "train.py",
            f"hparams/{system}.yaml",
            f"--data_folder={corpus}",
            f"--output_folder={folder}",
            f"--number_of_epochs={EPOCHS}",
            *shrink,
            *OPTIONS,
        ]
        _note_steps(Path(f"{folder}.notes"), kill)
        if kill.half_file is not None:
            die_in_half_a_file(kill.half_file)
        if kill.change is not None:
            note_changes(folder, kill.change)
        train.main()

    return run


def _note_steps(path: Path, kill: Kill) -> None:
    """Have losses, learning rates and utterances of every step written."""
    as_ever = CTCEarlyExitBrain.on_fit_batch_end

    def noting(
        brain: CTCEarlyExitBrain,
        batch: Any,
        outputs: Any,
        loss: Any,
        *rest: Any,
    ) -> None:
        as_ever(brain, batch, outputs, loss, *rest)
        place = (brain.hparams.epoch_counter.current, brain.step)
        rates = list(brain.learning_rates().values())
        line = [*place, float(loss).hex(), rates, sorted(batch.id)]
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if place == kill.step and kill.interrupt:
            os.kill(os.getpid(), signal.SIGINT)
        elif place == kill.step:
            die()

    CTCEarlyExitBrain.on_fit_batch_end = noting


def facts(folder: Path, was: Path | None = None) -> dict[str, object]:
    """Everything that two runs must have in common, by name."""
    found: dict[str, object] = dict(_steps(Path(f"{folder}.notes")))
    for path in folder.rglob("*"):
        place = str(path.relative_to(folder))
        known = place in NOT_COMPARED or place.startswith("save/CKPT")
        if path.is_file() and not known and not LEFT_BEHIND.search(place):
            content = path.read_bytes()
            content = content.replace(bytes(was or folder), b"FOLDER")
            found[place] = MEASURED_TIME.sub(b"", content)
    return found | _checkpoint(folder / "save")


def stage(folder: Path) -> str:
    """What a run was about to do, by what is there."""
    if (folder / "report/report.html").exists():
        return "export"
    if (folder / "traces").exists():
        return "evaluation"
    if any(folder.glob("save/*.model")):
        return "training"
    return "preparation"


def left_behind(folder: Path) -> int:
    """How many temporary files are still there."""
    places = (str(p.relative_to(folder)) for p in folder.rglob("*"))
    return sum(bool(LEFT_BEHIND.search(place)) for place in places)


def _steps(path: Path) -> dict[str, str]:
    """What was noted by epoch and step; a step done twice is the same twice."""
    steps: dict[str, str] = {}
    for line in path.read_text("utf-8").splitlines():
        try:
            epoch, step, *rest = json.loads(line)
        except ValueError:
            continue  # killed while noting it
        place, text = f"epoch {epoch}, step {step}", json.dumps(rest)
        if steps.setdefault(place, text) != text:
            steps[place] += f" or {text}"
    return steps


def newest_checkpoint(save: Path) -> Path:
    """The newest complete checkpoint; names of one second do not say it."""
    metas = save.glob("CKPT*/CKPT.yaml")
    when = {path.parent: _meta(path.parent)["unixtime"] for path in metas}
    return max(when, key=when.get)


def _checkpoint(save: Path) -> dict[str, object]:
    """What the newest checkpoint holds, but for the time."""
    newest = newest_checkpoint(save)
    meta = _meta(newest)
    del meta["unixtime"]
    found: dict[str, object] = {"checkpoint": meta}
    for path in newest.glob("*.ckpt"):
        found[f"checkpoint/{path.name}"] = path.read_bytes()
    complete = {path.parent for path in save.glob("CKPT*/CKPT.yaml")}
    return found | {"unfinished": len({*save.glob("CKPT*")} - complete)}


def _meta(folder: Path) -> dict[str, Any]:
    return yaml.safe_load((folder / "CKPT.yaml").read_text("utf-8"))


def differences(one: dict[str, object], other: dict[str, object]) -> list[str]:
    """Names of what is not the same."""
    names = one.keys() | other.keys()
    return sorted(n for n in names if one.get(n) != other.get(n))
