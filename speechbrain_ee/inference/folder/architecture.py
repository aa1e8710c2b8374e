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
import os
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import yaml

from speechbrain_ee.errors import InputError, one_line, quoted
from speechbrain_ee.files import (
    MOST_DEPTH,
    check_values,
    compose_yaml,
    read_json,
    whole_file,
)
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.models.ssl import SSLEncoder
from speechbrain_ee.training.checkpoints import kept_random_state

logger = logging.getLogger(__name__)

_SB = "speechbrain.lobes.models.transformer"
# What a tree may build, by the name it has there.
CLASSES: Mapping[str, str] = {
    "EarlyExitModel": "speechbrain_ee.models.model.EarlyExitModel",
    "MultiExitEncoder": "speechbrain_ee.models.encoder.MultiExitEncoder",
    "SSLEncoder": "speechbrain_ee.models.ssl.SSLEncoder",
    "LogMel": "speechbrain_ee.models.features.LogMel",
    "MaskedConvolutionFrontEnd": (
        "speechbrain_ee.models.masking.MaskedConvolutionFrontEnd"
    ),
    "CTCHeads": "speechbrain_ee.models.heads.CTCHeads",
    "AttentionHeads": "speechbrain_ee.models.attention.AttentionHeads",
    "Fbank": "speechbrain.lobes.features.Fbank",
    "InputNormalization": "speechbrain.processing.features.InputNormalization",
    "TransformerASR": f"{_SB}.TransformerASR.TransformerASR",
}
# What it may pass on: activations and norms.
FUNCTIONS: Mapping[str, str] = {
    "GELU": "torch.nn.GELU",
    "ReLU": "torch.nn.ReLU",
    "LeakyReLU": "torch.nn.LeakyReLU",
    "SiLU": "torch.nn.SiLU",
    "Swish": "speechbrain.nnet.activations.Swish",
    "LayerNorm": "speechbrain.nnet.normalization.LayerNorm",
    "BatchNorm2d": "speechbrain.nnet.normalization.BatchNorm2d",
}
# Arguments of training alone, and those that say where the weights of a
# pre-trained encoder came from: its configuration lies in the folder.
LEFT_OUT: Mapping[str, frozenset[str]] = {
    "MultiExitEncoder": frozenset({"feature_augment", "layerdrop_prob"}),
    "SSLEncoder": frozenset(
        "source save_path pretrained feature_augment freeze_convolutions "
        "freeze_backbone layerdrop_prob".split()
    ),
}
_MARKS = ("class", "id")
_LARGEST = 10**6  # layers, widths, tokens, frames of a table
WAY_OUT = (
    "write the folder again with `python -m speechbrain_ee export`, or fetch "
    "it again"
)
_RUN_WAY_OUT = (
    "give the output_folder of a finished run of this recipe, with the "
    "hyperparams.yaml that it wrote"
)
BACKBONE_FOLDER = "backbone"
_BACKBONE_FILES = ("config.json", "preprocessor_config.json")
# They name a place on the writer's machine, or code.
_NOT_WRITTEN = ("_name_or_path", "name_or_path", "auto_map")
_PLAIN = tuple(
    f"tag:yaml.org,2002:{kind}"
    for kind in "null bool int float str seq map".split()
)
_MISSING = object()
# The same classes in SpeechBrain, and the same names of parameters.
_CONTRIBUTED = "speechbrain.lobes.models.early_exit."
_MOST_NODES = 100_000
# What one object of a YAML may ask of another.
_ATTRIBUTES = ("d_model",)


