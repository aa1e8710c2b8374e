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

from speechbrain_ee.errors import InputError
from speechbrain_ee.inference.folder.architecture import (
    CLASSES,
    FUNCTIONS,
    LEFT_OUT,
    Architecture,
)

_PLAIN = tuple(
    f"tag:yaml.org,2002:{kind}"
    for kind in "null bool int float str seq map".split()
)
_MISSING = object()
_MOST_NODES = 100_000
# What one object of a YAML may ask of another.
_ATTRIBUTES = ("d_model",)
_WAY_OUT = (
    "give the output_folder of a finished run of this recipe, with the "
    "hyperparams.yaml that it wrote"
)


@dataclass(frozen=True)
class Backbone:
    """Where a run took its pre-trained encoder from.

    Arguments
    ---------
    source : str
        Folder, or name on the hub.
    save_path : str, optional
        Where fetched models are kept.
    """

    source: str
    save_path: str | None = None


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
        try:
            text = self.path.read_text(encoding="utf-8")
            # Composing makes nodes, no objects, whatever their tags.
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except (OSError, UnicodeDecodeError) as error:
            cause = getattr(error, "strerror", None) or "not UTF-8 text"
            raise InputError(
                f"{self.path}: cannot be read ({cause}); {_WAY_OUT}."
            ) from error
        except (yaml.YAMLError, RecursionError) as error:
            cause = " ".join(str(error).split())
            raise InputError(
                f"{self.path}: not a YAML file ({cause}); {_WAY_OUT}."
            ) from error
        if not isinstance(root, yaml.MappingNode):
            raise InputError(f"{self.path}: holds no keys; {_WAY_OUT}.")
        self.nodes = {key.value: value for key, value in root.value}

    def __contains__(self, key: str) -> bool:
        return key in self.nodes

    def value(self, key: str, default: Any = _MISSING) -> Any:
        """The plain value of a key.

        Arguments
        ---------
        key : str
            An option of the YAML.
        default : Any, optional
            If it is not there.

        Returns
        -------
        Any
            Numbers, texts, lists and mappings of them.

        Raises
        ------
        InputError
            If it is missing without a default, or builds something.
        """
        if key not in self.nodes:
            if default is _MISSING:
                self._fail(key, "missing")
            return default
        return _Converter(self.path).plain(self.nodes[key], key)

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
        if node.tag != f"!new:{dotted}" or not isinstance(
            node, yaml.MappingNode
        ):
            self._fail(key, f"{dotted} is expected, not {node.tag}")
        converter = _Converter(self.path)
        return {
            name.value: converter.plain(value, f"{key}.{name.value}")
            for name, value in node.value
        }

    def architecture(self) -> tuple[Architecture, Backbone | None]:
        """The tree of the model.

        Returns
        -------
        architecture : Architecture
            What is reachable from ``modules: model:``, but for what training
            alone needs.
        backbone : Backbone, optional
            Where a pre-trained encoder came from.

        Raises
        ------
        InputError
            If there is no model, or it holds what no folder can.
        """
        modules = self.nodes.get("modules")
        found = {}
        if isinstance(modules, yaml.MappingNode):
            found = {key.value: value for key, value in modules.value}
        if "model" not in found:
            self._fail("modules.model", "missing")
        converter = _Converter(self.path)
        try:
            tree = converter.convert(found["model"], "model")
        except RecursionError:
            self._fail("model", "refers to itself")
        return Architecture(tree, str(self.path)), converter.backbone

    def _fail(self, key: str, problem: str) -> NoReturn:
        raise InputError(f"{self.path}, key {key}: {problem}; {_WAY_OUT}.")


@dataclass
class _Converter:
    """From nodes to the tree of an architecture."""

    path: Path
    backbone: Backbone | None = None
    seen: dict[int, tuple[dict[str, Any], str]] = field(default_factory=dict)
    count: int = 0

    def plain(self, node: yaml.Node, key: str) -> Any:
        """A value; nothing that builds."""
        value = self.convert(node, key)
        if isinstance(node, yaml.MappingNode) and node.tag not in _PLAIN:
            self._fail(key, f"a plain value is expected, not {node.tag}")
        return value

    def convert(self, node: yaml.Node, key: str) -> Any:
        """A value or an object."""
        self.count += 1
        if self.count > _MOST_NODES:
            self._fail(key, "too much for a model: aliases of aliases?")
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
        self._fail(key, f"{node.tag} cannot be kept in an inference folder")

    def _value(self, node: yaml.Node, key: str) -> Any:
        if isinstance(node, yaml.MappingNode):
            return {
                name.value: self.convert(value, f"{key}.{name.value}")
                for name, value in node.value
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
            except (ValueError, SyntaxError, TypeError):
                self._fail(key, f"{node.value} is no tuple")
        try:
            return yaml.constructor.SafeConstructor().construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            self._fail(key, " ".join(str(error).split()))

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
        parts = {part.value: value for part, value in node.value or ()}
        if name == "SSLEncoder":
            self.backbone = Backbone(
                self.convert(parts["source"], f"{key}.source"),
                self.convert(parts["save_path"], f"{key}.save_path")
                if "save_path" in parts
                else None,
            )
        for part, value in parts.items():
            if part not in LEFT_OUT.get(name, ()):
                tree[part] = self.convert(value, f"{key}.{part}")
        return tree

    def _attribute(self, node: yaml.Node, key: str) -> Any:
        """``!ref <encoder.d_model>``, which HyperPyYAML leaves to getattr."""
        owner, attribute = [*node.value, None][:2]
        name = getattr(attribute, "value", None)
        if name not in _ATTRIBUTES:
            self._fail(
                key,
                f"attribute {name!r} is not one of {', '.join(_ATTRIBUTES)}",
            )
        part = _Converter(self.path)
        tree = part.convert(owner, key)
        source = part.backbone or Backbone("")
        built = Architecture(tree, str(self.path), key).build_part(
            source.source or None, source.save_path
        )
        return getattr(built, name)

    def _refuse(self, node: yaml.Node, key: str, known: Any) -> NoReturn:
        self._fail(
            key,
            f"{node.tag} cannot be kept in an inference folder, which knows "
            f"{', '.join(known.values())}",
        )

    def _fail(self, key: str, problem: str) -> NoReturn:
        raise InputError(f"{self.path}, key {key}: {problem}; {_WAY_OUT}.")


def _short(dotted: str, table: Any) -> str | None:
    names = {path: name for name, path in table.items()}
    return names.get(dotted)
