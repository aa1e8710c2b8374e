"""What the exits of each system learn: CTC alone, or CTC and attention.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Mapping
from typing import Any

import speechbrain as sb
from torch import Tensor

from speechbrain_ee.errors import InputError
from speechbrain_ee.training.brain import EarlyExitBrain
from speechbrain_ee.training.distillation import Distillation
from speechbrain_ee.training.distilled import checked_distillation
from speechbrain_ee.training.losses import (
    AttentionTerm,
    CTCTerm,
    LossTerm,
    after_start,
    attention_hits,
)
from speechbrain_ee.training.monitor import ExitTokenAccuracy


class CTCEarlyExitBrain(EarlyExitBrain):
    """Multi-exit CTC: every exit learns the transcript by CTC.

    In training the exits may learn from a last exit, too: by the
    hyper-parameter ``distillation`` and, for its kind ``hard``, ``teacher``;
    see :class:`speechbrain_ee.training.distillation.Distillation`. Losses of
    training are then logged as they are minimised, those of validation are
    always plain CTC. The teacher is no part of ``modules``: it is neither
    optimised nor saved.

    Arguments
    ---------
    *args, **kwargs
        As for :class:`speechbrain_ee.training.brain.EarlyExitBrain`.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # What teaches itself does so up to the last exit that it trains.
        self.distillation, teacher = checked_distillation(
            self.hparams, self.trained, self.tokenizer
        )
        self.teacher = None if teacher is None else teacher.to(self.device)
        self.learns_by, self.taught = Distillation(), None

    def before_forward(
        self, wavs: Tensor, wav_lens: Tensor, stage: sb.Stage
    ) -> None:
        """In training, ask the teacher about the same waveforms."""
        self.learns_by, self.taught = Distillation(), None
        if stage == sb.Stage.TRAIN and "CTC" in self.loss_weights:
            self.learns_by = self.distillation
            self.taught = self.distillation.observe(
                self.trained, wavs, wav_lens, self.teacher
            )

    def named_terms(self) -> Mapping[str, LossTerm]:
        """CTC, which distillation shares by its ``alpha``."""
        ctc = CTCTerm(exit_weights=self.hparams.exit_weights)
        return {"ctc": ctc, "distillation": ctc}


class CTCAttentionEarlyExitBrain(CTCEarlyExitBrain):
    """Every exit learns the transcript by CTC and by an attention decoder.

    The loss is ``w sum_m CTC_m + (1 - w) sum_m CE_m`` with ``w`` the
    hyper-parameter ``ctc_weight``, 0.3 in Wright et al. (arXiv 2309.09546);
    ``exit_weights`` and ``attention_exit_weights`` weigh the exits of either
    sum. ``label_smoothing`` is used, too.

    Arguments
    ---------
    *args, **kwargs
        As for :class:`speechbrain_ee.training.brain.EarlyExitBrain`.
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