@dataclass(frozen=True)
class Architecture:
    """A model that can be built, and written down.

    Example
    -------
    >>> heads = Architecture(
    ...     {"class": "CTCHeads", "exit_layers": [2, 4], "d_model": 8,
    ...      "vocab_size": 5}
    ... )
    >>> heads.build_part().num_exits
    2
    >>> Architecture({"class": "os.system", "command": "ls"}).build_part()
    Traceback (most recent call last):
    ...
    speechbrain_ee.errors.InputError: config.json, key model.class: ...
    """

    tree: Mapping[str, Any]
    source: str = "config.json"  # where it was read, for messages
    prefix: str = "model"  # the key under which it lies there

    @property
    def uses_backbone(self) -> bool:
        """Whether its encoder is a pre-trained one."""
        return any(
            part["class"] == "SSLEncoder" for part in objects_of(self.tree)
        )

    @property
    def exit_layers(self) -> tuple[int, ...]:
        """Layers that an exit follows, as the tree says."""
        for part in objects_of(self.tree):
            if isinstance(part.get("exit_layers"), list):
                return tuple(part["exit_layers"])
        self.fail(f"{self.prefix}.exit_layers", "missing")

    def fail(self, path: str, problem: str) -> NoReturn:
        """Refuse a key of the file."""
        raise InputError(f"{self.source}, key {path}: {problem}; {WAY_OUT}.")

    def build(self, backbone: Path | None = None) -> EarlyExitModel:
        """Build the model, with random weights; no random number is used up."""
        model = self.build_part(backbone)
        if not isinstance(model, EarlyExitModel):
            self.fail(
                f"{self.prefix}.class",
                f"{type(model).__name__} is no model; EarlyExitModel is "
                "expected",
            )
        return model.eval()

    def build_part(self, backbone: Path | None = None) -> Any:
        """As :meth:`build`, for a tree that need not be a whole model."""
        with kept_random_state():
            builder = _Builder(self.fail, backbone)
            with suppress(RecursionError):
                return builder.make(self.tree, self.prefix)
            self.fail(self.prefix, "nested too deeply")

    def truncated(self, exits: int) -> "Architecture":
        """What ends at an exit: no layer and no head above it."""
        layers = list(self.exit_layers)
        depth = layers[exits - 1]

        def cut(value: Any) -> Any:
            if isinstance(value, list):
                return [cut(each) for each in value]
            if not isinstance(value, Mapping):
                return value
            part = {key: cut(each) for key, each in value.items()}
            if part.get("exit_layers") == layers:
                part["exit_layers"] = layers[:exits]
            if part.get("class") == "TransformerASR":
                part["num_encoder_layers"] = depth
            return part

        return replace(self, tree=cut(self.tree))


@dataclass
class _Builder:
    """Builds the objects of one tree."""

    fail: Callable[[str, str], NoReturn]
    backbone: Path | None
    made: dict[str, Any] = field(default_factory=dict)

    def make(self, value: Any, path: str) -> Any:
        """The value that a part of the tree stands for."""
        if isinstance(value, int) and abs(value) > _LARGEST:
            self.fail(path, f"{quoted(value)} is larger than any model has")
        if isinstance(value, list):
            return [self.make(v, f"{path}[{i}]") for i, v in enumerate(value)]
        if not isinstance(value, Mapping):
            return value
        if "class" in value:
            return self._object(value, path)
        if "function" in value:
            return self._known(value, "function", FUNCTIONS, path)
        if "same_as" in value:
            if str(value["same_as"]) not in self.made:
                self.fail(
                    path,
                    f"no object before has id {str(value['same_as'])[:100]}",
                )
            return self.made[str(value["same_as"])]
        return {key: self.make(v, f"{path}.{key}") for key, v in value.items()}

    def _object(self, value: Mapping[str, Any], path: str) -> Any:
        built = self._known(value, "class", CLASSES, path)
        name = value["class"]
        for key in LEFT_OUT.get(name, ()):
            if key in value:
                self.fail(f"{path}.{key}", f"not an argument of {name} here")
        arguments = {
            key: self.make(each, f"{path}.{key}")
            for key, each in value.items()
            if key not in _MARKS
        }
        if name == "SSLEncoder":
            if self.backbone is None:
                self.fail(path, "there is no configuration of the backbone")
            arguments |= {"source": str(self.backbone), "pretrained": False}
        made = self._call(built, arguments, path)
        if "id" in value:
            self.made[str(value["id"])] = made
        return made

    def _known(
        self,
        value: Mapping[str, Any],
        key: str,
        table: Mapping[str, str],
        path: str,
    ) -> Callable[..., Any]:
        name = value[key]
        if not isinstance(name, str) or name not in table:
            self.fail(
                f"{path}.{key}",
                f"{quoted(name)} is not one of {', '.join(table)}; nothing else is "
                "built",
            )
        module, _, attribute = table[name].rpartition(".")
        return getattr(importlib.import_module(module), attribute)

    def _call(
        self, built: Callable[..., Any], arguments: dict[str, Any], path: str
    ) -> Any:
        signature = inspect.signature(built)
        try:
            signature.bind(**arguments)
        except TypeError as error:
            self.fail(
                path,
                f"{error}; the arguments of {built.__name__} are "
                f"{', '.join(signature.parameters)}",
            )
        try:
            return built(**arguments)
        except InputError as error:
            self.fail(path, str(error).rstrip("."))
        # A wrong value can raise anything inside a library.
        except Exception as error:
            logger.debug("%s cannot be built", path, exc_info=True)
            self.fail(path, f"cannot be built ({one_line(error)})")


