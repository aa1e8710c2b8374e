"""The Brain: how SpeechBrain trains and evaluates a multi-exit model.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

import speechbrain as sb
import torch
from speechbrain.utils.distributed import if_main_process
from torch import Tensor

from speechbrain_ee.data.batches import SPEAKER_KEY
from speechbrain_ee.data.words import decode
from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.recorder import TraceRecorder
from speechbrain_ee.exits.decoding import greedy_tokens
from speechbrain_ee.models.heads import ExitOutput
from speechbrain_ee.training.checkpoints import AtomicCheckpointer
from speechbrain_ee.training.distributed import SharedWork
from speechbrain_ee.training.evaluation import ExitEvaluation
from speechbrain_ee.training.finished_run import tokenizer_fingerprint
from speechbrain_ee.training.losses import (
    LossTerm,
    joint_loss,
    no_loss,
    with_too_few_frames,
)
from speechbrain_ee.training.monitor import (
    BlankCollapseMonitor,
    ExitErrorRates,
    ExitLosses,
    forget_later_epochs,
    selection_wer,
)
from speechbrain_ee.training.optimisers import FineTuning
from speechbrain_ee.training.options import (
    check_exit_budget,
    check_numbers,
)
from speechbrain_ee.training.seeding import seed_step

logger = logging.getLogger(__name__)


class EarlyExitBrain(ExitEvaluation, FineTuning, SharedWork, sb.Brain):
    """What all multi-exit systems share; subclasses say what an exit learns.

    The hyper-parameter ``losses`` lists what that is: names of
    :meth:`named_terms`, and objects of the class
    :class:`~speechbrain_ee.training.losses.LossTerm`.

    ``modules`` holds one entry, ``model``, which returns all exits from one
    ``forward`` (the entry that DDP wraps). Besides SpeechBrain's own, the
    following hyper-parameters are used: ``seed``, ``epoch_counter``,
    ``lr_annealing``, ``wav_augment`` (or null), ``exit_weights``,
    ``checkpoint_rule``, ``keep_checkpoints``, ``average_checkpoints``,
    ``blank_collapse_epochs``, ``train_logger``, ``sample_rate``; for learned
    exit selection also ``save_folder`` and ``exit_budget`` (or null).

    Arguments
    ---------
    tokenizer : speechbrain.tokenizers.SentencePiece.SentencePiece
        Turns tokens into text.
    *args, **kwargs
        As for :class:`speechbrain.core.Brain`.
    """

    def __init__(self, *args: Any, tokenizer: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.tokenizer = tokenizer
        if isinstance(self.checkpointer, AtomicCheckpointer):
            self.checkpointer.expect(tokenizer_fingerprint(tokenizer.sp))
        self.exit_layers = self.modules.model.exit_layers
        self.loss_terms = self.listed_terms()
        self.loss_weights = self.weights_by_head()
        self.collapse_monitor = BlankCollapseMonitor(
            self.hparams.blank_collapse_epochs
        )
        # A wrong rule must not wait for the end of the first epoch, nor a
        # wrong budget for the end of training.
        selection_wer([0.0], self.hparams.checkpoint_rule)
        self.check_evaluation()
        self.check_optimisers()
        self.loss_weights = self.of_active_exits(self.loss_weights)
        self.trained = self._unwrapped_model().truncated(self.active_exits)
        check_exit_budget(
            getattr(self.hparams, "exit_budget", None), self.exit_layers
        )
        check_numbers(vars(self))
        self.recorder: TraceRecorder | None = None
        self.too_short = torch.zeros((), dtype=int, device=self.device)
        self.exit_loss_means = {
            head: ExitLosses(self.active_layers) for head in self.loss_weights
        }
        if self.checkpointer is not None:
            for head, means in self.exit_loss_means.items():
                # optional: only the log's means of one epoch depend on it
                self.checkpointer.add_recoverable(
                    f"{head}_losses", means, optional_load=True
                )

    @property
    def decoded_exits(self) -> tuple[int, ...]:
        """Exits that are evaluated: by default those that were trained."""
        every = super().decoded_exits
        given = getattr(self.hparams, "decoded_exits", None)
        return every[: self.active_exits] if given is None else every

    def named_terms(self) -> Mapping[str, LossTerm]:
        """Terms that ``losses`` may name; all of them where it is absent."""
        return {}

    def listed_terms(self) -> dict[str, LossTerm]:
        """The terms of ``hparams.losses``, by the names of their class."""
        named = self.named_terms()
        listed = getattr(self.hparams, "losses", None)
        if listed is None:
            return {term.name: term for term in named.values()}
        terms: dict[str, LossTerm] = {}
        for each in listed if isinstance(listed, list | tuple) else [listed]:
            term = named.get(each) if isinstance(each, str) else each
            if not isinstance(term, LossTerm):
                raise InputError(
                    f"losses: {each!r} is no term of this Brain; name one of "
                    f"{', '.join(named)}, or build one of your own by !new:, "
                    "of a class derived from "
                    "speechbrain_ee.training.losses.LossTerm."
                )
            same = terms.setdefault(term.name, term)
            if same is not term or not re.fullmatch(r"\w+", term.name):
                raise InputError(
                    f"losses: a {type(term).__name__} has the name "
                    f"{term.name!r}; the class of every term needs a `name` "
                    "of its own, one word, as in the log."
                )
        return terms

    def weights_by_head(self) -> Mapping[str, Sequence[float]]:
        """Weights of every exit's loss, for each term."""
        exits = len(self.exit_layers)
        return {n: term.weights(exits) for n, term in self.loss_terms.items()}

    def exit_losses(
        self, outputs: Sequence[ExitOutput], batch: Any
    ) -> Mapping[str, Tensor]:
        """Losses of every exit by every term that has a weight.

        Arguments
        ---------
        outputs : list of ExitOutput
            The exits that are trained.
        batch : PaddedBatch
            Holds ``tokens``.

        Returns
        -------
        dict of str to torch.Tensor
            One loss per exit, shape (E,), by the name of the term; in a test
            without what was not predicted.
        """
        found = {}
        for name, term in self.loss_terms.items():
            if name not in self.loss_weights:
                continue
            losses_E = term.losses(outputs, batch, self)
            if losses_E is None:
                continue
            if losses_E.shape != (len(outputs),):
                raise InputError(
                    f"losses: {name} returns a tensor of the shape "
                    f"{list(losses_E.shape)}; it must be "
                    f"[{len(outputs)}], one loss per exit."
                )
            found[name] = losses_E
        return found

    def decoder_tokens(
        self, batch: Any, stage: sb.Stage, rows: int
    ) -> Tensor | None:
        """What attention decoders read, shape (B, S); None without them."""
        return None

    def before_forward(
        self, wavs: Tensor, wav_lens: Tensor, stage: sb.Stage
    ) -> None:
        """Called with the waveforms that the model is about to hear."""

    def compute_forward(self, batch: Any, stage: sb.Stage) -> Any:
        """The exits of a batch, those that count.

        Arguments
        ---------
        batch : PaddedBatch
            Holds ``sig`` and ``tokens``.
        stage : sb.Stage
            Training augments the waveforms.

        Returns
        -------
        list of ExitOutput
            One per exit that is trained, or evaluated in a test.
        """
        batch = batch.to(self.device)
        wavs, wav_lens = batch.sig
        if stage == sb.Stage.TRAIN and self.hparams.wav_augment is not None:
            wavs, wav_lens = self.hparams.wav_augment(wavs, wav_lens)
        self.before_forward(wavs, wav_lens, stage)
        tokens_BS = self.decoder_tokens(batch, stage, len(wavs))
        exits = self.active_exits
        if stage == sb.Stage.TEST:
            exits = self.decoded_exits[-1]
        # DDP's wrapper exchanges buffers, also where batches are no longer
        # as many in every process.
        model = self._unwrapped_model()
        if stage == sb.Stage.TRAIN:
            model = self.modules.model
        return model(wavs, wav_lens, tokens_BS, exits)

    def compute_objectives(
        self, outputs: Any, batch: Any, stage: sb.Stage
    ) -> Tensor:
        """The joint loss; in validation and test also what was recognised.

        Arguments
        ---------
        outputs : list of ExitOutput
            What :meth:`compute_forward` returns.
        batch : PaddedBatch
            The batch.
        stage : sb.Stage
            TRAIN, VALID or TEST.

        Returns
        -------
        torch.Tensor
            A scalar.
        """
        # A test may stop below the exits that were trained, or go beyond.
        trained = outputs[: self.active_exits]
        losses = self.exit_losses(trained, batch)
        weights = {h: w[: len(trained)] for h, w in self.loss_weights.items()}
        joint = [joint_loss(losses[h], weights[h]) for h in losses]
        loss = outputs[0].log_probs_BTV.new_zeros(())
        if joint:  # a test may have nothing to compare with
            loss = torch.stack(joint).sum()
        if stage == sb.Stage.TRAIN:
            heads = {"CTC": self.trained.heads}
            if outputs[0].attention_BSV is not None:
                heads["attention"] = self.trained.attention
            for head in heads.keys() - losses.keys():
                loss = loss + no_loss(heads[head])
            rows = len(outputs[0].lengths_B)
            loss, losses = self.over_processes(loss, losses, rows)
        if stage != sb.Stage.TEST:
            self.note_losses(loss, losses, stage)
            lengths_B = outputs[0].lengths_B
            targets = self.targets(batch, len(lengths_B))
            self.too_short += with_too_few_frames(lengths_B, *targets).sum()
        if stage == sb.Stage.VALID:
            hyps = [
                [self.decode(tokens) for tokens in greedy_tokens(output)]
                for output in outputs
            ]
            self.error_rates.append(batch.wrd, hyps)
        elif stage == sb.Stage.TEST:
            samples = (batch.sig.lengths * batch.sig.data.shape[1]).round()
            self.recorder.append(
                batch.id,
                batch.wrd,
                samples.int().tolist(),
                outputs,
                getattr(batch, SPEAKER_KEY, None),
            )
        return loss

    def targets(self, batch: Any, rows: int) -> tuple[Tensor, Tensor]:
        """Tokens to learn, repeated as the augmentation has the audio.

        Arguments
        ---------
        batch : PaddedBatch
            Holds ``tokens``.
        rows : int
            Utterances after augmentation.

        Returns
        -------
        tokens_BS : torch.Tensor
            Padded, shape (B, S).
        counts_B : torch.Tensor
            Tokens per utterance, shape (B,).
        """
        tokens, lengths = batch.tokens
        counts = (lengths * tokens.shape[1]).round().long()
        augment = self.hparams.wav_augment
        if augment is not None and len(tokens) != rows:
            tokens, counts = augment.replicate_multiple_labels(tokens, counts)
        return tokens, counts

    def decode(self, tokens: list[int]) -> str:
        """Token indices to text."""
        return decode(self.tokenizer.sp, tokens)

    def on_fit_start(self) -> None:
        """Resume, or say which key does not fit the checkpoint."""
        try:
            super().on_fit_start()
        except (RuntimeError, ValueError) as error:
            self._explain_mismatch(error)
        if self.checkpointer is not None and if_main_process():
            epoch = self.hparams.epoch_counter.current
            forget_later_epochs(self.hparams.train_logger, epoch)

    def on_fit_batch_start(self, batch: Any, should_step: bool) -> None:
        """Seed the step by its place in the run, and set its learning rate."""
        epoch = self.hparams.epoch_counter.current
        seed_step(self.hparams.seed, epoch, self.step)
        self.start_step(should_step)

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Empty the counters."""
        # A resumed epoch goes on with what its checkpoint has counted.
        if stage != sb.Stage.TRAIN or self.step == 0:
            for means in self.exit_loss_means.values():
                means.reset()
        self.error_rates = ExitErrorRates(self.active_layers, self.error_unit)
        self.too_short = torch.zeros((), dtype=int, device=self.device)

    def on_stage_end(
        self, stage: sb.Stage, stage_loss: float, epoch: int | None = None
    ) -> None:
        """Log the stage; after validation, save a checkpoint."""
        if self.too_short and if_main_process():
            logger.warning(
                "%s, epoch %s: of %d utterances the CTC loss counted as zero, "
                "because they have fewer frames than their tokens need; in "
                "training, speed perturbation makes them shorter.",
                stage.name,
                epoch,
                int(self.too_short),
            )
        if stage == sb.Stage.VALID:
            stage_loss = self.joined_validation(stage_loss)
        stats = {"loss": float(stage_loss)}
        for head, means in self.exit_loss_means.items():
            for layer, loss in zip(self.active_layers, means.mean_E):
                stats[f"{head} loss L{layer}"] = loss
        if stage == sb.Stage.TRAIN:
            self.train_stats = stats
        elif stage == sb.Stage.VALID:
            self._end_of_epoch(stats, epoch)

    def _end_of_epoch(self, stats: dict[str, float], epoch: int) -> None:
        rates = self.error_rates
        stats.update(self.valid_stats())
        self.collapse_monitor.check(epoch, rates)
        if if_main_process():
            logger.info("epoch %d: valid %s  %s", epoch, rates.name, rates)
        # Called by every process: SpeechBrain lets the main one work and the
        # others wait for its result.
        self.hparams.train_logger.log_stats(
            stats_meta={"epoch": epoch, **self.learning_rates()},
            train_stats=self.train_stats,
            valid_stats=stats,
        )
        # Plain floats only: SpeechBrain reads them with a safe loader.
        wer = selection_wer(rates.wer, self.hparams.checkpoint_rule)
        self.checkpointer.save_and_keep_only(
            meta={"WER": wer, "epoch": epoch},
            min_keys=["WER"],
            num_to_keep=self.hparams.keep_checkpoints,
        )

    def valid_stats(self) -> dict[str, float]:
        """What validation has measured at every exit, for the log."""
        name, rates = self.error_rates.name, self.error_rates.wer
        layers = zip(self.active_layers, rates)
        return {f"{name} L{layer}": rate for layer, rate in layers}

    def _should_save_intra_epoch_ckpt(self, *args: Any) -> bool:
        # Between optimiser steps only: no checkpoint holds gradients.
        decision = super()._should_save_intra_epoch_ckpt(*args)
        return decision and self.step % self.grad_accumulation_factor == 0

    def _unwrapped_model(self) -> torch.nn.Module:
        model = self.modules.model
        return getattr(model, "module", model)

    def _explain_mismatch(self, error: RuntimeError) -> None:
        if not re.search("state_dict|parameter group", str(error)):
            raise error
        raise InputError(
            f"{self.checkpointer.checkpoints_dir}: its checkpoints do not "
            "fit this model; the YAML differs from the one they were trained "
            "with, usually in output_neurons, exit_layers, d_model or regime. Train "
            "in a new output_folder, or go back to those values. "
            f"({str(error).splitlines()[-1].strip()})"
        ) from error
