"""Policies and outputs as users write them, and numbers as they read them.

``entropy:0.9`` was not understood, a budget was answered with
``macs=5.339322909M``, WebVTT was missing, and subtitles of several recordings
could not go to standard output.

Authors
 * The speechbrain-ee contributors 2026
"""

import re
from pathlib import Path

import numpy as np
import pytest

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.calibration.budget import Budget, Outcomes
from speechbrain_ee.inference.hypothesis import Word
from speechbrain_ee.inference.onnx.host import Manifest, resolve
from speechbrain_ee.inference.policies import Policies
from speechbrain_ee.inference.recordings import find_recordings
from speechbrain_ee.inference.transcribe import transcribe
from speechbrain_ee.inference.transcriber import Transcriber
from speechbrain_ee.inference.transcripts import Segment, Transcript, as_vtt
from tests.inference.heard import Echo, hypothesis, record
from tests.spoken import spoken

LAYERS = (2, 4, 6)


@pytest.mark.parametrize(
    ("text", "criterion", "threshold"),
    [
        ("entropy:0.9", "entropy", -0.9),
        ("max_prob:0.9", "max_prob", 0.9),
        (" entropy : 0 ", "entropy", 0.0),
        ("tsallis_min:alpha=0.5:2e-1", "tsallis_min:alpha=0.5", -0.2),
        ("agreement:-0.5", "agreement", -0.5),
    ],
)
def test_a_criterion_with_a_threshold(text, criterion, threshold) -> None:
    live = Policies(LAYERS).resolve(text)
    assert live.rule.criterion == criterion
    assert live.rule.threshold == threshold
    assert (live.layers, live.name) == (LAYERS, text.strip())


def test_the_direction_is_right() -> None:
    rule = Policies(LAYERS).resolve("entropy:0.9").rule
    scores_B = -np.array([0.8, 0.9, 1.0])
    assert rule.stop(1, scores_B).tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("entropie:0.9", "valid criteria"),
        ("entropy:-0.9", "entropy:0.9 stops where it is at most 0.9"),
        ("entropy:nan", "none of this model's policies"),
        ("entropy:", "threshold such as entropy:0.9"),
    ],
)
def test_what_no_threshold_is(text, message) -> None:
    with pytest.raises(InputError, match=message):
        Policies(LAYERS).resolve(text)


def test_a_threshold_beside_all_values_is_said(caplog) -> None:
    policies = Policies(LAYERS, calibration=spoken(layers=LAYERS))
    policies.resolve("entropy:0.3")
    assert not caplog.records
    policies.resolve("entropy:9")
    assert "entropy:9: all" in caplog.text and "the first exit" in caplog.text
    policies.resolve("entropy:0")
    assert "the last exit" in caplog.text and "between" in caplog.text


def test_a_device_takes_the_same() -> None:
    manifest = object.__new__(Manifest)
    for name, value in (
        ("exit_layers", LAYERS),
        ("measures", ("entropy",)),
        ("default_policy", None),
    ):
        object.__setattr__(manifest, name, value)
    found = resolve("entropy:0.9", manifest, {})
    assert found.rule.threshold == -0.9 and found.layers == LAYERS


def test_numbers_are_short_and_can_be_used() -> None:
    outcomes = Outcomes(
        np.zeros((1, 2), int),
        np.array([9]),
        np.array([4, 8]),
        np.array([[7278331.0, 9e6]]),
    )
    with pytest.raises(InputError) as told:
        Budget("macs", 5339322.909).check(outcomes, "dev")
    said, least = re.findall(r"macs=\S+?[kMGT]", str(told.value))
    assert (said, least) == ("macs=5.34M", "macs=7.28M")
    Budget.parse(least).check(outcomes, "dev")
    assert "26.8M multiply" in Budget("macs", 26839322.9).words
    exact = Budget("macs", 5339322.909)
    assert Budget.parse(str(exact)) == exact


def test_web_subtitles() -> None:
    word = Word("<I>&", 3661.0, 3661.5, 1.0)
    said = hypothesis(word.text, 4000.0, (word,))
    found = Transcript("a", "a.wav", 4000.0, (Segment(0.0, 4000.0, said),))
    assert as_vtt(found) == (
        "WEBVTT\n\n01:01:01.000 --> 01:01:02.000\n&lt;I&gt;&amp;\n"
    )


@pytest.mark.parametrize("form", ["srt", "vtt"])
def test_subtitles_of_several_to_standard_output(
    tmp_path: Path, form: str, capsys
) -> None:
    paths = [record(tmp_path / f"{n}.wav", 8000) for n in "ab"]
    alone = []
    for path in paths:
        run([path], form)
        alone.append(capsys.readouterr().out)
    assert run(paths, form) == 0
    shown = capsys.readouterr().out
    if form == "srt":
        heads = [f"==> {n} <==\n{text}" for n, text in zip("ab", alone)]
    else:
        heads = [
            text.replace("WEBVTT", f"WEBVTT {n}", 1)
            for n, text in zip("ab", alone)
        ]
    assert shown == "\n".join(heads)
    assert all("n8000" in text for text in alone)


def run(paths: list[str], form: str) -> int:
    """The exit status."""
    return transcribe(Transcriber(Echo()), find_recordings(paths), form)