def objects_of(tree: Any) -> list[Mapping[str, Any]]:
    """Every object of a tree, the outermost first."""
    found, queue = [], deque([tree])
    while queue:
        value = queue.popleft()
        if isinstance(value, Mapping):
            if isinstance(value.get("class"), str):
                found.append(value)
            queue.extend(value.values())
        elif isinstance(value, list):
            queue.extend(value)
    return found


def read_backbone_files(place: Path) -> list[dict[str, Any]]:
    """The configuration of a pre-trained encoder in a checked folder."""
    return [read_json(place / name, WAY_OUT) for name in _BACKBONE_FILES]


def write_backbone(folder: Path, model: EarlyExitModel) -> None:
    """Write ``backbone/``, if the encoder of a model is a pre-trained one."""
    encoder = model.encoder
    if not isinstance(encoder, SSLEncoder):
        return
    config: dict[str, Any] = json.loads(encoder.config.to_json_string())
    for key in _NOT_WRITTEN:
        config.pop(key, None)
    config["num_hidden_layers"] = encoder.exit_layers[-1]
    extractor = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "do_normalize": encoder.normalise,
        "feature_size": 1,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": config.get("feat_extract_norm") == "layer",
        "sampling_rate": encoder.sample_rate,
    }
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
    return _checked(place, WAY_OUT)


def find_backbone(
    source: str, save_path: str | None = None, fetch: bool = False
) -> Path:
    """Where the configuration is of the encoder that a YAML names: a folder,
    or in the hub's caches; nothing is fetched without being asked."""
    found = [Path(source).expanduser()]
    if not found[0].is_dir():
        found = _in_caches(source, save_path, fetch)
        found = [
            place
            for place in found
            if all((place / name).is_file() for name in _BACKBONE_FILES)
        ]
    if found:
        return _checked(found[0], "fetch the model again")
    raise InputError(
        f"source: {quoted(source)} is the pre-trained encoder of this run, is "
        "not on this machine, and is not fetched without being asked. If you "
        "trust the run: `hf download "
        f"{source[:100]} {' '.join(_BACKBONE_FILES)}`, or trust=True in "
        "Python."
    )


def _in_caches(source: str, save_path: str | None, fetch: bool) -> list[Path]:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        return []
    asked = [(save_path, True), (None, True)]
    # Not to where the YAML says: that may be anywhere.
    asked += [(None, False)] if fetch else []
    found = []
    for place, local in asked:
        # Of a dozen kinds: no such name, not here, no network.
        with suppress(Exception):
            path = snapshot_download(
                source,
                cache_dir=place,
                allow_patterns=list(_BACKBONE_FILES),
                local_files_only=local,
            )
            found.append(Path(path))
    return found


def _checked(place: Path, remedy: str) -> Path:
    for name in _BACKBONE_FILES:
        path = place / name
        for key in read_json(path, remedy):
            if key == "auto_map" or "implementation" in key:
                raise InputError(
                    f"{path}, key {key}: names code to be loaded, which is "
                    "never done; remove it if you trust the rest."
                )
    return place


