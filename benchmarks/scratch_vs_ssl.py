#!/usr/bin/env python3
"""Is a pre-trained encoder better than a random one, exit by exit?

Fine-tunes one backbone in several ways and trains the same architecture from
random weights, all on the same data, and compares every exit with the same
exit of the run from scratch by a paired bootstrap over speakers. A run that is
finished already is only evaluated again.

> python benchmarks/scratch_vs_ssl.py --label english5h --data_folder=DIR \
>     --source=results/ssl/tiny --precision bf16
> python benchmarks/scratch_vs_ssl.py --label digits --data_folder=DIR \
>     --source=results/ssl/tiny --precision bf16 --output_neurons=32 \
>     --number_of_epochs=6 --dynamic_batching='{max_batch_length: 20}'
> python benchmarks/scratch_vs_ssl.py --label english5h --finished \
>     --source=results/ssl/tiny --beside conformer=results/english5h/joint

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path
from typing import Any

from environment import ROOT, describe, markdown, parser_of, store
from joint_vs_single import paired, train

from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.exits.trace_file import read_trace

SYSTEM = "tiny_ssl"
BASELINE = "scratch"
# By name what train.py is told beside the common options.
RUNS = {
    BASELINE: ["--pretrained=False"],
    "full": [],
    "frozen CNN": ["--freeze_convolutions=True"],
    "frozen": ["--freeze_backbone=True"],
    "frozen, attention heads": [
        "--freeze_backbone=True",
        "--head=self_attention",
    ],
    "two stages": ["--heads_first_epochs=1"],
    "self-distilled": ["--distillation={kind: self}"],
}


def compare(folders: dict[str, Path]) -> dict[str, Any]:
    """All runs on all test sets they share."""
    result: dict[str, Any] = {}
    for path in sorted((folders[BASELINE] / "traces").glob("*.jsonl.gz")):
        base = read_trace(path)
        result[path.name.removesuffix(".jsonl.gz")] = {
            name: _rows(read_trace(folder / "traces" / path.name), base)
            for name, folder in folders.items()
            if (folder / "traces" / path.name).is_file()
        }
    return result


def _rows(trace: Trace, base: Trace) -> list[dict[str, Any]]:
    """Every exit, beside the baseline's exit of the same number."""
    words = trace.words_N.sum()
    same = trace.header.exit_layers == base.header.exit_layers
    rows = []
    for exit, layer in enumerate(trace.header.exit_layers):
        errors_N = trace.errors_NE[:, exit]
        row: dict[str, Any] = {
            "exit": exit + 1,
            "layer": layer,
            "wer": round(100 * float(errors_N.sum() / words), 2),
        }
        if trace.macs_NE is not None:
            row["gmacs"] = round(float(trace.macs_NE[:, exit].mean()) / 1e9, 4)
        if same and trace.source != base.source:
            row |= paired(trace, exit, base, exit)
        rows.append(row)
    return rows


def table(result: dict[str, Any]) -> str:
    """The result as Markdown: runs by line, exits by column."""
    blocks = []
    for name, runs in result.items():
        exits = max(len(rows) for rows in runs.values())
        heading = ["run", *(f"exit {k}" for k in range(1, exits + 1))]
        rows = [[run, *map(_cell, cells)] for run, cells in runs.items()]
        blocks += [f"**{name}**, WER in %", markdown(heading, rows)]
    return "\n\n".join(blocks)


def _cell(row: dict[str, Any]) -> str:
    """WER, in bold where it is surely lower than from scratch."""
    text = f"{row['wer']:.2f}"
    if "interval_95" not in row:
        return text
    low, high = row["interval_95"]
    if high < 0:
        return f"**{text}**"
    return text if low > 0 else f"{text} (?)"


def main() -> None:
    """Train, compare, store."""
    parser = parser_of(__doc__)
    parser.add_argument("--label", required=True, help="name of the data")
    parser.add_argument(
        "--runs", nargs="+", default=["scratch", "full"], choices=list(RUNS)
    )
    parser.add_argument(
        "--beside",
        nargs="+",
        default=[],
        metavar="NAME=FOLDER",
        help="finished runs of other systems on the same data",
    )
    parser.add_argument("--source", required=True, help="the backbone")
    parser.add_argument(
        "--finished",
        action="store_true",
        help="compare finished runs as they are, without evaluating again",
    )
    given, options = parser.parse_known_args()
    source = Path(given.source).resolve()
    options.append(f"--source={source}")
    parent = ROOT / "results" / f"{given.label}_ssl"
    folders, hours = {}, {}
    for name in [BASELINE, *(run for run in given.runs if run != BASELINE)]:
        folders[name] = parent / name.replace(", ", "-").replace(" ", "_")
        if given.finished:
            clock = folders[name] / "seconds.txt"
            taken_s = float(clock.read_text("utf-8"))
        else:
            taken_s = train(SYSTEM, folders[name], [*options, *RUNS[name]])
        hours[name] = round(taken_s / 3600, 2)
    for each in given.beside:
        name, _, folder = each.partition("=")
        folders[name] = Path(folder)
    result = compare(folders)
    store(
        given.results / f"scratch_vs_ssl.{given.label}.json",
        {
            "machine": describe(),
            "hours": hours,
            "backbone": source.name,
            "sets": result,
        },
    )
    print(table(result))


if __name__ == "__main__":
    main()
