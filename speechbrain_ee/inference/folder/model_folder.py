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

The package huggingface_hub is optional, and asked for when it is needed.

Authors
 * The speechbrain-ee contributors 2026
"""

import importlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from msgspec import Meta
from sentencepiece import SentencePieceProcessor

from speechbrain_ee import __version__
from speechbrain_ee.data.words import decode, pieces_of
from speechbrain_ee.errors import InputError, one_line
from speechbrain_ee.evaluation.calibrate import default_of, shipped_policies
from speechbrain_ee.evaluation.cost import CostModel
from speechbrain_ee.exits.calibration.policy_file import (
    ExitPolicy,
    read_policy,
    write_policy,
)
from speechbrain_ee.exits.calibration.risk import METHODS
from speechbrain_ee.exits.criteria.combined import ZScores
from speechbrain_ee.exits.criteria.text import OF_TEXT
from speechbrain_ee.exits.decoding import SearchOptions, check_decodings
from speechbrain_ee.exits.selector.selector import (
    LearnedSelector,
    truncated_selector,
)
from speechbrain_ee.exits.selector.selector_file import (
    read_selector,
    write_selector,
)
from speechbrain_ee.exits.trace import MACS_REFERENCE_S, Trace
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
    read_shapes,
    write_weights,
)
from speechbrain_ee.inference.hypothesis import read_tokenizer
from speechbrain_ee.inference.policies import Policies
from speechbrain_ee.inference.runner import LiveRunner
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.models.pretrained import PretrainedEncoder
from speechbrain_ee.schema import Count, Finite, Record, plain, read_record
from speechbrain_ee.training import checkpoints
from speechbrain_ee.training.checkpoints import POLICY_FOLDER

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
# What a hub has of it. Pickles and code are not even fetched.
HUB_FILES = (*FILES, f"{POLICY_FOLDER}/*.yaml", f"{BACKBONE_FOLDER}/*.json")
# What an export may delete: the files of an earlier one, as regular
# expressions. A policy of another name was put there by somebody.
_REPLACED = (
    *map(re.escape, FILES),
    rf"{POLICY_FOLDER}/[^/]+\.({'|'.join(METHODS)})\.yaml",
    rf"{BACKBONE_FOLDER}/[^/]+\.json",
)
SCHEMA = "early-exit-model/1"
# Criteria that look at later exits, or read with what belongs to the selector.
_WHOLE_ONLY = ("learned", "combination")
OF_SELECTOR = ("learned", *OF_TEXT)  # criteria whose scores it gives
# Scorers are objects; a folder holds numbers.
SEARCH_KEYS = tuple(
    each.name
    for each in fields(SearchOptions)
    if not each.name.startswith("scorer") or each.name == "scorer_beam_scale"
)
SampleRate = Annotated[int, Meta(ge=1000, le=384_000)]  # Hz, of speech
_MOST_POLICIES = 200
_MOST_CALIBRATION = 48 * MB  # of text, which takes ten times as much in memory
_TRIED_SAMPLES = 8000  # of noise, for which every model has some frames
_FEW = 500  # utterances of a set, below which its numbers are rough
_OF_DEPTH = ("exit_layers", "num_encoder_layers")


class Measured(Record):
    """A fixed exit or a policy on a test set."""

    set: str
    choice: str  # `exit 3`, or the name of a policy
    layer: float  # per utterance
    wer: float  # percent
    macs: int | float | None  # per utterance, the criterion's included
    utterances: Count  # of the set


class Config(Record, kw_only=True):
    """What ``config.json`` holds."""

    schema: Literal[SCHEMA]
    version: str
    name: str
    sample_rate: SampleRate
    decoding: str
    search: dict[str, bool | int | float]
    default_policy: str | None
    default_reason: str = ""  # 0.1.0 did not say it
    facts: dict[str, str]
    measured: tuple[Measured, ...]
    model: dict[str, Any]

    def __post_init__(self) -> None:
        for key in self.search.keys() - {*SEARCH_KEYS}:
            raise ValueError(
                f"search.{key}: not known; valid keys: {', '.join(SEARCH_KEYS)}"
            )
        SearchOptions(**self.search)


class _Combination(Record):
    """What ``combination.json`` holds: numbers by criterion."""

    schema: Literal["exit-combination/1"]
    weights: dict[str, Finite]
    means: dict[str, Finite]
    scales: dict[str, Finite]

    def __post_init__(self) -> None:
        if not self.weights.keys() == self.means.keys() == self.scales.keys():
            raise ValueError("weights, means and scales: criteria differ")


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

    def live(self, decoding: str | None = None) -> tuple[LiveRunner, Policies]:
        """What transcribes with it, and what knows its policies."""
        runner = LiveRunner(
            self.model,
            pieces_of(self.tokenizer),
            partial(decode, self.tokenizer),
            self.sample_rate,
            decoding or self.decoding,
            self.search,
        )
        policies = Policies(
            self.exit_layers,
            self.policies,
            self.default_policy,
            self.calibration,
            selector=self.selector,
            combination=self.combination,
        )
        return runner, policies


# What the folder in memory and ``config.json`` say in the same words.
_ALIKE = (
    *("name", "sample_rate", "decoding", "default_policy", "default_reason"),
    *("facts", "measured"),
)


def read_model_folder(path: str | Path) -> ModelFolder:
    """Load an inference folder; an InputError names file and key."""
    path = Path(path)
    restore(path)
    source = path / CONFIG_FILE
    if not source.exists():
        raise InputError(
            f"{source}: there is no such file; give an inference folder, as "
            "training writes it to <output_folder>/model, or the "
            "output_folder of a finished run, with its hyperparams.yaml."
        )
    config = read_record(source, Config, WAY_OUT)
    architecture = Architecture(config.model, str(source))
    if architecture.uses_backbone:
        architecture = replace(architecture, backbone=read_backbone(path))
    model = build_bounded(architecture, read_shapes(path / WEIGHTS_FILE))
    tokenizer = read_tokenizer(path / TOKENIZER_FILE, WAY_OUT)
    pieces, size = tokenizer.get_piece_size(), model.heads.vocab_size
    if pieces > size:  # characters may be fewer than output_neurons
        raise InputError(
            f"{path / TOKENIZER_FILE}: has {pieces} tokens, but the model of "
            f"config.json {size}; {WAY_OUT}."
        )
    verified = load_weights(
        path / WEIGHTS_FILE,
        model,
        _fingerprint(config.model, config.sample_rate, tokenizer, model),
    )
    check_outputs(path, model)
    check_decodings([config.decoding], model, f"{source}, key decoding")
    selector, combination, calibration = (
        read(path / name) if (path / name).exists() else None
        for name, read in (
            (SELECTOR_FILE, read_selector),
            (COMBINATION_FILE, read_combination),
            (CALIBRATION_FILE, partial(read_trace, most=_MOST_CALIBRATION)),
        )
    )
    if selector is not None:
        _check_layers(path / SELECTOR_FILE, selector.exit_layers, model)
    if calibration is not None:
        layers = calibration.header.exit_layers
        _check_layers(path / CALIBRATION_FILE, layers, model)
    return ModelFolder(
        path=path,
        model=model,
        architecture=architecture,
        tokenizer=tokenizer,
        search=SearchOptions(**config.search),
        policies=read_policies(
            path, source, config.default_policy, model, selector
        ),
        selector=selector,
        combination=combination,
        calibration=calibration,
        verified=verified,
        **{key: getattr(config, key) for key in _ALIKE},
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
    tree, model = folder.architecture.tree, folder.model
    config = Config(
        schema=SCHEMA,
        version=__version__,
        search={key: getattr(folder.search, key) for key in SEARCH_KEYS},
        model=tree,
        **{key: getattr(folder, key) for key in _ALIKE},
    )
    _write_record(target / CONFIG_FILE, config)
    write_weights(
        target / WEIGHTS_FILE,
        model,
        _fingerprint(tree, folder.sample_rate, folder.tokenizer, model),
    )
    write_backbone(target, model)
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
    tree: Mapping[str, Any],
    sample_rate: int,
    tokenizer: SentencePieceProcessor,
    model: EarlyExitModel | None = None,
) -> dict[str, str]:
    """What gives the weights of a folder their meaning."""
    return {
        **checkpoints.flat_fingerprint(tree, "model"),
        **checkpoints.flat_fingerprint(sample_rate, "sample_rate"),
        **checkpoints.tokenizer_fingerprint(tokenizer),
        **checkpoints.backbone_fingerprint(model),
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
        there = read_record(path / CONFIG_FILE, Config, WAY_OUT)
        tokenizer = read_tokenizer(path / TOKENIZER_FILE, WAY_OUT)
    except InputError:
        return  # no whole model, so no better one
    keys = checkpoints.differences(
        _fingerprint(there.model, there.sample_rate, tokenizer),
        _fingerprint(
            folder.architecture.tree, folder.sample_rate, folder.tokenizer
        ),
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
        _check_layers(file, policy.exit_layers, model)
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


def _check_layers(
    file: Path, layers: tuple[int, ...], model: EarlyExitModel
) -> None:
    if not set(layers) <= set(model.exit_layers):
        raise InputError(
            f"{file}, key exit_layers: {list(layers)}, but the model of "
            f"config.json has {list(model.exit_layers)}; {WAY_OUT}."
        )


def _write_record(path: Path, record: Record) -> None:
    text = json.dumps(
        plain(record), ensure_ascii=False, indent=2, allow_nan=False
    )
    with whole_file(path, text=True) as stream:
        stream.write(f"{text}\n")


def write_combination(path: str | Path, combination: ZScores) -> None:
    """Write a combination whole or not at all."""
    parts = combination.weights, combination.means, combination.scales
    record = _Combination("exit-combination/1", *map(dict, parts))
    _write_record(Path(path), record)


def read_combination(path: str | Path) -> ZScores:
    """Read a combination and check it."""
    found = read_record(path, _Combination, WAY_OUT)
    return ZScores(found.weights, found.means, found.scales)


# ---- Truncation ------------------------------------------------------------


def up_to_layer(trace: Trace, layer: int) -> Trace | None:
    """What a trace says of a model that ends at a layer; None if it has no
    exit so early.

    The scores of a learned selector are left out: they look at what later
    exits would bring.
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
    records = []
    for record in trace.records:
        kept = [
            replace(
                exit_,
                evidence={
                    name: value
                    for name, value in exit_.evidence.items()
                    if name not in _WHOLE_ONLY
                },
            )
            for exit_ in record.exits[:exits]
        ]
        records.append(replace(record, exits=tuple(kept)))
    return Trace(replace(header, **cut), tuple(records), trace.source)


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
    kept = {f"exit {exit}" for exit in range(1, exits + 1)}
    default, reason = default_of(policies, trace)
    return replace(
        folder,
        model=model.eval(),
        architecture=folder.architecture.truncated(model.exit_layers),
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
        measured=tuple(r for r in folder.measured if r.choice in kept),
    )


