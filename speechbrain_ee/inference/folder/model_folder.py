"""Inference folders: a trained model with all that is needed to use it.

===========================  ===============================================
file                         what it holds
===========================  ===============================================
``config.json``              the model as plain data, and how to use it
``model.safetensors``        its weights
``tokenizer.model``          SentencePiece
``policies/<name>.yaml``     calibrated exit policies, ``exit-policy/1``
``selector.json.gz``         the learned selector, if there is one
``combination.json``         the combination of criteria, if there is one
``calibration.jsonl.gz``     scores and errors on the development set, without
                             transcripts: new budgets are resolved by it
``backbone/``                configuration of a pre-trained encoder
``README.md``                the model card
===========================  ===============================================

Reading executes nothing that a file says: weights are numbers, the classes of
``config.json`` come from a table, YAML and JSON are read as plain values.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.calibration.exit_policy import ExitPolicy
from speechbrain_ee.exits.calibration.policy_file import write_policy
from speechbrain_ee.exits.criteria.zscores import ZScores
from speechbrain_ee.exits.decoding.methods import check_decodings
from speechbrain_ee.exits.decoding.search_options import SearchOptions
from speechbrain_ee.exits.selector.learned import LearnedSelector
from speechbrain_ee.exits.selector.selector_file import (
    read_selector,
    write_selector,
)
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.exits.trace_io import read_trace, whole_file, write_trace
from speechbrain_ee.inference.folder.architecture import Architecture
from speechbrain_ee.inference.folder.backbone import (
    read_backbone,
    write_backbone,
)
from speechbrain_ee.inference.folder.combination_file import (
    read_combination,
    write_combination,
)
from speechbrain_ee.inference.folder.config import (
    CONFIG_FILE,
    FolderConfig,
    read_config,
    write_config,
)
from speechbrain_ee.inference.folder.measured import Measured
from speechbrain_ee.inference.folder.parts import (
    POLICY_FOLDER,
    SELECTOR_FILE,
    check_layers,
    read_policies,
    read_tokenizer,
)
from speechbrain_ee.inference.folder.weights import (
    WEIGHTS_FILE,
    load_weights,
    write_weights,
)
from speechbrain_ee.models.model import EarlyExitModel

logger = logging.getLogger(__name__)

TOKENIZER_FILE = "tokenizer.model"
# As a policy of the folder refers to it.
POLICY_SELECTOR = f"../{SELECTOR_FILE}"
COMBINATION_FILE = "combination.json"
CALIBRATION_FILE = "calibration.jsonl.gz"
CARD_FILE = "README.md"


@dataclass(frozen=True)
class ModelFolder:
    """What an inference folder holds, loaded.

    Arguments
    ---------
    path : Path
        Where it is.
    name : str
        The system.
    model : EarlyExitModel
        In evaluation mode, on the CPU, in fp32.
    architecture : Architecture, optional
        The same model as plain data; None for one that was built by
        executing a YAML, which cannot be written.
    tokenizer : sentencepiece.SentencePieceProcessor
        From tokens to text.
    sample_rate : int
        Samples per second of the audio.
    decoding : str
        How hypotheses are made, for example ``ctc_greedy``.
    search : SearchOptions
        How they are searched for.
    policies : mapping of str to ExitPolicy
        By name.
    default_policy : str, optional
        The name of the one to use; None: the last exit.
    default_reason : str
        Why this one, for people; empty if unknown.
    selector : LearnedSelector, optional
        Gives the scores of ``learned``.
    combination : ZScores, optional
        Gives those of ``combination``.
    calibration : Trace, optional
        Of the development set, without transcripts.
    facts : mapping of str to str
        Of data and training, for the card.
    measured : tuple of Measured
        What exits and policies gave on test sets.
    """

    path: Path
    name: str
    model: EarlyExitModel
    architecture: Architecture | None
    tokenizer: SentencePieceProcessor
    sample_rate: int
    decoding: str = "ctc_greedy"
    search: SearchOptions = SearchOptions()
    policies: Mapping[str, ExitPolicy] = field(default_factory=dict)
    default_policy: str | None = None
    default_reason: str = ""
    selector: LearnedSelector | None = None
    combination: ZScores | None = None
    calibration: Trace | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    measured: tuple[Measured, ...] = ()

    @property
    def exit_layers(self) -> tuple[int, ...]:
        """Layers that an exit follows."""
        return self.model.exit_layers


def read_model_folder(path: str | Path) -> ModelFolder:
    """Load an inference folder.

    Arguments
    ---------
    path : str or Path
        The folder.

    Returns
    -------
    ModelFolder

    Raises
    ------
    InputError
        With file and key, if something is missing, damaged, does not fit the
        rest, or would have to be executed.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(
            f"{path}: there is no such folder; give an inference folder, as "
            "training writes it to <output_folder>/model."
        )
    config = read_config(path / CONFIG_FILE)
    backbone = (
        read_backbone(path) if config.architecture.uses_backbone else None
    )
    model = config.architecture.build(backbone)
    load_weights(path / WEIGHTS_FILE, model)
    check_decodings(
        [config.decoding], model, f"{path / CONFIG_FILE}, key decoding"
    )
    selector = _if_there(path / SELECTOR_FILE, read_selector)
    combination = _if_there(path / COMBINATION_FILE, read_combination)
    calibration = _if_there(path / CALIBRATION_FILE, read_trace)
    for name, layers in {
        SELECTOR_FILE: selector and selector.exit_layers,
        CALIBRATION_FILE: calibration and calibration.header.exit_layers,
    }.items():
        check_layers(path / name, layers, model)
    return ModelFolder(
        path=path,
        name=config.name,
        model=model,
        architecture=config.architecture,
        tokenizer=read_tokenizer(path / TOKENIZER_FILE, model),
        sample_rate=config.sample_rate,
        decoding=config.decoding,
        search=config.search,
        policies=read_policies(path, config, model, selector),
        default_policy=config.default_policy,
        default_reason=config.default_reason,
        selector=selector,
        combination=combination,
        calibration=calibration,
        facts=config.facts,
        measured=config.measured,
    )


