#!/usr/bin/env python3
"""Does an early exit save the time that it saves on paper?

For each model, in one process and one thread:

(a) time by policy over the time of the last exit, against the ratio of their
    multiply-accumulates, at batch 1 and 16: within 5 %;
(b) the default criterion's time over that of one encoder layer: at most 2 %;
(c) time at a policy calibrated to equal word error rate: at least 25 % less
    than the last exit's;
(d) the same decisions after computing all exits: at least 1.5 times slower;
(e) live decisions and transcripts are those that the exit trace predicts, on
    every utterance of every test set, and no layer above an exit runs.

A model is given by the output folder of its training (manifests, traces) and
its inference folder, by default ``model`` in there. Without development data
in it policies are calibrated on every other utterance of the test set, and
measured on the rest.

> python benchmarks/live.py results/digits/joint results/english5h/joint
> python benchmarks/live.py results/digits/joint=exported --parts e

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from environment import add_numbers, describe, parser_of
from live_parts import (
    LEAST_SAVING,
    against_all_exits,
    criterion_overhead,
    decisions,
    time_against_macs,
)

from speechbrain_ee.errors import InputError, exits_on_input_error
from speechbrain_ee.evaluation.calibrate import calibrate_trace
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.exits.trace_file import read_trace
from speechbrain_ee.inference.asr import EarlyExitASR
from speechbrain_ee.inference.bench import write_result
from speechbrain_ee.inference.recordings import Spoken, batches_of, read_spoken

PARTS = "abcde"
GREEDY = "ctc_greedy"
# No more errors than the last exit's on the calibration data, by these.
EQUAL = "wer=+0%"
EQUAL_BY = ("entropy", "plausibility", "unseen_words", "learned")


class Subject:
    """A model with its test sets."""

    def __init__(self, run: Path, folder: Path, decoding: str | None):
        self.run = run
        self.asr = EarlyExitASR.from_hparams(folder, decoding=decoding)
        self.name = self.asr.folder.name
        self.decoding = self.asr.runner.decoding.name
        self.traces = dict(self._traces())
        if not self.traces:
            raise InputError(
                f"{run}: no traces of test sets decoded by {self.decoding} "
                "with their manifests; evaluate the model in this way."
            )

    def _traces(self) -> Any:
        wanted = "greedy" if self.decoding == GREEDY else self.decoding
        for path in sorted((self.run / "traces").glob("*.jsonl.gz")):
            name = path.name.partition(".")[0]
            if name.startswith("dev") or not self._manifest(name).exists():
                continue
            trace = read_trace(path)
            if trace.header.decoding == wanted:
                yield name, trace

    def _manifest(self, name: str) -> Path:
        return self.run / f"{name}.csv"

    def spoken(self, name: str, limit: int | None = None) -> tuple[Spoken, ...]:
        """Utterances of a test set, all of which its trace has."""
        rate = self.asr.sample_rate
        return read_spoken(self._manifest(name), rate, limit)

    def timed(self, limit: int | None) -> tuple[Trace, tuple[Spoken, ...]]:
        """What policies are calibrated on, and the utterances to time."""
        name, trace = next(iter(self.traces.items()))
        if self.asr.folder.calibration is not None:
            return self.asr.folder.calibration, self.spoken(name, limit)
        rest = {record.id for record in trace.records[1::2]}
        spoken = [one for one in self.spoken(name) if one.id in rest]
        step = max(1, len(spoken) // (limit or len(spoken)))
        half = trace.select(range(0, len(trace), 2))
        return half, tuple(spoken[::step][:limit])


def measure(subject: Subject, arguments: argparse.Namespace) -> dict[str, Any]:
    """All parts asked for of one model."""
    asr, parts = subject.asr, arguments.parts
    found: dict[str, Any] = {"decoding": subject.decoding}
    if "e" in parts:
        found["e"] = [
            decisions(asr, trace, subject.spoken(name), arguments.batch_size)
            for name, trace in subject.traces.items()
        ]
    if not set(parts) & set("abcd"):
        return found
    calibration, spoken = subject.timed(arguments.limit)
    policies = {}
    for criterion in EQUAL_BY:
        if criterion == EQUAL_BY[0] or asr.folder.selector is not None:
            equal = calibrate_trace(calibration, criterion, EQUAL, "naive")
            policies[f"equal WER, {criterion}"] = asr.policies.resolve(equal)
    default = policies[f"equal WER, {EQUAL_BY[0]}"]
    if asr.policies.default is not None:
        default = policies["default"] = asr.policies.resolve(None)
    for exit, _ in enumerate(asr.model.exit_layers[:-1], start=1):
        policies[f"exit {exit}"] = asr.policies.resolve(exit)
    times = (arguments.warmup, arguments.repeats)
    found["timed"] = {
        "utterances": len(spoken),
        "calibrated_on": "development set"
        if asr.folder.calibration is not None
        else "every other utterance of the test set",
    }
    if set(parts) & set("ac"):
        rows = time_against_macs(
            asr, policies, spoken, arguments.batch_size, *times
        )
        found["a"] = [row for row in rows if row["policy"] != "last"]
        found["c"] = [_saving(row, rows) for row in rows if _equal(row)]
    if "b" in parts:
        probe = default
        if default.scorer is None or not default.scorer.is_direct:
            probe = policies[f"equal WER, {EQUAL_BY[0]}"]
        found["b"] = [
            criterion_overhead(asr, probe, batches_of(spoken, size))
            for size in arguments.batch_size
        ]
    if "d" in parts:
        found["d"] = [
            against_all_exits(asr, policy, spoken, *times)
            for name, policy in policies.items()
            if policy.scorer is not None
        ]
    return found


def _equal(row: dict[str, Any]) -> bool:
    return row["policy"].startswith("equal WER")


def _saving(row: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    last = next(
        each
        for each in rows
        if each["policy"] == "last" and each["batch_size"] == row["batch_size"]
    )
    return {
        "policy": row["policy"],
        "batch_size": row["batch_size"],
        "wer": row["wer"],
        "wer_last": last["wer"],
        "relative_time": row["relative_time"],
        "saved": round(1 - row["relative_time"], 4),
        "holds": 1 - row["relative_time"] >= LEAST_SAVING,
    }


SHOWN = {
    "a": ("policy", "batch_size", "relative_time", "relative_macs"),
    "b": ("criterion", "batch_size", "decision_us", "share_of_a_layer"),
    "c": ("policy", "batch_size", "wer", "wer_last", "saved"),
    "d": ("policy", "speedup", "same_outputs"),
    "e": ("set", "different", "decisions", "layers_ran_as_predicted"),
}


def lines(name: str, found: dict[str, Any]) -> list[str]:
    """What holds and what does not, a line each."""
    shown = [f"{name} ({found['decoding']})"]
    for part, keys in SHOWN.items():
        for row in found.get(part, ()):
            facts = ", ".join(f"{key} {row[key]}" for key in keys)
            holds = row.get("holds", row.get("time_as_macs"))
            mark = "" if holds else "  <- does not hold"
            shown.append(f"  ({part}) {facts}{mark}")
    return shown


@exits_on_input_error
def main() -> None:
    """Measure, store, print."""
    parser = parser_of(__doc__)
    parser.add_argument(
        "models", nargs="+", metavar="RUN[=FOLDER]", help="see above"
    )
    parser.add_argument("--parts", default=PARTS, help=f"of {PARTS}")
    parser.add_argument("--decoding", help="default: the model's way")
    add_numbers(parser, batch_size=[1, 16], limit=200, warmup=1, repeats=7)
    arguments = parser.parse_args()
    if not arguments.parts or set(arguments.parts) - set(PARTS):
        parser.error(f"--parts {arguments.parts}: give some of {PARTS}")
    torch.set_num_threads(1)
    out = arguments.results / "live.json"
    stored = json.loads(out.read_text()) if out.exists() else {"models": {}}
    for given in arguments.models:
        run, _, folder = given.partition("=")
        subject = Subject(
            Path(run),
            Path(folder) if folder else Path(run) / "model",
            arguments.decoding,
        )
        before = describe()
        found = measure(subject, arguments)
        found["environment"] = {
            **before,
            "load_1min_after": describe()["load_1min"],
        }
        kept = stored["models"].setdefault(subject.name, {})
        # parts that were not asked for stay as they were measured
        for part, value in found.items():
            if part not in ("environment", "decoding"):
                kept[part] = value
                kept.setdefault("environment", {})[part] = found["environment"]
        kept["decoding"] = found["decoding"]
        write_result(out, stored)
        print("\n".join(lines(subject.name, found)))


if __name__ == "__main__":
    main()
