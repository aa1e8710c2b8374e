#!/usr/bin/env python3
"""How often does a calibrated policy break its budget on new speakers?

Splits the speakers of every test set of a trace at random into two halves,
calibrates on one, and counts on the other how often the word error budget is
broken and how many layers are used, for every method, with one threshold and
with one per exit. Learn then Test runs a second time without being told of
the speakers: what is it worth, and what does it cost, to count them? Last, test
sets of new speakers are simulated, drawn with replacement from those of a set:
how often does a 95 % bootstrap interval hold the value of all of them, by
speaker and by utterance?

> python benchmarks/calibration_splits.py TRACE [--speakers-from-ids] \
>     [--splits 200] [--label NAME]

Authors
 * The speechbrain-ee contributors 2026
"""

import time
from dataclasses import replace
from typing import Any

import numpy as np
from environment import describe, markdown, parser_of, store
from numpy.typing import NDArray

from speechbrain_ee.evaluation.analysis import outcomes_of
from speechbrain_ee.evaluation.curves import LEVELS, Bootstrap, thresholds_for
from speechbrain_ee.exits.calibration.budget import Budget, Outcomes
from speechbrain_ee.exits.calibration.calibrate import calibrate
from speechbrain_ee.exits.calibration.risk import METHODS
from speechbrain_ee.exits.clusters import SPEAKER, UTTERANCE, Clusters
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.policy import at_choice, choices_NT
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.exits.trace_file import read_trace

CRITERIA = ("entropy", "agreement")
BUDGETS = ("wer=+1", "wer=+5%")
DELTA = 0.1
DRAWS = 200  # test sets that are simulated to look at intervals
LEVEL = "plus_5"
NEEDED = "layers needed at +5 % errors"
BY_UTTERANCE = "ltt, by utterance"
# name: (method, threshold per exit, told of the speakers, share of the splits)
PLANS = {
    **{method: (method, False, True, 1.0) for method in METHODS},
    BY_UTTERANCE: ("ltt", False, False, 1.0),
    "naive, per exit": ("naive", True, True, 0.2),
    "ltt, per exit": ("ltt", True, True, 0.2),
}


def measure(
    criterion: str,
    scores_NE: NDArray[np.floating],
    outcomes: Outcomes,
    budget: Budget,
    splits: int,
) -> dict[str, Any]:
    """All methods on all splits."""
    result = {}
    losses_NE = budget.losses_NE(outcomes)
    for name, (method, per_exit, told, share) in PLANS.items():
        rows = []
        for seed in range(round(splits * share)):
            seen, unseen = outcomes.clusters.split(0.5, seed)
            data = outcomes.select(seen)
            others = outcomes.clusters.select(unseen).count
            found = calibrate(
                criterion,
                scores_NE[seen],
                data if told else replace(data, by_speaker=None),
                budget,
                method,
                DELTA,
                per_exit,
                target=len(unseen),
                target_clusters=others if told else None,
            )
            choice_N1 = found.policy.choose(scores_NE[unseen])[:, None]
            loss = float(at_choice(losses_NE[unseen], choice_N1).mean())
            layers = float(outcomes.layers_E[choice_N1].mean())
            rows.append((loss > 1e-9, layers, not found.satisfied))
        broken, layers, none = np.mean(rows, axis=0)
        result[name] = {
            "splits": len(rows),
            "broken_share": round(float(broken), 4),
            "avg_layer": round(float(layers), 3),
            "no_threshold_share": round(float(none), 4),
        }
    return result


def drawn_again(
    trace: Trace, by: str, seed: int
) -> tuple[NDArray[np.int64], Trace]:
    """A test set of new speakers, drawn with replacement from a set's."""
    clusters = trace.clusters
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, clusters.count, clusters.count)
    own = [np.flatnonzero(clusters.label_N == place) for place in drawn]
    people = np.repeat(np.arange(len(drawn)), [len(each) for each in own])
    rows = np.concatenate(own)
    part = trace.select(rows.tolist())
    names = [f"{seed}-{n}" if by == SPEAKER else None for n in people]
    ids = [f"{seed}-{row}" for row in range(len(part))]
    # records with other speakers would have to be scored again
    part.__dict__["clusters"] = Clusters.of(names, ids)
    return rows, part


def values_of(
    trace: Trace, choice_N: NDArray[np.integer]
) -> dict[str, tuple[str, NDArray[np.number]]]:
    """What is estimated: its name, rate per word or mean, and by utterance."""
    errors_NE = trace.errors_NE
    last_N = errors_NE[:, -1]
    taken_N = at_choice(errors_NE, choice_N)
    return {
        "WER of the first exit": ("rate", errors_NE[:, 0]),
        "WER of the last exit": ("rate", last_N),
        "last exit but one - last": ("rate", errors_NE[:, -2] - last_N),
        "policy - last exit": ("rate", taken_N - last_N),
        "layers of the policy": ("mean", trace.layers_E[choice_N]),
    }


