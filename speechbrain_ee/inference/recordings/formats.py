"""Transcripts as text: txt, json, srt, vtt and ctm.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import math
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from speechbrain_ee.errors import InputError
from speechbrain_ee.inference.hypothesis import Word
from speechbrain_ee.inference.recordings.stream import shown
from speechbrain_ee.inference.recordings.transcript import (
    Segment,
    Summary,
    Transcript,
)

# What subtitles usually keep to: two lines that are read in their time.
LINE_LETTERS = 42
CUE_S = 7.0
SHORTEST_CUE_S = 1.0
CUE_PAUSE_S = 1.0  # a longer pause begins a new cue
SHORTEST_WORD_S = 0.001


@dataclass(frozen=True)
class Format:
    """How transcripts are written.

    Arguments
    ---------
    name : str
        Also the suffix of its files.
    document : callable
        A transcript as a file of its own.
    entry : callable
        A transcript as a part of an output of several.
    head, between : str
        What such a file begins with, and what separates entries.
    tail : callable
        What it ends with.
    always_entries : bool
        Write a single transcript as an entry as well.
    own_files : bool
        A file holds one recording: players read it.
    """

    name: str
    document: Callable[[Transcript], str]
    entry: Callable[[Transcript], str]
    head: str = ""
    between: str = ""
    tail: Callable[[Summary], str] = lambda summary: ""
    always_entries: bool = False
    own_files: bool = False


def get_format(name: str) -> Format:
    """The format of a name.

    Arguments
    ---------
    name : str
        One of ``FORMATS``.

    Returns
    -------
    Format

    Raises
    ------
    InputError
        If there is no such format.

    Example
    -------
    >>> get_format("doc")
    Traceback (most recent call last):
    ...
    speechbrain_ee.errors.InputError: format: 'doc'; choose one of ...
    """
    if name not in FORMATS:
        raise InputError(
            f"format: {name!r}; choose one of {', '.join(FORMATS)}."
        )
    return FORMATS[name]


def as_text(transcript: Transcript) -> str:
    """The words alone, on a line."""
    return transcript.text + "\n"


def as_text_line(transcript: Transcript) -> str:
    """The recording's name, a tab and the words."""
    return f"{shown(transcript.id)}\t{transcript.text}\n"


def as_json(transcript: Transcript) -> str:
    """An object with all that is known."""
    return json.dumps(as_data(transcript), ensure_ascii=False)


def as_data(transcript: Transcript) -> dict[str, Any]:
    """All that is known, as plain data that JSON can hold.

    Arguments
    ---------
    transcript : Transcript
        What was said.

    Returns
    -------
    dict
        Times in seconds from the recording's beginning; ``score`` is None
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
    """The summary as plain data that JSON can hold.

    Arguments
    ---------
    summary : Summary
        What was done.

    Returns
    -------
    dict
        Averages over no audio are None.
    """
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


def as_vtt(transcript: Transcript) -> str:
    """The same as WebVTT, which web pages take."""
    return _as_vtt(transcript, "WEBVTT")


def as_named_srt(transcript: Transcript) -> str:
    """Subtitles behind a line with the recording's name."""
    return f"==> {shown(transcript.id)} <==\n{as_srt(transcript)}"


def as_named_vtt(transcript: Transcript) -> str:
    """WebVTT whose first line has the recording's name."""
    return _as_vtt(transcript, f"WEBVTT {shown(transcript.id)}")


def _as_vtt(transcript: Transcript, head: str) -> str:
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


KEEP_WORDS = {"break_long_words": False, "break_on_hyphens": False}


def _cues(words: tuple[Word, ...]) -> list[list[Word]]:
    """Words that are shown together."""
    cues: list[list[Word]] = []
    for word in words:
        if not cues or _full(cues[-1], word):
            cues.append([])
        cues[-1].append(word)
    return cues


def _full(cue: list[Word], word: Word) -> bool:
    """Does a word no longer belong to a cue?"""
    text = " ".join([*(each.text for each in cue), word.text])
    return (
        len(textwrap.wrap(text, LINE_LETTERS, **KEEP_WORDS)) > 2
        or word.end_s - cue[0].start_s > CUE_S
        or word.start_s - cue[-1].end_s > CUE_PAUSE_S
    )


def _clock(time_s: float, point: str = ",") -> str:
    """Hours, minutes, seconds and milliseconds as SubRip writes them."""
    ms = round(time_s * 1000)
    minutes, ms = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{ms // 1000:02d}{point}{ms % 1000:03d}"


FORMATS = {
    each.name: each
    for each in (
        Format("txt", as_text, as_text_line),
        Format(
            "json",
            lambda transcript: as_json(transcript) + "\n",
            as_json,
            head='{"files": [\n',
            between=",\n",
            tail=_json_tail,
            always_entries=True,
        ),
        Format("srt", as_srt, as_named_srt, between="\n", own_files=True),
        Format("vtt", as_vtt, as_named_vtt, between="\n", own_files=True),
        Format("ctm", as_ctm, as_ctm),
    )
}
