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
``config.json`` come from a table, YAML and JSON are read as plain values. Every
key is checked; what is missing, unknown or of a wrong type is refused by name.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from sentencepiece import SentencePieceProcessor

from speechbrain_ee import __version__
from speechbrain_ee.errors import InputError, one_line, quoted
from speechbrain_ee.evaluation.calibrate import default_of, shipped_policies
from speechbrain_ee.exits.calibration.exit_policy import ExitPolicy
from speechbrain_ee.exits.calibration.policy_file import (
    read_policy,
    write_policy,
)
from speechbrain_ee.exits.calibration.risk import METHODS
from speechbrain_ee.exits.criteria.combined import ZScores
from speechbrain_ee.exits.criteria.text import OF_TEXT
from speechbrain_ee.exits.decoding import (
    DECODINGS,
    SearchOptions,
    check_decodings,
)
from speechbrain_ee.exits.selector.learned import LearnedSelector
from speechbrain_ee.exits.selector.selector_file import (
    read_selector,
    write_selector,
)
from speechbrain_ee.exits.selector.truncation import truncated_selector
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.exits.trace_file import (
    read_trace,
    write_trace,
)
from speechbrain_ee.files import (
    MB,
    check_keys,
    check_ours,
    has_schema,
    read_bytes,
    read_json,
    restore,
    whole_file,
    whole_folder,
)
from speechbrain_ee.inference.folder.architecture import (
    BACKBONE_FOLDER,
    WAY_OUT,
    Architecture,
    read_backbone,
    write_backbone,
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

CONFIG_FILE = "config.json"
SELECTOR_FILE = "selector.json.gz"
TOKENIZER_FILE = "tokenizer.model"
# As a policy of the folder refers to it.
POLICY_SELECTOR = f"../{SELECTOR_FILE}"
COMBINATION_FILE = "combination.json"
CALIBRATION_FILE = "calibration.jsonl.gz"
CARD_FILE = "README.md"
FILES = (
    *(CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE, SELECTOR_FILE),
    *(COMBINATION_FILE, CALIBRATION_FILE, CARD_FILE),
)
# What an export may delete: the files of an earlier one, as regular
# expressions. A policy of another name was put there by somebody.
_REPLACED = (
    *map(re.escape, FILES),
    rf"{POLICY_FOLDER}/[^/]+\.({'|'.join(METHODS)})\.yaml",
    rf"{BACKBONE_FOLDER}/[^/]+\.json",
)
SCHEMA = "early-exit-model/1"
COMBINATION_SCHEMA = "exit-combination/1"
# Criteria that look at later exits, or read with what belongs to the selector.
_WHOLE_ONLY = ("learned", "combination")
OF_SELECTOR = ("learned", *OF_TEXT)  # criteria whose scores it gives
SAMPLE_RATES = range(1000, 384_001)  # Hz
# Scorers are objects; a folder holds numbers.
SEARCH_KEYS = tuple(
    each.name
    for each in fields(SearchOptions)
    if not each.name.startswith("scorer") or each.name == "scorer_beam_scale"
)
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "schema": str,
    "version": str,
    "name": str,
    "sample_rate": int,
    "decoding": str,
    "search": dict,
    "default_policy": (str, type(None)),
    "default_reason": str,
    "facts": dict,
    "measured": list,
    "model": dict,
}
_NUMBER = (int, float)
_OF_ROW = {
    "set": str,
    "choice": str,
    "layer": _NUMBER,
    "wer": _NUMBER,
    "macs": (*_NUMBER, type(None)),
    "utterances": int,
}
_OF_COMBINATION = ("weights", "means", "scales")
_MOST_POLICIES = 200
_MOST_CALIBRATION = 48 * MB  # of text, which takes ten times as much in memory
_TRIED_SAMPLES = 8000  # of noise, for which every model has some frames
_OF_DEPTH = ("exit_layers", "num_encoder_layers")


@dataclass(frozen=True)
class Measured:
    """A fixed exit or a policy on a test set."""

    set: str
    choice: str  # `exit 3`, or the name of a policy
    layer: float  # per utterance
    wer: float  # percent
    macs: float | None  # per utterance, those of the criterion included
    utterances: int  # of the set

    @property
    def exit(self) -> int | None:
        """Number of the exit, from 1; None for a policy."""
        kind, _, number = self.choice.partition(" ")
        return int(number) if kind == "exit" and number.isdecimal() else None