def coverage(
    trace: Trace, scores_NE: NDArray[np.floating], draws: int
) -> dict[str, Any]:
    """How often 95 % intervals of simulated test sets hold the true value."""
    choice_NT = choices_NT(scores_NE, thresholds_for(scores_NE))
    errors_T = at_choice(trace.errors_NE, choice_NT).sum(axis=0)
    layers_T = trace.layers_E[choice_NT].mean(axis=0)
    holds_T = errors_T <= LEVELS[LEVEL] * trace.errors_NE[:, -1].sum()
    best = np.where(holds_T, layers_T, np.inf).argmin()
    truth = {
        name: 100 * values_N.sum() / trace.words_N.sum()
        if kind == "rate"
        else values_N.mean()
        for name, (kind, values_N) in values_of(
            trace, choice_NT[:, best]
        ).items()
    }
    truth[NEEDED] = layers_T[best]
    found: dict[str, Any] = {name: {} for name in truth}
    for by in (SPEAKER, UTTERANCE):
        inside: dict[str, list[tuple[bool, float]]] = {n: [] for n in truth}
        for seed in range(draws):
            rows, drawn = drawn_again(trace, by, seed)
            bootstrap = Bootstrap(drawn)
            ends = {
                name: np.percentile(
                    getattr(bootstrap, kind)(values_N), bootstrap.percentiles
                )
                for name, (kind, values_N) in values_of(
                    drawn, choice_NT[rows, best]
                ).items()
            }
            replicates = bootstrap.replicate(choice_NT[rows])
            ends[NEEDED] = bootstrap.layer_intervals(replicates)[LEVEL]
            for name, (low, high) in ends.items():
                holds = low - 1e-6 <= truth[name] <= high + 1e-6
                inside[name].append((holds, high - low))
        for name, pairs in inside.items():
            share, width = np.mean(pairs, axis=0)
            found[name][by] = {
                "coverage": round(float(share), 4),
                "width": round(float(width), 3),
            }
    return found


def run(trace: Trace, splits: int) -> dict[str, Any]:
    """The whole benchmark."""
    start = time.monotonic()
    trace.score()
    parts = {name: trace.subset(name) for name in trace.sets}
    clusters = {name: part.clusters for name, part in parts.items()}
    result: dict[str, Any] = {
        "speakers": {name: each.count for name, each in clusters.items()},
        "calibration": {},
        "intervals": {},
    }
    for name in CRITERIA:
        criterion = get_criterion(name)
        scores = {s: criterion.scores(p.evidence) for s, p in parts.items()}
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
            by_set = result["intervals"].setdefault(set_name, {})
            by_set[name] = coverage(part, scores[set_name], DRAWS)
    result["seconds"] = round(time.monotonic() - start, 1)
    return result


def tables(result: dict[str, Any]) -> str:
    """Calibration and intervals as Markdown tables."""
    rows = []
    for set_name, criteria in result["calibration"].items():
        for name, budgets in criteria.items():
            for budget, methods in budgets.items():
                place = [set_name, name, budget]
                for method, row in methods.items():
                    broken = f"{100 * row['broken_share']:.1f} %"
                    layers = f"{row['avg_layer']:.2f}"
                    rows.append([*place, method, broken, layers])
                price = methods["ltt"]["avg_layer"]
                price -= methods[BY_UTTERANCE]["avg_layer"]
                title = "price of counting speakers"
                rows.append([*place, title, "", f"{price:+.2f}"])
    held = [
        [set_name, name, estimated]
        + [
            f"{100 * by[kind]['coverage']:.1f} %"
            for kind in (SPEAKER, UTTERANCE)
        ]
        for set_name, criteria in result["intervals"].items()
        for name, estimates in criteria.items()
        for estimated, by in estimates.items()
    ]
    first = "set|criterion|budget|method|broken|layers".split("|")
    second = "set|criterion|estimated|held by speaker|by utterance".split("|")
    return f"{markdown(first, rows)}\n\n{markdown(second, held)}"


def main() -> None:
    """Run, print and store."""
    parser = parser_of(__doc__)
    parser.add_argument("trace", help="exit trace with hyps and entropy")
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--label", default="wav2vec2-ee")
    parser.add_argument("--speakers-from-ids", action="store_true")
    arguments = parser.parse_args()
    trace = read_trace(arguments.trace)
    if arguments.speakers_from_ids:
        trace = trace.with_speakers_from_ids()
    if trace.clusters.by != SPEAKER:
        parser.error("the trace names no speakers; see --speakers-from-ids")
    result = {
        "trace": trace.header.name,
        "decoding": trace.header.decoding,
        "delta": DELTA,
        **run(trace, arguments.splits),
        "environment": describe(),
    }
    name = f"calibration_splits.{arguments.label}.json"
    store(arguments.results / name, result)
    print(tables(result))


if __name__ == "__main__":
    main()
