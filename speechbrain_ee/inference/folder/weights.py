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
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from speechbrain.processing.features import InputNormalization
from torch import Tensor, nn

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.trace_io import whole_file
from speechbrain_ee.training.finished_run import UNCHECKED, check_fingerprint

logger = logging.getLogger(__name__)

_PREFIX = "fingerprint."  # of keys in the metadata
WEIGHTS_FILE = "model.safetensors"
_WAY_OUT = (
    "write the folder again with `python -m speechbrain_ee export`, or fetch "
    "it again"
)
# Of training alone; the augmentation of features has no part in inference.
LEFT_OUT = ("encoder.feature_augment.",)


def model_weights(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that make a model, each of them once.

    Arguments
    ---------
    model : torch.nn.Module
        Any model.

    Returns
    -------
    dict of str to torch.Tensor
        Parameters, buffers and learned statistics on the CPU.

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
    """Write the weights of a model; equal weights give equal bytes.

    Arguments
    ---------
    path : str or Path
        Target, usually ``model.safetensors``.
    model : torch.nn.Module
        The model.
    fingerprint : mapping of str to str, optional
        What gives them their meaning.

    Raises
    ------
    InputError
        If the target cannot be written.
    """
    # Copies: tensors that are parts of a larger one cannot be saved.
    tensors = {k: v.clone() for k, v in model_weights(model).items()}
    carried = {_PREFIX + key: v for key, v in (fingerprint or {}).items()}
    with whole_file(Path(path)) as stream:
        content = save(tensors, metadata={"format": "pt", **carried})
        stream.write(_in_order(content))


def load_weights(
    path: str | Path,
    model: nn.Module,
    fingerprint: Mapping[str, str] | None = None,
) -> bool:
    """Load weights into a model that was built for them.

    Arguments
    ---------
    path : str or Path
        A file of :func:`write_weights`.
    model : torch.nn.Module
        Changed in place.
    fingerprint : mapping of str to str, optional
        Of the model and the tokenizer that lie beside the weights; without
        it nothing is compared.

    Returns
    -------
    bool
        False if the file is of an earlier version and carries none.

    Raises
    ------
    InputError
        If the file is missing, damaged or no safetensors file, if its
        tensors are not those of the model, or were trained to mean something
        else.
    """
    path = Path(path)
    _check_present(path)
    state = model.state_dict()
    expected = {name: state[name] for name in _first_names(model)}
    norms = global_norms(model)
    extra = {
        f"{name}.{key}"
        for name in norms
        for key in ("glob_mean", "glob_std", "count")
    }
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {}
            for name in file.keys():
                part = file.get_slice(name)
                shapes[name] = tuple(part.get_shape()), part.get_dtype()
            _check_tensors(path, shapes, expected, extra)
            carried = {
                key.removeprefix(_PREFIX): each
                for key, each in (file.metadata() or {}).items()
                if key.startswith(_PREFIX)
            }
            known = fingerprint is None or check_fingerprint(
                path, carried, fingerprint, _WAY_OUT, "these weights"
            )
            tensors = {name: file.get_tensor(name) for name in shapes}
    except (SafetensorError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: not a whole safetensors file ({error}); {_WAY_OUT}."
        ) from error
    for name, norm in norms.items():
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


def _first_names(model: nn.Module) -> list[str]:
    """Of the names of one tensor the first."""
    seen, names = set(), []
    for name, tensor in model.state_dict().items():
        if name.startswith(LEFT_OUT):
            continue
        place = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if tensor.numel() and place in seen:
            continue
        seen.add(place)
        names.append(name)
    return names


def global_norms(model: nn.Module) -> dict[str, InputNormalization]:
    """Normalisations that have learned statistics of the corpus.

    Arguments
    ---------
    model : torch.nn.Module
        Any model.

    Returns
    -------
    dict of str to InputNormalization
        By name of the module.
    """
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, InputNormalization)
        and module.norm_type == "global"
    }


def _check_present(path: Path) -> None:
    if path.is_file():
        return
    others = sorted(
        each.name
        for each in path.parent.glob("*")
        if each.suffix in (".pt", ".pth", ".bin", ".ckpt", ".pkl")
    )
    pickled = (
        f" {', '.join(others)} may hold pickled objects, which can execute "
        "anything, and is not read."
        if others
        else ""
    )
    raise InputError(f"{path}: there is no such file.{pickled} {_sentence()}")


def _check_tensors(
    path: Path,
    found: Mapping[str, tuple[tuple[int, ...], str]],
    expected: Mapping[str, Tensor],
    extra: set[str],
) -> None:
    missing = sorted((expected.keys() | extra) - found.keys())
    unknown = sorted(found.keys() - expected.keys() - extra)
    if missing or unknown:
        problem = (
            f"{missing[0]} is missing"
            if missing
            else f"{unknown[0]} is not a tensor of it"
        )
        more = len(missing) + len(unknown) - 1
        raise InputError(
            f"{path}: these are not the weights of the model in config.json: "
            f"{problem}{f', and {more} more differ' if more else ''}; "
            f"{_WAY_OUT}."
        )
    for name, tensor in expected.items():
        shape, kind = found[name]
        wanted = tuple(tensor.shape), _KINDS.get(tensor.dtype, "?")
        if (shape, kind) != wanted:
            raise InputError(
                f"{path}: {name} is {kind} of shape {list(shape)}, but "
                f"config.json describes a model with {wanted[1]} of shape "
                f"{list(wanted[0])}; {_WAY_OUT}."
            )


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


def _sentence() -> str:
    return f"{_WAY_OUT[0].upper()}{_WAY_OUT[1:]}."
