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
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sentencepiece import SentencePieceProcessor

from speechbrain_ee.errors import InputError, one_line
from speechbrain_ee.exits.calibration.exit_policy import ExitPolicy
from speechbrain_ee.exits.calibration.policy_file import write_policy
from speechbrain_ee.exits.calibration.risk import METHODS
from speechbrain_ee.exits.criteria.combined import ZScores
from speechbrain_ee.exits.decoding.methods import check_decodings
from speechbrain_ee.exits.decoding.search_options import SearchOptions
from speechbrain_ee.exits.selector.learned import LearnedSelector
from speechbrain_ee.exits.selector.selector_file import (
    read_selector,
    write_selector,
)
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.exits.trace_file import read_trace, write_trace
from speechbrain_ee.files import (
    MB,
    check_ours,
    has_schema,
    restore,
    whole_file,
    whole_folder,
)
from speechbrain_ee.inference.folder.architecture import (
    WAY_OUT,
    Architecture,
)
from speechbrain_ee.inference.folder.backbone import (
    BACKBONE_FOLDER,
    described,
    read_backbone,
    write_backbone,
)
from speechbrain_ee.inference.folder.combination_file import (
    read_combination,
    write_combination,
)
from speechbrain_ee.inference.folder.config import (
    CONFIG_FILE,
    SCHEMA,
    FolderConfig,
    read_config,
    write_config,
)
from speechbrain_ee.inference.folder.measured import Measured
from speechbrain_ee.inference.folder.parts import (
    SELECTOR_FILE,
    check_layers,
    read_policies,
    read_tokenizer,
)
from speechbrain_ee.inference.folder.weights import (
    WEIGHTS_FILE,
    build_bounded,
    load_weights,
    read_header,
    write_weights,
)
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.training.checkpoints import (
    POLICY_FOLDER,
    backbone_fingerprint,
    differences,
    flat_fingerprint,
    tokenizer_fingerprint,
)

logger = logging.getLogger(__name__)

TOKENIZER_FILE = "tokenizer.model"
# As a policy of the folder refers to it.
POLICY_SELECTOR = f"../{SELECTOR_FILE}"
COMBINATION_FILE = "combination.json"
CALIBRATION_FILE = "calibration.jsonl.gz"
CARD_FILE = "README.md"
# What an export may delete: the files of an earlier one, as regular
# expressions. A policy of another name was put there by somebody.
FILES = (
    *map(
        re.escape,
        (
            *(CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE, SELECTOR_FILE),
            *(COMBINATION_FILE, CALIBRATION_FILE, CARD_FILE),
        ),
    ),
    rf"{POLICY_FOLDER}/[^/]+\.({'|'.join(METHODS)})\.yaml",
    rf"{BACKBONE_FOLDER}/[^/]+\.json",
)
_MOST_CALIBRATION = 48 * MB  # of text, which takes ten times as much in memory
_TRIED_SAMPLES = 8000  # of noise, for which every model has some frames
_OF_DEPTH = ("exit_layers", "num_encoder_layers")


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
    verified : bool
        Whether the weights carried a fingerprint that fits the rest.
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
    verified: bool = True

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
    restore(path)
    if not path.is_dir():
        raise InputError(
            f"{path}: there is no such folder; give an inference folder, as "
            "training writes it to <output_folder>/model."
        )
    config = read_config(path / CONFIG_FILE)
    backbone = (
        read_backbone(path) if config.architecture.uses_backbone else None
    )
    header = read_header(path / WEIGHTS_FILE)
    model = build_bounded(
        partial(config.architecture.build, backbone),
        described(config.architecture, backbone),
        header,
    )
    tokenizer = read_tokenizer(path / TOKENIZER_FILE, model)
    verified = load_weights(
        path / WEIGHTS_FILE,
        model,
        folder_fingerprint(config, tokenizer) | backbone_fingerprint(model),
    )
    check_outputs(path, model)
    check_decodings(
        [config.decoding], model, f"{path / CONFIG_FILE}, key decoding"
    )
    selector = _if_there(path / SELECTOR_FILE, read_selector)
    combination = _if_there(path / COMBINATION_FILE, read_combination)
    calibration = _if_there(
        path / CALIBRATION_FILE, partial(read_trace, most=_MOST_CALIBRATION)
    )
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
        tokenizer=tokenizer,
        sample_rate=config.sample_rate,
        decoding=config.decoding,
        search=config.search,
        policies=read_policies(
            path, path / CONFIG_FILE, config.default_policy, model, selector
        ),
        default_policy=config.default_policy,
        default_reason=config.default_reason,
        selector=selector,
        combination=combination,
        calibration=calibration,
        facts=config.facts,
        measured=config.measured,
        verified=verified,
    )