class Hyperparams:
    """What a run's ``hyperparams.yaml`` says, read without executing it.

    HyperPyYAML builds objects and calls functions while it parses. Here the
    file is taken apart into its nodes, tags and all, and only plain values
    and the tree of the model are made of them.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        root = compose_yaml(self.path, _RUN_WAY_OUT)
        self.nodes = _Converter(self.path).pairs(root, "")

    def value(
        self, key: str, default: Any = _MISSING, kind: type | None = None
    ) -> Any:
        """The plain value of a key, refused if it builds something."""
        converter = _Converter(self.path)
        if key not in self.nodes:
            if default is _MISSING:
                converter.fail(key, "missing")
            return default
        value = converter.plain(self.nodes[key], key)
        optional = default is not _MISSING and value is None
        if kind is not None and type(value) is not kind and not optional:
            converter.fail(key, f"{quoted(value)} is no {kind.__name__}")
        return value

    def arguments(self, key: str, dotted: str) -> dict[str, Any]:
        """The plain arguments of an object of one known class."""
        node, converter = self.nodes.get(key), _Converter(self.path)
        if node is None or node.tag == _PLAIN[0]:
            return {}
        if node.tag != f"!new:{dotted}":
            converter.fail(key, f"{dotted} is expected, not {quoted(node.tag)}")
        return {
            name: converter.plain(value, f"{key}.{name}")
            for name, value in converter.pairs(node, key).items()
        }

    def architecture(
        self, fetch: bool = False
    ) -> tuple[Architecture, Path | None]:
        """The tree of ``modules: model:``, and where the configuration of a
        pre-trained encoder lies; fetched if it is nowhere and that is asked."""
        converter = _Converter(self.path, fetch)
        found = {}
        if "modules" in self.nodes:
            found = converter.pairs(self.nodes["modules"], "modules")
        if "model" not in found:
            converter.fail("modules.model", "missing")
        tree = converter.convert(found["model"], "model")
        if not isinstance(tree, dict):
            converter.fail("modules.model", f"{quoted(tree)} is no model")
        return Architecture(tree, str(self.path)), converter.backbone


@dataclass
class _Converter:
    """From nodes to the tree of an architecture."""

    path: Path
    fetch: bool = False
    backbone: Path | None = None
    depth: int = 0
    seen: dict[int, tuple[dict[str, Any], str]] = field(default_factory=dict)
    count: int = 0

    def fail(self, key: str, problem: str) -> NoReturn:
        """Refuse a key of the file."""
        raise InputError(f"{self.path}, key {key}: {problem}; {_RUN_WAY_OUT}.")

    def plain(self, node: yaml.Node, key: str) -> Any:
        """A value; nothing that builds."""
        value = self.convert(node, key)
        if isinstance(node, yaml.MappingNode) and node.tag not in _PLAIN:
            self.fail(key, f"a plain value is expected, not {quoted(node.tag)}")
        return value

    def convert(self, node: yaml.Node, key: str) -> Any:
        """A value or an object."""
        self.count += 1
        if self.count > _MOST_NODES or self.depth > MOST_DEPTH:
            self.fail(key[:100], "refers to itself, or is too much for a model")
        self.depth += 1
        try:
            return self._converted(node, key)
        finally:
            self.depth -= 1

    def pairs(self, node: yaml.Node, key: str) -> dict[str, yaml.Node]:
        """The keys of a mapping, which must be texts."""
        if not isinstance(node, yaml.MappingNode):
            self.fail(key, "keys and values are expected")
        for name, _ in node.value:
            if not isinstance(name, yaml.ScalarNode):
                self.fail(key, "a key is a list or a mapping, not a text")
        return {name.value: value for name, value in node.value}

    def _converted(self, node: yaml.Node, key: str) -> Any:
        kind, _, name = node.tag.partition(":")
        if kind == "!new":
            return self._object(node, name, key)
        if kind == "!name":
            return {"function": self._short(node, name, key, FUNCTIONS)}
        if node.tag == "!apply:getattr":
            return self._attribute(node, key)
        if node.tag in ("!tuple", "!list", *_PLAIN):
            return self._value(node, key)
        self.fail(
            key, f"{node.tag[:100]} cannot be kept in an inference folder"
        )

    def _value(self, node: yaml.Node, key: str) -> Any:
        if isinstance(node, yaml.MappingNode):
            return {
                name: self.convert(value, f"{key}.{name}")
                for name, value in self.pairs(node, key).items()
            }
        if isinstance(node, yaml.SequenceNode):
            return [
                self.convert(value, f"{key}[{place}]")
                for place, value in enumerate(node.value)
            ]
        # HyperPyYAML reads (1, 2) as a tuple.
        if node.tag == "!tuple" or (not node.style and node.value[:1] == "("):
            try:
                return list(ast.literal_eval(node.value))
            # What is nested deeply can end the parser in several ways.
            except (
                *(ValueError, SyntaxError, TypeError),
                *(MemoryError, RecursionError),
            ):
                self.fail(key, f"{quoted(node.value)} is no tuple")
        try:
            value = yaml.constructor.SafeConstructor().construct_object(node)
            check_values(value)
        except (yaml.YAMLError, ValueError, ArithmeticError) as error:
            self.fail(key, one_line(error))
        return value

    def _object(self, node: yaml.Node, dotted: str, key: str) -> dict[str, Any]:
        if id(node) in self.seen:
            first, place = self.seen[id(node)]
            return {"same_as": first.setdefault("id", place)}
        name = self._short(node, dotted, key, CLASSES)
        if node.value and not isinstance(node, yaml.MappingNode):
            self.fail(key, f"{name}: give its arguments by name")
        tree = {"class": name}
        self.seen[id(node)] = tree, key
        parts = self.pairs(node, key) if node.value else {}
        if name == "SSLEncoder":
            # SpeechBrain's recipe wraps the class that loads the model.
            loaded = parts.pop("wav2vec2", None)
            if loaded is not None:
                parts |= self.pairs(loaded, f"{key}.wav2vec2")
                parts.pop("freeze_feature_extractor", None)
            where = {
                each: self.convert(parts[each], f"{key}.{each}")
                for each in ("source", "save_path")
                if each in parts
            }
            if where.get("save_path", "") is None:
                del where["save_path"]
            for each, value in where.items():
                if not isinstance(value, str):
                    self.fail(f"{key}.{each}", f"{quoted(value)} is no text")
            if "source" not in where:
                self.fail(f"{key}.source", "missing")
            self.backbone = find_backbone(**where, fetch=self.fetch)
        for part, value in parts.items():
            if part not in LEFT_OUT.get(name, ()):
                tree[part] = self.convert(value, f"{key}.{part}")
        return tree

    def _attribute(self, node: yaml.Node, key: str) -> Any:
        """``!ref <encoder.d_model>``, which HyperPyYAML leaves to getattr."""
        parts = node.value if isinstance(node, yaml.SequenceNode) else []
        owner, attribute = parts if len(parts) == 2 else (None, None)
        name = getattr(attribute, "value", None)
        if name not in _ATTRIBUTES:
            self.fail(
                key,
                f"attribute {quoted(name)} is not one of "
                f"{', '.join(_ATTRIBUTES)}",
            )
        # What the object would say is told by what it is built from.
        part = _Converter(self.path, self.fetch)
        tree = part.convert(owner, key)
        for each in objects_of(tree):
            if name in each:
                return each[name]
        if part.backbone is None:
            self.fail(key, f"there is no {name} in it")
        config = read_json(part.backbone / "config.json", _RUN_WAY_OUT)
        return config.get("hidden_size")

    def _short(
        self, node: yaml.Node, dotted: str, key: str, table: Mapping[str, str]
    ) -> str:
        """The name that a class has in a table."""
        names = {path: name for name, path in table.items()}
        names |= {f"{_CONTRIBUTED}{name}": name for name in table}
        # What is passed on takes no arguments.
        if dotted not in names or (table is FUNCTIONS and node.value):
            self.fail(
                key,
                f"{node.tag[:100]} cannot be kept in an inference folder, "
                f"which knows {', '.join(table.values())}",
            )
        return names[dotted]
