"""The frozen teacher: the model of a finished run of this recipe.

Axes: B utterances.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ruamel.yaml
from sentencepiece import SentencePieceProcessor
from speechbrain.utils.checkpoints import Checkpoint, Checkpointer
from torch import Tensor, nn

from speechbrain_ee.errors import InputError, one_line
from speechbrain_ee.models.heads import CTCHeads, ExitOutput
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.training.checkpoints import (
    averaged_weights,
    backbone_fingerprint,
    best_checkpoints,
    build_model,
    check_checkpoints,
    moved_save_folder,
    tokenizer_fingerprint,
    yaml_fingerprint,
)
from speechbrain_ee.training.seeding import kept_random_state

logger = logging.getLogger(__name__)

_NEEDED = (
    "output_folder save_folder output_neurons token_type sample_rate "
    "average_checkpoints"
).split()
_WAY_OUT = (
    "pass the output_folder of a finished run of this recipe, which holds "
    "hyperparams.yaml and its checkpoints"
)


class FrozenTeacher(nn.Module):
    """A trained model of which only the last exit is asked."""

    def __init__(
        self,
        model: EarlyExitModel,
        pieces: Sequence[str],
        sample_rate: int,
        folder: str | Path,
    ):
        super().__init__()
        self.model = model
        self.pieces = tuple(pieces)
        self.sample_rate = sample_rate
        self.folder = Path(folder)
        self.requires_grad_(False).eval()

    @property
    def heads(self) -> CTCHeads:
        """The model's CTC heads."""
        return self.model.heads

    def forward(self, wavs: Tensor, wav_lens: Tensor) -> list[ExitOutput]:
        """The last exit of a batch; the heads below it do not run."""
        state = self.model.start(wavs, wav_lens)
        _, output = self.model.walk(state, len(self.model.exit_layers))
        return [output]


def load_teacher(folder: str | Path | None) -> FrozenTeacher | None:
    """Load the teacher from the output folder of a finished run.

    The model is built as the run's ``hyperparams.yaml`` says, and gets the
    average of the best checkpoints, as many as that run tests with. Nothing
    else of the YAML is built; but building a model executes what the YAML
    names (HyperPyYAML), so load only folders that you trust, such as your
    own. The checkpoints are read as plain weights, without executing
    anything. No random number is drawn: a run with a teacher starts with the
    same weights as one without.

    Arguments
    ---------
    folder : str or Path or None
        The ``output_folder`` of the run; it may have been moved since. It
        must stay as it is for as long as the run that learns from it may be
        resumed.

    Returns
    -------
    FrozenTeacher or None
        None if no folder is given.

    Raises
    ------
    InputError
        If the folder is not that of a run with checkpoints, its model cannot
        be built, or is not the one that they were saved with.
    """
    if folder is None:
        return None
    if not isinstance(folder, str | Path):
        raise InputError(
            f"teacher_folder: {folder!r} is no folder; pass the "
            "output_folder of a finished run of this recipe, or null."
        )
    folder = Path(folder)
    with kept_random_state():
        tree, text = _read(folder / "hyperparams.yaml")
        options = {key: tree.get(key) for key in _NEEDED}
        save_folder = moved_save_folder(
            folder, options["save_folder"], options["output_folder"]
        )
        what = f"the model of {folder / 'hyperparams.yaml'} cannot be built"
        with _explained(what, "is a file that it names still there?"):
            model = build_model(tree)
            if not isinstance(model, EarlyExitModel):
                raise TypeError(f"{type(model).__name__}, not EarlyExitModel")
        name = f"{options['output_neurons']}_{options['token_type']}.model"
        with _explained(f"the tokenizer {save_folder / name} cannot be read"):
            tokenizer = SentencePieceProcessor(
                model_file=str(save_folder / name)
            )
        fingerprint = (
            yaml_fingerprint(text)
            | backbone_fingerprint(model)
            | tokenizer_fingerprint(tokenizer)
        )
        average = options["average_checkpoints"]
        _load_weights(model, save_folder, average, fingerprint)
    pieces = tokenizer.id_to_piece(list(range(tokenizer.get_piece_size())))
    return FrozenTeacher(model, pieces, options["sample_rate"], folder)


@contextmanager
def _explained(what: str, way_out: str = f"{_WAY_OUT}.") -> Iterator[None]:
    """What a library raises, as an InputError that says what failed."""
    try:
        yield
    # A YAML builds objects, and a damaged file can raise anything.
    except Exception as error:
        logger.debug("%s", what, exc_info=True)
        raise InputError(
            f"teacher_folder: {what} ({one_line(error)}); {way_out}"
        ) from error


def _read(path: Path) -> tuple[Any, str]:
    """The run's YAML as a tree and as text; nothing of it is executed."""
    with _explained(f"{path} cannot be read"):
        text = path.read_text(encoding="utf-8")
    with _explained(f"{path} is not the YAML of a run of this recipe"):
        tree = ruamel.yaml.YAML().load(text)
        lacking = [key for key in _NEEDED if key not in tree]
        tree["modules"]["model"]
    if lacking:
        raise InputError(
            f"teacher_folder: {path} lacks the options {', '.join(lacking)}; "
            f"{_WAY_OUT}."
        )
    return tree, text


def _load_weights(
    model: EarlyExitModel,
    save_folder: Path,
    average: int,
    fingerprint: Mapping[str, str],
) -> None:
    """Average the best checkpoints, as the run's evaluation does."""
    try:
        found = best_checkpoints(save_folder, average)
        check_checkpoints(save_folder, found, fingerprint)
    except InputError as error:
        raise InputError(f"teacher_folder: {error}") from None
    if not found:
        raise InputError(
            f"teacher_folder: {save_folder} holds no checkpoint of a whole "
            f"epoch; {_WAY_OUT}."
        )
    with _explained(
        f"the checkpoints in {save_folder} cannot be loaded into the model of "
        "its hyperparams.yaml"
    ):
        model.load_state_dict(averaged_weights(found), strict=True)
        _load_statistics(model, found[0])
    logger.info(
        "Teacher: %d checkpoint(s) of %s", len(found), save_folder.parent
    )


def _load_statistics(model: EarlyExitModel, checkpoint: Checkpoint) -> None:
    """SpeechBrain keeps the means of features beside the weights."""
    for module in model.modules():
        if getattr(module, "norm_type", None) == "global":
            Checkpointer(
                checkpoint.path.parent, recoverables={"normalizer": module}
            ).load_checkpoint(checkpoint)