@dataclass(frozen=True)
class ModelFolder:
    """What an inference folder holds, loaded."""

    path: Path
    name: str  # of the system
    model: EarlyExitModel  # in evaluation mode, on the CPU, in fp32
    # None: built by executing a YAML, so that it cannot be written.
    architecture: Architecture | None
    tokenizer: SentencePieceProcessor
    sample_rate: int  # Hz
    decoding: str = "ctc_greedy"
    search: SearchOptions = SearchOptions()
    policies: Mapping[str, ExitPolicy] = field(default_factory=dict)
    default_policy: str | None = None  # its name; None: the last exit
    default_reason: str = ""  # why this one, for people
    selector: LearnedSelector | None = None
    combination: ZScores | None = None
    calibration: Trace | None = None  # development set, without transcripts
    facts: Mapping[str, str] = field(default_factory=dict)  # for the card
    measured: tuple[Measured, ...] = ()
    # Whether the weights carried a fingerprint that fits the rest.
    verified: bool = True

    @property
    def exit_layers(self) -> tuple[int, ...]:
        """Layers that an exit follows."""
        return self.model.exit_layers


def read_model_folder(path: str | Path) -> ModelFolder:
    """Load an inference folder; an InputError names file and key."""
    path = Path(path)
    restore(path)
    if not path.is_dir():
        raise InputError(
            f"{path}: there is no such folder; give an inference folder, as "
            "training writes it to <output_folder>/model."
        )
    config = read_config(path / CONFIG_FILE)
    architecture = config["architecture"]
    backbone = read_backbone(path) if architecture.uses_backbone else None
    header = read_header(path / WEIGHTS_FILE)
    model = build_bounded(architecture, backbone, header)
    tokenizer = read_tokenizer(path / TOKENIZER_FILE, model)
    verified = load_weights(
        path / WEIGHTS_FILE,
        model,
        _fingerprint(architecture, config["sample_rate"], tokenizer)
        | backbone_fingerprint(model),
    )
    check_outputs(path, model)
    check_decodings(
        [config["decoding"]], model, f"{path / CONFIG_FILE}, key decoding"
    )
    readers: dict[str, Callable[[Path], Any]] = {
        SELECTOR_FILE: read_selector,
        COMBINATION_FILE: read_combination,
        CALIBRATION_FILE: partial(read_trace, most=_MOST_CALIBRATION),
    }
    selector, combination, calibration = (
        read(path / name) if (path / name).exists() else None
        for name, read in readers.items()
    )
    for name, layers in {
        SELECTOR_FILE: selector and selector.exit_layers,
        CALIBRATION_FILE: calibration and calibration.header.exit_layers,
    }.items():
        check_layers(path / name, layers, model)
    policies = read_policies(
        path, path / CONFIG_FILE, config["default_policy"], model, selector
    )
    return ModelFolder(
        path=path,
        model=model,
        tokenizer=tokenizer,
        policies=policies,
        selector=selector,
        combination=combination,
        calibration=calibration,
        verified=verified,
        **config,
    )


def write_model_folder(
    path: str | Path, folder: ModelFolder, card: str = ""
) -> Path:
    """Write an inference folder: all of it or nothing.

    An inference folder that is there is replaced; anything else is left
    alone. The folder's own ``path`` is not used.
    """
    path = Path(path)
    if folder.architecture is None:
        raise InputError(
            f"{folder.path}: its model was built by executing hyperparams.yaml "
            "and is not known as plain data, so that it cannot be exported."
        )
    with whole_folder(path, partial(_check_replaced, folder)) as new:
        _write_files(new, folder, card)
    logger.info("Inference folder: %s", path)
    return path


