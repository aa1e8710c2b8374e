"""Weights of a model as a safetensors file.

A tensor that a model has under two names (tied parameters) is written once,
under the first. What SpeechBrain's normalisation keeps beside the parameters
is written with them, and so is the fingerprint of what gives them their
meaning, as metadata. Only files of numbers are read: nothing in them can be
executed.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from speechbrain.processing.features import InputNormalization
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from speechbrain_ee.errors import InputError, one_line
from speechbrain_ee.files import MB, open_plain, whole_file
from speechbrain_ee.inference.folder.architecture import (
    WAY_OUT,
    Architecture,
    read_backbone_files,
)
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.training.checkpoints import UNCHECKED, check_fingerprint

logger = logging.getLogger(__name__)

_PREFIX = "fingerprint."  # of keys in the metadata
WEIGHTS_FILE = "model.safetensors"
Shapes = Mapping[str, tuple[int, ...]]
_USUAL = 5120  # width of the largest encoders in use
_MOST_HEADER = MB  # ten thousand tensors; models of 48 layers have a thousand
_RANDOM = ("normal_", "uniform_")
# Of training alone; the augmentation of features has no part in inference.
LEFT_OUT = ("encoder.feature_augment.",)


def model_weights(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that make a model, each of them once."""
    found = _distinct(model)
    for name, norm in global_norms(model).items():
        if norm.count == 0:
            raise InputError(
                f"{name}: its statistics are empty, as those of a model that "
                "was never trained; train it first."
            )
        found[f"{name}.glob_mean"] = norm.glob_mean
        found[f"{name}.glob_std"] = norm.glob_std
        count = torch.tensor(float(norm.count), dtype=torch.float64)
        found[f"{name}.count"] = count
    return {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in found.items()
    }


def write_weights(
    path: str | Path,
    model: nn.Module,
    fingerprint: Mapping[str, str] | None = None,
) -> None:
    """Write the weights of a model; equal weights give equal bytes."""
    # Copies: tensors that are parts of a larger one cannot be saved.
    tensors = {k: v.clone() for k, v in model_weights(model).items()}
    carried = {_PREFIX + key: v for key, v in (fingerprint or {}).items()}
    content = save(tensors, metadata={"format": "pt", **carried})
    # The metadata, a hash table, is sorted.
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with whole_file(Path(path)) as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.write(content[8 + size :])


def read_shapes(path: str | Path) -> Shapes:
    """What a file says of its tensors, before any of them is read."""
    try:
        with open_plain(path) as stream:
            size = int.from_bytes(stream.read(8), "little")
            if size > _MOST_HEADER:
                raise ValueError(f"its header says that it has {size} bytes")
        with safe_open(path, framework="pt") as file:
            return {
                name: tuple(file.get_slice(name).get_shape())
                for name in file.keys()
            }
    except FileNotFoundError:
        raise InputError(
            f"{path}: there is no such file, and pickled weights (.pt, .bin) "
            f"are not read; {WAY_OUT}."
        ) from None
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        raise InputError(
            f"{path}: not a whole safetensors file ({one_line(error)}); "
            f"{WAY_OUT}."
        ) from error


def build_bounded(
    architecture: Architecture, weights: Shapes
) -> EarlyExitModel:
    """Build a model, but none that is far larger than its weights.

    Where a number in its description is unusually large, it is built on paper
    first: tensors of a shape alone take no memory, but seconds of imports.
    """
    described: list[Any] = [architecture.tree]
    if architecture.backbone is not None:
        described += read_backbone_files(architecture.backbone)
    if not _is_usual(described):
        with torch.device("meta"), _Bounded(weights, on_paper=True):
            architecture.build()
    with _Bounded(weights):
        return architecture.build()


def _is_usual(described: Any, key: str = "") -> bool:
    """Whether all sizes are such that their products fit into memory."""
    if isinstance(described, Mapping):
        pairs = described.items()
        return all(_is_usual(each, name) for name, each in pairs)
    if isinstance(described, list):
        return all(_is_usual(each, key) for each in described)
    return (
        not isinstance(described, int)
        or described <= _USUAL
        or key in ("sample_rate", "sampling_rate")
    )


