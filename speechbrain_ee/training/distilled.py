"""Which distillation a system trains with, checked before it trains.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path
from typing import Any

from torch import nn

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.training.distillation import KINDS, Distillation
from speechbrain_ee.training.frozen_teacher import FrozenTeacher


def checked_distillation(
    hparams: Any, model: EarlyExitModel, tokenizer: Any
) -> tuple[Distillation, nn.Module | None]:
    """The distillation and the teacher of a YAML.

    Arguments
    ---------
    hparams : namespace
        ``distillation``, a
        :class:`~speechbrain_ee.training.distillation.Distillation`, and
        ``teacher``, a model outside ``modules`` that can be called with
        waveforms and relative lengths and returns a list of ExitOutput, for
        example by :func:`~speechbrain_ee.training.frozen_teacher.load_teacher`.
        Either may be null or absent.
    model : EarlyExitModel
        The model in training, not wrapped by DDP.
    tokenizer : speechbrain.tokenizers.SentencePiece.SentencePiece
        The model's tokenizer.

    Returns
    -------
    distillation : Distillation
        Of the kind ``none`` if the YAML has none.
    teacher : torch.nn.Module or None
        The teacher of the kind ``hard``, frozen and in evaluation mode.

    Raises
    ------
    InputError
        If one of them does not fit the other, or the model.
    """
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
        _check_own(teacher, model)
        _check_tokens(teacher, model)
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


def _check_own(teacher: nn.Module, model: nn.Module) -> None:
    """A teacher is frozen, and must not freeze the model with it."""
    own = {id(parameter) for parameter in model.parameters()}
    if any(id(parameter) in own for parameter in teacher.parameters()):
        raise InputError(
            "teacher: it shares weights with the model in training, and "
            "would freeze them; let the model teach itself with the kinds "
            "'self' or 'soft'."
        )


def _check_tokens(teacher: nn.Module, model: EarlyExitModel) -> None:
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
    pieces = tokenizer.sp.id_to_piece(
        list(range(tokenizer.sp.get_piece_size()))
    )
    if tuple(pieces) != teacher.pieces:
        raise InputError(
            f"teacher_folder: the tokenizer of {teacher.folder} is not that "
            "of this run, so that the same token means something else. Copy "
            "its .model and .vocab files from its save_folder to the "
            "save_folder of a new output_folder, set output_neurons and "
            "token_type as there, and train in that one."
        )
