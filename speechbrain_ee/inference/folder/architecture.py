"""A model as plain data.

The tree of a model is what its YAML builds: mappings with a ``class`` and its
arguments, down to numbers. It is written to ``config.json`` and built again
from there. Classes are looked up in the table below and nowhere else, so that
reading a folder executes nothing but the classes of this table.

* ``{"class": "CTCHeads", "exit_layers": [2, 4], ...}``: an object,
* ``{"class": ..., "id": "1"}`` and ``{"same_as": "1"}``: one object in two
  places,
* ``{"function": "GELU"}``: a class that is passed on, not called.

Authors
 * The speechbrain-ee contributors 2026
"""

import importlib
import inspect
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from speechbrain_ee.errors import InputError, one_line, quoted
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.training.seeding import kept_random_state

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


@dataclass(frozen=True)
class Architecture:
    """A model that can be built, and written down.

    Arguments
    ---------
    tree : mapping
        Plain data as described above.
    source : str
        Where it was read, for messages.
    prefix : str
        Key under which it lies there.

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
    source: str = "config.json"
    prefix: str = "model"

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
        _fail(self, "exit_layers", "missing")

    def build(self, backbone: Path | None = None) -> EarlyExitModel:
        """Build the model, with random weights; no random number is used up.

        Arguments
        ---------
        backbone : Path, optional
            Folder with the configuration of a pre-trained encoder; its
            weights are not read.

        Returns
        -------
        EarlyExitModel
            In evaluation mode.

        Raises
        ------
        InputError
            If a class or an argument is not known or does not fit.
        """
        model = self.build_part(backbone)
        if not isinstance(model, EarlyExitModel):
            _fail(
                self,
                "class",
                f"{type(model).__name__} is no model; EarlyExitModel is "
                "expected",
            )
        return model.eval()

    def build_part(self, backbone: Path | None = None) -> Any:
        """As :meth:`build`, for a tree that need not be a whole model."""
        with kept_random_state():
            builder = _Builder(self, backbone)
            try:
                return builder.make(self.tree, self.prefix)
            except RecursionError:
                raise InputError(
                    f"{self.source}, key {self.prefix}: nested too deeply; "
                    f"{WAY_OUT}."
                ) from None

    def truncated(self, exits: int) -> "Architecture":
        """What ends at an exit: no layer and no head above it.

        Arguments
        ---------
        exits : int
            How many exits stay.

        Returns
        -------
        Architecture
        """
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

    of: Architecture
    backbone: Path | None
    made: dict[str, Any] = field(default_factory=dict)

    def make(self, value: Any, path: str) -> Any:
        """The value that a part of the tree stands for."""
        if isinstance(value, int) and abs(value) > _LARGEST:
            self._fail(path, f"{quoted(value)} is larger than any model has")
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
                self._fail(
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
                self._fail(f"{path}.{key}", f"not an argument of {name} here")
        arguments = {
            key: self.make(each, f"{path}.{key}")
            for key, each in value.items()
            if key not in _MARKS
        }
        if name == "SSLEncoder":
            if self.backbone is None:
                self._fail(path, "there is no configuration of the backbone")
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
            self._fail(
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
            self._fail(
                path,
                f"{error}; the arguments of {built.__name__} are "
                f"{', '.join(signature.parameters)}",
            )
        try:
            return built(**arguments)
        except InputError as error:
            self._fail(path, str(error).rstrip("."))
        # A wrong value can raise anything inside a library.
        except Exception as error:
            logger.debug("%s cannot be built", path, exc_info=True)
            self._fail(path, f"cannot be built ({one_line(error)})")

    def _fail(self, path: str, problem: str) -> NoReturn:
        raise InputError(f"{self.of.source}, key {path}: {problem}; {WAY_OUT}.")


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


def _fail(architecture: Architecture, key: str, problem: str) -> NoReturn:
    raise InputError(
        f"{architecture.source}, key {architecture.prefix}.{key}: {problem}; "
        f"{WAY_OUT}."
    )
