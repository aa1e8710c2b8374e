"""Writers of folders that are killed between any two steps.

    python -m tests.soak.replacing --kills 50 --out results/replacing.json

Every function that replaces a folder does so in a child that is killed, or
interrupted, right before one of its changes of the disk. Whoever looks then
must find the old folder or the new one, whole; and the next writer must leave
nothing beside it.

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import hashlib
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tqdm import tqdm

from speechbrain_ee import files
from speechbrain_ee.data.demo import build_demo_corpus
from speechbrain_ee.errors import InputError
from speechbrain_ee.files import restore, whole_file, whole_folder
from speechbrain_ee.inference.folder.model_folder import (
    ModelFolder,
    write_model_folder,
)
from speechbrain_ee.inference.folder.training_run import run_folder
from speechbrain_ee.inference.onnx.export import export_onnx, export_static
from tests.inference.runs import write_run
from tests.soak.killing import (
    CRASHED,
    KILLED,
    Change,
    die,
    forked,
    note_changes,
    status_of,
)

# Writes one of two contents, 0 or 1, to a folder.
Writer = Callable[[Path, int], object]


@dataclass(frozen=True)
class Replaced:
    """What became of the folders of a writer."""

    writer: str
    seed: int  # of the kills
    steps: int  # changes of the disk that it makes
    ends: dict[str, int]  # how often it was killed, interrupted, or ended
    found: dict[str, int]  # how often the old and the new folder was there
    lost: list[str] = field(default_factory=list)  # where neither was


def plain(folder: Path, content: int) -> None:
    """Replace a folder by three files."""
    with whole_folder(folder, lambda _: None) as new:
        for name in ("a", "b", "deep/c"):
            with whole_file(new / name, text=True) as stream:
                stream.write(f"{name}{content}")


def in_two_steps(folder: Path, content: int) -> None:
    """The same on a file system that cannot exchange two names."""
    files._exchange = lambda *_: False  # of this child alone
    plain(folder, content)


def interrupt() -> None:
    """What Ctrl-C does."""
    raise KeyboardInterrupt


def digest(folder: Path) -> str | None:
    """What a folder holds; None if it is not there."""
    restore(folder)  # as everybody does who reads
    if not folder.is_dir():
        return None
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.update(f"{path.relative_to(folder)}\n".encode())
            found.update(path.read_bytes())
    return found.hexdigest()


def killed(
    name: str, write: Writer, root: Path, kills: int, seed: int
) -> Replaced:
    """Kill a writer before so many steps that are drawn; 0: before each."""
    whole = [root / "whole" / each / "folder" for each in ("old", "new")]
    log, count = root / "log.txt", root / "count"

    def peacefully() -> None:
        seen = note_changes(whole[1].parent)
        write(whole[1], 0)
        del seen[:]
        write(whole[1], 1)
        count.write_text(str(len(seen)), "utf-8")

    for child in (lambda: write(whole[0], 0), peacefully):
        if status_of(forked(child, log)) != 0:
            raise RuntimeError(f"{name}:\n{log.read_text('utf-8')[-3000:]}")
    old, new = map(digest, whole)
    steps, rng = int(count.read_text("utf-8")), random.Random(seed)
    # Behind the last one, the writer comes to its end.
    plan = [rng.randint(1, steps + 1) for _ in range(kills)]
    plan = plan or list(range(1, steps + 2))
    ends, found, lost = Counter(), Counter(), []
    for number, step in enumerate(tqdm(plan, desc=name, unit="kill", delay=5)):
        place = root / f"kill{number}"
        target = place / "folder"
        shutil.copytree(whole[0], target)
        then = rng.choice((die, interrupt))

        def run(
            target: Path = target, step: int = step, then: Callable = then
        ) -> None:
            note_changes(target.parent, Change(".", step), then)
            write(target, 1)

        end = status_of(forked(run, log))
        ends[_ENDS.get(end, f"status {end}")] += 1
        there = {old: "old", new: "new"}.get(digest(target), "neither")
        found[there] += 1
        if there == "neither":
            lost.append(f"before step {step} by {then.__name__}")
        status_of(forked(lambda target=target: write(target, 1), log))
        left = sorted(path.name for path in place.iterdir())
        if digest(target) != new or left != [target.name]:
            lost.append(f"step {step}: the next writer left {left}")
        shutil.rmtree(place)
    return Replaced(name, seed, steps, dict(ends), dict(found), lost)


_ENDS = {KILLED: "killed", CRASHED: "interrupted", 0: "ended"}


def of_model(folder: ModelFolder) -> Writer:
    """Writes a model folder with one of two cards."""
    return lambda path, one: write_model_folder(
        path, folder, ("old", "new")[one]
    )


def writers(root: Path) -> Iterator[tuple[str, Writer]]:
    """Every function that replaces a folder, where its packages are there."""
    run = write_run(root / "run", exit_layers=[2], number_of_layers=2)
    folder = run_folder(run.folder)
    yield "whole_folder", plain
    yield "whole_folder, in two steps", in_two_steps
    yield "write_model_folder", of_model(folder)
    others: dict[str, Writer] = {
        "export_onnx": lambda path, one: export_onnx(folder, path, bool(one)),
        "export_static": lambda path, one: export_static(
            folder, path, int8=bool(one)
        ),
        "build_demo_corpus": lambda path, one: build_demo_corpus(
            path, one + 1, 1e-3, False
        ),
    }
    for name, write in others.items():
        try:
            write(root / name, 0)
        except InputError as error:
            sys.stderr.write(f"left out: {error}\n")
        else:
            yield name, write


def main() -> int:
    """The command line; 1 if a folder was lost."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50, help="of each writer")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = []
        for number, (name, write) in enumerate(writers(Path(folder))):
            root = Path(folder) / str(number)
            root.mkdir()
            found = killed(name, write, root, chosen.kills, chosen.seed)
            results.append(asdict(found))
            text = json.dumps(results, indent=1)
            if chosen.out is not None:  # what is done is not lost
                with whole_file(chosen.out, text=True) as stream:
                    stream.write(f"{text}\n")
    sys.stdout.write(f"{text}\n")
    return int(any(result["lost"] for result in results))


if __name__ == "__main__":
    sys.exit(main())
