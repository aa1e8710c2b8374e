"""Does the contributed recipe reach the error rates of this project's?

Trains both on one corpus, the contributed one in a copy of the installed
SpeechBrain, and prints the table of the contribution's README. A run that is
finished already is only evaluated again. Further options go to both train.py.

> python -m upstream.measure digits --data_folder=DIR --out=results/upstream

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speechbrain_ee.evaluation.curves import Bootstrap, Estimate
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.exits.trace_file import read_trace
from upstream.checkout import merged, overrides_like
from upstream.gates import RECIPE, ROOT

RESAMPLES = 10_000


def main() -> None:
    """Train, compare, print."""
    parser = argparse.ArgumentParser(prog="python -m upstream.measure")
    parser.add_argument("system", choices=("demo", "digits"))
    parser.add_argument("--data_folder", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    arguments, further = parser.parse_known_args()
    system, data = arguments.system, arguments.data_folder.resolve()
    out = arguments.out.resolve() / system
    ours, contributed = out / "ours", out / "contributed"
    options = {"data_folder": data, "output_folder": ours}
    recipe = ROOT / "recipes/LibriSpeech/EarlyExit"
    run(recipe, system, options, further, ROOT)
    shutil.rmtree(out / "checkout", ignore_errors=True)
    checkout = merged(out / "checkout")
    options = {
        **overrides_like(system),
        "data_folder": data,
        "output_folder": contributed,
    }
    tests = options["test_splits"]
    options["valid_csv"] = f"{contributed}/{options['dev_splits'][0]}.csv"
    options["test_csv"] = [f"{contributed}/{name}.csv" for name in tests]
    recipe = checkout / RECIPE
    run(recipe, "conformer_ctc", options, further, checkout, ROOT)
    for name in tests:
        traces = [
            read_trace(out / each / f"traces/{name}.jsonl.gz")
            for each in ("ours", "contributed")
        ]
        sys.stdout.write(table(system, name, *traces))


def run(
    folder: Path,
    system: str,
    options: Mapping[str, Any],
    further: Sequence[str],
    *paths: Path,
) -> None:
    """Run a train.py from its folder."""
    flags = [f"--{key}={as_flag(value)}" for key, value in options.items()]
    command = ["train.py", f"hparams/{system}.yaml", *flags, *further]
    subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        check=True,
    )


def as_flag(value: object) -> str:
    """A value as YAML writes it on a command line."""
    if value is None or isinstance(value, bool | list | dict):
        return json.dumps(value)
    return str(value)


def table(system: str, name: str, ours: Trace, contributed: Trace) -> str:
    """Rows: error rates of both by exit, and the interval of the difference."""
    order = {id: row for row, id in enumerate(ours.ids)}
    rows = [order[id] for id in contributed.ids]
    draws = Bootstrap(contributed, RESAMPLES)
    words = contributed.words_N.sum()
    lines = ["", f"| {system}, {name}: layer | this recipe | speechbrain-ee |"]
    lines[-1] += " difference, 95 % interval |"
    lines.append("|---|---|---|---|")
    for place, layer in enumerate(contributed.layers_E):
        mine_N, other_N = (
            contributed.errors_NE[:, place],
            ours.errors_NE[rows, place],
        )
        more_N = mine_N - other_N
        whole = 100 * more_N.sum() / words
        found = Estimate.of(whole, draws.rate(more_N), draws)
        lines.append(
            f"| {layer} | {100 * mine_N.sum() / words:.2f} "
            f"| {100 * other_N.sum() / words:.2f} | {found.value:+.2f} "
            f"[{found.low:+.2f}, {found.high:+.2f}] |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
