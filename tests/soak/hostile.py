"""Hostile files: every reader ends in time, in bounds, and in an InputError.

    python -m tests.soak.hostile --minutes 10 --out results/hostile.json

Files that this project writes are changed at random: bytes, and the values
that they stand for. Each is read in a child of its own, which is ended where
it takes too long or too much memory, and which notes what it opens outside
its folder, whom it calls, and what it starts.

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import functools
import gzip
import itertools
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import torch
import yaml
from hypothesis import strategies as st
from speechbrain.utils.importutils import LazyModule

import speechbrain_ee
from speechbrain_ee.data.manifests import Clip
from speechbrain_ee.data.shards import (
    INDEX,
    Shard,
    ShardIndex,
    ShardReader,
    ShardSource,
    read_index,
)
from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.calibration.policy_file import read_policy
from speechbrain_ee.exits.selector.selector_file import read_selector
from speechbrain_ee.exits.trace_file import read_trace
from speechbrain_ee.files import whole_file
from speechbrain_ee.inference.asr import EarlyExitASR, open_source
from speechbrain_ee.inference.folder.model_folder import read_combination
from speechbrain_ee.inference.folder.training_run import export_run
from speechbrain_ee.inference.onnx.host import read_manifest
from tests.inference.runs import write_run
from tests.soak.killing import forked, status_of

LONGEST_S = 10
MOST_BYTES = 10**9
LONGEST_MESSAGE = 5000
# Where code and its data lie.
READABLE = (
    *{sys.prefix, sys.base_prefix, *sys.path},
    str(Path(speechbrain_ee.__file__).parents[1]),
    *("/usr", "/lib", "/etc", "/proc", "/sys", "/dev/null", "/dev/urandom"),
)
CALLS = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn")
READS_ONLY = os.O_WRONLY | os.O_RDWR

# What a number, a text, a list may be replaced by.
STRANGE = [
    *(None, True, -1, 0, 2, 10**6, 2**63, 10**400, 1e308, 0.5, -0.0),
    *("", "x", "x" * 10**5, "../../etc/passwd", "/dev/zero", "a/b", "\0"),
    *([], {}, [[]], [None], {"": None}, {"class": "SSLEncoder"}),
    *("!!python/object/apply:os.system [ls]", "$(ls)", ";ls;", "owner/name"),
]
TEXTS = [
    *(b"", b"[", b"{", b"]", b'"', b":", b"-", b"\n", b"\0", b"\xff", b" "),
    *(b"NaN", b"Infinity", b"1e999", b"9" * 5000, b"0x" + b"f" * 9000),
    *(b"&a [*a]", b"*a", b"<<: ", b"!!binary ", b"!!timestamp ", b"? "),
    *(b"!new:os.system", b"!apply:os.system [ls]", b"2001-99-99", b"1:1:1"),
    *(b"[" * 3000, b'{"a":' * 3000, b"- " * 3000, b"x" * 10**5),
]


@dataclass(frozen=True)
class Target:
    """A file, and what reads it, or the folder that it is in."""

    file: str
    read: Callable[[Path], Any]
    of_folder: bool = False


def hear(folder: Path) -> None:
    """Open a model and let it transcribe noise."""
    recogniser = EarlyExitASR(open_source(folder))
    noise = 0.1 * torch.randn(8000)
    recogniser.transcribe(noise)
    recogniser.transcribe(noise, policy=1)


def read_shards(folder: Path) -> None:
    """Read the index of a folder of shards, and an utterance of each."""
    source = ShardSource(str(folder))
    index, _ = read_index(source)
    for shard in index.shards:
        clip = Clip(source.url(shard.file), "bytes", 0, shard.bytes, "0")
        ShardReader(source)(clip)


TARGETS = {
    "config": Target("model/config.json", hear, True),
    "weights": Target("model/model.safetensors", hear, True),
    "tokenizer": Target("model/tokenizer.model", hear, True),
    "policy of a model": Target("model/policies/entropy.ltt.yaml", hear, True),
    "hyperparams": Target("run/hyperparams.yaml", hear, True),
    "policy": Target("model/policies/entropy.naive.yaml", read_policy),
    "trace": Target("model/calibration.jsonl.gz", read_trace),
    "selector": Target("model/selector.json.gz", read_selector),
    "combination": Target("model/combination.json", read_combination),
    "graphs": Target("graphs/onnx.json", read_manifest, True),
    "shards": Target("shards/shards.json", read_shards, True),
}
GRAPHS = {
    "schema": "early-exit-onnx/1",
    **{"name": "tiny", "sample_rate": 16000, "exit_layers": [1, 2]},
    **{"vocab_size": 9, "blank_index": 0, "positions": "none"},
    **{"measures": ["entropy"], "frame_s": 0.04, "precisions": ["fp32"]},
    **{"default_policy": None, "hop": 160, "start_macs": [1, 2]},
    "segment_macs": [[1.0, 2.0, 3.0]] * 2,
    "head_macs": [[1.0, 2.0, 3.0]] * 2,
}


def write_all(root: Path) -> Path:
    """A small one of everything that is read."""
    run = write_run(root / "run", exit_layers=[1, 2], number_of_layers=2)
    export_run(run.folder, root / "model")
    for name in ("graphs", "shards"):
        (root / name).mkdir()
    (root / "graphs/onnx.json").write_text(json.dumps(GRAPHS), "utf-8")
    (root / "shards/train.tar").write_bytes(b"x" * 100)
    (root / "shards/train.csv").write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    shards = (Shard("train.tar", 1, 1.0, 100, "0" * 64),)
    index = ShardIndex("0", "train.csv", empty, shards)
    (root / "shards" / INDEX).write_text(index.to_json(), "utf-8")
    return root


# ---- What is changed -------------------------------------------------------


def places(value: Any, at: tuple = ()) -> list[tuple]:
    """Where every part of a value is."""
    pairs: Any = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        pairs = enumerate(value[:50])
    below = (places(each, (*at, key)) for key, each in pairs)
    return [at, *itertools.chain.from_iterable(below)]


def replaced(value: Any, at: tuple, new: Any) -> Any:
    """A value with another part at a place."""
    if not at:
        return new
    copy = value.copy()
    copy[at[0]] = replaced(value[at[0]], at[1:], new)
    return copy


def deep(levels: int) -> list:
    """Lists in lists."""
    return functools.reduce(lambda value, _: [value], range(levels), [])


def changed_bytes(content: bytes) -> st.SearchStrategy[bytes]:
    """A content with a few parts cut, doubled or put in between."""
    place = st.integers(0, len(content))
    edit = st.tuples(place, st.integers(0, 40), st.sampled_from(TEXTS))

    def apply(edits: list[tuple[int, int, bytes]]) -> bytes:
        text = content
        for start, length, new in edits:
            text = text[:start] + new + text[start + length :]
        return text

    return st.lists(edit, min_size=1, max_size=3).map(apply)


def changed_values(
    value: Any, dump: Callable[[Any], str]
) -> st.SearchStrategy[bytes]:
    """The text of a value with a few parts that are something else."""
    edit = st.tuples(
        st.sampled_from(places(value)),
        st.one_of(
            st.sampled_from(STRANGE),
            st.integers(),
            st.floats(),
            st.text(max_size=20),
            st.sampled_from([3, 50, 90]).map(deep),
        ),
    )

    def apply(edits: list[tuple[tuple, Any]]) -> bytes:
        changed = value
        for at, new in edits:
            try:
                changed = replaced(changed, at, new)
            except (KeyError, IndexError, TypeError, AttributeError):
                continue  # an edit before has removed the place
        return dump(changed).encode("utf-8", "surrogatepass")

    return st.lists(edit, min_size=1, max_size=3).map(apply)


def changed(path: Path) -> st.SearchStrategy[bytes]:
    """Contents that a file may have."""
    content = path.read_bytes()
    packed = path.suffix == ".gz"
    text = gzip.decompress(content) if packed else content
    ways = [changed_bytes(text)]
    if path.name == "model.safetensors":
        size = int.from_bytes(text[:8], "little")
        header = json.loads(text[8 : 8 + size])

        def file(new: bytes) -> bytes:
            return len(new).to_bytes(8, "little") + new + text[8 + size :]

        ways += [changed_values(header, json.dumps).map(file)]
    elif path.name.endswith((".json", ".json.gz")):
        ways += [changed_values(json.loads(text), json.dumps)]
    elif path.name.endswith(".jsonl.gz"):
        lines = text.split(b"\n", 2)
        for place in (0, 1):

            def line(new: bytes, place: int = place) -> bytes:
                return b"\n".join((*lines[:place], new, *lines[place + 1 :]))

            value = json.loads(lines[place])
            ways += [changed_values(value, json.dumps).map(line)]
    elif path.parent.name == "policies":
        ways += [changed_values(yaml.safe_load(text), yaml.safe_dump)]
    found = st.one_of(ways)
    if packed:
        return st.one_of(
            found.map(lambda new: gzip.compress(new, 1)),
            changed_bytes(content),
        )
    return found


# ---- How it is watched -----------------------------------------------------


def watched(folder: Path, read: Callable[[], Any]) -> Callable[[], None]:
    """A reader for a child, which must stay in bounds."""

    def run() -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        signal.alarm(LONGEST_S)
        with open("/proc/self/statm", encoding="ascii") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        most = used + 2 * MOST_BYTES  # addresses, not all of which are used
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        wrong: list[str] = []
        sys.addaudithook(lambda event, given: note(event, given, folder, wrong))
        try:
            read()
        except InputError as error:
            if len(str(error)) > LONGEST_MESSAGE:
                wrong.append(f"a message of {len(str(error))} characters")
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if (after - before) * 1024 > MOST_BYTES:
            wrong.append(f"{(after - before) >> 10} MB")
        if wrong:
            raise RuntimeError("; ".join(wrong[:3]))

    return run


def note(event: str, given: tuple, folder: Path, wrong: list[str]) -> None:
    """Note what a reader has no business with."""
    if event.startswith(CALLS):
        wrong.append(f"{event} {str(given)[:100]}")
    if event == "open" and isinstance(given[0], str | bytes):
        path = os.path.abspath(os.fsdecode(given[0]))
        writes = bool(given[2] & READS_ONLY)
        allowed = (str(folder),) if writes else (str(folder), *READABLE)
        if not path.startswith(allowed):
            wrong.append(f"opened {path}")


def _forget_lazy_modules() -> None:
    """Hypothesis asks every module for its file, SpeechBrain's import k2."""
    for name, module in list(sys.modules.items()):
        if isinstance(module, LazyModule):
            del sys.modules[name]


