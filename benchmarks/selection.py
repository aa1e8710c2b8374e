#!/usr/bin/env python3
"""How many layers does each way of choosing exits need?

Reads exit traces and prints, for every test set and criterion, the average
layers at the last exit's word error rate and at 1, 5 and 10 % more. What is
fitted to data (the character n-gram model, means of z-scores, thresholds per
exit, the learned selector) is cross-fitted: no speaker is scored by a model
that saw the same speaker. A single threshold is read off the curve of the
test set itself, as in the literature; the last columns show what the learned
selector does when its threshold, too, comes from other speakers.

> python benchmarks/selection.py --trace FILE --label NAME [--texts FILE]

``--texts`` adds training transcripts, one per line, and ``--words`` a list
of words, one per line with an optional count, to what is known of spelling.

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
from environment import describe, parser_of, store
from numpy.typing import NDArray
from selection_fits import LEVELS, ablations, learned, per_exit, with_texts

from speechbrain_ee.evaluation.analysis import (
    SetAnalysis,
    analyse,
    available_criteria,
)
from speechbrain_ee.evaluation.curves import Result, measure
from speechbrain_ee.evaluation.report import write_report
from speechbrain_ee.evaluation.tables import aligned
from speechbrain_ee.exits.trace_file import read_trace


def row(result: Result) -> dict[str, Any]:
    """Layers and gap shares of a result at every level."""
    return {
        level: None if point is None else round(point.avg_layer, 3)
        for level, point in result.points.items()
    } | {
        "interval_95": {
            level: [round(v, 2) for v in ends]
            for level, ends in result.layer_intervals.items()
        },
        "gap_closed": {
            level: None if share is None else round(share, 3)
            for level, share in result.gap_shares.items()
        },
    }


def of_set(
    analysis: SetAnalysis,
    folds: int,
    choices: dict[str, NDArray[np.int64]],
    others: dict[str, NDArray[np.float64]],
) -> dict[str, Any]:
    """Everything about one set."""
    trace = analysis.trace
    rows = {"mixture": row(analysis.mixture)}
    rows |= {name: row(r) for name, r in analysis.criteria.items()}
    for found in available_criteria(trace):
        if found.name != "learned":
            scores_NE = found.scores(trace.evidence)
            rows[found.name]["per_exit"] = {
                level: round(layers, 3)
                for level, layers in per_exit(trace, scores_NE, folds).items()
            }
    for name, scores_NE in others.items():
        view = analyse(trace.with_evidence("learned", scores_NE))
        rows[name] = row(view.criteria["learned"])
    rows["oracle"] = row(analysis.oracle)
    calibrated = {}
    for level, choice_N in choices.items():
        point = measure(trace, choice_N)
        calibrated[level] = {
            "layers": round(point.avg_layer, 3),
            "above_last_percent": round(analysis.excess(point.wer) or 0.0, 2),
        }
    return {
        "utterances": len(trace),
        "speakers": trace.clusters.count,
        "wer": [round(value, 3) for value in analysis.wer],
        "rows": rows,
        "learned_thresholds_of_other_speakers": calibrated,
    }


def table(name: str, result: dict[str, Any]) -> str:
    """A set's rows as text, best at +5 % first."""
    head = [name, "equal", "+1 %", "+5 %", "+10 %", "gap % at equal"]
    lines = [[*head, "per exit", "+1 %", "+5 %"]]
    order = sorted(
        result["rows"].items(), key=lambda item: item[1]["plus_5"] or np.inf
    )
    for label, cells in order:
        share = cells["gap_closed"].get("equal_wer")
        own = cells.get("per_exit", {})
        numbers = [cells[level] for level in LEVELS]
        numbers += [None if share is None else 100 * share]
        numbers += [own.get(n) for n in ("equal_wer", "plus_1", "plus_5")]
        lines.append(
            [label, *("" if n is None else f"{n:.2f}" for n in numbers)]
        )
    return aligned(lines)


def spelling(arguments: argparse.Namespace) -> list[str]:
    """Texts to learn spelling from: transcripts, and words by their count."""
    texts = []
    for path in arguments.texts:
        texts += path.read_text(encoding="utf-8").splitlines()
    for path in arguments.words:
        for line in path.read_text(encoding="utf-8").splitlines():
            word, _, count = line.partition("\t")
            texts += [word] * int(count or 1)
    return texts


def main() -> None:
    """Measure, print, store."""
    parser = parser_of(__doc__)
    parser.add_argument("--trace", type=Path, required=True)
    parser.add_argument("--label", required=True, help="name of the result")
    parser.add_argument("--texts", type=Path, nargs="*", default=[])
    parser.add_argument("--words", type=Path, nargs="*", default=[])
    parser.add_argument(
        "--no-references",
        action="store_true",
        help="learn no spelling from the references of other speakers",
    )
    parser.add_argument(
        "--speakers-from-ids",
        action="store_true",
        help="the trace names no speakers; its utterances are named as in "
        "LibriSpeech",
    )
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument(
        "--ablations",
        action="store_true",
        help="also selectors that see less (three times as long)",
    )
    parser.add_argument(
        "--report", type=Path, help="also write a report into this folder"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    texts = spelling(arguments)
    references = not arguments.no_references
    started = time.perf_counter()
    output: dict[str, Any] = {"sets": {}}
    trace = read_trace(arguments.trace)
    if arguments.speakers_from_ids:
        trace = trace.with_speakers_from_ids()
    trace.score()
    if trace.evidence.hyps is not None:
        trace = with_texts(trace, texts, references, arguments.folds)
    found, shares = learned(trace, texts, references, arguments.folds)
    less = {}
    if arguments.ablations:
        less = ablations(trace, texts, references, arguments.folds)
    trace = trace.with_evidence("learned", found.pop("scores"))
    output["explanation"] = {n: round(s, 3) for n, s in shares.items()}
    for name in trace.sets:
        rows = [r.set == name for r in trace.records]
        result = of_set(
            analyse(trace.subset(name)),
            arguments.folds,
            {level: c[rows] for level, c in found.items()},
            {label: scores[rows] for label, scores in less.items()},
        )
        output["sets"][name] = result
        print(table(name, result), "\n")
        print(result["learned_thresholds_of_other_speakers"], "\n")
    if arguments.report:
        write_report(trace, arguments.report, trace.header.name)
    output |= {
        "folds": arguments.folds,
        "texts": len(texts),
        "references": references,
        "seconds": round(time.perf_counter() - started, 1),
        "environment": describe(),
    }
    path = arguments.results / f"selection.{arguments.label}.json"
    store(path, output)
    print(f"stored: {path.name}")


if __name__ == "__main__":
    main()
