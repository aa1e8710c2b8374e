"""A model as plain data.

The tree of a model is what its YAML builds: mappings with a ``class`` and its
arguments, down to numbers. It is read from a run's ``hyperparams.yaml`` without
executing it, written to ``config.json`` and built again from there. Classes are
looked up in the table below and nowhere else, so that reading a folder executes
nothing but the classes of this table.

* ``{"class": "CTCHeads", "exit_layers": [2, 4], ...}``: an object,
* ``{"class": ..., "id": "1"}`` and ``{"same_as": "1"}``: one object in two
  places,
* ``{"function": "GELU"}``: a class that is passed on, not called.

Authors
 * The speechbrain-ee contributors 2026
"""

import ast
import importlib
import inspect
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import yaml

from speechbrain_ee.errors import InputError, one_line, quoted
from speechbrain_ee.files import LOADER, compose_yaml, read_json, whole_file
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.models.pretrained import PretrainedEncoder, encoder_width
from speechbrain_ee.training.checkpoints import kept_random_state

logger = logging.getLogger(__name__)


def _by_name(*dotted: str) -> Mapping[str, str]:
    return {each.rpartition(".")[2]: each for each in dotted}


# What a tree may build, by the name it has there.
CLASSES = _by_name(
    "speechbrain_ee.models.model.EarlyExitModel",
    "speechbrain_ee.models.encoder.MultiExitEncoder",
    "speechbrain_ee.models.pretrained.PretrainedEncoder",
    "speechbrain_ee.models.ssl.SSLEncoder",  # its name in earlier folders
    "speechbrain_ee.models.features.LogMel",
    "speechbrain_ee.models.masking.MaskedConvolutionFrontEnd",
    "speechbrain_ee.models.heads.CTCHeads",
    "speechbrain_ee.models.attention.AttentionHeads",
    "speechbrain.lobes.features.Fbank",
    "speechbrain.processing.features.InputNormalization",
    "speechbrain.lobes.models.transformer.TransformerASR.TransformerASR",
)
# What it may pass on: activations and norms.
FUNCTIONS = _by_name(
    "torch.nn.GELU",
    "torch.nn.ReLU",
    "torch.nn.LeakyReLU",
    "torch.nn.SiLU",
    "speechbrain.nnet.activations.Swish",
    "speechbrain.nnet.normalization.LayerNorm",
    "speechbrain.nnet.normalization.BatchNorm2d",
)
# Arguments of training alone, and those that say where the weights of a
# pre-trained encoder came from: its configuration lies in the folder.
PRETRAINED = ("PretrainedEncoder", "SSLEncoder")
LEFT_OUT: Mapping[str, Sequence[str]] = {
    "MultiExitEncoder": ("feature_augment", "layerdrop_prob"),
} | dict.fromkeys(
    PRETRAINED,
    (
        *("source", "save_path", "pretrained", "feature_augment"),
        *("freeze_convolutions", "freeze_backbone", "layerdrop_prob"),
    ),
)
_LARGEST = 10**6  # layers, widths, tokens, frames of a table
WAY_OUT = (
    "write the folder again with `python -m speechbrain_ee export`, fetch it "
    "again, or update speechbrain-ee"
)
RUN_WAY_OUT = (
    "give the output_folder of a finished run of this recipe, with the "
    "hyperparams.yaml that it wrote"
)
BACKBONE_FOLDER = "backbone"
_BACKBONE_FILES = ("config.json", "preprocessor_config.json")
# What filters of mel bands grow with, which are made outside of PyTorch.
_BINS = ("n_fft", "win_length", "feature_size", "n_mels", "num_mel_bins")
_MOST_BINS = 4096
# They name a place on the writer's machine, or code.
_NOT_WRITTEN = ("_name_or_path", "name_or_path", "auto_map")
# The same classes in SpeechBrain, and the same names of parameters.
_CONTRIBUTED = "speechbrain.lobes.models.early_exit."
_MOST_NODES = 100_000


