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
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
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
SUMMARY_FILE = "_summary.json"


@dataclass(frozen=True)
class Segment:
    """A stretch of a recording and what was said in it."""

    start_s: float  # in the recording
    end_s: float
    hypothesis: Hypothesis  # its times count from start_s

    @property
    def length_s(self) -> float:
        """Its seconds."""
        return self.end_s - self.start_s

    @property
    def skipped_s(self) -> float:
        """Seconds that no model heard."""
        return 0.0 if self.hypothesis.skipped is None else self.length_s

    @property
    def words(self) -> tuple[Word, ...]:
        """The words, their times counted from the recording's beginning.

        Where the recogniser gives no times, the words share the stretch by
        their number of letters.
        """
        return tuple(
            replace(
                word,
                start_s=self.start_s + word.start_s,
                end_s=self.start_s + word.end_s,
            )
            for word in self.hypothesis.words or self._spread()
        )

    def _spread(self) -> Iterator[Word]:
        texts = self.hypothesis.text.split()
        letter_s = self.length_s / max(sum(map(len, texts)), 1)
        start_s = 0.0
        for text in texts:
            end_s = start_s + len(text) * letter_s
            yield Word(text, start_s, end_s, self.hypothesis.confidence)
            start_s = end_s


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
        layers_s = [s.length_s * s.hypothesis.layer for s in self.segments]
        return sum(layers_s) / sum(s.length_s for s in self.segments)

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
        said = [segment.hypothesis for segment in self.segments]
        if len(said) == 1:
            return said[0]
        tokens = tuple(token for one in said for token in one.tokens)
        sure = sum(one.confidence * len(one.tokens) for one in said)
        return replace(
            max(said, key=lambda one: one.layer),
            text=self.text,
            tokens=tokens,
            score=math.nan,
            confidence=sure / max(len(tokens), 1),
            words=self.words,
            nbest=(self.text,),
            macs=self.macs,
            duration_s=self.duration_s,
        )


@dataclass(frozen=True)
class Failure:
    """A recording that could not be transcribed, and why."""

    path: str
    reason: str


@dataclass
class Summary:
    """What a run has done so far."""

    transcribed: int = 0  # recordings with a transcript
    # Recordings without one, or not read to the end.
    failures: list[Failure] = field(default_factory=list)
    duration_s: float = 0.0  # audio that was transcribed
    skipped_s: float = 0.0  # audio that no model heard: nobody speaks
    layers_s: float = 0.0  # layers times seconds
    macs: int = 0
    began_s: float = field(default_factory=time.perf_counter)

    def add(self, segment: Segment) -> None:
        """Count what was transcribed."""
        self.duration_s += segment.length_s
        self.skipped_s += segment.skipped_s
        self.layers_s += segment.length_s * segment.hypothesis.layer
        self.macs += segment.hypothesis.macs

    @property
    def wall_s(self) -> float:
        """Time that it took until now, without loading the model."""
        return time.perf_counter() - self.began_s

    def by_second(self, value: float) -> float:
        """A value over the seconds of audio; NaN if there were none."""
        return value / self.duration_s if self.duration_s else math.nan

    def __str__(self) -> str:
        if not self.duration_s:
            return "nothing transcribed yet"
        return (
            f"{self.duration_s:.0f} s of audio in {self.wall_s:.1f} s, "
            f"real-time factor {self.by_second(self.wall_s):.3f}, "
            f"{self.by_second(self.layers_s):.1f} layers"
        )


def as_text(transcript: Transcript) -> str:
    """The words alone, on a line."""
    return transcript.text + "\n"


def as_json(transcript: Transcript) -> str:
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
    return json.dumps(data, ensure_ascii=False)


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


def as_ctm(transcript: Transcript) -> str:
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


def as_srt(transcript: Transcript) -> str:
    """Subtitles: numbered cues of at most two lines and seven seconds."""
    return "\n".join(
        f"{number}\n{_clock(start_s)} --> {_clock(end_s)}\n{lines}\n"
        for number, (start_s, end_s, lines) in enumerate(_cues(transcript), 1)
    )


def as_vtt(transcript: Transcript, head: str = "WEBVTT") -> str:
    """The same as WebVTT, which web pages take."""
    # What would begin a tag or a character's name.
    escapes = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
    blocks = [
        f"\n{_clock(start_s, '.')} --> {_clock(end_s, '.')}\n"
        f"{lines.translate(escapes)}\n"
        for start_s, end_s, lines in _cues(transcript)
    ]
    return "".join([head + "\n", *blocks])


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
    document: Callable[[Transcript], str]  # a transcript as its own file
    entry: Callable[[Transcript], str]  # as a part of an output of several,
    head: str = ""  # which begins with this,
    between: str = ""  # has this between entries,
    tail: Callable[[Summary], str] = lambda summary: ""  # and ends with this
    always_entries: bool = False  # a single transcript is an entry, too
    own_files: bool = False  # a file holds one recording: players read it


FORMATS = {
    each.name: each
    for each in (
        Format("txt", as_text, lambda t: f"{shown(t.id)}\t{as_text(t)}"),
        Format(
            "json",
            lambda transcript: as_json(transcript) + "\n",
            as_json,
            head='{"files": [\n',
            between=",\n",
            tail=_json_tail,
            always_entries=True,
        ),
        Format(
            "srt",
            as_srt,
            lambda t: f"==> {shown(t.id)} <==\n{as_srt(t)}",
            between="\n",
            own_files=True,
        ),
        Format(
            "vtt",
            as_vtt,
            lambda t: as_vtt(t, f"WEBVTT {shown(t.id)}"),
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
        self._before = ""
        if self.entries:
            stream.write(form.head)

    def write(self, transcript: Transcript) -> None:
        """Write a transcript at once."""
        if self.entries:
            self.stream.write(self._before + self.form.entry(transcript))
            self._before = self.form.between
        else:
            self.stream.write(self.form.document(transcript))
        self.stream.flush()

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
        name = f"{transcript.id}.{self.form.name}"
        self._write(name, self.form.document(transcript))

    def finish(self, summary: Summary) -> None:
        """Write the summary, if the format has one."""
        if self.form.always_entries:
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
