"""Transcripts of recordings: put together, formatted, and written.

Formats are txt, json, srt, vtt and ctm; they go to standard output, a file,
or a folder of files. Files are written whole or not at all. A file of many
transcripts takes its place when the run ends, also when it is ended by an
error or an interrupt.

Authors
 * The speechbrain-ee contributors 2026
"""

import io
import json
import math
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from speechbrain_ee.errors import InputError
from speechbrain_ee.files import whole_file
from speechbrain_ee.inference.hypothesis import Hypothesis, Word
from speechbrain_ee.inference.recordings import Recording, shown

# What subtitles usually keep to: two lines that are read in their time.
LINE_LETTERS = 42
CUE_S = 7.0
SHORTEST_CUE_S = 1.0
CUE_PAUSE_S = 1.0  # a longer pause begins a new cue
SHORTEST_WORD_S = 0.001
KEEP_WORDS = {"break_long_words": False, "break_on_hyphens": False}
SUMMARY_FILE = "_summary.json"


@dataclass(frozen=True)
class Segment:
    """A stretch of a recording and what was said in it."""

    start_s: float  # in the recording
    end_s: float
    hypothesis: Hypothesis  # its times count from start_s

    @property
    def skipped_s(self) -> float:
        """Seconds that no model heard."""
        skipped = self.hypothesis.skipped is not None
        return self.end_s - self.start_s if skipped else 0.0

    @property
    def words(self) -> tuple[Word, ...]:
        """The words, their times counted from the recording's beginning.

        Where the recogniser gives no times, the words share the stretch by
        their number of letters.
        """
        words = self.hypothesis.words or self._spread()
        return tuple(
            replace(
                word,
                start_s=self.start_s + word.start_s,
                end_s=self.start_s + word.end_s,
            )
            for word in words
        )

    def _spread(self) -> list[Word]:
        texts = self.hypothesis.text.split()
        letter_s = (self.end_s - self.start_s) / max(sum(map(len, texts)), 1)
        words = []
        start_s = 0.0
        for text in texts:
            end_s = start_s + len(text) * letter_s
            confidence = self.hypothesis.confidence
            words.append(Word(text, start_s, end_s, confidence))
            start_s = end_s
        return words


@dataclass(frozen=True)
class Transcript:
    """What was said in a recording.

    Arguments
    ---------
    id : str
        Its name in the output.
    path : str
        Where it was read.
    duration_s : float
        How much of it was read, in seconds.
    segments : tuple of Segment
        In order; together they are the recording.
    fault : str, optional
        What is wrong with it, if not all of it could be read.

    Example
    -------
    >>> said = Hypothesis("YES", (), 2, 4, 0.1, 0.9, (), ("YES",), 10, 1.5)
    >>> segments = (Segment(0.0, 1.5, said), Segment(1.5, 3.0, said))
    >>> transcript = Transcript("a", "a.wav", 3.0, segments)
    >>> transcript.text, transcript.macs, transcript.mean_layer
    ('YES YES', 20, 4.0)
    >>> transcript.words[1]
    Word(text='YES', start_s=1.5, end_s=3.0, confidence=0.9)
    """

    id: str
    path: str
    duration_s: float
    segments: tuple[Segment, ...]
    fault: str | None = None

    @property
    def text(self) -> str:
        """All the words."""
        texts = [segment.hypothesis.text.strip() for segment in self.segments]
        return " ".join(text for text in texts if text)

    @property
    def words(self) -> tuple[Word, ...]:
        """All the words with their times in the recording."""
        return tuple(word for each in self.segments for word in each.words)

    @property
    def macs(self) -> int:
        """Multiply-accumulates that were spent on it."""
        return sum(segment.hypothesis.macs for segment in self.segments)

    @property
    def mean_layer(self) -> float:
        """Layers that were computed, averaged over its seconds."""
        lengths_s = [each.end_s - each.start_s for each in self.segments]
        layers = [each.hypothesis.layer for each in self.segments]
        return sum(s * k for s, k in zip(lengths_s, layers)) / sum(lengths_s)

    @property
    def skipped_s(self) -> float:
        """Seconds of it that no model heard, because nobody speaks."""
        return sum(each.skipped_s for each in self.segments)

    @property
    def hypothesis(self) -> Hypothesis:
        """All of it as one hypothesis.

        Of several segments the exit and the layer are the deepest, the score
        is NaN, and the confidence is the mean over all tokens.
        """
        if len(self.segments) == 1:
            return self.segments[0].hypothesis
        said = [segment.hypothesis for segment in self.segments]
        tokens = tuple(token for one in said for token in one.tokens)
        sure = sum(one.confidence * len(one.tokens) for one in said)
        deepest = max(said, key=lambda one: one.layer)
        return Hypothesis(
            text=self.text,
            tokens=tokens,
            exit=deepest.exit,
            layer=deepest.layer,
            score=math.nan,
            confidence=sure / max(len(tokens), 1),
            words=self.words,
            nbest=(self.text,),
            macs=self.macs,
            duration_s=self.duration_s,
            skipped=deepest.skipped,
        )