def _known_as(policy: ExitPolicy, old: ExitPolicy) -> ExitPolicy:
    """Calibrated on the same utterances, which have lost their names."""
    if policy.calibration is None or old.calibration is None:
        return policy
    fingerprint = old.calibration.fingerprint
    known = replace(policy.calibration, fingerprint=fingerprint)
    return replace(policy, calibration=known)


# ---- Card and hub ----------------------------------------------------------


def model_card(folder: ModelFolder) -> str:
    """Describe a model in Markdown, with the front matter that hubs read."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=False,  # it is Markdown
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    costs, measured = CostModel(folder.model), folder.measured
    counts = {row.set: row.utterances for row in measured}
    choices = dict.fromkeys(row.choice for row in measured)
    rows = dict.fromkeys((name, each) for name in counts for each in choices)
    macs = costs.macs(round(MACS_REFERENCE_S * folder.sample_rate))
    return environment.get_template("card.md.j2").render(
        folder=folder,
        exits=len(folder.exit_layers),
        default=default_words(folder.default_policy, folder.default_reason),
        encoder=_encoder(folder),
        attention=folder.model.attention,
        pieces=folder.tokenizer.get_piece_size(),
        seconds=f"{MACS_REFERENCE_S:g}",
        sizes=list(zip(folder.exit_layers, costs.parameters(), macs)),
        counts=counts,
        choices=choices,
        measured=rows | {(row.set, row.choice): row for row in measured},
        few=sorted(name for name, count in counts.items() if count < _FEW),
        least=_FEW,
    )


def default_words(name: str | None, reason: str) -> str:
    """The default policy (None: the last exit), and why it is that."""
    if name is None:
        return f"`last`, the last exit: {reason}" if reason else "`last`."
    return f"`{name}`, which {reason}" if reason else f"`{name}`."


def _encoder(folder: ModelFolder) -> str:
    encoder = folder.model.encoder
    depth = len(encoder.layers)
    width = folder.model.heads.norms[0].normalized_shape[0]
    if isinstance(encoder, PretrainedEncoder):
        kind = f"Pre-trained encoder of type {encoder.config.model_type}"
    else:
        kind = type(encoder.layers[0]).__name__
        kind = kind.removeprefix("Masked").removesuffix("Layer")
        kind = f"{kind.removesuffix('Encoder')} encoder"
        kind += f" ({encoder.attention_type})"
    return f"{kind} of {depth} layers, {width} wide"


def push_to_hub(folder: str | Path, repo_id: str, private: bool = False) -> str:
    """Publish a folder under the account that is logged in, and say where.

    It is read first, so that nothing broken is published.
    """
    read_model_folder(folder)
    remedy = (
        "check the name, the connection, and that you are logged in (`hf "
        "auth login`)"
    )
    with _hub(repo_id, "could not be published", remedy) as hub:
        hub.create_repo(repo_id, private=private, exist_ok=True)
        found = hub.upload_folder(
            repo_id=repo_id,
            folder_path=str(folder),
            allow_patterns=list(HUB_FILES),
        )
    return str(found)


def fetch_folder(repo_id: str, savedir: str | Path | None = None) -> Path:
    """Fetch a folder, not read yet; files of no other kind come with it.

    It is kept in ``savedir``, by default in the hub's own cache.
    """
    problem = "not a folder here, and could not be fetched from the hub"
    with _hub(repo_id, problem, "check the name and the connection") as hub:
        found = hub.snapshot_download(
            repo_id,
            local_dir=None if savedir is None else str(savedir),
            allow_patterns=list(HUB_FILES),
        )
    return Path(found)


@contextmanager
def _hub(repo_id: str, problem: str, remedy: str) -> Iterator[Any]:
    """The hub's package, whose errors name what could not be done."""
    if repo_id.startswith((".", "/", "~")) or repo_id.count("/") != 1:
        raise InputError(
            f"{repo_id}: there is no such folder, and that is not a hub name; give "
            "an inference folder, or a name such as owner/model."
        )
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise InputError(
            "the hub needs the package huggingface_hub, which is not "
            f"installed or does not import ({error}): pip install "
            "huggingface_hub."
        ) from error
    try:
        yield hub
    except Exception as error:  # of a dozen kinds: network, names, rights
        short = " ".join(str(error).split()).partition(". ")[0][:200]
        raise InputError(
            f"{repo_id}: {problem} ({short}); {remedy}."
        ) from error
