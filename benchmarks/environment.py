"""What benchmarks share: command line, clocks, counters, tables, results.

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import json
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def parser_of(documentation: str) -> argparse.ArgumentParser:
    """A command line with ``--results``, the folder of the results."""
    parser = argparse.ArgumentParser(description=documentation.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser


def add_numbers(parser: argparse.ArgumentParser, **defaults: Any) -> None:
    """Options that are numbers, with their default values."""
    for name, default in defaults.items():
        option = f"--{name.replace('_', '-')}"
        many = isinstance(default, list)
        kind = type(default[0] if many else default)
        words = "default %(default)s"
        nargs = "+" if many else None
        parser.add_argument(
            option, type=kind, default=default, nargs=nargs, help=words
        )


def describe() -> dict[str, Any]:
    """Hardware, versions, threads and load, to be stored with a result."""
    cpu = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "gpu": gpu,
        "threads": torch.get_num_threads(),
        "load_1min": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": version("torch"),
        "speechbrain": version("speechbrain"),
    }


def store(path: str | Path, result: dict[str, Any]) -> None:
    """Write a result as JSON."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def markdown(heading: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(map(str, row))} |" for row in (heading, *rows)]
    lines.insert(1, "|---" * len(heading) + "|")
    return "\n".join(lines)


def in_turn(
    tasks: Mapping[str, Callable[[], Any]], repeats: int
) -> dict[str, list[Any]]:
    """What tasks return, run in turn in one process.

    Whoever comes first alternates: the first finds colder caches.
    """
    found: dict[str, list[Any]] = {name: [] for name in tasks}
    for turn in range(repeats):
        for name in sorted(tasks, reverse=bool(turn % 2)):
            found[name].append(tasks[name]())
    return found


@contextmanager
def utterances_through(model: Any) -> Iterator[list[int]]:
    """Count the utterances that go through every encoder layer."""
    counts = [0] * len(model.encoder.layers)

    def hook_of(index: int) -> Any:
        def count(_: Any, args: Any, kwargs: Any) -> None:
            counts[index] += len((*args, *kwargs.values())[0])

        return count

    hooks = [
        layer.register_forward_pre_hook(hook_of(index), with_kwargs=True)
        for index, layer in enumerate(model.encoder.layers)
    ]
    try:
        yield counts
    finally:
        for hook in hooks:
            hook.remove()
