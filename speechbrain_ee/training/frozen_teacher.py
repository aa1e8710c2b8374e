"""The frozen teacher: the model of a finished run of this recipe.

Axes: B utterances.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import ruamel.yaml
from sentencepiece import SentencePieceProcessor
from speechbrain.utils.checkpoints import Checkpointer
from torch import Tensor, nn

from speechbrain_ee.errors import InputError, one_line
from speechbrain_ee.models.heads import ExitOutput
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.training.checkpoints import (
    averaged_weights,
    backbone_fingerprint,
    best_checkpoints,
    build_model,
    check_checkpoints,
    kept_random_state,
    moved_save_folder,
    pieces_in,
    tokenizer_fingerprint,
    yaml_fingerprint,
)

logger = logging.getLogger(__name__)

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
        self.pieces = list(pieces)
        self.sample_rate = sample_rate
        self.folder = Path(folder)
        self.requires_grad_(False).eval()

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
    with kept_random_state(), _explained(f"{folder} cannot teach"):
        path = Path(folder) / "hyperparams.yaml"
        text = path.read_text(encoding="utf-8")
        with _explained(f"{path} is not the YAML of a run of this recipe"):
            tree = ruamel.yaml.YAML().load(text)
            save_folder = moved_save_folder(
                Path(folder), tree["save_folder"], tree["output_folder"]
            )
            name = f"{tree['output_neurons']}_{tree['token_type']}.model"
            average, rate = tree["average_checkpoints"], tree["sample_rate"]
        with _explained(f"the model of {path} cannot be built"):
            model = build_model(tree)
            if not isinstance(model, EarlyExitModel):
                raise TypeError(f"{type(model).__name__}, not EarlyExitModel")
        tokenizer = SentencePieceProcessor(model_file=str(save_folder / name))
        fingerprint = (
            yaml_fingerprint(text)
            | backbone_fingerprint(model)
            | tokenizer_fingerprint(tokenizer)
        )
        with _explained(f"the checkpoints in {save_folder} cannot be loaded"):
            _load_weights(model, save_folder, average, fingerprint)
    return FrozenTeacher(model, pieces_in(tokenizer), rate, folder)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """What a library raises, as an InputError that says what failed."""
    try:
        yield
    # A YAML builds objects, and a damaged file can raise anything.
    except Exception as error:
        logger.debug("%s", what, exc_info=True)
        said = f"{what} ({one_line(error)}); {_WAY_OUT}."
        if isinstance(error, InputError):
            said = str(error).removeprefix("teacher_folder: ")
        raise InputError(f"teacher_folder: {said}") from error


def _load_weights(
    model: EarlyExitModel,
    save_folder: Path,
    average: int,
    fingerprint: Mapping[str, str],
) -> None:
    """Average the best checkpoints, as the run's evaluation does."""
    found = best_checkpoints(save_folder, average)
    check_checkpoints(save_folder, found, fingerprint)
    if not found:
        raise InputError(
            f"{save_folder} holds no checkpoint of a whole epoch; {_WAY_OUT}."
        )
    model.load_state_dict(averaged_weights(found), strict=True)
    # SpeechBrain keeps the means of features beside the weights.
    for module in model.modules():
        if getattr(module, "norm_type", None) == "global":
            Checkpointer(
                found[0].path.parent, recoverables={"normalizer": module}
            ).load_checkpoint(found[0])
    logger.info(
        "Teacher: %d checkpoint(s) of %s", len(found), save_folder.parent
    )