def write_model_folder(
    path: str | Path, folder: ModelFolder, card: str = ""
) -> Path:
    """Write an inference folder: all of it or nothing.

    Arguments
    ---------
    path : str or Path
        Target. An inference folder that is there is replaced; anything else
        is left alone.
    folder : ModelFolder
        What to write; its ``path`` is not used.
    card : str
        The text of ``README.md``; see
        :func:`speechbrain_ee.inference.folder.card.model_card`.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        If something else is at the place, or it cannot be written.
    """
    path = Path(path)
    if folder.architecture is None:
        raise InputError(
            f"{folder.path}: its model was built by executing hyperparams.yaml "
            "and is not known as plain data, so that it cannot be exported."
        )
    if path.is_symlink() or path.is_file() or _is_other(path):
        raise InputError(
            f"{path}: something else than an inference folder is there; "
            "choose another place, or remove it."
        )
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        _write_files(new, folder, card)
        if path.exists():
            path.rename(old)
        new.rename(path)
    except OSError as error:
        if old.exists() and not path.exists():
            old.rename(path)
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}); choose "
            "a place that you may write to."
        ) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    logger.info("Inference folder: %s", path)
    return path


def _write_files(target: Path, folder: ModelFolder, card: str) -> None:
    config = FolderConfig(
        folder.name,
        folder.architecture,
        folder.sample_rate,
        folder.decoding,
        folder.search,
        folder.default_policy,
        folder.facts,
        folder.measured,
        folder.default_reason,
    )
    write_config(target / CONFIG_FILE, config)
    write_weights(target / WEIGHTS_FILE, folder.model)
    write_backbone(target, folder.model)
    with whole_file(target / TOKENIZER_FILE) as stream:
        stream.write(folder.tokenizer.serialized_model_proto())
    for name, policy in folder.policies.items():
        write_policy(target / POLICY_FOLDER / f"{name}.yaml", policy)
    if folder.selector is not None:
        write_selector(target / SELECTOR_FILE, folder.selector)
    if folder.combination is not None:
        write_combination(target / COMBINATION_FILE, folder.combination)
    if folder.calibration is not None:
        trace = folder.calibration
        write_trace(target / CALIBRATION_FILE, trace.header, trace.records)
    with whole_file(target / CARD_FILE) as stream:
        stream.write(card.encode())


def _is_other(path: Path) -> bool:
    """Whether a folder holds something, and is no inference folder."""
    if not path.exists() or not any(path.iterdir()):
        return False
    return not all(
        (path / name).is_file() for name in (CONFIG_FILE, TOKENIZER_FILE)
    )


def _if_there(path: Path, read: Callable[[Path], Any]) -> Any:
    return read(path) if path.exists() else None
