#!/usr/bin/env python3
"""What does it save to decode all exits from one encoder pass?

Decodes the same utterances at every exit of a YAML's model in two ways: from
the outputs of one pass of the encoder, and from a pass of its own for every
exit, each from the waveform through the model truncated there. Calls of every
encoder layer are counted by hooks; both ways are timed in turn in one process
and must say the same.

The weights are random, which is enough for counts and times. Such a decoder
never ends a transcript by itself, so hypotheses are cut at the number of
tokens that is usual per second of speech.

> python benchmarks/one_encoder_pass.py --yaml hparams/digits_aed.yaml
> python benchmarks/one_encoder_pass.py --yaml hparams/conformer_aed.yaml

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from environment import (
    add_numbers,
    describe,
    in_turn,
    markdown,
    parser_of,
    store,
    utterances_through,
)
from torch import Tensor

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.cost import CostModel
from speechbrain_ee.exits.decoding import (
    BY_ATTENTION,
    Decoding,
    NBest,
    SearchOptions,
)
from speechbrain_ee.models.heads import ExitOutput
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.training.options import load_options

TOKENS_PER_S = 5
SAMPLE_RATE = 16000


@dataclass(frozen=True)
class Decoded:
    """All exits of a batch, decoded."""

    outputs: tuple[ExitOutput, ...]
    nbest: tuple[tuple[NBest, ...], ...]
    encoder_s: float
    decoding_s: float


class Runner:
    """Both ways of decoding all exits of a batch."""

    def __init__(
        self, model: EarlyExitModel, decoding: str, options: SearchOptions
    ):
        self.model = model.eval()
        exits = range(1, len(model.exit_layers) + 1)
        self.truncated = [model.truncated(exit) for exit in exits]
        self.decode = Decoding(decoding, model, options)
        self.decode_truncated = [
            Decoding(decoding, small, options) for small in self.truncated
        ]

    @torch.no_grad()
    def one_pass(self, wavs: Tensor, wav_lens: Tensor) -> Decoded:
        """All exits from one pass of the encoder."""
        start = time.perf_counter()
        outputs = self.model(wavs, wav_lens)
        between = time.perf_counter()
        nbest = tuple(
            tuple(self.decode(exit, output))
            for exit, output in enumerate(outputs, start=1)
        )
        end = time.perf_counter()
        return Decoded(tuple(outputs), nbest, between - start, end - between)

    @torch.no_grad()
    def pass_per_exit(self, wavs: Tensor, wav_lens: Tensor) -> Decoded:
        """Every exit from the waveform, by the model truncated there."""
        outputs, nbest, encoder_s, decoding_s = [], [], 0.0, 0.0
        pairs = zip(self.truncated, self.decode_truncated)
        for exit, (small, decode) in enumerate(pairs, start=1):
            start = time.perf_counter()
            state = small.start(wavs, wav_lens)
            # what stands on the way is not read: the layers alone count
            outputs.append(small.walk(state, exit)[1])
            between = time.perf_counter()
            nbest.append(tuple(decode(exit, outputs[-1])))
            encoder_s += between - start
            decoding_s += time.perf_counter() - between
        return Decoded(tuple(outputs), tuple(nbest), encoder_s, decoding_s)


def layer_calls(
    runner: Runner, wavs: Tensor, wav_lens: Tensor
) -> tuple[list[int], list[int]]:
    """Calls of every layer in both ways, once checked to say the same."""
    with utterances_through(runner.model) as counts:
        shared = runner.one_pass(wavs, wav_lens)
        once = [count // len(wavs) for count in counts]
    with utterances_through(runner.model) as counts:
        separate = runner.pass_per_exit(wavs, wav_lens)
        often = [count // len(wavs) for count in counts]
    assert once == [1] * len(once), f"calls by layer: {once}"
    for one, other in zip(shared.outputs, separate.outputs, strict=True):
        assert torch.equal(one.log_probs_BTV, other.log_probs_BTV)
        assert torch.equal(one.hidden_BTD, other.hidden_BTD)
    assert shared.nbest == separate.nbest
    return once, often


def build(yaml: Path, overrides: str = "") -> tuple[EarlyExitModel, Any]:
    """A model with random weights, and how its YAML searches."""
    with TemporaryDirectory() as folder:
        hparams = load_options(
            str(yaml),
            f"data_folder: none\noutput_folder: {folder}\n{overrides}",
        )
    model = hparams["model"]
    if model.attention is None:
        raise InputError(f"{yaml}: the model has no attention heads.")
    with torch.no_grad():
        for decoder in model.attention.decoders:
            decoder.output.bias[model.attention.eos_index] = -1e4
    return model, hparams["search"]


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Count, then time both ways in turn."""
    model, options = build(arguments.yaml)
    samples = round(arguments.seconds * SAMPLE_RATE)
    rate = CostModel(model).frames(samples) / arguments.seconds
    options = replace(options, max_decode_ratio=TOKENS_PER_S / rate)
    runner = Runner(model, arguments.decoding, options)
    batch = (torch.randn(arguments.batch, samples), torch.ones(arguments.batch))
    once, often = layer_calls(runner, *batch)

    def clocked(way: Callable[..., Decoded]) -> tuple[float, float]:
        found = way(*batch)
        return found.encoder_s, found.decoding_s

    ways = {"one_pass": runner.one_pass, "pass_per_exit": runner.pass_per_exit}
    tasks = {name: partial(clocked, way) for name, way in ways.items()}
    taken_s = in_turn(tasks, arguments.repeats)
    times = {name: np.array(values) for name, values in taken_s.items()}
    ratios = {
        part: float(np.median(pick(times["pass_per_exit"]) / pick(one_pass)))
        for part, pick in PARTS.items()
        for one_pass in [times["one_pass"]]
    }
    return {
        "yaml": arguments.yaml.name,
        "exits": list(model.exit_layers),
        "decoding": arguments.decoding,
        "batch": arguments.batch,
        "seconds_per_utterance": arguments.seconds,
        "steps": int(TOKENS_PER_S * arguments.seconds),
        "repeats": arguments.repeats,
        "calls_by_layer": {"one_pass": once, "pass_per_exit": often},
        "calls": {"one_pass": sum(once), "pass_per_exit": sum(often)},
        "outputs_equal": True,
        "median_s": {
            name: {
                part: round(float(np.median(pick(rows))), 4)
                for part, pick in PARTS.items()
            }
            for name, rows in times.items()
        },
        "ratio_median": {part: round(r, 3) for part, r in ratios.items()},
        "environment": describe(),
    }


