#!/usr/bin/env python3
"""What does each way of decoding give at each exit, and when may one stop?

Reads the traces of finished runs of train.py whose YAML lists several
`decodings`, one run per FOLDER, for example shared and separate decoders.
For every test set: word error rates and multiply-accumulates (MACs) by exit
and decoding; at the last exit, paired bootstraps over speakers of joint
decoding and of rescoring against greedy CTC; and for the first decoding of
the YAML, what choosing exits costs by evidence of the CTC head and by
evidence of the attention head, which needs a search at every exit passed.

> python benchmarks/decodings.py digits_aed --label digits \
>     results/digits_aed/shared results/digits_aed/separate

Thresholds are read off the test set's own curve, as in the literature; the
last columns take the one that held 5 % more errors on the development set.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from environment import describe, markdown, parser_of, store
from hyperpyyaml import load_hyperpyyaml
from joint_vs_single import difference

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.analysis import (
    SetAnalysis,
    analyse_all,
    available_criteria,
    scored_for,
)
from speechbrain_ee.evaluation.calibrate import calibrate_trace
from speechbrain_ee.evaluation.curves import LEVELS, OperatingPoint, Result
from speechbrain_ee.exits.calibration.policy_file import ExitPolicy, read_policy
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.decoding import DECODINGS, GREEDY
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.exits.trace_file import read_trace

SHOWN = ("equal_wer", "plus_5")
SUFFIX = ".jsonl.gz"
BUDGET = "wer=+5%"


def traces_of(folder: Path) -> dict[str, dict[str, Trace]]:
    """Traces of a run by test set and decoding, the main decoding first."""
    found: dict[str, dict[str, Trace]] = {}
    for path in sorted((folder / "traces").glob(f"*{SUFFIX}")):
        name, _, decoding = path.name.removesuffix(SUFFIX).rpartition(".")
        if decoding in DECODINGS:
            found.setdefault(name, {})[decoding] = read_trace(path)
    if not found:
        raise InputError(
            f"{folder}: no test set with traces of several decodings; run "
            "train.py with, for example, --decodings='[joint, ctc_greedy]'."
        )
    for name, others in found.items():
        main = read_trace(folder / "traces" / f"{name}{SUFFIX}")
        decoding = main.header.decoding
        key = GREEDY if decoding == "greedy" else decoding
        found[name] = {key: main, **others}
    return found


def by_exit(trace: Trace) -> list[dict[str, Any]]:
    """Word error rate and cost of a decoding at every exit."""
    wer_E = 100 * trace.errors_NE.sum(axis=0) / trace.words_N.sum()
    macs_NE, decoding_NE = trace.macs_NE, trace.decoding_macs_NE
    rows = []
    for place, wer in enumerate(wer_E.tolist()):
        total = None if macs_NE is None else float(macs_NE[:, place].mean())
        # greedy decoding costs nothing, and its traces say nothing of it
        own = 0.0
        if decoding_NE is not None:
            own = float(decoding_NE[:, place].mean())
        rows.append({"wer": round(wer, 4), "macs": total, "decoding_macs": own})
    return rows


def tests(traces: dict[str, Trace]) -> dict[str, dict[str, Any]]:
    """Paired bootstraps at the last exit against greedy CTC."""
    found = {}
    for name in ("joint", "rescoring"):
        if {name, GREEDY} <= traces.keys():
            found[f"{name} - {GREEDY}"] = pair(traces[name], traces[GREEDY])
    return found


def pair(first: Trace, second: Trace) -> dict[str, Any]:
    """WER of a trace's last exit minus that of another trace's."""
    result = difference(first, len(first.layers_E) - 1, second)
    low, high = result["interval_95"]
    answer = "undecided"
    if low > 0 or high < 0:
        answer = "better" if high < 0 else "worse"
    return {
        "wers": [result["joint_wer"], result["single_wer"]],
        "difference": result["difference"],
        "interval_95": [low, high],
        "resampled": result["resampled"],
        "answer": answer,
    }


def parameters(folder: Path, trace: Trace) -> dict[str, Any]:
    """Parameters of the multi-exit model, and cut behind each exit."""
    text = (folder / "hyperparams.yaml").read_text("utf-8")
    # neither is wanted here, and both write into the folder
    unused = {"checkpointer": None, "train_logger": None}
    model = load_hyperpyyaml(text, unused)["model"]
    return {
        "model": sum(p.numel() for p in model.parameters()),
        "by_exit": trace.header.parameters,
    }


def policies_of(
    folder: Path, trace: Trace
) -> tuple[list[ExitPolicy], list[Path]]:
    """The run's policies, one for every criterion of a trace, and the files.

    The files are those of the first policies.
    """
    files = sorted((folder / "save/policies").glob("learned.*.yaml"))
    policies = [read_policy(path) for path in files]
    path = folder / "traces" / f"dev{SUFFIX}"
    if path.exists():
        dev = read_trace(path)
        if dev.header.decoding != trace.header.decoding:
            logging.warning("%s: another decoding; thresholds left out", path)
            return [], []
        policies += [
            calibrate_trace(dev, found.name, BUDGET, "naive")
            for found in available_criteria(trace)
            if found.name != "learned" and found.available(dev.evidence.names)
        ]
    return policies, files


def selection(folder: Path, trace: Trace) -> dict[str, Any]:
    """What every way of choosing exits needs on a test set."""
    policies, files = policies_of(folder, trace)
    for path, policy in zip(files, policies):
        (trace,) = scored_for([trace], path, policy)
    (analysis,) = analyse_all([trace], policies).values()
    rows = {"mixture": levels(analysis.mixture, analysis.wer[-1])}
    for result in analysis.ranked():
        rows[result.name] = levels(result, analysis.wer[-1])
        decodes = get_criterion(result.name).decodes
        rows[result.name]["evidence"] = "attention" if decodes else "CTC"
    rows["oracle"] = levels(analysis.oracle, analysis.wer[-1])
    last = analysis.fixed.curve.points[-1]
    return {
        "decoding": trace.header.decoding,
        "last_exit": point(last) | {"wer": round(last.wer, 3)},
        "rows": rows,
        "policies": applied(analysis),
    }


def levels(result: Result, last_wer: float) -> dict[str, Any]:
    """Cheapest point at each level, and the least MACs of any point."""
    found: dict[str, Any] = {}
    for level in SHOWN:
        chosen = result.points[level]
        if chosen is None:
            found[level] = None
            continue
        found[level] = point(chosen)
        limit = LEVELS[level] * last_wer
        cheap = result.curve.cheapest(limit, "avg_macs")
        if chosen.threshold is not None and chosen.avg_macs is not None:
            found[level]["least_macs"] = min(cheap.avg_macs, chosen.avg_macs)
        ends = result.layer_intervals.get(level)
        found[level]["interval_95"] = ends and [round(v, 3) for v in ends]
    return found


def point(found: OperatingPoint) -> dict[str, Any]:
    """Cost of an operating point."""
    return {"layers": round(found.avg_layer, 3), "macs": found.avg_macs}


def applied(analysis: SetAnalysis) -> list[dict[str, Any]]:
    """Given policies on the test set."""
    return [
        point(one.point)
        | {
            "criterion": one.criterion,
            "policy": one.name,
            "wer": round(one.point.wer, 3),
            "above_last_percent": one.excess and round(one.excess, 2),
        }
        for one in analysis.policies
    ]


def compare(folders: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """All runs on all their test sets; by set, then by run."""
    every = {folder.name: traces_of(folder) for folder in folders}
    if len(every) < len(folders):
        raise InputError("FOLDER: two have the same last part; rename one.")
    sets: dict[str, dict[str, Any]] = {}
    for folder in folders:
        for name, traces in every[folder.name].items():
            main = next(iter(traces.values()))
            order = [d for d in DECODINGS if d in traces]
            run = {
                "utterances": len(main),
                "exit_layers": main.header.exit_layers,
                "parameters": parameters(folder, main),
                "exits": {d: by_exit(traces[d]) for d in order},
                "last_exit": tests(traces),
                "selection": selection(folder, main),
            }
            sets.setdefault(name, {"runs": {}})["runs"][folder.name] = run
    first, *others = every
    for name, found in sets.items():
        found["between_runs"] = {
            f"{decoding}: {first} - {other}": pair(
                every[first][name][decoding], every[other][name][decoding]
            )
            for other in others
            for decoding in DECODINGS
            if all(decoding in every[r].get(name, ()) for r in (first, other))
        }
    return sets


def exit_tables(runs: dict[str, dict[str, Any]]) -> list[str]:
    """Word error rates of all runs side by side, and their MACs."""
    heading = ["layer"]
    for name, run in runs.items():
        columns = ["M parameters", *run["exits"]]
        heading += [f"{name}: {column}" for column in columns]
    wers, macs = [], []
    for place, layer in enumerate(next(iter(runs.values()))["exit_layers"]):
        wers.append([layer])
        macs.append([layer])
        for run in runs.values():
            counts = run["parameters"]["by_exit"]
            count = f"{counts[place] / 1e6:.2f}" if counts else ""
            found = [rows[place] for rows in run["exits"].values()]
            wers[-1] += [count, *(f"{one['wer']:.2f}" for one in found)]
            macs[-1] += [count] + [
                f"{giga(one['decoding_macs'])} / {giga(one['macs'])}"
                for one in found
            ]
    titles = {"WER %": wers, "GMAC of decoding / of all": macs}
    return [f"{t}\n\n{markdown(heading, rows)}" for t, rows in titles.items()]


def test_table(found: dict[str, dict[str, Any]]) -> str:
    """The bootstraps as a Markdown table."""
    rows = []
    for name, row in found.items():
        (first, second), (low, high) = row["wers"], row["interval_95"]
        change = f"{row['difference']:+.2f} [{low:+.2f}, {high:+.2f}]"
        rows.append([name, f"{first:.2f}, {second:.2f}", change, row["answer"]])
    heading = ["last exit", "WER %", "difference, 95 % interval", ""]
    return markdown(heading, rows)


def selection_table(name: str, found: dict[str, Any]) -> str:
    """Layers and MACs by criterion, as Markdown."""
    last = found["last_exit"]
    on_dev = {one["criterion"]: one for one in found["policies"]}
    rows = []
    for label, row in found["rows"].items():
        one = on_dev.get(label)
        above = one and one["above_last_percent"]
        rows.append(
            [row.get("evidence", ""), label]
            + [cell for level in SHOWN for cell in cells(row[level])]
            + [*cells(one), "" if above is None else f"{above:+.1f} %"]
        )
    heading = (
        "evidence|criterion|layers, same WER|GMAC|layers, +5 %|GMAC|"
        "with dev's threshold: layers|GMAC|WER over last"
    )
    return (
        f"{name}, {found['decoding']}: last exit {last['layers']:g} layers, "
        f"{giga(last['macs'])} GMAC, WER {last['wer']:.2f} %\n\n"
        + markdown(heading.split("|"), rows)
    )


def cells(row: dict[str, Any] | None) -> list[str]:
    """Layers and MACs of a point as table cells."""
    if row is None:
        return ["", ""]
    return [f"{row['layers']:.2f}", giga(row["macs"])]


def giga(macs: float | None) -> str:
    """MACs in units of 10^9."""
    return "" if macs is None else f"{macs / 1e9:.3f}"


def main() -> None:
    """Read, compare, store, print."""
    parser = parser_of(__doc__)
    parser.add_argument("system", help="name of a YAML in hparams/")
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--label", help="of the result, default: the system")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    sets = compare(arguments.folders)
    label = arguments.label or arguments.system
    result = {"system": arguments.system, "sets": sets}
    store(
        arguments.results / f"decodings.{label}.json",
        result | {"environment": describe()},
    )
    for name, found in sets.items():
        runs = found["runs"]
        blocks = [f"## {label}, {name}", *exit_tables(runs)]
        for run, row in runs.items():
            count = row["parameters"]["model"] / 1e6
            blocks.append(f"{run}: {count:.2f} M parameters, all exits")
            blocks.append(test_table(row["last_exit"]))
            blocks.append(selection_table(run, row["selection"]))
        if found["between_runs"]:
            blocks.append(test_table(found["between_runs"]))
        print("\n\n".join(blocks))


if __name__ == "__main__":
    main()
