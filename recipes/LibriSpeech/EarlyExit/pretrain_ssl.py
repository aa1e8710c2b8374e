#!/usr/bin/env python3
"""Pre-train a small self-supervised backbone on audio without transcripts.

A wav2vec2 of a few layers learns by masked prediction (BEST-RQ). The folder
that it leaves is a model of transformers, to be fine-tuned with exits as any
other: ``source`` of an SSL system.

> python pretrain_ssl.py --data_folder=/path/corpus --splits train \
      --valid_splits dev --out=results/ssl/tiny --minutes=40

The same command goes on where it was interrupted. Audio lies in
``<data_folder>/<split>``, at any depth, and is kept in memory.

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import dataclasses
import json
import logging
import math
import os
import sys
import time
from pathlib import Path

from speechbrain_ee.errors import (
    InputError,
    ends_on_interrupt,
    exits_on_input_error,
)

with ends_on_interrupt():  # importing takes seconds
    from speechbrain_ee.data.cropped import CroppedBatches, list_audio
    from speechbrain_ee.training.options import (
        check_device,
        make_output_folder,
    )
    from speechbrain_ee.training.pretrainer import SUMMARY, Pretrainer
    from speechbrain_ee.training.pretraining import (
        SAMPLE_RATE,
        MaskedPrediction,
    )
    from speechbrain_ee.training.pretraining_options import PretrainingOptions

logger = logging.getLogger("pretrain_ssl")

HELD_OUT_EVERY = 50  # utterances, where no --valid_splits are given
HELP = {
    "layers": "transformer layers",
    "width": "their width, a multiple of 16",
    "heads": "attention heads",
    "d_ffn": "inner width of a layer",
    "conv_dim": "channels of the seven convolutions",
    "frame_ms": "shift between frames: 20 as wav2vec2, 40 at half the cost",
    "codebooks": "random codebooks, each predicted on its own",
    "codes": "codes in each",
    "code_dim": "dimensions of a code",
    "mask_share": "share of hidden frames, at most 0.8",
    "mask_s": "length of a hidden stretch, in seconds",
    "seen_weight": "weight of the loss of frames that are not hidden",
    "batch_s": "audio of a batch, in seconds",
    "crop_s": "the most of one utterance, in seconds",
    "lr": "highest learning rate",
    "warmup_share": "share of the steps until there",
    "weight_decay": "of AdamW",
    "max_grad_norm": "longest gradient",
    "seed": "of weights, codes, batches and masks",
    "precision": "fp32 or bf16",
}


def make_parser() -> argparse.ArgumentParser:
    """The command line; sizes and rates as in PretrainingOptions."""
    parser = argparse.ArgumentParser(
        description="Pre-train a small self-supervised backbone.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--data_folder", required=True, help="has the splits")
    parser.add_argument("--splits", nargs="+", required=True, help="to learn")
    parser.add_argument(
        "--valid_splits",
        nargs="+",
        default=[],
        help="to measure on; none: every 50th utterance of --splits",
    )
    parser.add_argument("--out", required=True, help="folder of the model")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=int, help="optimiser steps")
    length.add_argument(
        "--minutes", type=float, help="as many steps as fit, by a trial"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--save_minutes", type=float, default=3.0, help="between checkpoints"
    )
    for field in dataclasses.fields(PretrainingOptions):
        if field.name in HELP:
            several = isinstance(field.default, tuple)
            parser.add_argument(
                f"--{field.name}",
                type=type(field.default[0] if several else field.default),
                nargs="+" if several else None,
                default=field.default,
                help=HELP[field.name],
            )
    return parser


def make_options(given: argparse.Namespace) -> PretrainingOptions:
    """What was given on the command line, one step where time decides."""
    values = {name: getattr(given, name) for name in HELP}
    values["conv_dim"] = tuple(values["conv_dim"])
    steps = 1 if given.steps is None else given.steps
    return PretrainingOptions(**values, steps=steps)


def make_batches(
    given: argparse.Namespace, options: PretrainingOptions
) -> tuple[CroppedBatches, CroppedBatches]:
    """Audio to learn from and audio to measure on."""
    train = list_audio(given.data_folder, given.splits)
    if given.valid_splits:
        valid = list_audio(given.data_folder, given.valid_splits)
    else:
        valid = train[::HELD_OUT_EVERY]
        train = [f for n, f in enumerate(train) if n % HELD_OUT_EVERY]
    sizes = (options.batch_s, options.crop_s, options.shortest_s)
    return tuple(
        CroppedBatches(files, *sizes, options.seed, SAMPLE_RATE)
        for files in (train, valid)
    )


def steps_of_an_earlier_run(out: Path) -> int | None:
    """How many steps were found to fit when the run began."""
    try:
        return json.loads((out / SUMMARY).read_text("utf-8"))["options"][
            "steps"
        ]
    except (OSError, ValueError, KeyError):
        return None


def steps_that_fit(
    minutes: float,
    options: PretrainingOptions,
    train: CroppedBatches,
    device: str,
) -> int:
    """How many steps take so many minutes, by the time of a few."""
    objective = MaskedPrediction(options).to(device)
    taken_s = []
    for step in range(1, min(8, train.per_epoch) + 1):
        wavs = train.batch(step).to(device)
        begin_s = time.monotonic()
        loss, _ = objective(wavs)
        loss.backward()
        loss.item()  # waits for a GPU
        taken_s.append(time.monotonic() - begin_s)
    step_s = sum(taken_s[1:] or taken_s) / len(taken_s[1:] or taken_s)
    steps = max(1, math.floor(60 * minutes / step_s))
    logger.info("%.2f s a step: %d steps in %g min", step_s, steps, minutes)
    return steps


@exits_on_input_error
def main() -> None:
    """Read the audio, train, leave a model."""
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    given = make_parser().parse_args()
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise InputError(
            "pretrain_ssl.py: runs as a single process; start it without "
            "torchrun."
        )
    out = Path(given.out).expanduser()
    check_device(given.device)
    options = make_options(given)
    train, valid = make_batches(given, options)
    logger.info(
        "%.2f h to learn (%d batches), %.2f h to measure on",
        train.hours,
        train.per_epoch,
        valid.hours,
    )
    if given.minutes is not None:
        if not given.minutes > 0:
            raise InputError(f"--minutes: {given.minutes} is not positive.")
        steps = steps_of_an_earlier_run(out)
        if steps is None:
            steps = steps_that_fit(given.minutes, options, train, given.device)
        options = dataclasses.replace(options, steps=steps)
    make_output_folder(str(out), "--out")
    Pretrainer(
        out,
        options,
        train,
        valid,
        device=given.device,
        save_minutes=given.save_minutes,
        progress=sys.stderr.isatty(),
    ).run()
    logger.info("%s holds the model of %d steps", out, options.steps)


if __name__ == "__main__":
    main()
