"""A training that is killed over and over, and one that is not.

    python -m tests.soak.training --kills 50 --out results/soak.json

A miniature of a recipe is trained and evaluated once in peace. Then it is
started again and again in another folder, killed each time at a random
moment, until it has come to its end; and so on in further folders until the
kills are used up. Whatever the kills hit (data preparation, tokenizer,
training, checkpoints, evaluation, export), all files must be the same.

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tqdm import tqdm

from speechbrain_ee.files import whole_file
from tests.soak.killing import KILLED, forked, killed_at_random, status_of
from tests.soak.runs import (
    differences,
    facts,
    left_behind,
    stage,
    trainer,
    write_corpus,
)

# By what a life may be longer than the one before: evaluation is done in one
# go, and the machine may have become slower.
LONGER = 1.05


@dataclass(frozen=True)
class Soak:
    """What became of a soak.

    Arguments
    ---------
    system : str
        The recipe's YAML.
    seed : int
        Of the kills.
    kills, starts, runs : int
        Children that were killed, that were started, and trainings that came
        to their end.
    seconds : float
        All of it.
    whole_s : float
        The training in peace.
    compared : int
        Facts of a run that were compared: files, steps.
    killed_in : dict of str to int
        What was going on.
    left_behind : int
        Temporary files of killed runs that are still there.
    differences : list of str
        Files that were not the same; empty if nothing was lost.
    """

    system: str
    seed: int
    kills: int
    starts: int
    runs: int
    seconds: float
    whole_s: float
    compared: int
    killed_in: dict[str, int]
    left_behind: int
    differences: list[str] = field(default_factory=list)


def soak(
    system: str, kills: int, seed: int, root: Path, longest_share: float = 0.7
) -> Soak:
    """Kill trainings at random times.

    Arguments
    ---------
    system : str
        Name of the YAML.
    kills : int
        How many at least.
    seed : int
        Of the times.
    root : Path
        An empty folder.
    longest_share : float
        A child lives for up to this share of an undisturbed run.

    Returns
    -------
    Soak

    Raises
    ------
    RuntimeError
        If a run ends in an error.
    """
    began = time.monotonic()
    corpus = write_corpus(root / "corpus")
    log = root / "log.txt"
    whole = trainer(system, corpus, root / "run00")
    _expect(status_of(forked(whole, log)), log)
    whole_s = time.monotonic() - began
    reference = facts(root / "run00")
    rng = random.Random(seed)
    killed_in: Counter[str] = Counter()
    starts = runs = behind = 0
    different: list[str] = []
    with tqdm(total=kills, unit="kill") as bar:
        while killed_in.total() < kills:
            runs += 1
            folder = root / f"run{runs:02d}"
            train = trainer(system, corpus, folder)
            status, longest_s = KILLED, longest_share * whole_s
            while status == KILLED:
                starts += 1
                if killed_in.total() >= kills:
                    status = status_of(forked(train, log))
                    break
                status = killed_at_random(train, longest_s, rng, log)
                longest_s *= LONGER
                if status == KILLED:
                    killed_in[stage(folder)] += 1
                    bar.update()
            _expect(status, log)
            behind += left_behind(folder)
            wrong = differences(reference, facts(folder))
            different += [f"{folder.name}: {name}" for name in wrong]
    return Soak(
        system=system,
        seed=seed,
        kills=killed_in.total(),
        starts=starts,
        runs=runs,
        seconds=round(time.monotonic() - began, 1),
        whole_s=round(whole_s, 1),
        compared=len(reference),
        killed_in=dict(killed_in),
        left_behind=behind,
        differences=different,
    )


def _expect(status: int, log: Path) -> None:
    if status != 0:
        tail = log.read_text("utf-8", errors="replace")[-3000:]
        raise RuntimeError(f"A run ended with status {status}:\n{tail}")


def main() -> int:
    """The command line; 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--system", default="demo", help="YAML, %(default)s")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = soak(chosen.system, chosen.kills, chosen.seed, Path(folder))
    text = json.dumps(asdict(result), indent=1)
    sys.stdout.write(f"{text}\n")
    if chosen.out is not None:
        with whole_file(chosen.out) as stream:
            stream.write(f"{text}\n".encode())
    return int(bool(result.differences))


if __name__ == "__main__":
    sys.exit(main())
