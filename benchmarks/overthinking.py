#!/usr/bin/env python3
"""What does going on cost, in domain and out of it, for several models?

Every study is one model and one way of decoding: a name, then exit traces,
the first of which is in domain. The numbers are those of
`python -m speechbrain_ee report --overthinking`; the tables printed here are
those of docs/overthinking.md.

> python benchmarks/overthinking.py \
>     --study "digits, CTC greedy" RUN/traces/test.jsonl.gz \
>     RUN/traces/english5h-test.jsonl.gz

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from environment import RESULTS, describe, markdown, store

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.analysis import analyse_all
from speechbrain_ee.evaluation.curves import Estimate, signed
from speechbrain_ee.evaluation.overthinking import (
    OverthinkingStudy,
    SetOverthinking,
    study_overthinking,
)
from speechbrain_ee.exits.trace_file import read_trace

RESULT = RESULTS / "overthinking.json"
SHOWN = "entropy"  # the criterion whose layers the second table has
RATES = (
    "model, decoding | set | utterances | last exit | oracle | overthought | "
    "points added | of the errors | best fixed exit: WER, against last | "
    "the domain's, against last"
)
THRESHOLDS = (
    "model, decoding | set | thresholds | miss | shifted | entropy: layers "
    "in domain | here | own | WER above last exit"
)


def study(
    paths: Sequence[Path], speakers_from_ids: bool = False
) -> dict[str, Any]:
    """One model and way of decoding on all its sets."""
    traces = [read_trace(path) for path in paths]
    if speakers_from_ids:
        traces = [trace.with_speakers_from_ids() for trace in traces]
    found = study_overthinking(analyse_all(traces))
    if not found.others:
        raise InputError(
            f"--study: {', '.join(map(str, paths))}: only the set "
            f"{found.in_domain!r} is there; add a trace out of domain."
        )
    return {
        "system": traces[0].header.name,
        "decoding": traces[0].header.decoding,
        "exit_layers": list(traces[0].header.exit_layers),
        "resampled": traces[0].clusters.by,
        "in_domain": found.in_domain,
        "sets": {key: facts(found, each) for key, each in found.sets.items()},
    }


def facts(found: OverthinkingStudy, each: SetOverthinking) -> dict[str, Any]:
    """A set in plain values: rates and shares in percent."""
    best, own = each.exits[each.best_exit - 1], each.key == found.in_domain
    domain = None
    if not own and each.domain_exit is not None:
        domain = each.exits[each.domain_exit - 1]
    above = each.points_above_domain
    return {
        "utterances": each.utterances,
        "words": each.words,
        "wer": [round(one.wer, 4) for one in each.exits],
        "wer_oracle": round(each.wer_oracle, 4),
        "overthought": ends(each.share, 100),
        "points": ends(each.points),
        "points_above_domain": None if above is None else ends(above),
        "errors_share": round(100 * each.errors_share, 4),
        "best_layer": best.layer,
        "best_wer": round(best.wer, 4),
        "best_above_last": ends(best.above_last),
        "domain_layer": domain and domain.layer,
        "domain_above_last": domain and ends(domain.above_last),
        "thresholds": None if own else thresholds(each),
    }


def thresholds(each: SetOverthinking) -> dict[str, Any]:
    """How the domain's thresholds do, and one of them."""
    shown = None
    for one in each.carried:
        if one.criterion == SHOWN:
            own = one.own_layer
            shown = {
                "layers_in_domain": round(one.domain_layer, 4),
                "layers": round(one.avg_layer, 4),
                "own_layers": None if own is None else round(own, 4),
                "above_last": ends(one.above_last),
            }
    return {
        "carried": len(each.carried),
        "missed": sum(one.above_last.positive for one in each.carried),
        "shifted": sum(one.warning is not None for one in each.carried),
        SHOWN: shown,
    }


def ends(estimate: Estimate, factor: float = 1.0) -> list[float]:
    """Value, lower and upper end."""
    values = (estimate.value, estimate.low, estimate.high)
    return [round(factor * value, 4) for value in values]


def tables(studies: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Both tables as Markdown."""
    rates, carried = [], []
    for name, found in studies.items():
        for key, row in found["sets"].items():
            rates.append([name, key, *rate_cells(row)])
            if row["thresholds"] is not None:
                carried.append([name, key, *threshold_cells(row)])
    return [
        markdown(RATES.split(" | "), rates),
        markdown(THRESHOLDS.split(" | "), carried),
    ]


def rate_cells(row: Mapping[str, Any]) -> list[str]:
    """A set in the first table."""
    share, low, high = row["points"]
    best, domain = "last", ""
    if row["best_above_last"] != [0, 0, 0]:
        best = f"{row['best_layer']}: {row['best_wer']:.2f}, "
        best += against(row["best_above_last"])
    if row["domain_layer"] is not None:
        domain = f"{row['domain_layer']}"
        if row["domain_above_last"] == [0, 0, 0]:
            domain = "last"
        else:
            domain += f": {against(row['domain_above_last'])}"
    return [
        f"{row['utterances']:,}",
        f"{row['wer'][-1]:.2f}",
        f"{row['wer_oracle']:.2f}",
        f"{row['overthought'][0]:.1f} %",
        f"{share:.2f} ({low:.2f} to {high:.2f})",
        f"{row['errors_share']:.0f} %",
        best,
        domain,
    ]


def threshold_cells(row: Mapping[str, Any]) -> list[str]:
    """A set in the second table."""
    found = row["thresholds"]
    cells = [str(found[key]) for key in ("carried", "missed", "shifted")]
    shown = found[SHOWN]
    if shown is None:
        return [*cells, "", "", "", ""]
    own = shown["own_layers"]
    return [
        *cells,
        f"{shown['layers_in_domain']:.2f}",
        f"{shown['layers']:.2f}",
        "none" if own is None else f"{own:.2f}",
        against(shown["above_last"]),
    ]


def against(values: Sequence[float]) -> str:
    """A difference and its interval."""
    value, low, high = map(signed, values)
    return f"{value} ({low} to {high})"


def main() -> None:
    """Read, study, store, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--study",
        nargs="+",
        action="append",
        required=True,
        metavar=("NAME", "TRACE"),
        help="a name, then traces, the one in domain first; may be repeated",
    )
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument(
        "--speakers-from-ids",
        action="store_true",
        help="traces name no speakers; utterances are named as in LibriSpeech",
    )
    parser.add_argument(
        "--add", action="store_true", help="keep the studies stored before"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    studies, given = {}, set()
    if arguments.add:
        studies = json.loads(arguments.result.read_text("utf-8"))["studies"]
    for name, *paths in arguments.study:
        if name in given or not paths:
            raise InputError(
                f"--study {name!r}: give every name once, and traces with it."
            )
        given.add(name)
        studies[name] = study(
            [Path(path) for path in paths], arguments.speakers_from_ids
        )
    store(arguments.result, {"studies": studies, "environment": describe()})
    stored = json.loads(arguments.result.read_text("utf-8"))
    print("\n\n".join(tables(stored["studies"])))


if __name__ == "__main__":
    main()
