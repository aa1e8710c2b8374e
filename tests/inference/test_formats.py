"""Transcripts are written as other programs expect them.

Protects: times that start anew with every piece, NaN in JSON, overlapping
subtitles, and CTM columns.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechbrain_ee.inference.hypothesis import Word
from speechbrain_ee.inference.recordings import find_recordings
from speechbrain_ee.inference.transcribe import (
    CUE_S,
    LINE_LETTERS,
    as_ctm,
    as_json,
    as_srt,
    as_text,
    as_vtt,
    summary_data,
    transcribe,
)
from speechbrain_ee.inference.transcriber import (
    Failure,
    Segment,
    Summary,
    Transcriber,
    Transcript,
)
from tests.inference.heard import Echo, hypothesis, record

CUE = re.compile(
    r"(\d+)\n([\d:,]{12}) --> ([\d:,]{12})\n((?:.+\n){1,2})(?:\n|$)"
)


def transcript(words: list[Word], start_s: float = 0.0) -> Transcript:
    """A recording of one segment."""
    text = " ".join(word.text for word in words)
    end_s = start_s + (words[-1].end_s if words else 1.0)
    said = hypothesis(text, end_s - start_s, tuple(words))
    return Transcript("a", "a.wav", end_s, (Segment(start_s, end_s, said),))


def two_segments() -> Transcript:
    """Cut at 20 s; the second piece was decided by no score."""
    first = hypothesis("GOOD", 20, (Word("GOOD", 1.0, 1.5, 0.9),), layer=2)
    later = (Word("BY", 0.2, 0.5, 0.8), Word("E", 0.6, 0.7, 0.7))
    second = hypothesis(
        "BY E", 10, later, layer=8, exit=4, score=float("nan"), macs=5
    )
    segments = (Segment(0.0, 20.0, first), Segment(20.0, 30.0, second))
    return Transcript("talk one", "d/talk one.wav", 30.0, segments)


def seconds(clock: str) -> float:
    """SubRip's time."""
    hours, minutes, rest = clock.split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(rest.replace(",", "."))


def cues(text: str) -> list[tuple[float, float, str]]:
    """A strict reader of SubRip."""
    found = CUE.findall(text)
    assert "".join(
        f"{n}\n{a} --> {b}\n{lines}\n" for n, a, b, lines in found
    ) == text + ("\n" if text else "")
    assert [int(each[0]) for each in found] == [*range(1, len(found) + 1)]
    return [(seconds(a), seconds(b), lines) for _, a, b, lines in found]


def test_ctm() -> None:
    assert as_ctm(two_segments()).splitlines() == [
        "talk_one 1 1.000 0.500 GOOD 0.9000",
        "talk_one 1 20.200 0.300 BY 0.8000",
        "talk_one 1 20.600 0.100 E 0.7000",
    ]


def test_json() -> None:
    data = json.loads(as_json(two_segments()), parse_constant=pytest.fail)
    assert data["text"] == "GOOD BY E" and data["macs"] == 1005
    assert data["mean_layer"] == 4.0  # (20 * 2 + 10 * 8) / 30
    first, second = data["segments"]
    assert (second["start_s"], second["end_s"]) == (20.0, 30.0)
    assert (first["score"], second["score"]) == (-0.5, None)
    assert (second["exit"], second["layer"], second["macs"]) == (4, 8, 5)
    assert [word["start_s"] for word in second["words"]] == [20.2, 20.6]
    assert "fault" not in data


def test_summary_of_nothing() -> None:
    summary = Summary(failures=[Failure("a.wav", "bad")])
    data = json.loads(
        json.dumps(summary_data(summary)), parse_constant=pytest.fail
    )
    assert data["real_time_factor"] is None and data["mean_layer"] is None
    assert data["failures"] == [{"path": "a.wav", "reason": "bad"}]


@given(
    gaps=st.lists(
        st.tuples(st.floats(0, 3), st.floats(0, 2), st.integers(1, 60)),
        max_size=60,
    )
)
def test_subtitles_are_well_formed(gaps) -> None:
    now_s, words = 0.0, []
    for number, (gap_s, length_s, letters) in enumerate(gaps):
        start_s = now_s + gap_s
        now_s = start_s + length_s
        word = f"{number}{'x' * letters}"
        words.append(Word(word, start_s, now_s, 1.0))
    found = cues(as_srt(transcript(words)))
    shown = [word for *_, lines in found for word in lines.split()]
    assert shown == [word.text for word in words]
    for start_s, end_s, lines in found:
        assert end_s > start_s
        for line in lines.splitlines():
            assert len(line) <= LINE_LETTERS or " " not in line
        assert end_s - start_s <= CUE_S + 0.01
    for (_, end_s, _), (start_s, _, _) in zip(found, found[1:]):
        assert start_s >= end_s - 1e-9


def test_a_pause_begins_a_cue() -> None:
    words = [
        Word("ONE", 0.0, 0.4, 1.0),
        Word("TWO", 0.5, 0.9, 1.0),
        Word("THREE", 3661.0, 3661.2, 1.0),
    ]
    assert as_srt(transcript(words)) == (
        "1\n00:00:00,000 --> 00:00:01,000\nONE TWO\n\n"
        "2\n01:01:01,000 --> 01:01:02,000\nTHREE\n"
    )


def test_words_without_times_share_the_segment() -> None:
    said = hypothesis("AB ABCD", 6.0)
    found = Segment(10.0, 16.0, said).words
    assert [(w.text, w.start_s, w.end_s) for w in found] == [
        ("AB", 10.0, 12.0),
        ("ABCD", 12.0, 16.0),
    ]


def test_silence() -> None:
    silent = transcript([])
    assert (as_text(silent), as_srt(silent), as_ctm(silent)) == ("\n", "", "")


def test_web_subtitles_hold_no_tags() -> None:
    assert as_vtt(transcript([Word("<I>&", 3661.0, 3661.5, 1.0)])) == (
        "WEBVTT\n\n01:01:01.000 --> 01:01:02.000\n&lt;I&gt;&amp;\n"
    )


def test_no_cue_is_shown_for_a_whole_silence() -> None:
    """One word that was spread over 20 s."""
    found = transcript([Word("THE", 0.0, 20.0, 1.0)])
    assert as_srt(found) == "1\n00:00:00,000 --> 00:00:07,000\nTHE\n"
    assert as_vtt(found) == "WEBVTT\n\n00:00:00.000 --> 00:00:07.000\nTHE\n"


@pytest.mark.parametrize("form", ["srt", "vtt"])
def test_subtitles_of_several_to_standard_output(tmp_path, form, capsys):
    """Each after its name; one alone is the file itself."""
    paths = [record(tmp_path / f"{n}.wav", 8000) for n in "ab"]
    shown = []
    for inputs in (*([path] for path in paths), paths):
        recordings = find_recordings(inputs)
        assert transcribe(Transcriber(Echo()), recordings, form) == 0
        shown.append(capsys.readouterr().out)
    *alone, together = shown
    assert all("n8000" in text for text in alone)
    heads = [
        f"==> {name} <==\n{text}"
        if form == "srt"
        else text.replace("WEBVTT", f"WEBVTT {name}", 1)
        for name, text in zip("ab", alone)
    ]
    assert together == "\n".join(heads)
