"""What is read from an inference folder beside model and weights.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path

from sentencepiece import SentencePieceProcessor

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.calibration.exit_policy import ExitPolicy
from speechbrain_ee.exits.calibration.policy_file import read_policy
from speechbrain_ee.exits.criteria.text import OF_TEXT
from speechbrain_ee.exits.selector.learned import LearnedSelector
from speechbrain_ee.files import read_bytes
from speechbrain_ee.inference.folder.architecture import WAY_OUT
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.training.checkpoints import POLICY_FOLDER

SELECTOR_FILE = "selector.json.gz"
_MOST_POLICIES = 200
OF_SELECTOR = ("learned", *OF_TEXT)  # criteria whose scores it gives


def read_policies(
    path: Path,
    source: Path,
    default: str | None,
    model: EarlyExitModel,
    selector: LearnedSelector | None,
) -> dict[str, ExitPolicy]:
    """Read the policies of an inference folder or of a run.

    Arguments
    ---------
    path : Path
        Where their folder lies.
    source : Path
        The file that says which one is the default.
    default : str, optional
        Which one.
    model : EarlyExitModel
        They must be for its exits.
    selector : LearnedSelector, optional
        What policies on ``learned`` need.

    Returns
    -------
    dict of str to ExitPolicy
        By name.

    Raises
    ------
    InputError
        With file and key, if one cannot be read or does not fit.
    """
    found = {}
    files = sorted((path / POLICY_FOLDER).glob("*.yaml"))
    if len(files) > _MOST_POLICIES:
        raise InputError(
            f"{path / POLICY_FOLDER}: holds {len(files)} policies, of which "
            f"{_MOST_POLICIES} would be read; {WAY_OUT}."
        )
    for file in files:
        policy = read_policy(file)
        check_layers(file, policy.exit_layers, model)
        if policy.criterion in OF_SELECTOR and selector is None:
            wanted = Path(policy.selector or SELECTOR_FILE).name
            raise InputError(
                f"{file}, key criterion: {policy.criterion}, but {path} has no "
                f"{wanted} to give its scores; {WAY_OUT}."
            )
        found[file.stem] = policy
    if default not in (None, *found):
        raise InputError(
            f"{source}, key default_policy: there is no "
            f"{POLICY_FOLDER}/{default}.yaml; {WAY_OUT}."
        )
    return found


def check_layers(
    file: Path, layers: tuple[int, ...] | None, model: EarlyExitModel
) -> None:
    """Refuse what was made for other exits.

    Arguments
    ---------
    file : Path
        Where it was read.
    layers : tuple of int, optional
        Its exit layers, all of the model's or some; None: nothing was read.
    model : EarlyExitModel
        The model.

    Raises
    ------
    InputError
        If one is not the model's.
    """
    if layers is not None and not set(layers) <= set(model.exit_layers):
        raise InputError(
            f"{file}, key exit_layers: {list(layers)}, but the model of "
            f"config.json has {list(model.exit_layers)}; {WAY_OUT}."
        )


def read_tokenizer(path: Path, model: EarlyExitModel) -> SentencePieceProcessor:
    """Read the tokenizer.

    Arguments
    ---------
    path : Path
        Its file.
    model : EarlyExitModel
        The model.

    Returns
    -------
    sentencepiece.SentencePieceProcessor

    Raises
    ------
    InputError
        If it cannot be read, or has more tokens than the model.
    """
    try:
        tokenizer = SentencePieceProcessor(
            model_proto=read_bytes(path, WAY_OUT) or b"\0"
        )
    except RuntimeError as error:
        raise InputError(
            f"{path}: not a SentencePiece model; {WAY_OUT}."
        ) from error
    pieces, size = tokenizer.get_piece_size(), model.heads.vocab_size
    # Characters may be fewer than output_neurons.
    if pieces > size:
        raise InputError(
            f"{path}: has {pieces} tokens, but the model of config.json "
            f"{size}; {WAY_OUT}."
        )
    return tokenizer
