"""What a run's ``hyperparams.yaml`` says, read without executing it.

HyperPyYAML builds objects and calls functions while it parses. Here the file
is taken apart into its nodes, tags and all, and only plain values and the
tree of the model are made of them.

Authors
 * The speechbrain-ee contributors 2026
"""

import ast
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from speechbrain_ee.errors import InputError, one_line, quoted
from speechbrain_ee.files import (
    MOST_DEPTH,
    check_values,
    compose_yaml,
    read_json,
)
from speechbrain_ee.inference.folder.architecture import (
    CLASSES,
    FUNCTIONS,
    LEFT_OUT,
    Architecture,
    objects_of,
)
from speechbrain_ee.inference.folder.backbone import find_backbone

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
_WAY_OUT = (
    "give the output_folder of a finished run of this recipe, with the "
    "hyperparams.yaml that it wrote"
)


class Hyperparams:
    """The YAML of a run as nodes.

    Arguments
    ---------
    path : str or Path
        ``hyperparams.yaml`` in the output folder of a run.

    Raises
    ------
    InputError
        If it cannot be read, or is not YAML.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.nodes = self._pairs(compose_yaml(self.path, _WAY_OUT), "")

    def __contains__(self, key: str) -> bool:
        return key in self.nodes

    def value(
        self, key: str, default: Any = _MISSING, kind: type | None = None
    ) -> Any:
        """The plain value of a key.

        Arguments
        ---------
        key : str
            An option of the YAML.
        default : Any, optional
            If it is not there.
        kind : type, optional
            What it must be.

        Returns
        -------
        Any
            Numbers, texts, lists and mappings of them.

        Raises
        ------
        InputError
            If it is missing without a default, of a wrong kind, or builds
            something.
        """
        if key not in self.nodes:
            if default is _MISSING:
                self._fail(key, "missing")
            return default
        value = _Converter(self.path).plain(self.nodes[key], key)
        optional = default is not _MISSING and value is None
        if kind is not None and type(value) is not kind and not optional:
            self._fail(key, f"{quoted(value)} is no {kind.__name__}")
        return value

    def arguments(self, key: str, dotted: str) -> dict[str, Any]:
        """The plain arguments of an object of one known class.

        Arguments
        ---------
        key : str
            An option of the YAML; may be missing.
        dotted : str
            Its class.

        Returns
        -------
        dict
            Empty without it.

        Raises
        ------
        InputError
            If it is of another class, or an argument builds something.
        """
        node = self.nodes.get(key)
        if node is None or node.tag == _PLAIN[0]:
            return {}
        if node.tag != f"!new:{dotted}":
            self._fail(key, f"{dotted} is expected, not {quoted(node.tag)}")
        converter = _Converter(self.path)
        return {
            name: converter.plain(value, f"{key}.{name}")
            for name, value in self._pairs(node, key).items()
        }

    def architecture(
        self, fetch: bool = False
    ) -> tuple[Architecture, Path | None]:
        """The tree of the model.

        Arguments
        ---------
        fetch : bool
            Fetch the configuration of a pre-trained encoder that the YAML
            names, if it is not on this machine.

        Returns
        -------
        architecture : Architecture
            What is reachable from ``modules: model:``, but for what training
            alone needs.
        backbone : Path, optional
            Folder with the configuration of a pre-trained encoder.

        Raises
        ------
        InputError
            If there is no model, or it holds what no folder can.
        """
        modules = self.nodes.get("modules")
        found = {}
        if modules is not None:
            found = self._pairs(modules, "modules")
        if "model" not in found:
            self._fail("modules.model", "missing")
        converter = _Converter(self.path, fetch)
        tree = converter.convert(found["model"], "model")
        if not isinstance(tree, dict):
            self._fail("modules.model", f"{quoted(tree)} is no model")
        return Architecture(tree, str(self.path)), converter.backbone

    def _pairs(self, node: yaml.Node, key: str) -> dict[str, yaml.Node]:
        return _Converter(self.path).pairs(node, key)

    def _fail(self, key: str, problem: str) -> NoReturn:
        raise InputError(f"{self.path}, key {key}: {problem}; {_WAY_OUT}.")


@dataclass
class _Converter:
    """From nodes to the tree of an architecture."""

    path: Path
    fetch: bool = False
    backbone: Path | None = None
    depth: int = 0
    seen: dict[int, tuple[dict[str, Any], str]] = field(default_factory=dict)
    count: int = 0

    def plain(self, node: yaml.Node, key: str) -> Any:
        """A value; nothing that builds."""
        value = self.convert(node, key)
        if isinstance(node, yaml.MappingNode) and node.tag not in _PLAIN:
            self._fail(
                key, f"a plain value is expected, not {quoted(node.tag)}"
            )
        return value

    def convert(self, node: yaml.Node, key: str) -> Any:
        """A value or an object."""
        self.count += 1
        if self.count > _MOST_NODES or self.depth > MOST_DEPTH:
            self._fail(
                key[:100], "refers to itself, or is too much for a model"
            )
        self.depth += 1
        try:
            return self._converted(node, key)
        finally:
            self.depth -= 1

    def pairs(self, node: yaml.Node, key: str) -> dict[str, yaml.Node]:
        """The keys of a mapping, which must be texts."""
        if not isinstance(node, yaml.MappingNode):
            self._fail(key, "keys and values are expected")
        for name, _ in node.value:
            if not isinstance(name, yaml.ScalarNode):
                self._fail(key, "a key is a list or a mapping, not a text")
        return {name.value: value for name, value in node.value}

    def _converted(self, node: yaml.Node, key: str) -> Any:
        kind, _, name = node.tag.partition(":")
        if kind == "!new":
            return self._object(node, name, key)
        if kind == "!name":
            short = _short(name, FUNCTIONS)
            if short is None or node.value:
                self._refuse(node, key, FUNCTIONS)
            return {"function": short}
        if node.tag == "!apply:getattr":
            return self._attribute(node, key)
        if node.tag in ("!tuple", "!list", *_PLAIN):
            return self._value(node, key)
        self._fail(
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
                self._fail(key, f"{quoted(node.value)} is no tuple")
        try:
            value = yaml.constructor.SafeConstructor().construct_object(node)
            check_values(value)
        except (yaml.YAMLError, ValueError, ArithmeticError) as error:
            self._fail(key, one_line(error))
        return value

    def _object(self, node: yaml.Node, dotted: str, key: str) -> dict[str, Any]:
        if id(node) in self.seen:
            first, place = self.seen[id(node)]
            return {"same_as": first.setdefault("id", place)}
        name = _short(dotted, CLASSES)
        if name is None:
            self._refuse(node, key, CLASSES)
        if node.value and not isinstance(node, yaml.MappingNode):
            self._fail(key, f"{name}: give its arguments by name")
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
                    self._fail(f"{key}.{each}", f"{quoted(value)} is no text")
            if "source" not in where:
                self._fail(f"{key}.source", "missing")
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
            self._fail(
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
            self._fail(key, f"there is no {name} in it")
        config = read_json(part.backbone / "config.json", _WAY_OUT)
        return config.get("hidden_size")

    def _refuse(self, node: yaml.Node, key: str, known: Any) -> NoReturn:
        self._fail(
            key,
            f"{node.tag[:100]} cannot be kept in an inference folder, which knows "
            f"{', '.join(known.values())}",
        )

    def _fail(self, key: str, problem: str) -> NoReturn:
        raise InputError(f"{self.path}, key {key}: {problem}; {_WAY_OUT}.")


def _short(dotted: str, table: Any) -> str | None:
    if dotted.startswith(_CONTRIBUTED):
        dotted = dotted.removeprefix(_CONTRIBUTED)
        return dotted if dotted in table else None
    names = {path: name for name, path in table.items()}
    return names.get(dotted)
