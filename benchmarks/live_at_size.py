#!/usr/bin/env python3
"""Does time follow multiply-accumulates where layers are of the usual size?

The models of benchmarks/live.py are small. Here stands the model of a YAML
with random weights: how long a layer takes does not depend on what it has
learned. Measured are (a) time by exit over the time of the last exit, against
the ratio of their multiply-accumulates, and (b) the time of one decision by
entropy over that of a layer, as there.

> python benchmarks/live_at_size.py hparams/conformer_ctc.yaml test.csv

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from environment import add_numbers, describe, parser_of, store
from hyperpyyaml import load_hyperpyyaml
from live import lines
from live_parts import criterion_overhead, time_against_macs

from speechbrain_ee.exits.policy import ThresholdPolicy
from speechbrain_ee.inference.policies import Policies
from speechbrain_ee.inference.recordings import batches_of, read_spoken
from speechbrain_ee.inference.runner import LiveRunner


class RandomWeights:
    """What the measurements ask of an EarlyExitASR, without training."""

    def __init__(self, path: Path):
        torch.manual_seed(0)
        text = path.read_text(encoding="utf-8")
        hparams = load_hyperpyyaml(text, {"data_folder": "none"})
        self.model = hparams["model"].eval()
        self.sample_rate = hparams["sample_rate"]
        self.policies = Policies(self.model.exit_layers)
        vocabulary = self.model.heads.vocab_size
        self.runner = LiveRunner(
            self.model, [""] * vocabulary, lambda tokens: "", self.sample_rate
        )


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Both parts."""
    asr = RandomWeights(arguments.yaml)
    spoken = read_spoken(arguments.data, asr.sample_rate, arguments.limit)
    exits = range(1, len(asr.model.exit_layers))
    policies = {f"exit {exit}": asr.policies.resolve(exit) for exit in exits}
    never = ThresholdPolicy("entropy", 9.0)
    asked = asr.policies.resolve(never)
    sizes = arguments.batch_size
    parameters = sum(one.numel() for one in asr.model.parameters())
    return {
        "model": arguments.yaml.name,
        "weights": "random",
        "decoding": "ctc_greedy",
        "parameters": parameters,
        "exit_layers": list(asr.model.exit_layers),
        "utterances": len(spoken),
        "a": [
            row
            for row in time_against_macs(
                asr,
                {**policies, "never stopping": asked},
                spoken,
                sizes,
                arguments.warmup,
                arguments.repeats,
            )
            if row["policy"] != "last"
        ],
        "b": [
            criterion_overhead(asr, asked, batches_of(spoken, size))
            for size in sizes
        ],
    }


def main() -> None:
    """Measure, store, print."""
    parser = parser_of(__doc__)
    parser.add_argument("yaml", type=Path, help="a YAML of hparams/")
    parser.add_argument("data", type=Path, help="a manifest (CSV)")
    add_numbers(parser, batch_size=[1, 16], limit=32, warmup=1, repeats=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    before = describe()
    found = measure(arguments)
    after = describe()["load_1min"]
    found["environment"] = {**before, "load_1min_after": after}
    store(arguments.results / "live_at_size.json", found)
    print("\n".join(lines(found["model"], found)))


if __name__ == "__main__":
    main()