def attacked(
    name: str, root: Path, examples: int, seed: int
) -> tuple[int, str | None]:
    """Change a file of :func:`write_all` so many times, and read it.

    How often it was read, and what went wrong with the smallest content.
    """
    target, count = TARGETS[name], 0
    file, log = root / target.file, root / "log.txt"
    good = file.read_bytes()
    folder = file.parent
    while folder.parent != root:
        folder = folder.parent

    def check(content: bytes) -> None:
        nonlocal count
        count += 1
        file.write_bytes(content)
        log.unlink(missing_ok=True)
        given = folder if target.of_folder else file
        run = watched(folder, lambda: target.read(given))
        status = status_of(forked(run, log))
        if status != 0:
            said = log.read_text("utf-8", "replace") if log.exists() else ""
            raise AssertionError(
                f"status {status}: {said[-3000:]}\n{content[:2000]!r}"
            )

    _forget_lazy_modules()
    test = hypothesis.given(changed(file))(check)
    test = hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(hypothesis.HealthCheck),
    )(hypothesis.seed(seed)(test))
    try:
        test()
    except AssertionError as error:
        return count, str(error)
    finally:
        file.write_bytes(good)
    return count, None


def main() -> int:
    """The command line; 1 if a reader went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=TARGETS, help="one of the files")
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    chosen = parser.parse_args()
    end = time.monotonic() + 60 * chosen.minutes
    names = [chosen.only] if chosen.only else list(TARGETS)
    attacks: dict[str, Any] = {
        name: {"target": name, "seed": chosen.seed, "read": 0, "faults": []}
        for name in names
    }
    with tempfile.TemporaryDirectory() as folder:
        root = write_all(Path(folder).resolve())
        for seed in itertools.count(chosen.seed):
            left = [n for n in names if len(attacks[n]["faults"]) < 3]
            if not left or time.monotonic() >= end:
                break
            for name in left:
                if time.monotonic() < end:
                    read, fault = attacked(name, root, 40, seed)
                    attacks[name]["read"] += read
                    attacks[name]["faults"] += [fault] if fault else []
    text = json.dumps([*attacks.values()], indent=1)
    sys.stdout.write(f"{text}\n")
    if chosen.out is not None:
        with whole_file(chosen.out, text=True) as stream:
            stream.write(f"{text}\n")
    return int(any(each["faults"] for each in attacks.values()))


if __name__ == "__main__":
    sys.exit(main())