@dataclass(frozen=True)
class Architecture:
    """A model that can be built, and written down.

    Example
    -------
    >>> heads = Architecture(
    ...     {"class": "CTCHeads", "exit_layers": [2, 4], "d_model": 8,
    ...      "vocab_size": 5}
    ... )
    >>> heads.build(object).num_exits
    2
    >>> Architecture({"class": "os.system", "command": "ls"}).build()
    Traceback (most recent call last):
    ...
    speechbrain_ee.errors.InputError: config.json, key model.class: ...
    """

    tree: Mapping[str, Any]
    source: str = "config.json"  # where it was read, for messages
    backbone: Path | None = None  # configuration of a pre-trained encoder

    @property
    def uses_backbone(self) -> bool:
        """Whether its encoder is a pre-trained one."""
        encoder = self.tree.get("encoder")
        return isinstance(encoder, dict) and encoder.get("class") in PRETRAINED

    def fail(self, path: str, problem: str) -> NoReturn:
        """Refuse a key of the file."""
        raise InputError(f"{self.source}, key {path}: {problem}; {WAY_OUT}.")

    def build(self, kind: type = EarlyExitModel) -> Any:
        """Build the model, with random weights; no random number is used up."""
        with kept_random_state():
            try:
                made = _Builder(self).make(self.tree, "model")
            except RecursionError:
                self.fail("model", "nested too deeply")
        if not isinstance(made, kind):
            self.fail(
                "model.class",
                f"a {kind.__name__} is expected, not a {type(made).__name__}",
            )
        return made.eval() if isinstance(made, EarlyExitModel) else made

    def truncated(self, exit_layers: Sequence[int]) -> "Architecture":
        """What ends at the last of its first exits: no layer above it."""

        def cut(value: Any) -> Any:
            if isinstance(value, list):
                return [cut(each) for each in value]
            if not isinstance(value, Mapping):
                return value
            part = {key: cut(each) for key, each in value.items()}
            if "exit_layers" in part:
                part["exit_layers"] = list(exit_layers)
            if part.get("class") == "TransformerASR":
                part["num_encoder_layers"] = exit_layers[-1]
            return part

        return replace(self, tree=cut(self.tree))


class _Builder:
    """Builds the objects of one tree."""

    def __init__(self, architecture: Architecture):
        self.fail = architecture.fail
        self.backbone = architecture.backbone
        self.made: dict[str, Any] = {}

    def make(self, value: Any, path: str) -> Any:
        """The value that a part of the tree stands for."""
        if isinstance(value, int) and abs(value) > _LARGEST:
            self.fail(path, f"{quoted(value)} is larger than any model has")
        if isinstance(value, list):
            return [self.make(v, f"{path}[{i}]") for i, v in enumerate(value)]
        if not isinstance(value, Mapping):
            return value
        if "class" in value:
            return self._object(dict(value), path)
        if "function" in value:
            return self._known(value["function"], FUNCTIONS, f"{path}.function")
        if "same_as" in value:
            name = str(value["same_as"])
            if name not in self.made:
                self.fail(path, f"no object before has id {name[:100]}")
            return self.made[name]
        return {key: self.make(v, f"{path}.{key}") for key, v in value.items()}

    def _object(self, value: dict[str, Any], path: str) -> Any:
        name, mark = value.pop("class"), value.pop("id", None)
        kind = self._known(name, CLASSES, f"{path}.class")
        for key in LEFT_OUT.get(name, ()):
            if key in value:
                self.fail(f"{path}.{key}", f"not an argument of {name} here")
        given = {k: self.make(each, f"{path}.{k}") for k, each in value.items()}
        if kind is PretrainedEncoder:
            if self.backbone is None:
                self.fail(path, "there is no configuration of the backbone")
            given |= {"source": str(self.backbone), "pretrained": False}
        signature = inspect.signature(kind)
        try:
            signature.bind(**given)
        except TypeError as error:
            valid = ", ".join(signature.parameters)
            self.fail(path, f"{error}; the arguments of {name} are {valid}")
        try:
            made = kind(**given)
        except InputError as error:
            self.fail(path, str(error).rstrip("."))
        # A wrong value can raise anything inside a library.
        except Exception as error:
            logger.debug("%s cannot be built", path, exc_info=True)
            self.fail(path, f"cannot be built ({one_line(error)})")
        if mark is not None:
            self.made[str(mark)] = made
        return made

    def _known(self, name: Any, table: Mapping[str, str], path: str) -> Any:
        if not isinstance(name, str) or name not in table:
            self.fail(
                path,
                f"{quoted(name)} is not one of {', '.join(table)}; nothing "
                "else is built",
            )
        module, _, attribute = table[name].rpartition(".")
        return getattr(importlib.import_module(module), attribute)


# ---- Pre-trained encoders --------------------------------------------------


def read_backbone_files(place: Path) -> list[dict[str, Any]]:
    """The configuration of a pre-trained encoder, which must name no code."""
    found = []
    for name in _BACKBONE_FILES:
        found.append(read_json(place / name, WAY_OUT))
        for key in found[-1]:
            if key == "auto_map" or "implementation" in key:
                raise InputError(
                    f"{place / name}, key {key}: names code to be loaded, "
                    "which is never done; remove it if you trust the rest."
                )
        for key in _BINS:
            value = found[-1].get(key, 0)
            if isinstance(value, int) and value > _MOST_BINS:
                raise InputError(
                    f"{place / name}, key {key}: {quoted(value)} is more than "
                    f"the {_MOST_BINS} of any spectrum in use; {WAY_OUT}."
                )
    return found


