"""The Brains: how SpeechBrain trains and evaluates a multi-exit model.

What the exits of a system learn is CTC alone, or CTC and attention. A Brain
has a :class:`~.regimes.FineTuner`, a :class:`~.distributed.Sharder` and an
:class:`~.evaluation.Evaluator`; here are the hooks by which SpeechBrain calls
them.

Authors
 * The speechbrain-ee contributors 2026
"""

import hashlib
import logging
import os
import random
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import speechbrain as sb
import torch
from msgspec import Meta
from speechbrain.utils.distributed import (
    if_main_process,
    is_distributed_initialized,
)
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    SequentialSampler,
)

from speechbrain_ee.data.batches import SPEAKER_KEY, utterance_batch
from speechbrain_ee.data.words import decode
from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.decoding import greedy_tokens
from speechbrain_ee.exits.trace import Trace
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
from speechbrain_ee.training.distributed import (
    Sharder,
    add_over_processes,
    share_gradients,
)
from speechbrain_ee.training.evaluation import Evaluator
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
    must_be,
)
from speechbrain_ee.training.regimes import (
    MAIN,
    RATES,
    FineTuner,
    parameters_of,
    that_learn,
)

logger = logging.getLogger(__name__)

# What a Brain counts while it validates, in whole numbers.
COUNTERS = ("error_rates", "token_accuracy")


def seed_step(seed: int, epoch: int, step: int) -> None:
    """Seed Python, numpy and torch for one step of this process.

    A run that is killed and resumed draws the same dropout and the same
    augmentation as one that is not, without random states to save.
    """
    place = (seed, epoch, step, int(os.environ.get("RANK", 0)))
    digest = hashlib.sha256(repr(place).encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:7], "big"))
    random.seed(digest)
    np.random.seed(int.from_bytes(digest[:4], "big"))


