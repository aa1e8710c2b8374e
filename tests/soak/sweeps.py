"""A sweep whose workers are killed over and over, and one by a lone worker.

    python -m tests.soak.sweeps --kills 50 --out results/soak_sweep.json

Four workers share a study; each is killed at a random moment and replaced by
a new one, until the kills are used up. Every point must have been counted once
and have the numbers and the place on the front that a serial search gives it.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import yaml
from tqdm import tqdm

from speechbrain_ee.__main__ import main as command_line
from speechbrain_ee.sweeps.results import pareto_front, rows_of
from speechbrain_ee.sweeps.study import StudyFolder
from tests.soak.killing import (
    KILLED,
    expect,
    forked,
    killed_at_random,
    soak_command,
    status_of,
)
from tests.sweeps.conftest import BASE, SEARCH

WORKERS = 4
POINTS = 8
EPOCH_S = 0.2  # of two: a training goes on where it was killed
LONGEST_S = 10.0  # that a worker lives
LONGER = 1.1  # with every change of shift, as the machine may be slow
FACTS = ("point", "state", "values", "parameters")


def worker(file: Path, study: Path, epoch_s: float) -> Callable[[], None]:
    """A function that joins a study, for a child."""
    folder = ["--study-folder", str(study)]
    arguments = ["sweep", str(file), *folder, f"--epoch_s={epoch_s}"]
    return lambda: command_line(arguments)


def differences(serial: Path, parallel: Path, points: int) -> list[str]:
    """What a search with kills has that a serial one has not."""
    found = []
    studies = [rows_of(StudyFolder(path)) for path in (serial, parallel)]
    for name, rows in [
        ("rows", studies),
        ("front", [pareto_front(rows) for rows in studies]),
    ]:
        one, other = ([_facts(row) for row in each] for each in rows)
        if one != other:
            found.append(f"{name}: {one} serially, {other} in parallel")
    ended = Counter(
        trial.user_attrs["point"]
        for trial in StudyFolder(parallel).trials()
        if trial.state == optuna.trial.TrialState.COMPLETE
    )
    if ended != dict.fromkeys(range(points), 1):
        found.append(f"points that count: {dict(ended)}")
    return found


def _facts(row: object) -> str:
    return json.dumps([getattr(row, name) for name in FACTS])


def soak(kills: int, seed: int, root: Path) -> dict[str, Any]:
    """Kill workers at random times, in as many studies as it takes."""
    began = time.monotonic()
    (root / "base.yaml").write_text(BASE, "utf-8")
    file = root / "hpopt.yaml"
    search = {**SEARCH, "trials": POINTS, "stale_s": 4}
    file.write_text(yaml.safe_dump(search, sort_keys=False), "utf-8")
    log, serial = root / "log.txt", root / "serial"
    expect(status_of(forked(worker(file, serial, 0.0), log)), log)
    rng = random.Random(seed)
    killed = starts = number = 0
    trials: Counter[str] = Counter()
    different: list[str] = []
    with tqdm(total=kills, unit="kill") as bar:
        while killed < kills:
            number += 1
            study = root / f"study{number}"
            ends = _one_study(worker(file, study, EPOCH_S), rng, log)
            starts += len(ends)
            killed += ends.count(KILLED)
            bar.update(ends.count(KILLED))
            different += differences(serial, study, POINTS)
            told = StudyFolder(study).trials()
            trials.update(trial.state.name for trial in told)
    return {
        "seed": seed,
        "workers": WORKERS,
        "points": POINTS,
        "kills": killed,
        "starts": starts,
        "seconds": round(time.monotonic() - began, 1),
        "trials": dict(trials),
        "differences": different,
    }


def _one_study(
    join: Callable[[], None], rng: random.Random, log: Path
) -> list[int]:
    """How the workers of a study ended; the last ones have finished it."""
    ends: list[int] = []
    longest_s = LONGEST_S
    while KILLED in ends[-WORKERS:] or not ends:
        # Each has a keeper, which kills it and ends as it did.
        keepers = []
        for _ in range(WORKERS):
            own = random.Random(rng.random())

            def keep(
                own: random.Random = own, longest_s: float = longest_s
            ) -> None:
                status = killed_at_random(join, longest_s, own, log)
                sys.exit(abs(status))

            keepers.append(forked(keep, log))
        statuses = [status_of(keeper) for keeper in keepers]
        for status in statuses:
            if status not in (0, -KILLED):
                expect(status, log)
        longest_s *= LONGER
        ends += [KILLED if status else 0 for status in statuses]
    return ends


if __name__ == "__main__":
    sys.exit(soak_command(soak))