PARTS = {
    "encoder": lambda rows: rows[:, 0],
    "decoding": lambda rows: rows[:, 1],
    "total": lambda rows: rows.sum(axis=1),
}


def table(result: dict[str, Any]) -> str:
    """The result as a Markdown table."""
    rows = [
        [name.replace("_", " "), result["calls"][name]]
        + [f"{row[part]:.3f}" for part in PARTS]
        for name, row in result["median_s"].items()
    ]
    ratio = result["calls"]["pass_per_exit"] / result["calls"]["one_pass"]
    ratios = [ratio, *result["ratio_median"].values()]
    rows.append(["ratio", *(f"{value:.2f}" for value in ratios)])
    heading = "all exits from|layer calls|encoder s|decoding s|total s"
    return markdown(heading.split("|"), rows)


def main() -> None:
    """Measure, store, print."""
    parser = parser_of(__doc__)
    parser.add_argument("--yaml", type=Path, required=True)
    parser.add_argument("--decoding", choices=BY_ATTENTION, default="joint")
    add_numbers(parser, batch=1, seconds=10.0, repeats=9)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    result = measure(arguments)
    label = arguments.yaml.stem
    store(arguments.results / f"one_encoder_pass.{label}.json", result)
    print(table(result))


if __name__ == "__main__":
    main()