class _Bounded(TorchFunctionMode):
    """Counts the tensors that are made in this thread, and their numbers."""

    def __init__(self, weights: Shapes, on_paper: bool = False):
        super().__init__()
        self.on_paper = on_paper
        self.size = sum(map(math.prod, weights.values()))
        self.tensors = len(weights)
        # Tables and features have a size of their own.
        self.calls = 20 * self.tensors + 3000
        self.numbers = 8 * self.size + 5 * 10**7

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(function, "__name__", "")
        in_place = name.endswith("_") and not name.endswith("__")
        # Initialisation takes most of the time, and weights replace it.
        if name.endswith(_RANDOM) or (in_place and self.on_paper):
            return args[0] if args else kwargs["tensor"]
        if self.on_paper and kwargs.get("device") is not None:
            kwargs["device"] = torch.device("meta")  # of SpeechBrain's filters
        made = function(*args, **kwargs)
        if isinstance(made, Tensor) and not in_place:
            self.calls -= 1
            self.numbers -= made.numel()
        if self.calls < 0 or self.numbers < 0:
            raise InputError(
                f"the model is larger than its weights, {self.size} numbers "
                f"in {self.tensors} tensors"
            )
        return made


def load_weights(
    path: str | Path,
    model: nn.Module,
    fingerprint: Mapping[str, str] | None = None,
) -> bool:
    """Load weights into a model that was built for them; whether they carry
    a fingerprint.
    """
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    norms = global_norms(model)
    found = {name: _described(tensor) for name, tensor in tensors.items()}
    wanted = {n: _described(tensor) for n, tensor in _distinct(model).items()}
    for name in norms:  # of which the model does not know the shapes
        for part in ("glob_mean", "glob_std", "count"):
            key = f"{name}.{part}"
            wanted[key] = found.get(key, "a statistic of the corpus")
    every = sorted(found | wanted)
    wrong = [key for key in every if found.get(key) != wanted.get(key)]
    if wrong:
        name = wrong[0]
        more = f", and {len(wrong) - 1} more differ" if len(wrong) > 1 else ""
        raise InputError(
            f"{path}: these are not the weights of the model in config.json: "
            f"{name} is {found.get(name, 'missing')}, not "
            f"{wanted.get(name, 'a tensor of it')}{more}; {WAY_OUT}."
        )
    carried = {
        key.removeprefix(_PREFIX): each
        for key, each in metadata.items()
        if key.startswith(_PREFIX)
    }
    known = fingerprint is None or check_fingerprint(
        path, carried, fingerprint, WAY_OUT, "these weights"
    )
    check_finite(path, tensors)
    for name, norm in norms.items():
        norm.count = int(tensors.pop(f"{name}.count"))
        norm.glob_mean = tensors.pop(f"{name}.glob_mean")
        norm.glob_std = tensors.pop(f"{name}.glob_std")
    # Names that are left out are tied to one that is there.
    model.load_state_dict(tensors, strict=False)
    if not known:
        logger.warning(UNCHECKED, path)
    return known


def check_finite(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights with which every utterance would be an empty text."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(
                f"{path}: {name} holds NaN or infinite numbers, as after a "
                "training that diverged; train again with a lower learning "
                "rate, or fetch the model again."
            )


def global_norms(model: nn.Module) -> dict[str, InputNormalization]:
    """Normalisations that have learned statistics of the corpus."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, InputNormalization)
        and module.norm_type == "global"
    }


def _distinct(model: nn.Module) -> dict[str, Tensor]:
    """Tensors of a model by the first of their names."""
    found: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not name.startswith(LEFT_OUT):
            found.setdefault(id(tensor), (name, tensor))
    return dict(found.values())


def _described(tensor: Tensor) -> str:
    return f"{tensor.dtype} of shape {list(tensor.shape)}"
