#!/usr/bin/env python3
"""Does a jointly trained exit beat a model that has only this exit?

Trains the joint model of a YAML and single-exit models of the same depths,
identically (``train.py`` with ``--exit_layers=[depth]``), and compares the
word errors of each pair on every test set with a paired bootstrap over
speakers. A run that is finished already is only evaluated again.

> python benchmarks/joint_vs_single.py digits --data_folder=DIR
> python benchmarks/joint_vs_single.py english5h --depths 12 --data_folder=DIR
> python benchmarks/joint_vs_single.py digits --depths 6 --label digits-slow \
>     --lr=0.0007 --number_of_epochs=8 --data_folder=DIR

Authors
 * The speechbrain-ee contributors 2026
"""

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from environment import ROOT, describe, markdown, parser_of, store

from speechbrain_ee.evaluation.curves import Bootstrap, Estimate
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.exits.trace_file import read_trace

RECIPE = ROOT / "recipes" / "LibriSpeech" / "EarlyExit"
RESAMPLES = 10_000


def train(system: str, folder: Path, options: list[str]) -> float:
    """Train and evaluate one model in its own process."""
    clock = folder / "seconds.txt"
    start = time.monotonic()
    command = [sys.executable, "train.py", f"hparams/{system}.yaml"]
    subprocess.run(
        [*command, f"--output_folder={folder}", *options],
        cwd=RECIPE,
        check=True,
    )
    if not clock.exists():
        clock.write_text(f"{time.monotonic() - start:.1f}")
    return float(clock.read_text())


def paired(
    first: Trace, exit: int, second: Trace, other: int
) -> dict[str, Any]:
    """WER of an exit minus that of another model's exit."""
    order = {id: row for row, id in enumerate(second.ids)}
    rows = [order[id] for id in first.ids]
    more_N = first.errors_NE[:, exit] - second.errors_NE[rows, other]
    draws = Bootstrap(first, RESAMPLES)
    whole = 100 * more_N.sum() / first.words_N.sum()
    found = Estimate.of(whole, draws.rate(more_N), draws)
    return {
        "difference": round(found.value, 2),
        "interval_95": [round(found.low, 2), round(found.high, 2)],
        "resampled": f"{draws.clusters.count} {draws.clusters.by}s",
    }


def difference(joint: Trace, exit: int, single: Trace) -> dict[str, Any]:
    """WER of a joint exit minus that of the single-exit model."""
    result = paired(joint, exit, single, -1)
    low, high = result["interval_95"]
    if low > 0:
        answer = "no: the single-exit model is better"
    else:
        answer = "yes" if high < 0 else "undecided: the interval holds 0"
    if joint.clusters.caveat:
        answer = f"{answer}. {joint.clusters.caveat}"
    wers = [
        100 * float(errors_N.sum() / joint.words_N.sum())
        for errors_N in (joint.errors_NE[:, exit], single.errors_NE[:, -1])
    ]
    return {
        "joint_wer": round(wers[0], 2),
        "single_wer": round(wers[1], 2),
        **result,
        "joint_beats_single": answer,
    }


def compare(folder: Path, depths: list[int]) -> dict[str, Any]:
    """All depths on all sets that every model has decoded: a model with a
    single exit has nothing to learn from the development set.
    """
    result: dict[str, Any] = {}
    singles = [folder / f"single-{depth}" / "traces" for depth in depths]
    for path in sorted((folder / "joint" / "traces").glob("*.jsonl.gz")):
        if not all((single / path.name).exists() for single in singles):
            continue
        joint = read_trace(path)
        name = path.name.removesuffix(".jsonl.gz")
        layers = list(joint.header.exit_layers)
        result[name] = {
            str(depth): difference(
                joint,
                layers.index(depth),
                read_trace(single / path.name),
            )
            for depth, single in zip(depths, singles)
        }
    return result


def table(result: dict[str, Any]) -> str:
    """The result as a Markdown table."""
    rows = []
    for name, depths in result.items():
        for depth, row in depths.items():
            low, high = row["interval_95"]
            rows.append(
                [
                    name,
                    depth,
                    f"{row['joint_wer']:.2f}",
                    f"{row['single_wer']:.2f}",
                    f"{row['difference']:+.2f} [{low:+.2f}, {high:+.2f}]",
                    re.split("[:.]", row["joint_beats_single"])[0],
                ]
            )
    heading = (
        "set|depth|joint WER %|single-exit WER %|difference, 95 % interval|"
        "joint better?"
    )
    return markdown(heading.split("|"), rows)


def main() -> None:
    """Train, compare, store."""
    parser = parser_of(__doc__)
    parser.add_argument("system", help="name of a YAML in hparams/")
    parser.add_argument("--depths", nargs="+", type=int)
    parser.add_argument("--folder", type=Path, help="output folder")
    parser.add_argument("--label", help="of the result, default: the system")
    arguments, options = parser.parse_known_args()
    text = (ROOT / "hparams" / f"{arguments.system}.yaml").read_text("utf-8")
    layers = next(
        line for line in text.splitlines() if line.startswith("exit_layers:")
    )
    depths = arguments.depths or yaml.safe_load(layers)["exit_layers"]
    label = arguments.label or arguments.system
    folder = arguments.folder or ROOT / "results" / label
    folder = folder.resolve()
    runs = {"joint": options}
    for depth in depths:
        runs[f"single-{depth}"] = [*options, f"--exit_layers=[{depth}]"]
    hours = {
        name: round(train(arguments.system, folder / name, own) / 3600, 3)
        for name, own in runs.items()
    }
    result = compare(folder, depths)
    store(
        arguments.results / f"joint_vs_single.{label}.json",
        {
            "system": arguments.system,
            "options": [o for o in options if "folder" not in o],
            "hours": hours,
            "sets": result,
            "environment": describe(),
        },
    )
    print(table(result))


if __name__ == "__main__":
    main()