class CTCEarlyExitBrain(sb.Brain):
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
        model = self._unwrapped_model()
        self.exit_layers = model.exit_layers
        self.loss_terms = self.listed_terms()
        # A wrong rule must not wait for the end of the first epoch, nor a
        # wrong budget for the end of training.
        selection_wer([0.0], self.hparams.checkpoint_rule)
        check_exit_budget(
            getattr(self.hparams, "exit_budget", None), self.exit_layers
        )
        check_numbers(vars(self))
        together = self.distributed_launch and is_distributed_initialized()
        self.sharder = Sharder(
            torch.distributed.get_world_size() if together else 1
        )
        self.tuner = FineTuner(self.hparams, model, self.checkpointer)
        self.active_exits = self.tuner.active_exits
        self.active_layers = list(self.exit_layers[: self.active_exits])
        self.evaluator = Evaluator(self, model, self.active_exits)
        if self.tuner.joins_later:
            self.find_unused_parameters = True
        self.loss_weights = self._active_weights()
        self.trained = model.truncated(self.active_exits)
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
            self.hparams, self.active_exits, self.tokenizer
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

    def _active_weights(self) -> dict[str, list[float]]:
        """The weights of the terms' losses at the exits that are trained."""
        exits, active = len(self.exit_layers), self.active_exits
        kept = {
            name: term.weights(exits)[:active]
            for name, term in self.loss_terms.items()
        }
        kept = {name: each for name, each in kept.items() if any(each)}
        if not kept:
            raise InputError(
                "exit_weights: nothing among the losses has a weight at an "
                f"exit that is trained (active_exits: {active}); give one of "
                "them a weight, or train more exits."
            )
        return kept

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
            exits = self.evaluator.decoded_exits[-1]
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
            loss, losses = self.sharder.over_processes(loss, losses, rows)
        if stage != sb.Stage.TEST:
            for head, losses_E in losses.items():
                self.exit_loss_means[head].append(losses_E)
            if stage == sb.Stage.VALID:
                self.sharder.note_validation(loss, losses)
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
            self.evaluator.recorder.append(
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
        self.tuner.start_step(self.optimizers_dict, should_step)

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Empty the counters."""
        # A resumed epoch goes on with what its checkpoint has counted.
        if stage != sb.Stage.TRAIN or self.step == 0:
            for means in self.exit_loss_means.values():
                means.reset()
        self.error_rates = ExitErrorRates(
            self.active_layers, self.evaluator.error_unit
        )
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
            stage_loss = self._joined_validation(stage_loss)
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

    def _joined_validation(self, stage_loss: float) -> float:
        """Make of all processes' validations that of one process.

        What was counted is added up, and what is averaged is averaged again
        in the order of the batches: the result is equal bit for bit.
        """
        if sb.Stage.VALID not in self.sharder.shares:
            return stage_loss
        for name in COUNTERS:
            if hasattr(self, name):
                add_over_processes(getattr(self, name))
        for means in self.exit_loss_means.values():
            means.reset()
        stage_loss = 0.0
        exits = len(self.active_layers)
        rows = self.sharder.validated_rows()
        for step, row in enumerate(rows, start=1):
            self.step = step  # what SpeechBrain's average divides by
            stage_loss = self.update_average(torch.tensor(row[0]), stage_loss)
            for place, means in enumerate(self.exit_loss_means.values()):
                losses = row[1 + place * exits :][:exits]
                means.append(torch.tensor(losses, dtype=torch.double))
        self.step = 0
        return stage_loss

    def learning_rates(self) -> dict[str, float]:
        """Rates of the last step, for the log; the backbone's at its top."""
        return {
            RATES[name]: optimizer.param_groups[0]["lr"]
            for name, optimizer in self.optimizers_dict.items()
        }

    def fit(
        self, epoch_counter: Any, train_set: Any, *args: Any, **kwargs: Any
    ) -> None:
        """As SpeechBrain's, with a batch sampler that is told the epoch.

        Without that, dynamic batches are the same in every epoch of a
        single-process run, and differ after a resume.
        """
        options = kwargs.get("train_loader_kwargs", {})
        if not isinstance(train_set, DataLoader):
            train_set = self.make_dataloader(
                train_set, stage=sb.Stage.TRAIN, **options
            )
        if self.train_sampler is None:
            self.train_sampler = train_set.batch_sampler
        # the last step of an epoch may be one of fewer batches
        steps = -(-len(train_set) // self.grad_accumulation_factor)
        self.tuner.set_total_steps(steps, epoch_counter.limit)
        super().fit(epoch_counter, train_set, *args, **kwargs)

    def make_dataloader(
        self, dataset: Dataset, stage: sb.Stage, **options: Any
    ) -> DataLoader:
        """As SpeechBrain's; a share where the data set can be shared.

        Not shared is what has an order of its own (``sampler``,
        ``batch_sampler``, ``shuffle``) or no order at all, and what ``debug``
        cuts: there every process looks at everything.
        """
        self.sharder.shares.pop(stage, None)
        ordered = ("sampler", "batch_sampler", "shuffle")
        if (
            stage != sb.Stage.TRAIN
            and self.sharder.processes > 1
            and not self.debug
            and not isinstance(dataset, IterableDataset)
            and not any(options.get(key) for key in ordered)
        ):
            sampler = SequentialSampler(dataset)
            options = self.sharder.share(sampler, stage, options)
        options.setdefault("collate_fn", utterance_batch)
        return super().make_dataloader(dataset, stage, **options)

    def _train_loader_specifics(
        self, dataset: Dataset, loader_kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        alone = self.sharder.processes == 1
        if alone or isinstance(dataset, IterableDataset):
            return super()._train_loader_specifics(dataset, loader_kwargs)
        options = self.sharder.train_options(dataset, loader_kwargs)
        self.train_sampler = options["batch_sampler"]
        return options

    def _wrap_distributed(self) -> None:
        # Whether a step may leave parts of the model without gradient. Not
        # those that a regime freezes for good: DDP does not wait for them.
        model = self._unwrapped_model()
        undecoded = (
            model.attention is not None and "attention" not in self.loss_terms
        )
        dropped = getattr(model.encoder, "layerdrop_prob", 0.0) > 0
        if self.sharder.processes > 1 and (undecoded or dropped):
            self.find_unused_parameters = True
        super()._wrap_distributed()

    def init_optimizers(self) -> None:
        """Make the optimisers, and have them in the checkpoints."""
        made = self.tuner.optimizers(
            self.opt_class, self.modules, self.remove_vector_weight_decay
        )
        if made is None:
            super().init_optimizers()
        else:
            self.optimizers_dict, self.optimizer = made, made[MAIN]

    def fit_batch(self, batch: Any) -> Tensor:
        """As SpeechBrain's; the loss is the mean over all processes."""
        self.sharder.step_loss = None
        try:
            loss = super().fit_batch(batch)
        except RuntimeError as error:
            if "find_unused_parameters" not in str(error):
                raise
            raise InputError(
                "find_unused_parameters: a part of the model took no part in "
                "the loss of the last step, and the processes wait for its "
                "gradient; pass --find_unused_parameters, or freeze that part."
            ) from error
        shared = self.sharder.step_loss
        return loss if shared is None else shared.cpu()

    def check_loss_isfinite(self, loss: Tensor) -> None:
        """As SpeechBrain's; it names the place, and all give up together."""
        if not torch.isfinite(loss):
            logger.warning(
                "NON-FINITE LOSS at epoch %d, batch %d. Lower `lr` or "
                "`max_grad_norm`, or look for broken audio.",
                self.hparams.epoch_counter.current,
                self.step,
            )
        shared = self.sharder.step_loss
        super().check_loss_isfinite(loss if shared is None else shared)

    def freeze_optimizers(self, optimizers: Mapping[str, Any]) -> dict:
        """Optimisers that have anything to train now."""
        return that_learn(optimizers)

    def optimizers_step(self) -> None:
        """SpeechBrain's step, with all groups of an optimiser clipped.

        Each optimiser's gradients are clipped to ``max_grad_norm`` by
        themselves, so that those of new heads do not hold a backbone back.
        """
        if self.optimizers_dict is None:
            return
        active = that_learn(self.optimizers_dict).values()
        for optimizer in active:
            self.scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(
                parameters_of(optimizer), self.max_grad_norm
            )
        # In fp16 the scaler leaves out steps that are not finite.
        if not self.scaler.is_enabled() and self.skip_nonfinite_grads:
            self.check_gradients()
        for optimizer in active:
            self.scaler.step(optimizer)
        self.scaler.update()
        for optimizer in active:
            optimizer.zero_grad(set_to_none=True)
        self.optimizer_step += 1

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Forget gradients; after an epoch's last batch, step with them.

        SpeechBrain calls it at both ends of an epoch, and would leave out
        the batches after the last whole ``grad_accumulation_factor``: all of
        them where an epoch has fewer.
        """
        factor = self.grad_accumulation_factor
        left = self.step % factor
        if left and any(p.grad is not None for p in self.modules.parameters()):
            self.tuner.start_step(self.optimizers_dict, True)
            share_gradients(self.modules.parameters(), factor / left)
            self.optimizers_step()
        super().zero_grad(set_to_none)

    def on_evaluate_start(
        self, max_key: str | None = None, min_key: str | None = None
    ) -> None:
        """Load the average of the best checkpoints."""
        if self.checkpointer is None or not self.hparams.average_checkpoints:
            return
        checkpoints = self.checkpointer.find_checkpoints(
            max_key=max_key,
            min_key=min_key,
            max_num_checkpoints=self.hparams.average_checkpoints,
        )
        if not checkpoints:
            raise InputError(
                f"{self.checkpointer.checkpoints_dir}: holds no complete "
                "checkpoint of a whole epoch, so that untrained weights would "
                "be tested; raise number_of_epochs, give the output_folder of "
                "a run that was trained, or pass --average_checkpoints=0 to "
                "test the weights as they are."
            )
        weights = sb.utils.checkpoints.average_checkpoints(
            checkpoints, recoverable_name="model"
        )
        try:
            self._unwrapped_model().load_state_dict(weights, strict=True)
        except RuntimeError as error:
            self._explain_mismatch(error)

    def learn_selection(self, *args: Any, **kwargs: Any) -> None:
        """As :meth:`speechbrain_ee.training.evaluation.Evaluator.learn`."""
        self.evaluator.learn(*args, **kwargs)

    def evaluate_exits(self, *args: Any, **kwargs: Any) -> Trace:
        """As :meth:`speechbrain_ee.training.evaluation.Evaluator.evaluate`."""
        return self.evaluator.evaluate(*args, **kwargs)

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
        must_be(
            "ctc_weight",
            share,
            Annotated[float, Meta(ge=0, le=1)],
            "between 0 (attention alone) and 1 (CTC alone), for example 0.3",
        )
        must_be(
            "label_smoothing",
            self.hparams.label_smoothing,
            Annotated[float, Meta(ge=0, lt=1)],
            "at least 0 and below 1, for example 0.1",
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
