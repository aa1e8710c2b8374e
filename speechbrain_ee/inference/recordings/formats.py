"""Transcripts as text: txt, json, srt and ctm.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import math
import textwrap
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from speechbrain_ee.errors import InputError
from speechbrain_ee.inference.live.hypothesis import Word
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
    entry : callable, optional
        A transcript as a part of a file of several; None if the format has
        no such files.
    head, between : str
        What such a file begins with, and what separates entries.
    tail : callable
        What it ends with.
    always_entries : bool
        Write a single transcript as an entry as well.
    """

    name: str
    document: Callable[[Transcript], str]
    entry: Callable[[Transcript], str] | None
    head: str = ""
    between: str = ""
    tail: Callable[[Summary], str] = lambda summary: ""
    always_entries: bool = False


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
    >>> get_format("vtt")
    Traceback (most recent call last):
    ...
    speechbrain_ee.errors.InputError: format: 'vtt'; choose one of ...
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
    return f"{transcript.id}\t{transcript.text}\n"


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
        where no score decided.
    """
    data = {
        "id": transcript.id,
        "path": transcript.path,
        "duration_s": round(transcript.duration_s, 3),
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
    return {
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
        "failures": [asdict(failure) for failure in summary.failures],
        "duration_s": round(summary.duration_s, 3),
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
    name = "_".join(transcript.id.split())
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
    cues = _cues(transcript.words)
    blocks = []
    shown_s = 0.0  # until when the cue before is shown
    for number, cue in enumerate(cues, start=1):
        start_s = max(cue[0].start_s, shown_s)
        end_s = max(cue[-1].end_s, start_s + SHORTEST_CUE_S)
        if number < len(cues):
            end_s = min(end_s, cues[number][0].start_s)
        shown_s = max(end_s, start_s + SHORTEST_WORD_S)
        text = " ".join(word.text for word in cue)
        lines = "\n".join(textwrap.wrap(text, LINE_LETTERS, **KEEP_WORDS))
        blocks.append(
            f"{number}\n{_clock(start_s)} --> {_clock(shown_s)}\n{lines}\n"
        )
    return "\n".join(blocks)


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


def _clock(time_s: float) -> str:
    """Hours, minutes, seconds and milliseconds as SubRip writes them."""
    ms = round(time_s * 1000)
    minutes, ms = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{ms // 1000:02d},{ms % 1000:03d}"


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
        Format("srt", as_srt, None),
        Format("ctm", as_ctm, as_ctm),
    )
}
