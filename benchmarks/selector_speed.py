#!/usr/bin/env python3
"""What does a learned selector's score cost beside an encoder layer?

Trains a selector on one test set of an exit trace, walks utterances of
another one from exit to exit as live inference does, and runs a YAML's model
in between, so that a change of the machine's speed hits both and the score
finds the caches as the encoder leaves them. Utterances have 22 to 28 words,
which is about 10 s. Training texts are the references of the first set. Where the
trace lacks one of the light measures its entropy stands in for it, which
changes no time. What measuring takes is given beside the score's time.

> python benchmarks/selector_speed.py wav2vec2-ee.greedy.jsonl.gz

Axes: B utterances, T frames, V vocabulary entries, E exits, R repeats.

Authors
 * The speechbrain-ee contributors 2026
"""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from environment import ROOT, add_numbers, describe, parser_of, store

from speechbrain_ee.exits.criteria import measure_all
from speechbrain_ee.exits.criteria.combined import LIGHT
from speechbrain_ee.exits.criteria.view import ExitView
from speechbrain_ee.exits.selector.selector import LearnedSelector
from speechbrain_ee.exits.selector.words import WordReader
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.exits.trace_file import read_trace
from speechbrain_ee.training.options import load_options

SECONDS = 10
WORDS = (22, 28)
FRAMES_PER_S, VOCAB = 25, 256


def walk(
    selector: LearnedSelector,
    model: Any,
    trace: Trace,
    batch: int,
    repeats: int,
) -> dict[str, Any]:
    """Score every exit but the last after the encoder's segment before it."""
    wavs = torch.randn(batch, SECONDS * 16000)
    exits = len(selector.exit_layers) - 1
    layer_RE, score_RE, measure_RE = np.zeros((3, repeats, exits))
    log_probs_BTV = torch.randn(batch, SECONDS * FRAMES_PER_S, VOCAB)
    output = SimpleNamespace(
        log_probs_BTV=(3 * log_probs_BTV).log_softmax(-1),
        lengths_B=torch.full((batch,), SECONDS * FRAMES_PER_S),
        blank_index=0,
    )
    reader = WordReader(selector.language_model)
    for repeat in range(repeats):
        rows = np.arange(repeat * batch, (repeat + 1) * batch) % len(trace)
        evidence = trace.evidence.select(rows)
        state = model.encoder.start(wavs, torch.ones(batch))
        for exit in range(1, exits + 1):
            start = time.perf_counter()
            after = model.encoder.advance(state)
            layers = after.depth - state.depth
            layer_RE[repeat, exit - 1] = (time.perf_counter() - start) / layers
            state, part = after, evidence.upto(exit)
            start = time.perf_counter()
            measure_all(ExitView(output), LIGHT)
            measure_RE[repeat, exit - 1] = time.perf_counter() - start
            model.encoder.advance(state)  # the score, too, finds cold caches
            start = time.perf_counter()
            selector.score_at(part, exit, reader)
            score_RE[repeat, exit - 1] = time.perf_counter() - start
    share_E = np.median(score_RE / layer_RE, axis=0)
    return {
        "layer_ms": round(1e3 * float(np.median(layer_RE)), 3),
        "score_us": round(1e6 * float(np.median(score_RE)), 1),
        "score_us_by_exit": (1e6 * np.median(score_RE, axis=0))
        .round(1)
        .tolist(),
        "share_of_a_layer": round(float(np.median(score_RE / layer_RE)), 4),
        "share_by_exit": share_E.round(4).tolist(),
        "measuring_us": round(1e6 * float(np.median(measure_RE)), 1),
        "measuring_share_of_a_layer": round(
            float(np.median(measure_RE / layer_RE)), 4
        ),
        "repeats": repeats,
    }


def main() -> None:
    """Train, measure, store."""
    parser = parser_of(__doc__)
    parser.add_argument("trace", type=Path, help="with two sets or more")
    parser.add_argument("--system", default="conformer_ctc")
    add_numbers(parser, batches=[1, 16], repeats=60)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    trace = read_trace(arguments.trace)
    learned_on, measured_on, *_ = trace.sets
    stand_ins = [name for name in LIGHT if name not in trace.evidence_names]
    for name in stand_ins:
        trace = trace.with_evidence(name, trace.evidence_NE("entropy"))
    dev, test = trace.subset(learned_on), trace.subset(measured_on)
    selector = LearnedSelector.fit(dev)
    long = (test.words_N >= WORDS[0]) & (test.words_N <= WORDS[1])
    test = test.select(np.flatnonzero(long).tolist())
    path = ROOT / "hparams" / f"{arguments.system}.yaml"
    model = load_options(str(path), "data_folder: none")["model"].eval()
    with torch.inference_mode():
        walk(selector, model, test, 1, 2)  # the first calls allocate
        found = {}
        for batch in arguments.batches:
            repeats = max(10, arguments.repeats // batch)
            found[str(batch)] = walk(selector, model, test, batch, repeats)
    result = {
        "system": arguments.system,
        "trace": trace.header.name,
        "learned_on": learned_on,
        "measured_on": measured_on,
        "evidence": list(selector.evidence_names),
        "entropy_stands_in_for": stand_ins,
        "seconds_per_utterance": SECONDS,
        "batches": found,
        "environment": describe(),
    }
    store(arguments.results / "selector_speed.json", result)
    for batch, row in found.items():
        print(
            f"batch {batch}: {row['score_us']} us per exit, "
            f"{100 * row['share_of_a_layer']:.2f} % of a layer's "
            f"{row['layer_ms']} ms; by exit {row['score_us_by_exit']}; "
            f"measuring {row['measuring_us']} us"
        )


if __name__ == "__main__":
    main()
