"""The command ``transcribe``: recordings in, transcripts out.

Formats are txt, json, srt, vtt and ctm; they go to standard output, a file,
or a folder of files. Files are written whole or not at all. A file of many
transcripts takes its place when the run ends, also when it is ended by an
error or an interrupt.

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import io
import json
import logging
import math
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from speechbrain_ee.errors import DISK_FULL, InputError, drop_standard_output
from speechbrain_ee.files import whole_file
from speechbrain_ee.inference.asr import EarlyExitASR
from speechbrain_ee.inference.controller import LatencyController, ladder_below
from speechbrain_ee.inference.hypothesis import Word
from speechbrain_ee.inference.recordings import (
    Recording,
    find_recordings,
    shown,
)
from speechbrain_ee.inference.segmentation import VADS, Cutting
from speechbrain_ee.inference.transcriber import (
    Failure,
    Segment,
    Summary,
    Transcriber,
    Transcript,
)

logger = logging.getLogger(__name__)

ALL_FINE, SOME_BAD, NOTHING_DONE, INTERRUPTED = 0, 1, 2, 130
BAR = "{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"

# What subtitles usually keep to: two lines that are read in their time.
LINE_LETTERS = 42
CUE_S = 7.0
SHORTEST_CUE_S = 1.0
CUE_PAUSE_S = 1.0  # a longer pause begins a new cue
SHORTEST_WORD_S = 0.001
SUMMARY_FILE = "_summary.json"


def as_text(transcript: Transcript, several: bool = False) -> str:
    """The words alone, on a line; of several after the name."""
    name = f"{shown(transcript.id)}\t" if several else ""
    return f"{name}{transcript.text}\n"


def as_json(transcript: Transcript, several: bool = False) -> str:
    """An object with all that is known: times in seconds from the recording's
    beginning; ``score`` is null where no score decided; a segment that no
    model heard says why (``skipped``), its exit, layer and cost are 0.
    """
    data = {
        "id": shown(transcript.id),
        "path": shown(transcript.path),
        "duration_s": round(transcript.duration_s, 3),
        "skipped_s": round(transcript.skipped_s, 3),
        "text": transcript.text,
        "mean_layer": round(transcript.mean_layer, 3),
        "macs": transcript.macs,
        "segments": [_segment_data(each) for each in transcript.segments],
    }
    if transcript.fault is not None:
        data["fault"] = transcript.fault
    return json.dumps(data, ensure_ascii=False) + ("" if several else "\n")


def _segment_data(segment: Segment) -> dict[str, Any]:
    said = segment.hypothesis
    data = {
        "start_s": round(segment.start_s, 3),
        "end_s": round(segment.end_s, 3),
        "text": said.text,
        "exit": said.exit,
        "layer": said.layer,
        "score": _number(said.score),
        "confidence": _number(said.confidence),
        "macs": said.macs,
        "nbest": list(said.nbest),
        "words": [
            {
                **asdict(word),
                "start_s": round(word.start_s, 3),
                "end_s": round(word.end_s, 3),
                "confidence": _number(word.confidence),
            }
            for word in segment.words
        ],
    }
    if said.skipped is not None:
        data["skipped"] = said.skipped
    return data


def _number(value: float) -> float | None:
    """JSON has neither NaN nor infinity."""
    return round(float(value), 6) if math.isfinite(value) else None


def summary_data(summary: Summary) -> dict[str, Any]:
    """The summary as plain data that JSON can hold."""
    wall_s = summary.wall_s
    return {
        "transcribed": summary.transcribed,
        "failures": [
            {"path": shown(each.path), "reason": each.reason}
            for each in summary.failures
        ],
        "duration_s": round(summary.duration_s, 3),
        "skipped_s": round(summary.skipped_s, 3),
        "wall_s": round(wall_s, 3),
        "real_time_factor": _number(summary.by_second(wall_s)),
        "mean_layer": _number(summary.by_second(summary.layers_s)),
        "macs": summary.macs,
    }


def _json_tail(summary: Summary) -> str:
    line = json.dumps(summary_data(summary), ensure_ascii=False)
    return f'\n],\n"summary": {line}}}\n'


def as_ctm(transcript: Transcript, several: bool = False) -> str:
    """One line per word: file, channel, begin, duration, word, confidence.

    The format of NIST's ``sclite``; white space in names becomes ``_``.
    """
    name = "_".join(shown(transcript.id).split())
    return "".join(
        f"{name} 1 {word.start_s:.3f} "
        f"{max(word.end_s - word.start_s, SHORTEST_WORD_S):.3f} {word.text} "
        f"{word.confidence:.4f}\n"
        for word in transcript.words
    )


def as_srt(transcript: Transcript, several: bool = False) -> str:
    """Subtitles: numbered cues of at most two lines and seven seconds."""
    name = f"==> {shown(transcript.id)} <==\n" if several else ""
    return name + "\n".join(
        f"{number}\n{_clock(start_s)} --> {_clock(end_s)}\n{lines}\n"
        for number, (start_s, end_s, lines) in enumerate(_cues(transcript), 1)
    )


def as_vtt(transcript: Transcript, several: bool = False) -> str:
    """The same as WebVTT, which web pages take."""
    # What would begin a tag or a character's name.
    escapes = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
    blocks = [
        f"\n{_clock(start_s, '.')} --> {_clock(end_s, '.')}\n"
        f"{lines.translate(escapes)}\n"
        for start_s, end_s, lines in _cues(transcript)
    ]
    name = f" {shown(transcript.id)}" if several else ""
    return "".join([f"WEBVTT{name}\n", *blocks])


def _cues(transcript: Transcript) -> Iterator[tuple[float, float, str]]:
    """From when to when which lines are shown."""
    cues: list[list[Word]] = []
    for word in transcript.words:
        if cues and _fits(word, cues[-1]):
            cues[-1].append(word)
        else:
            cues.append([word])
    shown_s = 0.0  # until when the cue before is shown
    following_s = [cue[0].start_s for cue in cues[1:]]
    for cue, next_s in zip(cues, [*following_s, math.inf]):
        start_s = max(cue[0].start_s, shown_s)
        end_s = max(cue[-1].end_s, start_s + SHORTEST_CUE_S)
        # A single word may have been given the whole of a long silence.
        end_s = min(end_s, next_s, start_s + CUE_S)
        shown_s = max(end_s, start_s + SHORTEST_WORD_S)
        yield start_s, shown_s, "\n".join(_lines(cue))


def _fits(word: Word, cue: list[Word]) -> bool:
    """Whether a word is shown together with those before it."""
    return (
        word.end_s - cue[0].start_s <= CUE_S
        and word.start_s - cue[-1].end_s <= CUE_PAUSE_S
        and len(_lines([*cue, word])) <= 2
    )


def _lines(cue: list[Word]) -> list[str]:
    return textwrap.wrap(
        " ".join(word.text for word in cue),
        LINE_LETTERS,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _clock(time_s: float, point: str = ",") -> str:
    """Hours, minutes, seconds and milliseconds as SubRip writes them."""
    ms = round(time_s * 1000)
    minutes, ms = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{ms // 1000:02d}{point}{ms % 1000:03d}"


@dataclass(frozen=True)
class Format:
    """How transcripts are written."""

    name: str  # also the suffix of its files
    text: Callable[[Transcript, bool], str]  # of one, or of one of several
    between: str = ""  # several
    own_files: bool = False  # a file holds one recording: players read it
    # Before and after all, also where there is one.
    head: str = ""
    tail: Callable[[Summary], str] = lambda summary: ""


FORMATS = {
    each.name: each
    for each in (
        Format("txt", as_text),
        Format(
            "json",
            as_json,
            between=",\n",
            head='{"files": [\n',
            tail=_json_tail,
        ),
        Format("srt", as_srt, between="\n", own_files=True),
        Format("vtt", as_vtt, between="\n", own_files=True),
        Format("ctm", as_ctm),
    )
}


class StreamOutput:
    """All transcripts one after the other."""

    def __init__(self, stream: TextIO, form: Format, several: bool):
        self.stream = stream
        self.form = form
        self.several = several or bool(form.head)
        self._before = ""
        stream.write(form.head)

    def write(self, transcript: Transcript) -> None:
        """Write a transcript at once."""
        text = self.form.text(transcript, self.several)
        self.stream.write(self._before + text)
        self._before = self.form.between
        self.stream.flush()

    def finish(self, summary: Summary) -> None:
        """Write what follows the last transcript."""
        self.stream.write(self.form.tail(summary))
        self.stream.flush()


class FolderOutput:
    """A file per transcript, named after the recording."""

    def __init__(self, folder: Path, form: Format):
        self.folder = folder
        self.form = form

    def write(self, transcript: Transcript) -> None:
        """Write a transcript's file."""
        name = f"{transcript.id}.{self.form.name}"
        self._write(name, self.form.text(transcript, False))

    def finish(self, summary: Summary) -> None:
        """Write the summary, if the format has one."""
        if self.form.head:
            text = json.dumps(summary_data(summary), indent=2) + "\n"
            self._write(SUMMARY_FILE, text)

    def _write(self, name: str, text: str) -> None:
        with whole_file(self.folder / name, text=True) as stream:
            stream.write(text)


