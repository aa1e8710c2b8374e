"""What processes that work together tell each other.

It goes through the process group as JSON: nothing is unpickled, and no folder
needs to be shared for it.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from speechbrain.utils.distributed import is_distributed_initialized
from torch import distributed

from speechbrain_ee.errors import InputError, one_line


def gather(value: Any) -> list[Any]:
    """What every process has, in every process.

    Arguments
    ---------
    value : Any
        Plain values that JSON can hold; numbers arrive as they are.

    Returns
    -------
    list
        One value per process; this one alone if there are no others.

    Example
    -------
    >>> gather({"words": 3})
    [{'words': 3}]
    """
    if not is_distributed_initialized():
        return [value]
    on_gpu = distributed.get_backend() == "nccl"
    device = torch.device("cuda" if on_gpu else "cpu")
    text = bytearray(json.dumps(value).encode())
    sent = torch.frombuffer(text, dtype=torch.uint8).to(device)
    sizes = [sent.new_zeros(1, dtype=torch.long) for _ in _ranks()]
    distributed.all_gather(sizes, sizes[0].new_tensor([len(sent)]))
    longest = int(max(sizes))
    padded = torch.nn.functional.pad(sent, (0, longest - len(sent)))
    texts = [torch.empty_like(padded) for _ in _ranks()]
    distributed.all_gather(texts, padded)
    return [
        json.loads(bytes(text[: int(size)].cpu().numpy()))
        for text, size in zip(texts, sizes, strict=True)
    ]


@contextmanager
def all_or_none(doing: str) -> Iterator[None]:
    """Do something in every process, or stop all of them.

    Without that, the others wait for one that has failed.

    Arguments
    ---------
    doing : str
        What is done, for the message.

    Raises
    ------
    InputError
        If another process has failed; the one that has raises its own error.

    Example
    -------
    >>> with all_or_none("reading"):
    ...     pass
    """
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    problems = gather(None if failure is None else one_line(failure))
    if failure is not None:
        raise failure
    for rank, problem in enumerate(problems):
        if problem is not None:
            raise InputError(
                f"{doing}: process {rank} has failed ({problem}), so that "
                "this one stops, too."
            )


def add_over_processes(counter: Any) -> None:
    """Add up what the processes have counted.

    Arguments
    ---------
    counter : object
        Its attributes that are whole numbers, or arrays of them, become
        sums over all processes.
    """
    counts = {
        name: np.asarray(value).tolist()
        for name, value in vars(counter).items()
        if isinstance(value, int | np.ndarray)
    }
    everybody = gather(counts)
    for name in counts:
        total = sum(np.asarray(each[name]) for each in everybody)
        is_array = isinstance(getattr(counter, name), np.ndarray)
        setattr(counter, name, total if is_array else int(total))


def share_gradients(
    parameters: Iterable[torch.nn.Parameter], scale: float
) -> None:
    """Average gradients over the processes, where DDP has not done it yet.

    Arguments
    ---------
    parameters : iterable of torch.nn.Parameter
        The same ones in every process.
    scale : float
        Factor on their gradients.

    Example
    -------
    >>> weight = torch.nn.Parameter(torch.ones(2))
    >>> weight.sum().backward()
    >>> share_gradients([weight], 3.0)
    >>> weight.grad
    tensor([3., 3.])
    """
    learning = [each for each in parameters if each.requires_grad]
    if is_distributed_initialized() and learning:
        here = [each.grad is not None for each in learning]
        somewhere = torch.tensor(here, device=learning[0].device).int()
        distributed.all_reduce(somewhere)
        learning = [p for p, n in zip(learning, somewhere.tolist()) if n]
        scale /= distributed.get_world_size()
    for each in learning:
        if is_distributed_initialized():
            if each.grad is None:
                each.grad = torch.zeros_like(each)
            distributed.all_reduce(each.grad)
        if each.grad is not None:
            each.grad *= scale


def _ranks() -> range:
    return range(distributed.get_world_size())
