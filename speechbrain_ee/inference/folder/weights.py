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
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from speechbrain.processing.features import InputNormalization
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
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
Header = Mapping[str, tuple[tuple[int, ...], str]]
_USUAL = 5120  # width of the largest encoders in use
_MOST_HEADER = MB  # ten thousand tensors; models of 48 layers have a thousand
_KINDS = {
    torch.float32: "F32",
    torch.float64: "F64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
# Of training alone; the augmentation of features has no part in inference.
LEFT_OUT = ("encoder.feature_augment.",)


def model_weights(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that make a model, each of them once.

    Example
    -------
    >>> tied = nn.ModuleList([nn.Linear(2, 2, bias=False)])
    >>> tied.append(tied[0])
    ModuleList(
      (0-1): 2 x Linear(in_features=2, out_features=2, bias=False)
    )
    >>> sorted(model_weights(tied))
    ['0.weight']
    """
    names = _first_names(model)
    state = model.state_dict()
    found = {name: state[name] for name in names}
    for name, norm in global_norms(model).items():
        if norm.count == 0:
            raise InputError(
                f"{name}: its statistics are empty, as those of a model that "
                "was never trained; train it first."
            )
        found[f"{name}.glob_mean"] = norm.glob_mean
        found[f"{name}.glob_std"] = norm.glob_std
        found[f"{name}.count"] = torch.tensor(
            float(norm.count), dtype=torch.float64
        )
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
    with whole_file(Path(path)) as stream:
        content = save(tensors, metadata={"format": "pt", **carried})
        stream.write(_in_order(content))


def read_header(path: str | Path) -> Header:
    """What a file says of its tensors, before any of them is read."""
    path = Path(path)
    _check_present(path)
    try:
        with open_plain(path) as stream:
            size = int.from_bytes(stream.read(8), "little")
            if size > _MOST_HEADER:
                raise ValueError(f"its header says that it has {size} bytes")
        header = {}
        with safe_open(path, framework="pt") as file:
            for name in file.keys():
                part = file.get_slice(name)
                header[name] = tuple(part.get_shape()), part.get_dtype()
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        _not_whole(path, error)
    return header


def build_bounded(
    architecture: Architecture, backbone: Path | None, header: Header
) -> EarlyExitModel:
    """Build a model, but none that is far larger than its weights.

    Where a number in its description is unusually large, it is built on paper
    first: tensors of a shape alone take no memory, but seconds of imports.
    """
    described: list[Any] = [architecture.tree]
    if backbone is not None:
        described += read_backbone_files(backbone)
    if not _is_usual(described):
        with torch.device("meta"), _Bounded(header):
            architecture.build(backbone)
    left = _Bounded(header)
    thread = threading.get_ident()

    def count(_module: nn.Module, _name: str, made: Tensor | None) -> None:
        if threading.get_ident() == thread:
            left.count(made)

    with ExitStack() as stack:
        for register in (
            register_module_parameter_registration_hook,
            register_module_buffer_registration_hook,
        ):
            stack.callback(register(count).remove)
        return architecture.build(backbone)


def _is_usual(described: Any, key: str = "") -> bool:
    """Whether all sizes are such that their products fit into memory."""
    if isinstance(described, Mapping):
        pairs = described.items()
        return all(_is_usual(each, name) for name, each in pairs)
    if isinstance(described, list | tuple):
        return all(_is_usual(each, key) for each in described)
    if not isinstance(described, int):
        return True
    return described <= _USUAL or key == "sample_rate"


class _Bounded(TorchFunctionMode):
    """Counts the tensors that are made, and their numbers."""

    def __init__(self, header: Header):
        super().__init__()
        self.size = sum(math.prod(shape) for shape, _ in header.values())
        self.tensors = len(header)
        # Tables and features have a size of their own.
        self.calls = 20 * self.tensors + 3000
        self.numbers = 8 * self.size + 5 * 10**7

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(function, "__name__", "")
        if name.endswith("_") and not name.endswith("__"):
            # Initialisation changes no shape (and takes most of the time).
            return args[0] if args else kwargs["tensor"]
        if kwargs.get("device") is not None:  # of SpeechBrain's filters
            kwargs["device"] = torch.device("meta")
        made = function(*args, **kwargs)
        self.count(made)
        return made

    def count(self, made: Any) -> None:
        """One more tensor, if it is one."""
        if isinstance(made, Tensor):
            self.calls -= 1
            self.numbers -= made.numel()
        if self.calls < 0 or self.numbers < 0:
            raise InputError(
                f"the model is larger than its weights, {self.size} numbers "
                f"in {self.tensors} tensors"
            )


def load_weights(
    path: str | Path,
    model: nn.Module,
    fingerprint: Mapping[str, str] | None = None,
) -> bool:
    """Load weights into a model that was built for them."""
    path = Path(path)
    state = model.state_dict()
    expected = {name: state[name] for name in _first_names(model)}
    extra = {
        f"{name}.{key}"
        for name in global_norms(model)
        for key in ("glob_mean", "glob_std", "count")
    }
    _check_tensors(path, read_header(path), expected, extra)
    try:
        with safe_open(path, framework="pt") as file:
            carried = {
                key.removeprefix(_PREFIX): each
                for key, each in (file.metadata() or {}).items()
                if key.startswith(_PREFIX)
            }
            known = fingerprint is None or check_fingerprint(
                path, carried, fingerprint, WAY_OUT, "these weights"
            )
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except InputError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        _not_whole(path, error)
    check_finite(path, tensors)
    for name, norm in global_norms(model).items():
        norm.count = int(tensors.pop(f"{name}.count"))
        norm.glob_mean = tensors.pop(f"{name}.glob_mean")
        norm.glob_std = tensors.pop(f"{name}.glob_std")
    # Names that are left out are tied to one that is there.
    model.load_state_dict(tensors, strict=False)
    if not known:
        logger.warning(UNCHECKED, path)
    return known


def _in_order(content: bytes) -> bytes:
    """A safetensors file whose metadata, a hash table, is sorted."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def check_finite(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights with which every utterance would be an empty text."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(
                f"{path}: {name} holds NaN or infinite numbers, as after a "
                "training that diverged; train again with a lower learning "
                "rate, or fetch the model again."
            )


def _first_names(model: nn.Module) -> list[str]:
    """Of the names of one tensor the first."""
    seen, names = set(), []
    for name, tensor in model.state_dict(keep_vars=True).items():
        if name.startswith(LEFT_OUT) or id(tensor) in seen:
            continue
        seen.add(id(tensor))
        names.append(name)
    return names


def global_norms(model: nn.Module) -> dict[str, InputNormalization]:
    """Normalisations that have learned statistics of the corpus."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, InputNormalization)
        and module.norm_type == "global"
    }


def _not_whole(path: Path, error: Exception) -> NoReturn:
    raise InputError(
        f"{path}: not a whole safetensors file ({one_line(error)}); {WAY_OUT}."
    ) from error


def _check_present(path: Path) -> None:
    if path.is_file():
        return
    pickles = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
    files = sorted(path.parent.glob("*"))
    others = [each.name for each in files if each.suffix in pickles]
    pickled = (
        f"{', '.join(others)} may hold pickled objects, which can execute "
        "anything, and is not read. "
    )
    raise InputError(
        f"{path}: there is no such file. {pickled if others else ''}"
        f"{WAY_OUT[0].upper()}{WAY_OUT[1:]}."
    )


def _check_tensors(
    path: Path,
    found: Header,
    expected: Mapping[str, Tensor],
    extra: set[str],
) -> None:
    missing = sorted((expected.keys() | extra) - found.keys())
    unknown = sorted(found.keys() - expected.keys() - extra)
    if missing or unknown:
        problem = f"{unknown[0]} is not a tensor of it" if unknown else ""
        problem = f"{missing[0]} is missing" if missing else problem
        more = len(missing) + len(unknown) - 1
        raise InputError(
            f"{path}: these are not the weights of the model in config.json: "
            f"{problem}{f', and {more} more differ' if more else ''}; "
            f"{WAY_OUT}."
        )
    for name, tensor in expected.items():
        shape, kind = found[name]
        wanted = tuple(tensor.shape), _KINDS.get(tensor.dtype, "?")
        if (shape, kind) != wanted:
            raise InputError(
                f"{path}: {name} is {kind} of shape {list(shape)}, but "
                f"config.json describes a model with {wanted[1]} of shape "
                f"{list(wanted[0])}; {WAY_OUT}."
            )
