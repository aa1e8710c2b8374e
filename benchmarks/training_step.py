"""What a training step keeps and computes, on fake tensors of a GPU.

The forward pass is run, the backward pass is not: what that would need for a
moment is not counted.

Axes: B utterances, S tokens, T frames, N rows (utterances of all exits),
V vocabulary.

Authors
 * The speechbrain-ee contributors 2026
"""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from fake_gpu import (
    PRECISIONS,
    Lengths,
    as_fake,
    efficient_attention,
    mixed_precision,
)
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from speechbrain_ee.training.losses import after_start, attention_exit_losses

CUDA_BLOCK = 512  # bytes; PyTorch's allocator rounds up to it


@dataclass(frozen=True)
class Step:
    """What one forward pass leaves behind."""

    saved_bytes: int
    peak_bytes: int
    forward_flops: int
    step_flops: int


class Watch(TorchDispatchMode):
    """Counts operations, and the bytes of the storages that are alive."""

    def __init__(self, there: set[int]):
        super().__init__()
        self.known = set(there)
        self.alive = self.peak = 0
        self.forward_flops = self.step_flops = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run an operator, then count it."""
        out = func(*args, **(kwargs or {}))
        packet = getattr(func, "_overloadpacket", None)
        if packet in flop_registry:
            flops = flop_registry[packet](*args, **(kwargs or {}), out_val=out)
            self.forward_flops += flops
            self.step_flops += flops * (1 + operands_in_need(func, args))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.add(leaf.untyped_storage())
        return out

    def add(self, storage: torch.UntypedStorage) -> None:
        """Count a storage until it is freed."""
        key = storage._cdata
        if key in self.known:
            return
        size = blocks(storage.nbytes())
        self.known.add(key)
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self.drop, key, size)

    def drop(self, key: int, size: int) -> None:
        """A storage was freed."""
        self.known.discard(key)
        self.alive -= size


class CTCMemory(torch.autograd.Function):
    """Keeps what PyTorch's CTC loss keeps; fake tensors cannot run that.

    Log-probabilities, and forward variables of every frame for the tokens and
    the blanks around them.
    """

    @staticmethod
    def forward(ctx: Any, log_probs_TNV: Tensor, tokens: int) -> Tensor:
        """Zero losses, shape (N,)."""
        frames, rows, _ = log_probs_TNV.shape
        alpha = log_probs_TNV.new_empty(rows, frames, 2 * tokens + 1)
        losses_N = log_probs_TNV.new_zeros(rows)
        ctx.save_for_backward(log_probs_TNV, alpha, losses_N)
        return losses_N


def operands_in_need(func: Any, args: Sequence[Any]) -> int:
    """How many of an operator's factors need a gradient, 0 to 2.

    The backward pass makes the gradient of each by one product as large as
    that of the forward pass.
    """
    first = 1 if "addmm" in str(func) or "baddbmm" in str(func) else 0
    if "attention" in str(func):
        return 2 * any(each.requires_grad for each in args[:3])
    return sum(each.requires_grad for each in args[first : first + 2])


def blocks(size: int) -> int:
    """Bytes that PyTorch's allocator takes for so many.

    Example
    -------
    >>> blocks(513)
    1024
    """
    return -(-size // CUDA_BLOCK) * CUDA_BLOCK


def observe(run: Callable[[], Any], own: Sequence[Tensor]) -> Step:
    """Run something, and count what it keeps and computes."""
    saved: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage
        return tensor

    there = {each.untyped_storage()._cdata for each in own}
    watch = Watch(there)
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t)
    with hooks, watch:
        losses = run()
    sizes = [s.nbytes() for key, s in saved.items() if key not in there]
    del losses
    return Step(
        sum(map(blocks, sizes)),
        watch.peak,
        watch.forward_flops,
        watch.step_flops,
    )


def forward_step(
    model: nn.Module,
    batch: int,
    samples: int,
    tokens: int,
    precision: str = "fp32",
) -> Step:
    """One forward pass of a training batch; the model is made fake by it."""
    with FakeTensorMode(), efficient_attention():
        as_fake(model)
        wavs = torch.empty(batch, samples, device="cuda")
        lens = torch.empty(batch, device="cuda")
        said = torch.empty(batch, tokens, dtype=torch.long, device="cuda")
        with Lengths(samples), mixed_precision(PRECISIONS[precision]):
            return observe(
                lambda: objectives(model, wavs, lens, said),
                list(model.parameters()),
            )


def objectives(
    model: nn.Module, wavs: Tensor, lens: Tensor, said_BS: Tensor
) -> list[Tensor]:
    """The losses of all exits and heads, as the Brain makes them."""
    attention = model.attention
    read_BS = None if attention is None else after_start(said_BS, 1)
    outputs = model(wavs, lens, read_BS)
    log_probs = torch.cat([each.log_probs_BTV for each in outputs])
    losses = [CTCMemory.apply(log_probs.transpose(0, 1), said_BS.shape[1])]
    if attention is not None:
        counts_B = torch.full_like(said_BS[:, 0], said_BS.shape[1])
        losses.append(attention_exit_losses(outputs, said_BS, counts_B, 2, 0.1))
    return losses
