"""Trainings that are killed at planned places, each in a child of its own.

    python -m tests.soak.planned CORPUS FOLDER

Trains once in peace in ``FOLDER/whole``, and in ``FOLDER/parts`` with a kill
at every one of the ``KILLS``; then again in ``FOLDER/whole``, where nothing is
left to do. Writes what each start ended with to ``FOLDER/ends.json``.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import shutil
import sys
from pathlib import Path

import matplotlib.backends.backend_pdf  # noqa: F401 once for all children

from tests.soak.killing import Change, forked, status_of
from tests.soak.runs import Kill, trainer

# In the order in which a run gets there.
KILLS = (
    Kill(Change(r"os.rename .*/\.dev-clean\.csv")),
    Kill(Change(r"os.rename .*_bpe\.model")),
    Kill(step=(1, 3)),
    Kill(Change(r"brain\.ckpt")),
    Kill(Change(r"train_log\.txt")),
    Kill(Change(r"train_log\.txt", later=1)),
    Kill(step=(2, 2), interrupt=True),
    Kill(half_file=2),
    Kill(Change(r"os.remove model\.ckpt")),
    Kill(step=(3, 1)),
    Kill(Change(r"os.rename .*/\.test-clean\.jsonl")),
    Kill(Change(r"os.rename .*/\.model\.[0-9a-f]{16}\.new$")),
)


def main(corpus: Path, folder: Path) -> None:
    """All starts, one after the other."""
    whole, parts = folder / "whole", folder / "parts"
    starts = [(whole, None), *((parts, kill) for kill in KILLS)]
    starts += [(parts, None), (whole, None)]
    ends = []
    for number, (output, kill) in enumerate(starts):
        if number == len(starts) - 1:
            shutil.copytree(whole, folder / "first")
        log = folder / f"log{number:02d}.txt"
        train = trainer("demo", corpus, output, kill)
        ends.append(status_of(forked(train, log)))
    (folder / "ends.json").write_text(json.dumps(ends), "utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