def write_backbone(folder: Path, model: EarlyExitModel) -> None:
    """Write ``backbone/``, if the encoder of a model is a pre-trained one."""
    encoder = model.encoder
    if not isinstance(encoder, PretrainedEncoder):
        return
    config: dict[str, Any] = json.loads(encoder.config.to_json_string())
    config |= encoder.family.unused
    if encoder.family.depth is not None:
        config[encoder.family.depth] = encoder.exit_layers[-1]
    extractor = dict(encoder.extractor)
    for key in _NOT_WRITTEN:
        config.pop(key, None)
        extractor.pop(key, None)
    for name, content in zip(_BACKBONE_FILES, (config, extractor)):
        text = json.dumps(content, indent=2, sort_keys=True)
        with whole_file(folder / BACKBONE_FOLDER / name) as stream:
            stream.write(f"{text}\n".encode())


def read_backbone(folder: Path) -> Path:
    """Look through ``backbone/`` of an inference folder."""
    place = folder / BACKBONE_FOLDER
    for name in os.listdir(place) if place.is_dir() else ():
        if name not in _BACKBONE_FILES:
            raise InputError(
                f"{place / name}: is not read; {place} holds "
                f"{' and '.join(_BACKBONE_FILES)}. Remove it, or {WAY_OUT}."
            )
    read_backbone_files(place)
    return place


def _find_backbone(source: str, save_path: str | None, fetch: bool) -> Path:
    """Where the configuration is of the encoder that a YAML names: a folder,
    or in the hub's caches; nothing is fetched without being asked."""
    place = Path(source).expanduser()
    places = [place] if place.is_dir() else _cached(source, save_path, fetch)
    for place in places:
        read_backbone_files(place)
        return place
    raise InputError(
        f"source: {quoted(source)} is the pre-trained encoder of this run, is "
        "not on this machine, and is not fetched without being asked. If you "
        "trust the run: `hf download "
        f"{source[:100]} {' '.join(_BACKBONE_FILES)}`, or trust=True in "
        "Python."
    )


def _cached(source: str, save_path: str | None, fetch: bool) -> Iterator[Path]:
    # Fetched to the hub's own cache: where the YAML says may be anywhere.
    asked = [(save_path, True), (None, True), *([(None, False)] * fetch)]
    for cache, local in asked:
        # Of a dozen kinds: no hub, no such name, not here, no network.
        with suppress(Exception):
            from huggingface_hub import snapshot_download

            place = Path(
                snapshot_download(
                    source,
                    cache_dir=cache,
                    allow_patterns=list(_BACKBONE_FILES),
                    local_files_only=local,
                )
            )
            if all((place / name).is_file() for name in _BACKBONE_FILES):
                yield place


# ---- Out of a YAML ---------------------------------------------------------


@dataclass(eq=False)
class Tagged:
    """What HyperPyYAML would build or call: a tag and plain values."""

    tag: str
    value: Any


class _Reader(LOADER):
    """Plain values of nodes; nothing that a tag names is built."""

    def tuple_of(self, node: yaml.ScalarNode) -> list[Any]:
        """HyperPyYAML reads (1, 2) as a tuple."""
        return list(ast.literal_eval(node.value))

    def text_of(self, node: yaml.ScalarNode) -> Any:
        """A text, or a tuple without its tag."""
        is_tuple = not node.style and node.value[:1] == "("
        return self.tuple_of(node) if is_tuple else node.value

    def tagged(self, tag: str, node: yaml.Node) -> Tagged:
        """What follows a tag that is not YAML's own."""
        if isinstance(node, yaml.MappingNode):
            return Tagged(tag, self.construct_mapping(node, deep=True))
        if isinstance(node, yaml.SequenceNode):
            return Tagged(tag, self.construct_sequence(node, deep=True))
        return Tagged(tag, node.value)


_Reader.add_constructor("tag:yaml.org,2002:str", _Reader.text_of)
_Reader.add_constructor("!tuple", _Reader.tuple_of)
_Reader.add_multi_constructor("", _Reader.tagged)


def read_hyperparams(path: str | Path) -> dict[str, Any]:
    """What a run's ``hyperparams.yaml`` says, read without executing it:
    plain values, and :class:`Tagged` where it builds something.
    """
    root = compose_yaml(path, RUN_WAY_OUT)
    try:
        found = _Reader("").construct_document(root)
        return {str(key): value for key, value in found.items()}
    # A wrong date, number or tuple can raise anything.
    except Exception as error:
        raise InputError(
            f"{path}: not a YAML file of this recipe ({one_line(error)}); "
            f"{RUN_WAY_OUT}."
        ) from error


