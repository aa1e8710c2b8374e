"""The loop of self-supervised pre-training, and the folder it fills.

The batch, the masks and the learning rate of a step follow from the seed and
the number of the step alone, so a run that was interrupted goes on as if it
had not been.

Authors
 * The speechbrain-ee contributors 2026
"""

import dataclasses
import json
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from speechbrain_ee.data.cropped import CroppedBatches
from speechbrain_ee.errors import InputError
from speechbrain_ee.files import whole_file
from speechbrain_ee.training.held_out import HeldOut, measure
from speechbrain_ee.training.pretraining import SAMPLE_RATE, MaskedPrediction
from speechbrain_ee.training.pretraining_options import PretrainingOptions
from speechbrain_ee.training.seeding import seed_step

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"
SUMMARY = "pretraining.json"


class Pretrainer:
    """Trains, measures, saves; goes on where an earlier run has stopped.

    Arguments
    ---------
    out : Path
        Folder of the model.
    options : PretrainingOptions
        What to train.
    train, valid : CroppedBatches
        Audio to learn from and audio to measure on.
    device : str
        Where to compute.
    save_minutes : float
        Time between two checkpoints.
    progress : bool
        Show a bar.

    Raises
    ------
    InputError
        If the folder holds another run or a broken one.
    """

    def __init__(
        self,
        out: Path,
        options: PretrainingOptions,
        train: CroppedBatches,
        valid: CroppedBatches,
        device: str = "cpu",
        save_minutes: float = 3.0,
        progress: bool = True,
    ):
        self.out, self.options = Path(out), options
        self.train, self.valid = train, valid
        self.device = device
        self.save_minutes, self.progress = save_minutes, progress
        torch.manual_seed(options.seed)
        self.objective = MaskedPrediction(options).to(device).train()
        self.optimizer = torch.optim.AdamW(
            self.objective.parameters(),
            lr=options.lr,
            betas=(0.9, 0.98),
            weight_decay=options.weight_decay,
        )
        self.step = 0
        self.history: list[dict[str, float]] = []
        self._resume()

    def run(self, last: int | None = None) -> list[dict[str, float]]:
        """Train to the end.

        Arguments
        ---------
        last : int, optional
            Stop after this step, as an interruption would.

        Returns
        -------
        list of dict
            What was measured at every checkpoint.

        Raises
        ------
        InputError
            If the loss is not finite, or the folder cannot be written.
        """
        last = self.options.steps if last is None else last
        if not self.history:
            self._save(None)
        saved_s, losses = time.monotonic(), []
        bar = tqdm(
            total=self.options.steps,
            initial=self.step,
            disable=not self.progress,
            unit="step",
        )
        with bar:
            while self.step < last:
                losses.append(self._train_step())
                bar.update()
                bar.set_postfix(loss=f"{losses[-1]:.3f}")
                due = time.monotonic() - saved_s > 60 * self.save_minutes
                if due or self.step == last:
                    self._save(float(np.mean(losses)))
                    saved_s, losses = time.monotonic(), []
        return self.history

    def _train_step(self) -> float:
        step = self.step + 1
        seed_step(self.options.seed, *self.train.place(step))
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.learning_rate(step)
        loss, _ = self.objective(self.train.batch(step).to(self.device))
        if not torch.isfinite(loss):
            raise InputError(
                f"--lr: the loss of step {step} is not finite; give less than "
                f"{self.options.lr:g} and another --out."
            )
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(
            self.objective.parameters(), self.options.max_grad_norm
        )
        self.optimizer.step()
        self.step = step
        return loss.item()

    def _save(self, train_loss: float | None) -> None:
        """Measure; write the model first and the checkpoint last."""
        batches = (wavs.to(self.device) for wavs in self.valid.all())
        held_out = measure(self.objective, batches)
        self._log(held_out)
        self.history.append(
            {
                "step": self.step,
                "lr": self.options.learning_rate(max(1, self.step)),
                "train_loss": train_loss,
                **dataclasses.asdict(held_out),
            }
        )
        self._export()
        state = {
            "options": dataclasses.asdict(self.options),
            "step": self.step,
            "history": self.history,
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        with whole_file(self.out / CHECKPOINT) as stream:
            torch.save(state, stream)

    def _log(self, held_out: HeldOut) -> None:
        logger.info(
            "step %d of %d, held out: loss %.3f (code frequencies "
            "alone: %.3f), accuracy %.1f %% (commonest code %.1f %%, nearest "
            "frame %.1f %%), perplexity of targets %.0f, of predictions %.0f",
            self.step,
            self.options.steps,
            held_out.loss,
            held_out.unigram_loss,
            100 * held_out.accuracy,
            100 * held_out.majority_accuracy,
            100 * held_out.copy_accuracy,
            held_out.target_perplexity,
            held_out.prediction_perplexity,
        )
        if self.step:
            for warning in held_out.warnings(self.options.codes):
                logger.warning("step %d: %s", self.step, warning)

    def _export(self) -> None:
        """Write what ``load_backbone`` reads, and the summary."""
        from transformers import Wav2Vec2FeatureExtractor
        from transformers.utils import logging as library_log

        part = self.out / ".part"
        bars = library_log.is_progress_bar_enabled()
        try:
            part.mkdir(parents=True, exist_ok=True)
            library_log.disable_progress_bar()
            self.objective.backbone.save_pretrained(part)
            Wav2Vec2FeatureExtractor(
                sampling_rate=SAMPLE_RATE,
                do_normalize=True,
                return_attention_mask=False,
            ).save_pretrained(part)
            for path in sorted(part.iterdir()):
                os.replace(path, self.out / path.name)
        except OSError as error:
            raise InputError(
                f"--out: {self.out} cannot be written "
                f"({error.strerror or error}); give another folder."
            ) from error
        finally:
            if bars:
                library_log.enable_progress_bar()
            shutil.rmtree(part, ignore_errors=True)
        summary = {
            "objective": "BEST-RQ",
            "finished": self.step == self.options.steps,
            "step": self.step,
            "train_hours": round(self.train.hours, 3),
            "valid_hours": round(self.valid.hours, 3),
            "steps_per_epoch": self.train.per_epoch,
            "options": dataclasses.asdict(self.options),
            "history": self.history,
        }
        with whole_file(self.out / SUMMARY) as stream:
            stream.write(json.dumps(summary, indent=1).encode() + b"\n")

    def _resume(self) -> None:
        path = self.out / CHECKPOINT
        if not path.is_file():
            return
        try:
            state: dict[str, Any] = torch.load(
                path, map_location=self.device, weights_only=True
            )
            earlier = state["options"]
        except Exception as error:  # of many kinds, if the file is broken
            raise InputError(
                f"{path}: cannot be read ({type(error).__name__}); remove it "
                "to begin anew, or give another --out."
            ) from error
        # An option that came later had no effect before: its default.
        earlier = dataclasses.asdict(PretrainingOptions()) | earlier
        for name, value in dataclasses.asdict(self.options).items():
            if earlier[name] != value:
                raise InputError(
                    f"--{name}: {value}, but the run in {self.out} has "
                    f"{earlier[name]}; go on with that, or give another "
                    "--out."
                )
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.history = state["step"], state["history"]
        logger.info("%s: goes on after step %d", self.out, self.step)
