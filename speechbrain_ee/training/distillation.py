"""Distillation: exits that also learn from a last exit.

What an exit learns besides the transcript is either another transcript, the
greedy one of a teacher's last exit or of the model's own, or the frame
distributions of the model's own last exit.

Axes: B utterances, E exits, T frames, S tokens.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.heads import ExitOutput
from speechbrain_ee.training.losses import (
    ctc_utterance_losses,
    utterance_confidences,
)
from speechbrain_ee.training.teacher import (
    frame_divergences,
    run_teacher,
    taught_transcripts,
)

KINDS = ("none", "hard", "self", "soft")
CONFIDENCES = ("none", "multiply", "divide")
HARD_ALPHA = 0.3
SELF_ALPHAS = (0.65, 0.85)  # first exit, last but one
SOFT_ALPHA = 0.5  # of this project


@dataclass(frozen=True)
class Distillation:
    """What the exits learn besides the transcript, and from whom.

    The loss of exit m is ``alpha_m CTC_m(y) + (1 - alpha_m) D_m``, with D

    * ``hard``: ``CTC_m`` of the greedy transcript of a frozen teacher's last
      exit,
    * ``self``: ``CTC_m`` of the greedy transcript of the model's own last
      exit,
    * ``soft``: the divergence of exit m's frames from those of the model's
      own last exit in evaluation mode,
      :func:`~speechbrain_ee.training.teacher.frame_divergences`; in nats per
      frame, where CTC is in nats per token.

    ``hard``, ``self`` and the confidence are after the public code of Wright
    et al. (arXiv 2309.09546). For ``hard`` that code has
    ``alpha sum_m CTC_m(y) + (1 - alpha) sum_(m<M) D_m``, so that alpha weighs
    the last exit, too; an exit weight of alpha there does the same.

    In training a Brain calls :meth:`observe` with the augmented waveforms
    that the model hears, and hands the result to :meth:`losses`; a teacher
    is thereby run in evaluation mode and without gradients, whatever mode
    the Brain has put it in. It stays out of the Brain's ``modules``, where it
    would be optimised, saved and wrapped by DDP. In validation there is no
    teacher: plain CTC compares runs of all kinds.

    Arguments
    ---------
    kind : str
        ``none``, ``hard``, ``self`` or ``soft``.
    alpha : float or sequence of float, optional
        Share of the transcript, 0 to 1. One number is that of all exits but
        the last, which then learns the transcript alone; or give one number
        per exit, where the last is 1 unless the kind is ``hard``. The default
        is 0.3 for ``hard``, evenly from 0.65 to 0.85 for ``self`` (both as
        in that code) and 0.5 for ``soft``.
    temperature : float
        Of ``soft``, above 0; usually 1 to 4.
    confidence : str
        ``multiply`` or ``divide`` the loss of an exit for an utterance by
        the exit's confidence,
        :func:`~speechbrain_ee.training.losses.utterance_confidences`; or ``none``.

    Example
    -------
    >>> Distillation("hard").exit_alphas(3)
    (0.3, 0.3, 1.0)
    >>> Distillation("soft", alpha=[0.2, 0.6, 1.0]).exit_alphas(3)
    (0.2, 0.6, 1.0)
    >>> Distillation("hard", alpha=1.3)
    Traceback (most recent call last):
    ...
    speechbrain_ee.errors.InputError: distillation: alpha: 1.3 must be ...
    """

    kind: str = "none"
    alpha: float | Sequence[float] | None = None
    temperature: float = 1.0
    confidence: str = "none"

    def __post_init__(self) -> None:
        for name, choices in (("kind", KINDS), ("confidence", CONFIDENCES)):
            value = getattr(self, name)
            _check(
                value in choices,
                f"{name}: {value!r} is not known; choose one of "
                f"{', '.join(choices)}",
            )
        if isinstance(self.alpha, list | tuple):
            object.__setattr__(self, "alpha", tuple(self.alpha))
        each = self.alpha if isinstance(self.alpha, tuple) else (self.alpha,)
        _check(
            self.alpha is None
            or (len(each) > 0 and all(_is_share(value) for value in each)),
            f"alpha: {_shown(self.alpha)} must be between 0 (the teacher "
            "alone) and 1 (the transcript alone): one number, or one per exit",
        )
        _check(
            _is_number(self.temperature)
            and 0 < self.temperature < float("inf"),
            f"temperature: {self.temperature!r} must be a positive number, "
            "for example 1.0",
        )

    def exit_alphas(self, num_exits: int) -> tuple[float, ...]:
        """The share of the transcript at every exit.

        Arguments
        ---------
        num_exits : int
            Number of exits.

        Returns
        -------
        tuple of float
            One share per exit; ones for the kind ``none``.

        Raises
        ------
        InputError
            If the numbers of ``alpha`` do not fit the exits.
        """
        if self.kind == "none":
            return (1.0,) * num_exits
        if not isinstance(self.alpha, tuple):
            return (*self._below_last(num_exits - 1), 1.0)
        _check(
            len(self.alpha) == num_exits,
            f"alpha: {_shown(self.alpha)} must hold {num_exits} numbers, one "
            "per entry of exit_layers, or be one number for all exits but "
            "the last",
        )
        _check(
            self.kind == "hard" or self.alpha[-1] == 1,
            f"alpha: {_shown(self.alpha)} must end in 1.0: for the kind "
            f"{self.kind!r} the last exit teaches, and has nothing to learn "
            "from itself",
        )
        return tuple(float(share) for share in self.alpha)

    def observe(
        self,
        model: nn.Module,
        wavs: Tensor,
        wav_lens: Tensor,
        teacher: nn.Module | None = None,
    ) -> list[ExitOutput] | None:
        """What :meth:`losses` needs besides the outputs of training.

        Arguments
        ---------
        model : torch.nn.Module
            The model in training, not wrapped by DDP.
        wavs : torch.Tensor
            Waveforms as the model hears them, augmented, (B, samples).
        wav_lens : torch.Tensor
            Lengths relative to the longest, shape (B,).
        teacher : torch.nn.Module, optional
            The frozen teacher of the kind ``hard``, on the same device.

        Returns
        -------
        list of ExitOutput or None
            From :func:`~speechbrain_ee.training.teacher.run_teacher`; None
            where no other pass is needed.
        """
        if self.kind == "soft":
            return run_teacher(model, wavs, wav_lens)
        if self.kind != "hard":
            return None
        _check(
            teacher is not None,
            "kind: 'hard' needs a frozen teacher, and the YAML has no "
            "`teacher`; add one, or choose 'self' or 'soft'",
        )
        return run_teacher(teacher, wavs, wav_lens)

    def losses(
        self,
        outputs: Sequence[ExitOutput],
        tokens_BS: Tensor,
        token_counts_B: Tensor,
        teacher_outputs: Sequence[ExitOutput] | None = None,
    ) -> Tensor:
        """The loss of every exit.

        Arguments
        ---------
        outputs : sequence of ExitOutput
            The exits of one batch.
        tokens_BS : torch.Tensor
            Target tokens, padded, shape (B, S).
        token_counts_B : torch.Tensor
            Tokens per utterance, shape (B,).
        teacher_outputs : sequence of ExitOutput, optional
            What :meth:`observe` has returned for the same batch.

        Returns
        -------
        torch.Tensor
            Losses averaged over the batch, shape (E,). With ``alpha`` 1 and
            without confidence they are those of
            :func:`~speechbrain_ee.training.losses.ctc_exit_losses`.

        Raises
        ------
        InputError
            If the teacher's tokens are not the model's.
        """
        alphas = self.exit_alphas(len(outputs))
        losses_EB = ctc_utterance_losses(outputs, tokens_BS, token_counts_B)
        learners = [m for m, alpha in enumerate(alphas) if alpha < 1]
        if learners:
            taught_EB = self._taught(
                [outputs[m] for m in learners],
                self._target(outputs, teacher_outputs),
                tokens_BS,
                token_counts_B,
            )
            share_E1 = losses_EB.new_tensor(alphas)[learners].unsqueeze(1)
            blend_EB = share_E1 * losses_EB[learners]
            blend_EB = blend_EB + (1 - share_E1) * taught_EB
            rows = torch.tensor(learners, device=losses_EB.device)
            losses_EB = losses_EB.index_copy(0, rows, blend_EB)
        if self.confidence == "multiply":
            losses_EB = losses_EB * utterance_confidences(outputs)
        elif self.confidence == "divide":
            losses_EB = losses_EB / utterance_confidences(outputs)
        return losses_EB.mean(dim=1)

    def _below_last(self, exits: int) -> tuple[float, ...]:
        """The shares of all exits but the last."""
        if self.alpha is not None:
            return (float(self.alpha),) * exits
        if self.kind != "self":
            return (HARD_ALPHA if self.kind == "hard" else SOFT_ALPHA,) * exits
        shares = torch.linspace(*SELF_ALPHAS, exits, dtype=torch.float64)
        return tuple(shares.tolist())

    def _target(
        self,
        outputs: Sequence[ExitOutput],
        teacher_outputs: Sequence[ExitOutput] | None,
    ) -> ExitOutput:
        """The exit that teaches."""
        if self.kind == "self" and teacher_outputs is None:
            return outputs[-1]
        if teacher_outputs is None:
            raise ValueError(
                f"kind {self.kind!r} learns from another pass in evaluation "
                "mode; hand over what observe() returns."
            )
        return teacher_outputs[-1]

    def _taught(
        self,
        outputs: Sequence[ExitOutput],
        target: ExitOutput,
        tokens_BS: Tensor,
        token_counts_B: Tensor,
    ) -> Tensor:
        """What the exits lose to the one that teaches, shape (E, B)."""
        self._check_fit(outputs[0], target)
        if self.kind == "soft":
            return frame_divergences(outputs, target, self.temperature)
        taught = taught_transcripts(target, tokens_BS, token_counts_B)
        return ctc_utterance_losses(outputs, *taught)

    def _check_fit(self, output: ExitOutput, target: ExitOutput) -> None:
        (batch, frames, vocab) = output.log_probs_BTV.shape
        shape = target.log_probs_BTV.shape
        _check(
            (vocab, output.blank_index) == (shape[2], target.blank_index),
            f"teacher: it has {shape[2]} tokens with blank "
            f"{target.blank_index}, and the model {vocab} with blank "
            f"{output.blank_index}; both must be trained with one tokenizer",
        )
        if shape[0] != batch or (self.kind == "soft" and shape[1] != frames):
            raise ValueError(
                f"the teacher has heard {tuple(shape[:2])} utterances and "
                f"frames, the model {(batch, frames)}; hand both the same "
                "augmented waveforms."
            )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _shown(alpha: Any) -> str:
    return str(list(alpha)) if isinstance(alpha, tuple) else repr(alpha)


def _check(valid: bool, problem: str) -> None:
    if not valid:
        raise InputError(f"distillation: {problem}.")