def _write_files(target: Path, folder: ModelFolder, card: str) -> None:
    write_config(target / CONFIG_FILE, folder)
    write_weights(
        target / WEIGHTS_FILE,
        folder.model,
        _fingerprint(folder.architecture, folder.sample_rate, folder.tokenizer)
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


def _fingerprint(
    architecture: Architecture,
    sample_rate: int,
    tokenizer: SentencePieceProcessor,
) -> dict[str, str]:
    """What gives the weights of a folder their meaning, but a backbone."""
    return {
        **flat_fingerprint(architecture.tree, "model"),
        **flat_fingerprint(sample_rate, "sample_rate"),
        **tokenizer_fingerprint(tokenizer),
    }


def check_outputs(path: Path, model: EarlyExitModel) -> None:
    """Refuse a model that cannot be run, or says nothing that is a number."""
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


def _check_replaced(folder: ModelFolder, path: Path) -> None:
    """Refuse to delete what is no folder of this schema, or to replace a
    model by one that nothing says is the right one.

    Weights without a fingerprint, of an earlier version, may have been put
    together with the tokenizer or the settings of another start.
    """
    ours = has_schema(path / CONFIG_FILE, SCHEMA)
    written = [f"{POLICY_FOLDER}/{name}.yaml" for name in folder.policies]
    check_ours(path, ours, *_REPLACED, *map(re.escape, written))
    try:
        there = read_config(path / CONFIG_FILE)
        tokenizer = SentencePieceProcessor(
            model_proto=(path / TOKENIZER_FILE).read_bytes()
        )
    except (InputError, OSError, RuntimeError):
        return  # no whole model, so no better one
    keys = differences(
        _fingerprint(there["architecture"], there["sample_rate"], tokenizer),
        _fingerprint(folder.architecture, folder.sample_rate, folder.tokenizer),
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


def read_policies(
    path: Path,
    source: Path,
    default: str | None,
    model: EarlyExitModel,
    selector: LearnedSelector | None,
) -> dict[str, ExitPolicy]:
    """Read the policies of an inference folder or of a run."""
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
    """Refuse what was made for other exits."""
    if layers is not None and not set(layers) <= set(model.exit_layers):
        raise InputError(
            f"{file}, key exit_layers: {list(layers)}, but the model of "
            f"config.json has {list(model.exit_layers)}; {WAY_OUT}."
        )


def read_tokenizer(path: Path, model: EarlyExitModel) -> SentencePieceProcessor:
    """Read the tokenizer."""
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


def write_config(path: str | Path, folder: ModelFolder) -> None:
    """Write ``config.json``."""
    content = {
        "schema": SCHEMA,
        "version": __version__,
        "name": folder.name,
        "sample_rate": folder.sample_rate,
        "decoding": folder.decoding,
        "search": {key: getattr(folder.search, key) for key in SEARCH_KEYS},
        "default_policy": folder.default_policy,
        "default_reason": folder.default_reason,
        "facts": dict(folder.facts),
        "measured": [asdict(row) for row in folder.measured],
        "model": folder.architecture.tree,
    }
    text = json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False)
    with whole_file(path) as stream:
        stream.write(f"{text}\n".encode())


def read_config(path: str | Path) -> dict[str, Any]:
    """Read ``config.json`` and check every key but those of the model.

    What comes back are arguments of :class:`ModelFolder`.
    """
    path = Path(path)
    content = read_json(path, WAY_OUT)
    schema = content.get("schema")
    if schema != SCHEMA:
        advice = WAY_OUT
        if str(schema).startswith(SCHEMA.partition("/")[0]):
            advice = (
                f"update speechbrain-ee (this is {__version__}), or {advice}"
            )
        _fail(
            path, "schema", f"{quoted(schema)}, but {SCHEMA!r} is read", advice
        )
    for key in content:
        if key not in _TYPES:
            _fail(path, key, f"not known; valid keys: {', '.join(_TYPES)}")
    content.setdefault("default_reason", "")  # 0.1.0 did not say it
    for key, kind in _TYPES.items():
        if key not in content:
            _fail(path, key, "missing")
        value = content[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            _fail(path, key, f"{quoted(value)} is of a wrong type")
    check_sample_rate(content["sample_rate"], path)
    if content["decoding"] not in DECODINGS:
        _fail(
            path,
            "decoding",
            f"{quoted(content['decoding'])} is not one of {', '.join(DECODINGS)}",
        )
    rows = content["measured"]
    if not all(isinstance(row, dict) and _is_row(row) for row in rows):
        _fail(
            path,
            "measured",
            f"a list of rows with {', '.join(_OF_ROW)} is expected",
        )
    facts = content["facts"].items()
    return {
        "name": content["name"],
        "architecture": Architecture(content["model"], str(path)),
        "sample_rate": content["sample_rate"],
        "decoding": content["decoding"],
        "search": _search(path, content["search"]),
        "default_policy": content["default_policy"],
        "default_reason": content["default_reason"],
        "facts": {str(key): str(value) for key, value in facts},
        "measured": tuple(Measured(**row) for row in rows),
    }


def _is_row(row: Mapping[str, Any]) -> bool:
    return sorted(row) == sorted(_OF_ROW) and all(
        isinstance(row[key], kind) for key, kind in _OF_ROW.items()
    )


def check_sample_rate(rate: Any, path: Path) -> int:
    """A sample rate that speech can have; an InputError for others."""
    if type(rate) is not int or rate not in SAMPLE_RATES:
        _fail(
            path,
            "sample_rate",
            f"{quoted(rate)} Hz, but a whole number from {SAMPLE_RATES[0]} to "
            f"{SAMPLE_RATES[-1]} is expected",
        )
    return rate


def _search(path: Path, options: Mapping[str, Any]) -> SearchOptions:
    for key in options:
        if key not in SEARCH_KEYS:
            _fail(
                path,
                f"search.{key}",
                f"not known; valid keys: {', '.join(SEARCH_KEYS)}",
            )
    try:
        return SearchOptions(**options)
    except InputError as error:
        _fail(path, "search", str(error).rstrip("."))


def _fail(
    path: Path, key: str, problem: str, advice: str = WAY_OUT
) -> NoReturn:
    raise InputError(f"{path}, key {key}: {problem}; {advice}.")


def write_combination(path: str | Path, combination: ZScores) -> None:
    """Write a combination whole or not at all."""
    content = {"schema": COMBINATION_SCHEMA}
    content |= {key: dict(getattr(combination, key)) for key in _OF_COMBINATION}
    with whole_file(Path(path)) as stream:
        stream.write(f"{json.dumps(content, indent=2)}\n".encode())


def read_combination(path: str | Path) -> ZScores:
    """Read a combination and check it."""
    path = Path(path)
    content = read_json(path, WAY_OUT)
    check_keys(content, COMBINATION_SCHEMA, _OF_COMBINATION, path, WAY_OUT)
    parts = [content[key] for key in _OF_COMBINATION]
    if not all(isinstance(part, dict) for part in parts):
        parts = [{"": None}]
    values = [value for part in parts for value in part.values()]
    same = len({tuple(sorted(part)) for part in parts}) == 1
    if not same or not all(type(value) in (int, float) for value in values):
        raise InputError(
            f"{path}, {', '.join(_OF_COMBINATION)}: a number by criterion is "
            f"expected; {WAY_OUT}."
        )
    return ZScores(*parts)


def up_to_layer(trace: Trace, layer: int) -> Trace | None:
    """What a trace says of a model that ends at a layer.

    None if it has no exit so early. The scores of a learned selector are left
    out: they look at what later exits would bring.
    """
    header = trace.header
    exits = sum(each <= layer for each in header.exit_layers)
    if not exits:
        return None
    cut = {
        key: value[:exits]
        for key in ("exit_layers", "macs", "parameters")
        if (value := getattr(header, key)) is not None
    }
    records = tuple(
        replace(
            record,
            exits=tuple(
                replace(
                    exit_,
                    evidence={
                        name: value
                        for name, value in exit_.evidence.items()
                        if name not in _WHOLE_ONLY
                    },
                )
                for exit_ in record.exits[:exits]
            ),
        )
        for record in trace.records
    )
    return Trace(replace(header, **cut), records, trace.source)


def truncated_folder(folder: ModelFolder, exits: int) -> ModelFolder:
    """The smaller model that ends at an exit, with policies of its own.

    Its outputs are those of the whole model at these exits, bit by bit.
    Budgets that speak of the last exit now speak of another one: policies are
    calibrated again, on the development set of the folder, for the same
    budgets. Those of the learned selector are left out: its scores of the
    development set take the transcripts, which no folder holds.
    """
    model = folder.model.truncated(exits)
    if exits == len(folder.exit_layers):
        return folder
    trace, policies, selector = folder.calibration, {}, folder.selector
    if selector is not None:
        selector = truncated_selector(selector, exits) if exits > 1 else None
    if trace is not None:
        trace = up_to_layer(trace, model.exit_layers[-1])
    if trace is not None:
        for name, policy in folder.policies.items():
            again = shipped_policies(trace, policy.budget, [policy.criterion])
            if name in again:
                policies[name] = _known_as(again[name], policy)
    kept = [r for r in folder.measured if r.exit and r.exit <= exits]
    default, reason = default_of(policies, trace)
    return replace(
        folder,
        model=model.eval(),
        architecture=folder.architecture.truncated(exits),
        policies=policies,
        default_policy=default,
        default_reason=reason,
        selector=selector,
        combination=None,
        calibration=trace,
        facts={
            **folder.facts,
            "Truncated": f"at exit {exits} of {len(folder.exit_layers)}",
        },
        measured=tuple(kept),
    )


def _known_as(policy: ExitPolicy, old: ExitPolicy) -> ExitPolicy:
    """Calibrated on the same utterances, which have lost their names."""
    if policy.calibration is None or old.calibration is None:
        return policy
    fingerprint = old.calibration.fingerprint
    known = replace(policy.calibration, fingerprint=fingerprint)
    return replace(policy, calibration=known)
