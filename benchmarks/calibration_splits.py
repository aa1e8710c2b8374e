#!/usr/bin/env python3
"""How often does a calibrated policy break its budget on unseen data?

Splits every test set of a trace at random into two halves, calibrates on
one, and counts on the other how often the word error budget is broken and
how many layers are used, for every method, with one threshold and with one
per exit. Compares the scores of the halves as well, and those of different
sets: how often does the shift warning speak?

> python benchmarks/calibration_splits.py TRACE [--splits 200] [--label NAME]

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from environment import describe, store
from numpy.typing import NDArray

from speechbrain_ee.evaluation.calibrate import outcomes_of
from speechbrain_ee.exits.calibration.budget import Budget, Outcomes
from speechbrain_ee.exits.calibration.calibrate import calibrate
from speechbrain_ee.exits.calibration.ladder import at_choice_NT
from speechbrain_ee.exits.calibration.risk import METHODS
from speechbrain_ee.exits.calibration.shift import distributions, score_warnings
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.exits.trace_io import read_trace

CRITERIA = ("entropy", "agreement")
BUDGETS = ("wer=+1", "wer=+5%")
DELTA = 0.1
# (method, threshold per exit, share of the splits)
PLANS = tuple((method, False, 1.0) for method in METHODS) + (
    ("naive", True, 0.2),
    ("ltt", True, 0.2),
)


def halves(
    utterances: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A random split.

    Arguments
    ---------
    utterances : int
        How many there are.
    seed : int
        Which split.

    Returns
    -------
    tuple of two int arrays
        Rows to calibrate on, rows to test on.
    """
    mixed = np.random.default_rng(seed).permutation(utterances)
    return mixed[: utterances // 2], mixed[utterances // 2 :]


def measure(
    criterion: str,
    scores_NE: NDArray[np.floating],
    outcomes: Outcomes,
    budget: Budget,
    splits: int,
) -> dict[str, Any]:
    """All methods on all splits.

    Arguments
    ---------
    criterion : str
        Its name.
    scores_NE : array of shape (N, E)
        Its scores on one set.
    outcomes : Outcomes
        What the exits do there.
    budget : Budget
        What to hold.
    splits : int
        Number of splits.

    Returns
    -------
    dict
        By method: share of splits whose unseen half breaks the budget,
        layers and excess there, share of splits without any threshold.
    """
    result = {}
    losses_NE = budget.losses_NE(outcomes)
    for method, per_exit, share in PLANS:
        rows = []
        for seed in range(round(splits * share)):
            seen, unseen = halves(len(outcomes), seed)
            found = calibrate(
                criterion,
                scores_NE[seen],
                outcomes.select(seen),
                budget,
                method,
                DELTA,
                per_exit,
                target=len(unseen),
            )
            choice_N1 = found.policy.choose(scores_NE[unseen])[:, None]
            loss = float(at_choice_NT(losses_NE[unseen], choice_N1).mean())
            layers = float(outcomes.layers_E[choice_N1].mean())
            rows.append((loss > 1e-9, layers, not found.satisfied))
        broken, layers, none = np.mean(rows, axis=0)
        result[f"{method}{', per exit' if per_exit else ''}"] = {
            "splits": len(rows),
            "broken_share": round(float(broken), 4),
            "avg_layer": round(float(layers), 3),
            "no_threshold_share": round(float(none), 4),
        }
    return result


def shift(
    scores_by_set: dict[str, NDArray[np.floating]],
    layers: Sequence[int],
    splits: int,
) -> dict[str, Any]:
    """How often the shift warning speaks.

    Arguments
    ---------
    scores_by_set : dict of str to array of shape (N, E)
        Scores of every set.
    layers : sequence of int
        Encoder layer of each exit.
    splits : int
        Number of splits.

    Returns
    -------
    dict
        By pair of calibration and target set: share of the splits.
    """

    def share(
        one_NE: NDArray[np.floating], other_NE: NDArray[np.floating] | None
    ) -> float:
        spoken = 0
        for seed in range(splits):
            seen, unseen = halves(len(one_NE), seed)
            new_NE = one_NE[unseen] if other_NE is None else other_NE
            stored = distributions(one_NE[seen])
            spoken += bool(score_warnings(stored, len(seen), new_NE, layers))
        return spoken / splits

    return {
        f"{one} -> {other}": share(
            scores_by_set[one], None if one == other else scores_by_set[other]
        )
        for one in scores_by_set
        for other in scores_by_set
    }


def run(trace: Trace, splits: int) -> dict[str, Any]:
    """The whole benchmark.

    Arguments
    ---------
    trace : Trace
        With transcripts and entropy.
    splits : int
        Number of splits.

    Returns
    -------
    dict
        What is stored.
    """
    start = time.monotonic()
    trace.score()
    parts = {name: trace.subset(name) for name in trace.sets}
    result: dict[str, Any] = {"calibration": {}, "shift_warnings": {}}
    for name in CRITERIA:
        criterion = get_criterion(name)
        scores = {s: criterion.scores(p.evidence) for s, p in parts.items()}
        layers = trace.layers_E.tolist()
        result["shift_warnings"][name] = shift(scores, layers, splits)
        for set_name, part in parts.items():
            outcomes = outcomes_of(part, criterion)
            by_set = result["calibration"].setdefault(set_name, {})
            by_set[name] = {
                text: measure(
                    name,
                    scores[set_name],
                    outcomes,
                    Budget.parse(text),
                    splits,
                )
                for text in BUDGETS
            }
    result["seconds"] = round(time.monotonic() - start, 1)
    return result


def table(result: dict[str, Any]) -> str:
    """The calibration as a Markdown table.

    Arguments
    ---------
    result : dict
        From :func:`run`.

    Returns
    -------
    str
    """
    lines = [
        "| set | criterion | budget | method | broken | layers |",
        "|---|---|---|---|---|---|",
    ]
    for set_name, criteria in result["calibration"].items():
        for name, budgets in criteria.items():
            for budget, methods in budgets.items():
                lines += [
                    f"| {set_name} | {name} | {budget} | {method} | "
                    f"{100 * row['broken_share']:.1f} % | "
                    f"{row['avg_layer']:.2f} |"
                    for method, row in methods.items()
                ]
    return "\n".join(lines)


def main() -> None:
    """Run, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trace", help="exit trace with hyps and entropy")
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--label", default="wav2vec2-ee")
    arguments = parser.parse_args()
    trace = read_trace(arguments.trace)
    result = {
        "trace": trace.header.name,
        "decoding": trace.header.decoding,
        "delta": DELTA,
        **run(trace, arguments.splits),
        "environment": describe(),
    }
    folder = Path(__file__).resolve().parent / "results"
    store(folder / f"calibration_splits.{arguments.label}.json", result)
    print(table(result))


if __name__ == "__main__":
    main()
