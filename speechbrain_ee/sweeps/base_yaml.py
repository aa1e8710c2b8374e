"""The recipe's YAML that a search varies: read as text, never executed.

Comments, references and tags stay as they are, so that what a search writes
is a YAML that a person can read and run again.

Authors
 * The speechbrain-ee contributors 2026
"""

import copy
import difflib
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import ruamel.yaml
from ruamel.yaml.error import YAMLError

from speechbrain_ee.errors import InputError, one_line


class BaseYAML:
    """A recipe's YAML whose keys can be given other values.

    Arguments
    ---------
    text : str
        The YAML.
    source : str
        Where it is from, for messages.

    Raises
    ------
    InputError
        If it is no YAML.

    Example
    -------
    >>> base = BaseYAML("lr: 0.1  # peak\\nloss: !new:x.Y\\n    a: 1\\n")
    >>> print(base.with_values({"lr": 1e-05, "loss.a": [2]}), end="")
    lr: 1.0e-05 # peak
    loss: !new:x.Y
        a: [2]
    """

    def __init__(self, text: str, source: str = "YAML") -> None:
        self.text = text
        self.source = source
        try:
            self._tree = _yaml().load(text)
        except YAMLError as error:
            raise InputError(
                f"{source}: is no YAML ({one_line(error)})."
            ) from None
        if not isinstance(self._tree, Mapping):
            raise InputError(f"{source}: holds no keys.")

    @classmethod
    def read(cls, path: Path) -> "BaseYAML":
        """Read a file.

        Arguments
        ---------
        path : Path
            A YAML of the recipe.

        Returns
        -------
        BaseYAML

        Raises
        ------
        InputError
            If it cannot be read.
        """
        try:
            return cls(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            cause = getattr(error, "strerror", None) or "not UTF-8 text"
            raise InputError(
                f"base: {path} cannot be read ({cause}); name a YAML of the "
                "recipe, relative to the sweep's own file."
            ) from None

    def __contains__(self, key: str) -> bool:
        return key in self._tree

    def check(self, key: str, what: str) -> None:
        """Refuse a key that the YAML does not have.

        Arguments
        ---------
        key : str
            With dots into nested mappings.
        what : str
            Where it was given, for the message.

        Raises
        ------
        InputError
            With the keys that there are.
        """
        parts = key.split(".")
        node = self._tree
        for depth, part in enumerate(parts):
            if not isinstance(node, Mapping):
                outer = ".".join(parts[:depth])
                raise InputError(
                    f"{what}: {key} leads into {outer}, which in "
                    f"{self.source} is no mapping; give {outer} as a whole."
                )
            if part not in node:
                close = difflib.get_close_matches(part, list(node), n=3)
                raise InputError(
                    f"{what}: {self.source} has no key {key}. "
                    + (
                        f"Did you mean {' or '.join(close)}?"
                        if close
                        else f"Known keys: {', '.join(sorted(node))}."
                    )
                )
            node = node[part]

    def with_values(self, values: Mapping[str, Any]) -> str:
        """The YAML with other values.

        Arguments
        ---------
        values : mapping of str to object
            By key, with dots into nested mappings. A mapping changes the
            keys that it names, anything else replaces what is there.

        Returns
        -------
        str
        """
        tree = copy.deepcopy(self._tree)
        for key, value in values.items():
            *outer, last = key.split(".")
            node = tree
            for part in outer:
                node = node[part]
            _put(node, last, value)
        text = StringIO()
        _yaml().dump(tree, text)
        return text.getvalue()


def _put(node: Any, key: str, value: Any) -> None:
    there = node.get(key)
    if isinstance(value, Mapping) and isinstance(there, Mapping):
        for inner, each in value.items():
            _put(there, inner, each)
        return
    node[key] = _flow(value)


def _flow(value: Any) -> Any:
    """Lists and mappings on one line, as the recipe writes them."""
    if isinstance(value, list):
        listed = ruamel.yaml.comments.CommentedSeq(map(_flow, value))
        listed.fa.set_flow_style()
        return listed
    if isinstance(value, Mapping):
        mapped = ruamel.yaml.comments.CommentedMap(
            (key, _flow(each)) for key, each in value.items()
        )
        mapped.fa.set_flow_style()
        return mapped
    return value


def _number(representer: Any, value: float) -> Any:
    text = repr(value)
    if "e" in text and "." not in text:
        text = text.replace("e", ".0e")
    return representer.represent_scalar("tag:yaml.org,2002:float", text)


def _yaml() -> ruamel.yaml.YAML:
    yaml = ruamel.yaml.YAML()
    yaml.width = 4096  # a folded line would end what a reader takes for a key
    yaml.preserve_quotes = True
    yaml.indent(mapping=4, sequence=6, offset=4)
    # Read again as a number by YAML 1.1, too, which wants the point.
    yaml.representer.add_representer(float, _number)
    # null, not an empty value
    yaml.representer.add_representer(
        type(None),
        lambda representer, _: representer.represent_scalar(
            "tag:yaml.org,2002:null", "null"
        ),
    )
    return yaml