@dataclass(frozen=True)
class Failure:
    """A recording that could not be transcribed, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Summary:
    """What a run of the command has done."""

    transcribed: int  # recordings with a transcript
    failures: tuple[Failure, ...]  # those without, or not read to the end
    duration_s: float  # audio that was transcribed
    wall_s: float  # time that it took, without loading the model
    mean_layer: float  # averaged over the audio; NaN if there was none
    macs: int
    skipped_s: float = 0.0  # audio that no model heard: nobody speaks

    @property
    def real_time_factor(self) -> float:
        """Seconds of work per second of audio; NaN if there was none."""
        return self.wall_s / self.duration_s if self.duration_s else math.nan

    def __str__(self) -> str:
        if not self.duration_s:
            return "nothing transcribed yet"
        return (
            f"{self.duration_s:.0f} s of audio in {self.wall_s:.1f} s, "
            f"real-time factor {self.real_time_factor:.3f}, "
            f"{self.mean_layer:.1f} layers"
        )


@dataclass(frozen=True)
class Format:
    """How transcripts are written."""

    name: str  # also the suffix of its files
    document: Callable[[Transcript], str]  # a transcript as its own file
    entry: Callable[[Transcript], str]  # as a part of an output of several,
    head: str = ""  # which begins with this,
    between: str = ""  # has this between entries,
    tail: Callable[[Summary], str] = lambda summary: ""  # and ends with this
    always_entries: bool = False  # a single transcript is an entry, too
    own_files: bool = False  # a file holds one recording: players read it


def get_format(name: str) -> Format:
    """The format of a name, one of ``FORMATS``."""
    if name not in FORMATS:
        raise InputError(
            f"format: {name!r}; choose one of {', '.join(FORMATS)}."
        )
    return FORMATS[name]


def as_text(transcript: Transcript) -> str:
    """The words alone, on a line."""
    return transcript.text + "\n"


def as_json(transcript: Transcript) -> str:
    """An object with all that is known."""
    return json.dumps(as_data(transcript), ensure_ascii=False)


def as_data(transcript: Transcript) -> dict[str, Any]:
    """All that is known, as plain data that JSON can hold.

    Times are in seconds from the recording's beginning; ``score`` is None
    where no score decided. A segment that no model heard says why
    (``skipped``); its exit, layer and cost are 0.
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
    return data


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
        "words": [_word_data(word) for word in segment.words],
    }
    if said.skipped is not None:
        data["skipped"] = said.skipped
    return data


def _word_data(word: Word) -> dict[str, Any]:
    return {
        "text": word.text,
        "start_s": round(word.start_s, 3),
        "end_s": round(word.end_s, 3),
        "confidence": _number(word.confidence),
    }


def _number(value: float) -> float | None:
    """JSON has neither NaN nor infinity."""
    return round(float(value), 6) if math.isfinite(value) else None


def summary_data(summary: Summary) -> dict[str, Any]:
    """The summary as plain data that JSON can hold."""
    return {
        "transcribed": summary.transcribed,
        "failures": [
            {"path": shown(each.path), "reason": each.reason}
            for each in summary.failures
        ],
        "duration_s": round(summary.duration_s, 3),
        "skipped_s": round(summary.skipped_s, 3),
        "wall_s": round(summary.wall_s, 3),
        "real_time_factor": _number(summary.real_time_factor),
        "mean_layer": _number(summary.mean_layer),
        "macs": summary.macs,
    }


def _json_tail(summary: Summary) -> str:
    line = json.dumps(summary_data(summary), ensure_ascii=False)
    return f'\n],\n"summary": {line}}}\n'


def as_ctm(transcript: Transcript) -> str:
    """One line per word: file, channel, begin, duration, word, confidence.

    The format of NIST's ``sclite``; white space in names becomes ``_``.
    """
    name = "_".join(shown(transcript.id).split())
    lines = []
    for word in transcript.words:
        length_s = max(word.end_s - word.start_s, SHORTEST_WORD_S)
        lines.append(
            f"{name} 1 {word.start_s:.3f} {length_s:.3f} {word.text} "
            f"{word.confidence:.4f}\n"
        )
    return "".join(lines)


def as_srt(transcript: Transcript) -> str:
    """Subtitles: numbered cues of at most two lines and seven seconds."""
    blocks = [
        f"{number}\n{_clock(start_s)} --> {_clock(end_s)}\n{lines}\n"
        for number, (start_s, end_s, lines) in enumerate(
            _shown_cues(transcript), 1
        )
    ]
    return "\n".join(blocks)