def architecture_of(
    hparams: Mapping[str, Any], path: str | Path, fetch: bool = False
) -> Architecture:
    """The tree of ``modules: model:``; the configuration of its pre-trained
    encoder is fetched if it is nowhere and that is asked.
    """
    converter = _Converter(str(path), fetch)
    modules = hparams.get("modules")
    if not isinstance(modules, dict) or "model" not in modules:
        converter.fail("modules.model", "missing")
    try:
        tree = converter.convert(modules["model"], "model")
    except RecursionError:
        converter.fail("modules.model", "refers to itself")
    if not isinstance(tree, dict):
        converter.fail("modules.model", f"{quoted(tree)} is not a model")
    return Architecture(tree, str(path), converter.backbone)


@dataclass
class _Converter:
    """From what a YAML says to the tree of an architecture."""

    path: str
    fetch: bool
    backbone: Path | None = None
    count: int = 0
    seen: dict[int, tuple[dict[str, Any], str]] = field(default_factory=dict)

    def fail(self, key: str, problem: str) -> NoReturn:
        """Refuse a key of the file."""
        raise InputError(f"{self.path}, key {key}: {problem}; {RUN_WAY_OUT}.")

    def convert(self, value: Any, key: str) -> Any:
        """A value or an object."""
        self.count += 1
        if self.count > _MOST_NODES:
            self.fail(key[:100], "refers to itself, or is too much for a model")
        if isinstance(value, dict):
            pairs = value.items()
            return {str(k): self.convert(v, f"{key}.{k}") for k, v in pairs}
        if isinstance(value, list):
            pairs = enumerate(value)
            return [self.convert(each, f"{key}[{n}]") for n, each in pairs]
        if isinstance(value, str | int | None):
            return value
        if isinstance(value, float) and math.isfinite(value):
            return value
        kind, _, dotted = getattr(value, "tag", "").partition(":")
        if kind == "!new":
            return self._object(value, dotted, key)
        if kind == "!name" and not value.value:
            return {"function": self._short(dotted, key, FUNCTIONS)}
        if kind == "!apply" and dotted == "getattr":
            return self._width(value.value, key)
        named = quoted(getattr(value, "tag", value))
        self.fail(key, f"{named} cannot be kept in an inference folder")

    def _object(self, given: Tagged, dotted: str, key: str) -> dict[str, Any]:
        if id(given) in self.seen:
            first, place = self.seen[id(given)]
            return {"same_as": first.setdefault("id", place)}
        name = self._short(dotted, key, CLASSES)
        if given.value and not isinstance(given.value, dict):
            self.fail(key, f"{name}: give its arguments by name")
        tree = {"class": name}
        self.seen[id(given)] = tree, key
        parts = dict(given.value or {})
        if name in PRETRAINED:
            # SpeechBrain's recipe wraps the class that loads the model.
            if isinstance(loaded := parts.pop("wav2vec2", None), Tagged):
                parts |= loaded.value
                parts.pop("freeze_feature_extractor", None)
            self.backbone = self._backbone(parts, key)
        for part, value in parts.items():
            if part not in LEFT_OUT.get(name, ()):
                tree[part] = self.convert(value, f"{key}.{part}")
        return tree

    def _backbone(self, parts: Mapping[str, Any], key: str) -> Path:
        source, save_path = parts.get("source"), parts.get("save_path")
        if not isinstance(source, str) or not isinstance(save_path, str | None):
            self.fail(f"{key}.source", f"{quoted(source)} is not text")
        return _find_backbone(source, save_path, self.fetch)

    def _width(self, given: Any, key: str) -> Any:
        """``!ref <encoder.d_model>``, which HyperPyYAML leaves to getattr:
        what the object would say is told by what it is built from.
        """
        owner, attribute = given if len(given) == 2 else (None, given)
        if attribute == "d_model" and isinstance(owner, Tagged):
            if self.backbone is not None:
                return encoder_width(read_backbone_files(self.backbone)[0])
            stack = owner.value.get("stack", owner)
            if isinstance(stack, Tagged) and "d_model" in stack.value:
                return stack.value["d_model"]
        self.fail(key, f"attribute {quoted(attribute)} is not d_model")

    def _short(self, dotted: str, key: str, table: Mapping[str, str]) -> str:
        """The name that a class has in a table."""
        name = dotted.rpartition(".")[2]
        known = table.get(name), f"{_CONTRIBUTED}{name}"
        if name not in table or dotted not in known:
            self.fail(
                key,
                f"{dotted[:100]} cannot be kept in an inference folder, which "
                f"knows {', '.join(table.values())}",
            )
        return name