@contextmanager
def open_output(
    out: str | None, form: Format, recordings: Sequence[Recording]
) -> Iterator[StreamOutput | FolderOutput]:
    """Where transcripts go: a folder, if ``out`` is one, has no suffix or
    ends in a slash; else a file; without it standard output.
    """
    several = len(recordings) > 1
    if out is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # As in files: no letter of a transcript is lost to a locale.
            sys.stdout.reconfigure(encoding="utf-8")
        yield StreamOutput(sys.stdout, form, several)
        return
    if os.path.isdir(out) or out.endswith("/") or not Path(out).suffix:
        yield FolderOutput(Path(out), form)
        return
    if several and form.own_files:
        raise InputError(
            f"out: {out} cannot hold {form.name} of {len(recordings)} "
            "recordings; give a folder with --out."
        )
    if os.path.realpath(out) in {os.path.realpath(r.path) for r in recordings}:
        raise InputError(
            f"out: {out} is one of the recordings and would be overwritten; "
            "choose another name."
        )
    ended: BaseException | None = None
    with whole_file(out, text=True) as stream:
        try:
            yield StreamOutput(stream, form, several)
        except BaseException as error:  # what is done stays
            ended = error
    if ended is not None:
        raise ended


# ---- The command ---------------------------------------------------------


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