def as_vtt(transcript: Transcript, head: str = "WEBVTT") -> str:
    """The same as WebVTT, which web pages take."""
    # What would begin a tag or a character's name.
    escapes = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
    blocks = [
        f"\n{_clock(start_s, '.')} --> {_clock(end_s, '.')}\n"
        f"{lines.translate(escapes)}\n"
        for start_s, end_s, lines in _shown_cues(transcript)
    ]
    return "".join([head + "\n", *blocks])


def _shown_cues(transcript: Transcript) -> Iterator[tuple[float, float, str]]:
    """From when to when which lines are shown."""
    cues = _cues(transcript.words)
    shown_s = 0.0  # until when the cue before is shown
    for cue, following in zip(cues, [*cues[1:], None]):
        start_s = max(cue[0].start_s, shown_s)
        end_s = max(cue[-1].end_s, start_s + SHORTEST_CUE_S)
        if following is not None:
            end_s = min(end_s, following[0].start_s)
        # A single word may have been given the whole of a long silence.
        end_s = min(end_s, start_s + CUE_S)
        shown_s = max(end_s, start_s + SHORTEST_WORD_S)
        text = " ".join(word.text for word in cue)
        lines = "\n".join(textwrap.wrap(text, LINE_LETTERS, **KEEP_WORDS))
        yield start_s, shown_s, lines


def _cues(words: tuple[Word, ...]) -> list[list[Word]]:
    """Words that are shown together."""
    cues: list[list[Word]] = []
    for word in words:
        cue = [*cues[-1], word] if cues else [word]
        text = " ".join(each.text for each in cue)
        if (
            len(cue) == 1
            or len(textwrap.wrap(text, LINE_LETTERS, **KEEP_WORDS)) > 2
            or word.end_s - cue[0].start_s > CUE_S
            or word.start_s - cue[-2].end_s > CUE_PAUSE_S
        ):
            cues.append([word])
        else:
            cues[-1].append(word)
    return cues


def _clock(time_s: float, point: str = ",") -> str:
    """Hours, minutes, seconds and milliseconds as SubRip writes them."""
    ms = round(time_s * 1000)
    minutes, ms = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{ms // 1000:02d}{point}{ms % 1000:03d}"


FORMATS = {
    each.name: each
    for each in (
        Format(
            "txt",
            as_text,
            lambda each: f"{shown(each.id)}\t{as_text(each)}",
        ),
        Format(
            "json",
            lambda each: as_json(each) + "\n",
            as_json,
            head='{"files": [\n',
            between=",\n",
            tail=_json_tail,
            always_entries=True,
        ),
        Format(
            "srt",
            as_srt,
            lambda each: f"==> {shown(each.id)} <==\n{as_srt(each)}",
            between="\n",
            own_files=True,
        ),
        Format(
            "vtt",
            as_vtt,
            lambda each: as_vtt(each, f"WEBVTT {shown(each.id)}"),
            between="\n",
            own_files=True,
        ),
        Format("ctm", as_ctm, as_ctm),
    )
}


class StreamOutput:
    """All transcripts one after the other."""

    def __init__(self, stream: TextIO, form: Format, several: bool):
        self.stream = stream
        self.form = form
        self.entries = several or form.always_entries
        self._count = 0
        if self.entries:
            stream.write(form.head)

    def write(self, transcript: Transcript) -> None:
        """Write a transcript at once."""
        text = self.form.document(transcript)
        if self.entries:
            text = self.form.entry(transcript)
            self.stream.write(self.form.between if self._count else "")
        self.stream.write(text)
        self.stream.flush()
        self._count += 1

    def finish(self, summary: Summary) -> None:
        """Write what follows the last transcript."""
        if self.entries:
            self.stream.write(self.form.tail(summary))
        self.stream.flush()


class FolderOutput:
    """A file per transcript, named after the recording."""

    def __init__(self, folder: Path, form: Format):
        self.folder = folder
        self.form = form

    def write(self, transcript: Transcript) -> None:
        """Write a transcript's file."""
        target = self.folder / f"{transcript.id}.{self.form.name}"
        with whole_file(target, text=True) as stream:
            stream.write(self.form.document(transcript))

    def finish(self, summary: Summary) -> None:
        """Write the summary, if the format has one."""
        if self.form.always_entries:
            text = json.dumps(summary_data(summary), indent=2) + "\n"
            with whole_file(self.folder / SUMMARY_FILE, text=True) as stream:
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
    inputs = {os.path.realpath(recording.path) for recording in recordings}
    if os.path.realpath(out) in inputs:
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