def folder_fingerprint(
    folder: ModelFolder | FolderConfig, tokenizer: SentencePieceProcessor
) -> dict[str, str]:
    """What gives the weights of a folder their meaning, but a backbone."""
    return {
        **flat_fingerprint(folder.architecture.tree, "model"),
        **flat_fingerprint(folder.sample_rate, "sample_rate"),
        **tokenizer_fingerprint(tokenizer),
    }


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
    written = [f"{POLICY_FOLDER}/{name}.yaml" for name in folder.policies]
    check = partial(_check_replaced, written, folder)
    with whole_folder(path, check) as new:
        _write_files(new, folder, card)
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
    write_weights(
        target / WEIGHTS_FILE,
        folder.model,
        folder_fingerprint(folder, folder.tokenizer)
        | backbone_fingerprint(folder.model),
    )
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


def _check_replaced(
    written: Sequence[str], folder: ModelFolder, path: Path
) -> None:
    """Only a folder of this schema is deleted, and nothing else with it."""
    ours = has_schema(path / CONFIG_FILE, SCHEMA)
    check_ours(path, ours, *FILES, *map(re.escape, written))
    _check_better(path, folder)


def check_outputs(path: Path, model: EarlyExitModel) -> None:
    """Refuse a model that cannot be run, or says nothing that is a number.

    Arguments
    ---------
    path : Path
        Where it was read, for messages.
    model : EarlyExitModel
        In evaluation mode, on the CPU.

    Raises
    ------
    InputError
        Naming the exit whose probabilities are not numbers.
    """
    generator = torch.Generator().manual_seed(0)
    wavs_BS = 0.1 * torch.randn((1, _TRIED_SAMPLES), generator=generator)
    try:
        with torch.no_grad():
            outputs = model(wavs_BS, torch.ones(1))
    # Sizes that do not fit each other can end in anything.
    except Exception as error:
        raise InputError(
            f"{path}: the model cannot be run ({one_line(error)}); {WAY_OUT}."
        ) from error
    for exit, output in enumerate(outputs, start=1):
        if not torch.isfinite(output.log_probs_BTV).all():
            raise InputError(
                f"{path}: exit {exit} of the model gives NaN or infinite "
                "numbers, as after a training that diverged; train again with "
                "a lower learning rate, or fetch the model again."
            )


def _check_better(path: Path, folder: ModelFolder) -> None:
    """Refuse to replace a model by one that nothing says is the right one.

    Weights without a fingerprint, of an earlier version, may have been put
    together with the tokenizer or the settings of another start.
    """
    try:
        there = read_config(path / CONFIG_FILE)
        tokenizer = SentencePieceProcessor(
            model_proto=(path / TOKENIZER_FILE).read_bytes()
        )
    except (InputError, OSError, RuntimeError):
        return  # no whole model, so no better one
    keys = differences(
        folder_fingerprint(there, tokenizer),
        folder_fingerprint(folder, folder.tokenizer),
    )
    # a truncated model differs in these
    keys = [key for key in keys if not key.endswith(_OF_DEPTH)]
    if not keys:
        return
    words = f"the model there differs in {', '.join(keys[:3])}"
    if not folder.verified:
        raise InputError(
            f"{path}: {words}, and the weights of {folder.path} carry no "
            "fingerprint that says which one is right; remove it, or choose "
            "another place."
        )
    logger.warning("%s: %s; it is replaced.", path, words)


def _if_there(path: Path, read: Callable[[Path], Any]) -> Any:
    return read(path) if path.exists() else None
