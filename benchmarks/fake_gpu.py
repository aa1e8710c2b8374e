"""A GPU that is not there: fake tensors of it, and what they need to know.

Fake tensors have a shape and a device but no memory: the forward pass of any
size runs without a GPU. Its backward pass does not.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}


class Lengths(TorchFunctionMode):
    """Answers for fake tensors what only values could tell.

    Every row is as long as the longest, and some have padding: masks are made
    and kept as in most batches.
    """

    def __init__(self, samples: int):
        super().__init__()
        self.samples = samples

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Answer, or let the function run."""
        name = getattr(func, "__name__", "")
        if name == "item":  # of lengths, one after the other
            return self.samples
        if name == "__bool__":
            return True
        return func(*args, **(kwargs or {}))


@contextmanager
def efficient_attention() -> Iterator[None]:
    """Attention by the memory-efficient kernel, as a GPU would choose it.

    Without a GPU to ask, fake tensors of one get the plain formula, which
    keeps every matrix of scores.
    """

    def attend(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        bias = attn_mask
        if bias is not None:
            if bias.dtype == torch.bool:
                bias = torch.zeros_like(bias, dtype=query.dtype)
            # PyTorch aligns the rows of a mask to 16 elements.
            frames = bias.shape[-1]
            if frames % 16:
                bias = F.pad(bias, (0, -frames % 16))[..., :frames]
            bias = bias.expand(*query.shape[:-1], frames)
        kernel = torch.ops.aten._scaled_dot_product_efficient_attention
        return kernel(
            query, key, value, bias, True, dropout_p, is_causal, scale=scale
        )[0]

    with torch.library._scoped_library("aten", "IMPL") as library:
        library.impl("scaled_dot_product_attention", attend, "AutogradCUDA")
        yield


@contextmanager
def mixed_precision(dtype: torch.dtype | None) -> Iterator[None]:
    """Autocast for CUDA, which `torch.autocast` refuses without a GPU."""
    if dtype is None:
        yield
        return
    torch.set_autocast_dtype("cuda", dtype)
    torch.set_autocast_enabled("cuda", True)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.clear_autocast_cache()


def as_fake(model: nn.Module) -> None:
    """Replace a model's tensors by fake ones on the device `cuda`."""
    made: dict[int, Tensor] = {}

    def fake(tensor: Tensor) -> Tensor:
        if id(tensor) not in made:
            twin = torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
            if isinstance(tensor, nn.Parameter):
                twin = nn.Parameter(twin, tensor.requires_grad)
            made[id(tensor)] = twin
        return made[id(tensor)]

    originals = []  # alive, so that no two have the same id
    for module in model.modules():
        for table in (module._parameters, module._buffers, vars(module)):
            for name, value in list(table.items()):
                if isinstance(value, Tensor):
                    originals.append(value)
                    table[name] = fake(value)
                elif isinstance(value, torch.device):
                    table[name] = torch.device("cuda")
