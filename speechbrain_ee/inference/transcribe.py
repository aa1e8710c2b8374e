"""The command ``transcribe``: recordings in, transcripts out.

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import logging
import math
import sys

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from speechbrain_ee.errors import DISK_FULL, InputError, drop_standard_output
from speechbrain_ee.inference.asr import EarlyExitASR
from speechbrain_ee.inference.controller import LatencyController, ladder_below
from speechbrain_ee.inference.recordings import (
    Recording,
    find_recordings,
    shown,
)
from speechbrain_ee.inference.segmentation import VADS, Cutting
from speechbrain_ee.inference.transcriber import Transcriber
from speechbrain_ee.inference.transcripts import (
    FORMATS,
    Failure,
    FolderOutput,
    StreamOutput,
    Summary,
    open_output,
)

logger = logging.getLogger(__name__)

ALL_FINE, SOME_BAD, NOTHING_DONE, INTERRUPTED = 0, 1, 2, 130
BAR = "{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add = parser.add_argument
    add(
        "audio",
        nargs="+",
        metavar="FILE|DIR|-",
        help="recordings of any length and sample rate, folders of them, or "
        "- for standard input",
    )
    add("--model", required=True, metavar="DIR", help="inference folder")
    add(
        "--policy",
        help="when to stop: the name of a shipped policy, a policy file, an "
        "exit (1 and up, or last), a criterion with a threshold such as "
        "entropy:0.9, or a budget such as macs=60%%, layers=8 or wer=+2%% "
        "(default: the model's own)",
    )
    add(
        "--format",
        default="txt",
        choices=[*FORMATS],
        help="what to write (default txt)",
    )
    add(
        "--out",
        metavar="FILE|DIR",
        help="a file for all (a name with a suffix), or a folder with one "
        "for each (default: standard output)",
    )
    add(
        "--batch-s",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="most audio in a batch, padding included (default 60)",
    )
    add(
        "--max-s",
        type=float,
        default=Cutting.max_s,
        metavar="SECONDS",
        help="longer recordings are cut at pauses into pieces of at most "
        "this length (default %(default)g)",
    )
    add(
        "--channel",
        type=int,
        metavar="N",
        help="channel that is heard, from 1 (default: the average of all, "
        "or the loudest where they cancel each other)",
    )
    add(
        "--vad",
        default="auto",
        choices=VADS,
        help="voice activity detector, since a recogniser outputs words for "
        "silence: silero (the package silero-vad), energy, or off (default "
        "auto: silero where it is installed, else energy)",
    )
    add("--threads", type=int, metavar="N", help="CPU threads (default: all)")
    add("--device", default="cpu", help="where the model runs (default cpu)")
    add(
        "--deadline",
        type=float,
        metavar="RTF",
        help="hold this many seconds of work per second of audio, by "
        "stopping earlier than --policy says while the machine is busy",
    )


def run(arguments: argparse.Namespace) -> None:
    """Run the command; leave with the status of :func:`transcribe`."""
    _check(arguments)
    recordings = find_recordings(arguments.audio)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    asr = EarlyExitASR.from_hparams(
        arguments.model,
        run_opts={"device": arguments.device},
        policy=arguments.policy,
        vad=arguments.vad,
    )
    controller = None
    if arguments.deadline is not None:
        controller = make_controller(asr, arguments.deadline)
    transcriber = Transcriber(
        asr,
        Cutting.within(arguments.max_s),
        arguments.batch_s,
        controller,
        channel=arguments.channel,
    )
    status = transcribe(
        transcriber, recordings, arguments.format, arguments.out
    )
    if status != ALL_FINE:
        sys.exit(status)


def transcribe(
    transcriber: Transcriber,
    recordings: list[Recording],
    form: str = "txt",
    out: str | None = None,
) -> int:
    """Transcribe recordings and write what was said to ``out``, a file or a
    folder, or standard output without it.

    Returns the exit status: 0 if all is fine, 1 if some recordings could not
    be transcribed whole, 2 if none could be, 130 after an interrupt.
    """
    try:
        with (
            logging_redirect_tqdm(),
            open_output(out, FORMATS[form], recordings) as output,
        ):
            interrupted = _transcribe(transcriber, recordings, output)
    except BrokenPipeError:
        # Whoever read standard output has had enough.
        drop_standard_output()
        return SOME_BAD
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        if out is None:
            drop_standard_output()
        raise InputError(
            f"{out or 'standard output'}: cannot be written "
            f"({error.strerror}); make room, or give another place with "
            "--out, and start the same command again."
        ) from None
    summary = transcriber.summary
    if summary.duration_s:
        logger.info("%s", summary)
    if interrupted:
        return INTERRUPTED
    if not summary.transcribed:
        return NOTHING_DONE
    return SOME_BAD if summary.failures else ALL_FINE


def _transcribe(
    transcriber: Transcriber,
    recordings: list[Recording],
    output: StreamOutput | FolderOutput,
) -> bool:
    """Do the work; was it interrupted?"""
    bar = tqdm(
        total=len(recordings),
        file=sys.stderr,
        disable=not sys.stderr.isatty(),
        bar_format=BAR,
    )

    def show(done: float, summary: Summary) -> None:
        if not bar.disable:
            bar.set_postfix_str(
                f"{int(done)}/{bar.total} files, {summary}", refresh=False
            )
            # tqdm draws again when enough time has passed.
            bar.update(done - bar.n)

    try:
        for result in transcriber.run(recordings, show):
            if isinstance(result, Failure):
                logger.error("error: %s", result.reason)
                continue
            if result.fault is not None:
                logger.error("error: %s: %s", shown(result.path), result.fault)
            output.write(result)
        return False
    except KeyboardInterrupt:
        rest = transcriber.unfinished()
        # Of one long recording something is better than nothing.
        if rest is not None and len(recordings) == 1:
            output.write(rest)
        logger.error("interrupted; what was finished is written.")
        return True
    finally:
        bar.close()
        output.finish(transcriber.summary)


def make_controller(
    asr: EarlyExitASR, deadline_rtf: float
) -> LatencyController:
    """A latency controller that never exceeds the recogniser's policy; the
    deadline is in seconds of work per second of audio.
    """
    trace = asr.folder.calibration
    if trace is None:
        raise InputError(
            "deadline: the model folder has no calibration.jsonl.gz, so what "
            "a threshold costs is not known; export it again with a "
            "development set."
        )
    ladder = ladder_below(
        asr.policy,
        trace,
        asr.model.exit_layers,
        asr.runner.decoding.name,
    )
    least = ladder[0].macs_per_s / ladder[-1].macs_per_s
    if len(ladder) == 1:
        logger.warning(
            "--deadline %g: nothing is cheaper than the policy %s, which is "
            "followed whatever the deadline.",
            deadline_rtf,
            asr.policy.name,
        )
    else:
        logger.info(
            "--deadline %g: the policy %s while the machine keeps up; while "
            "it does not, utterances stop earlier than it says, at down to "
            "%.0f %% of its multiply-accumulates.",
            deadline_rtf,
            asr.policy.name,
            100 * least,
        )
    return LatencyController(deadline_rtf, ladder)


def _check(arguments: argparse.Namespace) -> None:
    """Refuse numbers that mean nothing, before the model is loaded."""
    for name in ("batch_s", "max_s", "deadline", "threads", "channel"):
        value = getattr(arguments, name)
        if value is not None and not (value > 0 and math.isfinite(value)):
            option = "--" + name.replace("_", "-")
            raise InputError(f"{option}: {value}; give a number above 0.")
