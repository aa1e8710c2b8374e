"""Distillation: exits that also learn from a last exit.

What an exit learns besides the transcript is either another transcript, the
greedy one of a teacher's last exit or of the model's own, or the frame
distributions of the model's own last exit.

Axes: B utterances, E exits, T frames, S tokens.

Authors
 * The speechbrain-ee contributors 2026
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import torch
from msgspec import Meta
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.decoding import greedy_tokens
from speechbrain_ee.models.heads import ExitOutput
from speechbrain_ee.models.padding import padding_mask
from speechbrain_ee.training.checkpoints import pieces_in
from speechbrain_ee.training.frozen_teacher import FrozenTeacher
from speechbrain_ee.training.losses import (
    ctc_utterance_losses,
    utterance_confidences,
)
from speechbrain_ee.training.options import must_be, must_be_one_of

Kind = Literal["none", "hard", "self", "soft"]
Confidence = Literal["none", "multiply", "divide"]
KINDS = get_args(Kind)
# Shares of the transcript; that of `soft` is of this project.
ALPHAS = {"hard": 0.3, "soft": 0.5}
SELF_ALPHAS = (0.65, 0.85)  # first exit, last but one
_Part = Annotated[float, Meta(ge=0, le=1)]
_Temperature = Annotated[float, Meta(gt=0, le=sys.float_info.max)]


@torch.no_grad()
def run_teacher(
    teacher: nn.Module, wavs: Tensor, wav_lens: Tensor
) -> list[ExitOutput]:
    """What a model says in evaluation mode, without gradients.

    Dropout and layer-drop are off and no running statistic moves. No random
    number is drawn, so that training goes on as it would without a teacher.
    """
    modes = [(module, module.training) for module in teacher.modules()]
    teacher.eval()
    try:
        return teacher(wavs, wav_lens)
    finally:
        for module, training in modes:
            module.training = training


def taught_transcripts(
    target: ExitOutput, tokens_BS: Tensor, token_counts_B: Tensor
) -> tuple[Tensor, Tensor]:
    """Greedy transcripts of an exit, as targets for CTC.

    An exit that emits nothing of an utterance teaches the transcript itself.
    To learn all blanks from it would be the largest loss of the batch, since
    there is no token to divide it by, and would pull exits into the collapse
    that a young last exit is often in.
    """
    rows = [
        tokens_BS.new_tensor(found) if found else tokens[:count]
        for found, tokens, count in zip(
            greedy_tokens(target), tokens_BS, token_counts_B.tolist()
        )
    ]
    counts_B = token_counts_B.new_tensor([len(row) for row in rows])
    taught_BS = pad_sequence(rows, batch_first=True)
    # Where nothing is said at all, a column keeps the targets a matrix of
    # the kind that every CTC implementation takes.
    return F.pad(taught_BS, (0, int(taught_BS.shape[1] == 0))), counts_B


def frame_divergences(
    outputs: Sequence[ExitOutput], target: ExitOutput, temperature: float = 1.0
) -> Tensor:
    """Divergence of every exit's frames from those of a teaching exit.

    ``tau^2 / T sum_t KL(q_t || p_t)``, where q and p are the target's and the
    exit's distributions at temperature tau; the square keeps the size of the
    gradient (Hinton et al. 2015, arXiv 1503.02531).
    """
    padded_BT = padding_mask(target.lengths_B, target.log_probs_BTV.shape[1])

    def softened_BTV(output: ExitOutput) -> Tensor:
        # Padding may hold anything; equal values in it diverge by zero.
        log_probs_BTV = output.log_probs_BTV.masked_fill(
            padded_BT.unsqueeze(-1), 0.0
        )
        return torch.log_softmax(log_probs_BTV / temperature, dim=-1)

    target_BTV = softened_BTV(target).detach()
    frames_B = target.lengths_B.clamp(min=1)
    summed_EB = torch.stack(
        [
            F.kl_div(
                softened_BTV(output),
                target_BTV,
                reduction="none",
                log_target=True,
            ).sum((1, 2))
            for output in outputs
        ]
    )
    return temperature**2 * summed_EB / frames_B


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
      :func:`~speechbrain_ee.training.distillation.frame_divergences`; in nats per
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
        if isinstance(self.alpha, list):
            object.__setattr__(self, "alpha", tuple(self.alpha))
        key = "distillation: "
        must_be_one_of(f"{key}kind", self.kind, KINDS)
        must_be_one_of(
            f"{key}confidence", self.confidence, get_args(Confidence)
        )
        must_be(
            f"{key}alpha",
            self.alpha,
            _Part | Annotated[tuple[_Part, ...], Meta(min_length=1)] | None,
            "between 0 (the teacher alone) and 1 (the transcript alone): one "
            "number, or one per exit",
        )
        must_be(
            f"{key}temperature",
            self.temperature,
            _Temperature,
            "a positive number, for example 1.0",
        )

    def exit_alphas(self, num_exits: int) -> tuple[float, ...]:
        """The share of the transcript at every exit."""
        below = num_exits - 1
        if self.kind == "none":
            return (1.0,) * num_exits
        if self.alpha is None and self.kind == "self":
            shares = torch.linspace(*SELF_ALPHAS, below, dtype=torch.float64)
            return (*shares.tolist(), 1.0)
        if not isinstance(self.alpha, tuple):
            alpha = ALPHAS[self.kind] if self.alpha is None else self.alpha
            return (float(alpha),) * below + (1.0,)
        problem = None
        if len(self.alpha) != num_exits:
            problem = (
                f"must hold {num_exits} numbers, one per entry of exit_layers, "
                "or be one number for all exits but the last"
            )
        elif self.kind != "hard" and self.alpha[-1] != 1:
            problem = (
                f"must end in 1.0: for the kind {self.kind!r} the last exit "
                "teaches, and has nothing to learn from itself"
            )
        if problem is not None:
            raise InputError(
                f"distillation: alpha: {list(self.alpha)} {problem}."
            )
        return tuple(float(share) for share in self.alpha)

    def observe(
        self,
        model: nn.Module,
        wavs: Tensor,
        wav_lens: Tensor,
        teacher: nn.Module | None = None,
    ) -> list[ExitOutput] | None:
        """What :meth:`losses` needs besides the outputs of training."""
        if self.kind == "soft":
            return run_teacher(model, wavs, wav_lens)
        if self.kind != "hard":
            return None
        return run_teacher(teacher, wavs, wav_lens)

    def losses(
        self,
        outputs: Sequence[ExitOutput],
        tokens_BS: Tensor,
        token_counts_B: Tensor,
        teacher_outputs: Sequence[ExitOutput] | None = None,
    ) -> Tensor:
        """The loss of every exit."""
        alphas = self.exit_alphas(len(outputs))
        losses_EB = ctc_utterance_losses(outputs, tokens_BS, token_counts_B)
        learners = [m for m, alpha in enumerate(alphas) if alpha < 1]
        if learners:
            taught_EB = self._taught(
                outputs, learners, teacher_outputs, tokens_BS, token_counts_B
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

    def _taught(
        self,
        outputs: Sequence[ExitOutput],
        learners: Sequence[int],
        teacher_outputs: Sequence[ExitOutput] | None,
        tokens_BS: Tensor,
        token_counts_B: Tensor,
    ) -> Tensor:
        """What some exits lose to the one that teaches, shape (E, B)."""
        if teacher_outputs is None and self.kind == "self":
            teacher_outputs = outputs
        learning, target = [outputs[m] for m in learners], teacher_outputs[-1]
        if self.kind == "soft":
            return frame_divergences(learning, target, self.temperature)
        taught = taught_transcripts(target, tokens_BS, token_counts_B)
        return ctc_utterance_losses(learning, *taught)


def checked_distillation(
    hparams: Any, exits: int, tokenizer: Any
) -> tuple[Distillation, FrozenTeacher | None]:
    """The distillation and the teacher of a YAML."""
    distillation = getattr(hparams, "distillation", None)
    if distillation is None:
        distillation = Distillation()
    if not isinstance(distillation, Distillation):
        raise InputError(
            f"distillation: {distillation!r} must be a Distillation, or null; "
            "on the command line pass for example "
            f"--distillation='{{kind: self}}'; kinds: {', '.join(KINDS)}."
        )
    listed = getattr(hparams, "losses", None) or ["distillation"]
    plain = {distillation.kind, distillation.confidence} == {"none"}
    if "distillation" not in listed and not plain:
        raise InputError(
            f"distillation: {distillation} is not among the losses, "
            f"{listed}; list it there, as in --losses=[ctc,distillation]."
        )
    distillation.exit_alphas(exits)
    teacher = getattr(hparams, "teacher", None)
    if not isinstance(teacher, FrozenTeacher | None):
        raise InputError(
            f"teacher: {teacher!r} must be what load_teacher returns, or "
            "null; pass the output_folder of a finished run by "
            "--teacher_folder=... instead."
        )
    if distillation.kind == "hard" and teacher is None:
        raise InputError(
            "distillation: kind: 'hard' needs a frozen teacher; pass the "
            "output_folder of a finished run by --teacher_folder=..., or "
            "choose 'self' or 'soft'."
        )
    if distillation.kind != "hard" and teacher is not None:
        raise InputError(
            f"teacher: the distillation of kind {distillation.kind!r} does "
            "not listen to a teacher; leave teacher_folder out, or pass "
            "--distillation='{kind: hard}'."
        )
    if teacher is not None:
        _check_run(teacher, hparams, tokenizer)
    return distillation, teacher


def _check_run(teacher: FrozenTeacher, hparams: Any, tokenizer: Any) -> None:
    """What is known of a teacher that another run has trained."""
    if teacher.folder.resolve() == Path(hparams.output_folder).resolve():
        raise InputError(
            f"teacher_folder: {teacher.folder} is the output_folder of this "
            "run, too, whose checkpoints would replace the teacher; pass "
            "another --output_folder=..."
        )
    if teacher.sample_rate != hparams.sample_rate:
        raise InputError(
            f"teacher_folder: {teacher.folder} was trained at "
            f"{teacher.sample_rate} Hz, and sample_rate is "
            f"{hparams.sample_rate} Hz; both must hear the same audio."
        )
    if pieces_in(tokenizer.sp) != teacher.pieces:
        raise InputError(
            f"teacher_folder: the tokenizer of {teacher.folder} is not that "
            "of this run, so that the same token means something else. Copy "
            "its .model and .vocab files from its save_folder to the "
            "save_folder of a new output_folder, set output_neurons and "
            "token_type as there, and train in that one."
        )
