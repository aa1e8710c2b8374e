"""The command ``transcribe``: recordings in, transcripts out.

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import logging
import math
import sys
from contextlib import ExitStack
from typing import Any

import torch
from tqdm.contrib.logging import logging_redirect_tqdm

from speechbrain_ee.errors import DISK_FULL, InputError, drop_standard_output
from speechbrain_ee.inference.asr import EarlyExitASR
from speechbrain_ee.inference.controller import LatencyController
from speechbrain_ee.inference.policies import ladder_below
from speechbrain_ee.inference.recordings.files import Recording, find_recordings
from speechbrain_ee.inference.recordings.formats import FORMATS, get_format
from speechbrain_ee.inference.recordings.outputs import (
    FolderOutput,
    StreamOutput,
    open_output,
)
from speechbrain_ee.inference.recordings.progress import Progress
from speechbrain_ee.inference.recordings.segmentation import VADS, Cutting
from speechbrain_ee.inference.recordings.stream import shown
from speechbrain_ee.inference.recordings.transcriber import Transcriber
from speechbrain_ee.inference.recordings.transcript import Failure, Transcript

logger = logging.getLogger(__name__)

ALL_FINE, SOME_BAD, NOTHING_DONE, INTERRUPTED = 0, 1, 2, 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments.

    Arguments
    ---------
    parser : argparse.ArgumentParser
        Of the command alone.
    """
    parser.add_argument(
        "audio",
        nargs="+",
        metavar="FILE|DIR|-",
        help="recordings of any length and sample rate, folders of them, or "
        "- for standard input",
    )
    parser.add_argument(
        "--model", required=True, metavar="DIR", help="inference folder"
    )
    parser.add_argument(
        "--policy",
        help="when to stop: the name of a shipped policy, a policy file, an "
        "exit (1 and up, or last), a criterion with a threshold such as "
        "entropy:0.9, or a budget such as macs=60%%, layers=8 or wer=+2%% "
        "(default: the model's own)",
    )
    parser.add_argument(
        "--format",
        default="txt",
        choices=[*FORMATS],
        help="what to write (default txt)",
    )
    parser.add_argument(
        "--out",
        metavar="FILE|DIR",
        help="a file for all (a name with a suffix), or a folder with one "
        "for each (default: standard output)",
    )
    parser.add_argument(
        "--batch-s",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="most audio in a batch, padding included (default 60)",
    )
    parser.add_argument(
        "--max-s",
        type=float,
        default=Cutting.max_s,
        metavar="SECONDS",
        help="longer recordings are cut at pauses into pieces of at most "
        "this length (default %(default)g)",
    )
    parser.add_argument(
        "--channel",
        type=int,
        metavar="N",
        help="channel that is heard, from 1 (default: the average of all, "
        "or the loudest where they cancel each other)",
    )
    parser.add_argument(
        "--vad",
        default="auto",
        choices=VADS,
        help="what finds out whether anybody speaks, since of silence a "
        "recogniser makes words: silero (the package silero-vad), energy, or "
        "off (default auto: silero where it is installed, else energy)",
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads (default: all)"
    )
    parser.add_argument(
        "--device", default="cpu", help="where the model runs (default cpu)"
    )
    parser.add_argument(
        "--deadline",
        type=float,
        metavar="RTF",
        help="hold this many seconds of work per second of audio, by "
        "stopping earlier than --policy says while the machine is busy",
    )


def run(arguments: argparse.Namespace) -> None:
    """Run the command.

    Arguments
    ---------
    arguments : argparse.Namespace
        As :func:`add_arguments` declares them.

    Raises
    ------
    InputError
        If an argument is wrong, or the model cannot be read.
    SystemExit
        With status 1 if some recordings could not be transcribed whole, 2
        if none could be, 130 after an interrupt.
    """
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
    """Transcribe recordings and write what was said.

    Arguments
    ---------
    transcriber : Transcriber
        Does the work.
    recordings : list of Recording
        What to transcribe.
    form : str
        Name of a format.
    out : str, optional
        File or folder; standard output without it.

    Returns
    -------
    int
        The exit status: 0 if all is fine, 1 if some recordings could not be
        transcribed whole, 2 if none could be, 130 after an interrupt.
    """
    progress = Progress(len(recordings))
    try:
        with ExitStack() as stack:
            stack.enter_context(progress)
            stack.enter_context(logging_redirect_tqdm())
            output = stack.enter_context(
                open_output(out, get_format(form), recordings)
            )
            interrupted = _transcribe(transcriber, recordings, output, progress)
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
    summary = transcriber.summary()
    if summary.duration_s:
        logger.info(progress.line(summary))
    if interrupted:
        return INTERRUPTED
    if not summary.transcribed:
        return NOTHING_DONE
    return SOME_BAD if summary.failures else ALL_FINE


def _transcribe(
    transcriber: Transcriber,
    recordings: list[Recording],
    output: StreamOutput | FolderOutput,
    progress: Progress,
) -> bool:
    """Do the work; was it interrupted?"""
    interrupted = False
    try:
        try:
            for result in transcriber.run(recordings, progress.update):
                _take(result, output)
        except KeyboardInterrupt:
            interrupted = True
            rest = transcriber.unfinished()
            # Of one long recording something is better than nothing.
            if rest is not None and len(recordings) == 1:
                output.write(rest)
            logger.error("interrupted; what was finished is written.")
    finally:
        output.finish(transcriber.summary())
    return interrupted


def _take(
    result: Transcript | Failure, output: StreamOutput | FolderOutput
) -> None:
    if isinstance(result, Failure):
        logger.error("error: %s", result.reason)
        return
    if result.fault is not None:
        logger.error("error: %s: %s", shown(result.path), result.fault)
    output.write(result)


def make_controller(asr: Any, deadline_rtf: float) -> LatencyController:
    """A latency controller below a recogniser's policy.

    Arguments
    ---------
    asr : EarlyExitASR
        The recogniser; its policy is what the controller never exceeds.
    deadline_rtf : float
        Seconds of work per second of audio.

    Returns
    -------
    LatencyController

    Raises
    ------
    InputError
        If the model folder does not tell what its exits cost.
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
