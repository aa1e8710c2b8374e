"""The Brains: how SpeechBrain trains and evaluates a multi-exit model.

What the exits of a system learn is CTC alone, or CTC and attention.

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
from speechbrain_ee.training.checkpoints import (
    OTHER_STATE,
    AtomicCheckpointer,
    tokenizer_fingerprint,
)
from speechbrain_ee.training.distillation import (
    Distillation,
    checked_distillation,
)
from speechbrain_ee.training.distributed import SharedWork
from speechbrain_ee.training.evaluation import ExitEvaluation
from speechbrain_ee.training.losses import (
    AttentionTerm,
    CTCTerm,
    LossTerm,
    after_start,
    attention_hits,
    joint_loss,
    no_loss,
    with_too_few_frames,
)
from speechbrain_ee.training.monitor import (
    ExitErrorRates,
    ExitLosses,
    ExitTokenAccuracy,
    forget_later_epochs,
    selection_wer,
    warn_of_blank_collapse,
)
from speechbrain_ee.training.options import (
    check_exit_budget,
    check_numbers,
)
from speechbrain_ee.training.regimes import FineTuning
from speechbrain_ee.training.seeding import seed_step

logger = logging.getLogger(__name__)


class CTCEarlyExitBrain(ExitEvaluation, FineTuning, SharedWork, sb.Brain):
    """Multi-exit CTC: every exit learns the transcript by CTC.

    In training the exits may learn from a last exit, too: by the
    hyper-parameter ``distillation`` and, for its kind ``hard``, ``teacher``;
    see :class:`speechbrain_ee.training.distillation.Distillation`. Losses of
    training are then logged as they are minimised, those of validation are
    always plain CTC. The teacher is no part of ``modules``: it is neither
    optimised nor saved. The hyper-parameter ``losses`` lists what else is
    learned: names of :meth:`named_terms`, and objects of the class
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
        exits = len(self.exit_layers)
        self.loss_weights = {
            name: term.weights(exits) for name, term in self.loss_terms.items()
        }
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

        # What teaches itself does so up to the last exit that it trains.
        self.distillation, teacher = checked_distillation(
            self.hparams, self.trained, self.tokenizer
        )
        self.teacher = None if teacher is None else teacher.to(self.device)
        self.learns_by, self.taught = Distillation(), None

    def named_terms(self) -> Mapping[str, LossTerm]:
        """Terms that ``losses`` may name; all of them where it is absent.

        CTC's is shared by distillation, by its ``alpha``.
        """
        ctc = CTCTerm(exit_weights=self.hparams.exit_weights)
        return {"ctc": ctc, "distillation": ctc}

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

    def exit_losses(
        self, outputs: Sequence[ExitOutput], batch: Any
    ) -> Mapping[str, Tensor]:
        """Losses of every exit by every term that has a weight."""
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

    def compute_forward(self, batch: Any, stage: sb.Stage) -> Any:
        """The exits of a batch, those that count."""
        batch = batch.to(self.device)
        wavs, wav_lens = batch.sig
        if stage == sb.Stage.TRAIN and self.hparams.wav_augment is not None:
            wavs, wav_lens = self.hparams.wav_augment(wavs, wav_lens)
        self.learns_by, self.taught = Distillation(), None
        if stage == sb.Stage.TRAIN and "CTC" in self.loss_weights:
            self.learns_by = self.distillation
            self.taught = self.distillation.observe(
                self.trained, wavs, wav_lens, self.teacher
            )
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
        """The joint loss; in validation and test also what was recognised."""
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
        """Tokens to learn, repeated as the augmentation has the audio."""
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
        warn_of_blank_collapse(epoch, rates, self.hparams.blank_collapse_epochs)
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
        if not OTHER_STATE.search(str(error)):
            raise error
        raise InputError(
            f"{self.checkpointer.checkpoints_dir}: its checkpoints do not "
            "fit this model; the YAML differs from the one they were trained "
            "with, usually in output_neurons, exit_layers, d_model or regime. Train "
            "in a new output_folder, or go back to those values. "
            f"({str(error).splitlines()[-1].strip()})"
        ) from error


class CTCAttentionEarlyExitBrain(CTCEarlyExitBrain):
    """Every exit learns the transcript by CTC and by an attention decoder.

    The loss is ``w sum_m CTC_m + (1 - w) sum_m CE_m`` with ``w`` the
    hyper-parameter ``ctc_weight``, 0.3 in Wright et al. (arXiv 2309.09546);
    ``exit_weights`` and ``attention_exit_weights`` weigh the exits of either
    sum. ``label_smoothing`` is used, too.

    Arguments
    ---------
    *args, **kwargs
        As for :class:`CTCEarlyExitBrain`.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        attention = self._unwrapped_model().attention
        self.bos_index = attention.bos_index
        self.eos_index = attention.eos_index

    def named_terms(self) -> Mapping[str, LossTerm]:
        """CTC and attention, each with its share of the loss."""
        if self._unwrapped_model().attention is None:
            raise InputError(
                "model: this Brain trains attention decoders, and the model "
                "has none; give it `attention:` in the YAML, or train with "
                "speechbrain_ee.training.systems.CTCEarlyExitBrain."
            )
        for key in ("ctc_weight", "label_smoothing", "attention_exit_weights"):
            if not hasattr(self.hparams, key):
                raise InputError(
                    f"{key}: this system needs it, and the YAML has none; "
                    "take it over from hparams/demo_aed.yaml."
                )
        share = self.hparams.ctc_weight
        if not _is_share(share) or share > 1:
            raise InputError(
                f"ctc_weight: {share} must be between 0 (attention alone) "
                "and 1 (CTC alone), for example 0.3."
            )
        smoothing = self.hparams.label_smoothing
        if not _is_share(smoothing) or smoothing >= 1:
            raise InputError(
                f"label_smoothing: {smoothing} must be at least 0 and below "
                "1, for example 0.1."
            )
        weights = self.hparams.attention_exit_weights
        named = dict(super().named_terms())
        named["ctc"].weight = share
        return named | {"attention": AttentionTerm(1 - share, weights)}

    def decoder_tokens(
        self, batch: Any, stage: sb.Stage, rows: int
    ) -> Tensor | None:
        """The transcripts behind the token for their beginning."""
        if stage == sb.Stage.TEST:
            return None  # transcripts are searched for, not given
        tokens_BS, _ = self.targets(batch, rows)
        return after_start(tokens_BS, self.bos_index)

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Empty the counters."""
        super().on_stage_start(stage, epoch)
        self.token_accuracy = ExitTokenAccuracy(self.active_layers)

    def compute_objectives(
        self, outputs: Any, batch: Any, stage: sb.Stage
    ) -> Tensor:
        """As CTC's, and in validation the accuracy of the attention heads."""
        loss = super().compute_objectives(outputs, batch, stage)
        if stage == sb.Stage.VALID:
            tokens, counts = self.targets(batch, len(outputs[0].lengths_B))
            self.token_accuracy.append(
                *attention_hits(outputs, tokens, counts, self.eos_index)
            )
        return loss

    def valid_stats(self) -> dict[str, float]:
        """Word error rates (CTC, greedy) and token accuracies by exit."""
        rates = zip(self.active_layers, self.token_accuracy.percent)
        accuracy = {f"accuracy L{layer}": share for layer, share in rates}
        return super().valid_stats() | accuracy


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and value >= 0
