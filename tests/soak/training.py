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

import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tests.soak.killing import (
    KILLED,
    expect,
    forked,
    killed_at_random,
    soak_command,
    status_of,
)
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
LONGEST = 0.7  # of an undisturbed run, that a child lives


def soak(kills: int, seed: int, root: Path, system: str) -> dict[str, Any]:
    """Kill trainings of a YAML at random times; what became of them."""
    began = time.monotonic()
    corpus = write_corpus(root / "corpus")
    log = root / "log.txt"
    whole = trainer(system, corpus, root / "run00")
    expect(status_of(forked(whole, log)), log)
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
            status, longest_s = KILLED, LONGEST * whole_s
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
            expect(status, log)
            behind += left_behind(folder)
            wrong = differences(reference, facts(folder))
            different += [f"{folder.name}: {name}" for name in wrong]
    return {
        "system": system,
        "seed": seed,
        "kills": killed_in.total(),
        "starts": starts,
        "runs": runs,
        "seconds": round(time.monotonic() - began, 1),
        "whole_s": round(whole_s, 1),
        "compared": len(reference),  # files and steps of a run
        "killed_in": dict(killed_in),
        "left_behind": behind,  # temporary files of killed runs
        "differences": different,
    }


if __name__ == "__main__":
    sys.exit(soak_command(soak, system="demo"))
