#!/usr/bin/env python3
"""What do six exits add to a training step?

Times the training step (forward, joint loss, backward, optimiser) of a YAML's
multi-exit model and of the same model with only its last exit, in turn in one
process, so that a change of the machine's speed hits both. The ratio of every
pair is taken; the median is the result.

> python benchmarks/train_step.py conformer_ctc --batch 4 --seconds 8

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import time
from typing import Any

import numpy as np
import torch
from environment import (
    ROOT,
    add_numbers,
    describe,
    in_turn,
    parser_of,
    store,
)

from speechbrain_ee.training.losses import ctc_exit_losses, joint_loss
from speechbrain_ee.training.options import load_options

TOKENS_PER_S = 5


class Trainee:
    """A model with its optimiser and a fixed batch."""

    def __init__(
        self,
        system: str,
        overrides: str,
        batch: int,
        seconds: float,
        device: str,
    ):
        path = ROOT / "hparams" / f"{system}.yaml"
        hparams = load_options(str(path), f"data_folder: none\n{overrides}")
        torch.manual_seed(0)
        self.model = hparams["model"].to(device).train()
        self.optimizer = hparams["opt_class"](self.model.parameters())
        tokens = max(1, round(TOKENS_PER_S * seconds))
        self.wavs = torch.randn(batch, round(seconds * 16000), device=device)
        self.wav_lens = torch.ones(batch, device=device)
        self.tokens = torch.randint(
            1, hparams["output_neurons"], (batch, tokens), device=device
        )
        self.counts = torch.full((batch,), tokens, device=device)

    def step(self) -> float:
        """One training step; seconds it took."""
        start = time.perf_counter()
        outputs = self.model(self.wavs, self.wav_lens)
        losses = ctc_exit_losses(outputs, self.tokens, self.counts)
        joint_loss(losses, [1.0] * len(outputs)).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.wavs.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time both models in turn."""
    sizes = (arguments.batch, arguments.seconds, arguments.device)
    multi = Trainee(arguments.system, "", *sizes)
    last = multi.model.exit_layers[-1]
    single = Trainee(arguments.system, f"exit_layers: [{last}]", *sizes)
    tasks = {"multi": multi.step, "single": single.step}
    in_turn(tasks, arguments.warmup)
    times = in_turn(tasks, arguments.repeats)
    multi_s, single_s = np.array(times["multi"]), np.array(times["single"])
    ratios = np.quantile(multi_s / single_s, [0.25, 0.5, 0.75])
    return {
        "system": arguments.system,
        "exits": list(multi.model.exit_layers),
        "batch": arguments.batch,
        "seconds_per_utterance": arguments.seconds,
        "repeats": arguments.repeats,
        "multi_exit_ms": round(1000 * float(np.median(multi_s)), 1),
        "single_exit_ms": round(1000 * float(np.median(single_s)), 1),
        "ratio_median": round(float(ratios[1]), 4),
        "ratio_quartiles": [round(float(r), 4) for r in ratios[[0, 2]]],
        "environment": describe(),
    }


def main() -> None:
    """Measure and store."""
    parser = parser_of(__doc__)
    parser.add_argument("system", help="name of a YAML in hparams/")
    parser.add_argument("--device", default="cpu")
    add_numbers(parser, batch=8, seconds=5.0, repeats=30, warmup=5)
    arguments = parser.parse_args()
    result = measure(arguments)
    store(arguments.results / f"train_step.{arguments.system}.json", result)
    print(
        f"{result['system']}: {result['multi_exit_ms']} ms with "
        f"{len(result['exits'])} exits, {result['single_exit_ms']} ms with "
        f"one; ratio {result['ratio_median']} {result['ratio_quartiles']}"
    )


if __name__ == "__main__":
    main()
