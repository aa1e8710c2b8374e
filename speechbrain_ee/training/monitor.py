"""What is watched while a model trains: errors by exit, collapse, the best.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from speechbrain.utils import checkpoints
from torch import Tensor

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.scoring import edit_counts, unit_counts
from speechbrain_ee.files import whole_file
from speechbrain_ee.training.options import must_be_one_of

logger = logging.getLogger(__name__)

CHECKPOINT_RULES = ("last_exit", "mean_of_exits", "best_exit")


@checkpoints.register_checkpoint_hooks
class ExitLosses:
    """Mean loss of every exit, which a checkpoint inside an epoch keeps."""

    def __init__(self, exit_layers: Sequence[int]):
        self.exit_layers = list(exit_layers)
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self.sum_E = [0.0] * len(self.exit_layers)
        self.batches = 0

    def append(self, losses_E: Tensor) -> None:
        """Count a batch, by its losses of shape (E,)."""
        losses = losses_E.detach().double().tolist()
        self.sum_E = [a + b for a, b in zip(self.sum_E, losses)]
        self.batches += 1

    @property
    def mean_E(self) -> list[float]:
        """Mean loss of every exit."""
        return [total / max(self.batches, 1) for total in self.sum_E]

    @checkpoints.mark_as_saver
    def save(self, path: str) -> None:
        """Write the sums, and whose they are."""
        with open(path, "w", encoding="utf-8") as file:
            json.dump(vars(self), file)

    @checkpoints.mark_as_loader
    def load(self, path: str, end_of_epoch: bool = False) -> None:
        """Read the sums; after the end of an epoch they start anew."""
        with open(path, encoding="utf-8") as file:
            saved = json.load(file)
        if saved["exit_layers"] != self.exit_layers:
            raise InputError(
                f"exit_layers: {self.exit_layers} are trained, but the "
                f"checkpoint {path} was trained with {saved['exit_layers']}; "
                "train in a new output_folder, or go back to those "
                "exit_layers and active_exits."
            )
        if not end_of_epoch:
            vars(self).update(saved)


class ExitErrorRates:
    """Error rate of every exit over a set."""

    def __init__(self, exit_layers: Sequence[int], error_unit: str = "word"):
        self.exit_layers, self.error_unit = tuple(exit_layers), error_unit
        self.errors_E = np.zeros(len(self.exit_layers), dtype=np.int64)
        self.words = 0
        self.nonempty_E = np.zeros(len(self.exit_layers), dtype=np.int64)

    def append(
        self, refs: Sequence[str], hyps: Sequence[Sequence[str]]
    ) -> None:
        """Count a batch."""
        self.words += int(unit_counts(refs, self.error_unit).sum())
        for k, hyps_of_exit in enumerate(hyps):
            edits = edit_counts(refs, hyps_of_exit, self.error_unit)
            self.errors_E[k] += edits.sum()
            self.nonempty_E[k] += sum(bool(hyp) for hyp in hyps_of_exit)

    @property
    def name(self) -> str:
        """What the rate is called."""
        return "WER" if self.error_unit == "word" else "CER"

    @property
    def wer(self) -> tuple[float, ...]:
        """Error rate of every exit, in percent."""
        return tuple(
            100.0 * float(errors) / max(self.words, 1)
            for errors in self.errors_E
        )

    def __str__(self) -> str:
        """One line: the rate at every exit layer."""
        return "  ".join(
            f"L{layer} {wer:.2f}"
            for layer, wer in zip(self.exit_layers, self.wer)
        )


class ExitTokenAccuracy:
    """Share of the tokens that each exit's attention head predicts."""

    def __init__(self, exit_layers: Sequence[int]):
        self.hits_E = np.zeros(len(exit_layers), dtype=np.int64)
        self.tokens = 0

    def append(self, hits_E: Tensor, tokens: int) -> None:
        """Count a batch."""
        self.hits_E += hits_E.cpu().numpy().astype(np.int64)
        self.tokens += tokens

    @property
    def percent(self) -> tuple[float, ...]:
        """Of every exit."""
        shares = 100.0 * self.hits_E / max(self.tokens, 1)
        return tuple(float(share) for share in shares)


def selection_wer(wer: Sequence[float], rule: str) -> float:
    """The number by which the best checkpoint is chosen."""
    numbers = dict(zip(CHECKPOINT_RULES, (wer[-1], np.mean(wer), min(wer))))
    must_be_one_of("checkpoint_rule", rule, CHECKPOINT_RULES)
    return float(numbers[rule])


def forget_later_epochs(train_logger: Any, epoch: int) -> None:
    """Take back what a killed run has logged behind its last checkpoint.

    An epoch is logged before it is saved; of one that is computed again, the
    log would have two lines.
    """
    path = Path(getattr(train_logger, "save_file", ""))
    if not path.is_file():
        return
    lines = path.read_text("utf-8").splitlines(keepends=True)
    kept = []
    for line in lines:
        found = re.match(r"epoch: (\d+)", line)
        if line.endswith("\n") and not (found and int(found[1]) > epoch):
            kept.append(line)
    if kept != lines:
        with whole_file(path) as stream:
            stream.write("".join(kept).encode())


def warn_of_blank_collapse(
    epoch: int, rates: ExitErrorRates, patience_epochs: int
) -> list[int]:
    """Name the layers of exits that emit nothing but blanks.

    CTC training starts with all-blank outputs; an exit that stays there for
    so many epochs will not recover by itself.
    """
    if epoch < patience_epochs:
        return []
    said = zip(rates.exit_layers, rates.nonempty_E)
    collapsed = [layer for layer, count in said if count == 0]
    if collapsed:
        logger.warning(
            "BLANK COLLAPSE: after %d epochs the exits at layers %s "
            "transcribe every validation utterance as nothing. Lower "
            "`lr`, lengthen `warmup_share` or `n_warmup_steps`, lower "
            "the subsampling, or check that audio and transcripts match.",
            epoch,
            collapsed,
        )
    return collapsed
