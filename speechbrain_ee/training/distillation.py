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
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.decoding import greedy_tokens
from speechbrain_ee.models.heads import ExitOutput
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.models.padding import padding_mask
from speechbrain_ee.training.frozen_teacher import FrozenTeacher
from speechbrain_ee.training.losses import (
    ctc_utterance_losses,
    utterance_confidences,
)

KINDS = ("none", "hard", "self", "soft")
CONFIDENCES = ("none", "multiply", "divide")
HARD_ALPHA = 0.3
SELF_ALPHAS = (0.65, 0.85)  # first exit, last but one
SOFT_ALPHA = 0.5  # of this project


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

    Example
    -------
    >>> frames = torch.tensor([[1, 1, 0, 2], [0, 0, 0, 0]])
    >>> one_hot = torch.nn.functional.one_hot(frames, 4).float()
    >>> target = ExitOutput(one_hot, torch.tensor([4, 4]), layer=2)
    >>> tokens, counts = torch.tensor([[3], [3]]), torch.tensor([1, 1])
    >>> taught_transcripts(target, tokens, counts)
    (tensor([[1, 2],
            [3, 0]]), tensor([2, 1]))
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
        """The share of the transcript at every exit."""
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
        """What :meth:`losses` needs besides the outputs of training."""
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

    def _below_last(self, exits: int) -> tuple[float, ...]:
        """The shares of all exits but the last."""
        if self.alpha is not None:
            return (float(self.alpha),) * exits
        if self.kind != "self":
            return (HARD_ALPHA if self.kind == "hard" else SOFT_ALPHA,) * exits
        shares = torch.linspace(*SELF_ALPHAS, exits, dtype=torch.float64)
        return tuple(shares.tolist())

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
        if teacher_outputs is None:
            raise ValueError(
                f"kind {self.kind!r} learns from another pass in evaluation "
                "mode; hand over what observe() returns."
            )
        learning, target = [outputs[m] for m in learners], teacher_outputs[-1]
        self._check_fit(learning[0], target)
        if self.kind == "soft":
            return frame_divergences(learning, target, self.temperature)
        taught = taught_transcripts(target, tokens_BS, token_counts_B)
        return ctc_utterance_losses(learning, *taught)

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


def checked_distillation(
    hparams: Any, model: EarlyExitModel, tokenizer: Any
) -> tuple[Distillation, nn.Module | None]:
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
    distillation.exit_alphas(len(model.exit_layers))
    teacher = getattr(hparams, "teacher", None)
    _check_kind(distillation, teacher)
    if teacher is not None:
        _check_teacher(teacher, model)
        if isinstance(teacher, FrozenTeacher):
            _check_run(teacher, hparams, tokenizer)
        teacher.requires_grad_(False).eval()
    return distillation, teacher


def _check_kind(distillation: Distillation, teacher: Any) -> None:
    """A teacher is there if, and only if, somebody listens to it."""
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
    if teacher is not None and not isinstance(teacher, nn.Module):
        raise InputError(
            f"teacher: {teacher!r} is no model; pass the output_folder of a "
            "finished run by --teacher_folder=... instead."
        )


def _check_teacher(teacher: nn.Module, model: EarlyExitModel) -> None:
    """It must not freeze the model with it, and have the same tokens."""
    own = {id(parameter) for parameter in model.parameters()}
    if any(id(parameter) in own for parameter in teacher.parameters()):
        raise InputError(
            "teacher: it shares weights with the model in training, and "
            "would freeze them; let the model teach itself with the kinds "
            "'self' or 'soft'."
        )
    heads = getattr(teacher, "heads", None)
    if heads is None:
        return  # a model of another kind: its first batch is checked
    has = (heads.vocab_size, heads.blank_index)
    needs = (model.heads.vocab_size, model.heads.blank_index)
    if has != needs:
        raise InputError(
            f"teacher: it has {has[0]} tokens with blank {has[1]}, and the "
            f"model {needs[0]} with blank {needs[1]}; set output_neurons to "
            f"{has[0]}, and use the teacher's tokenizer."
        )


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
    numbers = list(range(tokenizer.sp.get_piece_size()))
    pieces = tokenizer.sp.id_to_piece(numbers)
    if tuple(pieces) != teacher.pieces:
        raise InputError(
            f"teacher_folder: the tokenizer of {teacher.folder} is not that "
            "of this run, so that the same token means something else. Copy "
            "its .model and .vocab files from its save_folder to the "
            "save_folder of a new output_folder, set output_neurons and "
            "token_type as there, and train in that one."
        )
