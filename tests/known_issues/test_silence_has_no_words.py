"""Where nobody speaks, nothing is said and nothing is computed.

Two seconds of digital silence were transcribed as words, and so were 25 ms of
speech, through all the layers.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from speechbrain_ee.errors import InputError
from speechbrain_ee.inference.asr import EarlyExitASR
from speechbrain_ee.inference.onnx import host
from speechbrain_ee.inference.recordings import find_recordings
from speechbrain_ee.inference.segmentation import Cutting, speech_detector
from speechbrain_ee.inference.transcribe import transcribe
from speechbrain_ee.inference.transcriber import Transcriber
from tests.helpers import padded
from tests.inference.heard import RATE, record, speech
from tests.inference.live_runs import (
    LayerCounter,
    folder_of,
    live_model,
    waves,
)

SILENT = {
    "digital silence": np.zeros(2 * RATE, np.float32),
    "an offset": np.full(2 * RATE, 0.3, np.float32),
    "dither": np.random.default_rng(0).uniform(-1, 1, 2 * RATE) / 32768,
    "25 ms": speech(1)[: RATE // 40],
    "a click": np.eye(1, 2 * RATE, RATE)[0],
}


@pytest.fixture(scope="module")
def asr() -> EarlyExitASR:
    return EarlyExitASR(folder_of(live_model()), vad="energy")


@pytest.mark.parametrize("samples", SILENT.values(), ids=SILENT)
def test_no_words_and_no_layers(asr, samples) -> None:
    counter = LayerCounter(asr.model)
    wave = torch.from_numpy(np.asarray(samples, np.float32))
    said = asr.transcribe(wave, "last")
    assert (said.text, said.tokens, said.words) == ("", (), ())
    assert (said.exit, said.layer, said.macs) == (0, 0, 0)
    assert said.skipped == "no speech"
    assert said.duration_s == len(wave) / RATE
    assert counter.layers == [0] * 4
    loud = waves()[0]
    silent, spoken = asr.transcribe([wave, loud], "last")
    assert silent == said or silent.text == said.text == ""
    assert spoken.tokens == asr.transcribe(loud, "last").tokens
    assert spoken.skipped is None and spoken.text
    words, _ = asr.transcribe_batch(*padded([wave, loud]))
    assert words[0] == "" and words[1]


def test_it_is_said_in_the_json(asr, tmp_path: Path) -> None:
    quiet = np.zeros(20 * RATE, np.float32)
    record(tmp_path / "in" / "a.wav", SILENT["digital silence"])
    long = np.concatenate([speech(10), quiet, quiet, speech(10)])
    record(tmp_path / "in" / "b.wav", long)
    out = tmp_path / "all.json"
    recordings = find_recordings([str(tmp_path / "in")])
    transcriber = Transcriber(asr, Cutting(max_s=12))
    assert transcribe(transcriber, recordings, "json", str(out)) == 0
    data = json.loads(out.read_text())
    silent, mixed = data["files"]
    assert silent["text"] == "" and silent["skipped_s"] == 2.0
    assert silent["segments"][0]["skipped"] == "no speech"
    assert 20 < mixed["skipped_s"] < 40 and mixed["text"]
    spoken = [each for each in mixed["segments"] if "skipped" not in each]
    assert all(each["text"] and each["layer"] for each in spoken)
    summary = data["summary"]
    assert summary["transcribed"] == 2
    assert summary["skipped_s"] == pytest.approx(2 + mixed["skipped_s"])


def test_quiet_speech_is_heard(asr) -> None:
    assert asr.transcribe(0.015 * waves()[0], "last").skipped is None


def test_the_detector_can_be_chosen() -> None:
    off = EarlyExitASR(folder_of(live_model()), vad="off")
    assert off.transcribe(torch.zeros(2 * RATE)).layer > 0
    with pytest.raises(InputError, match="auto, silero, energy, off"):
        speech_detector("webrtc")


def test_silero_where_it_is_installed() -> None:
    if find_spec("silero_vad") is None:
        pytest.skip("silero-vad is not installed")
    threads = torch.get_num_threads()
    hum = 0.3 * np.sin(np.arange(2 * RATE) * 2 * np.pi * 50 / RATE)
    hum = hum.astype(np.float32)
    assert speech_detector("energy")(hum, RATE)
    for vad in ("silero", "auto"):
        assert not speech_detector(vad)(hum, RATE)
    assert torch.get_num_threads() == threads


def test_on_a_device(tmp_path: Path) -> None:
    found = object.__new__(host.OnnxRecogniser)
    found.manifest = type("Manifest", (), {"sample_rate": RATE})
    found.speaks = speech_detector("energy")
    found.resolve = lambda policy: policy
    (said,) = found.transcribe([SILENT["digital silence"]])
    assert (said.text, said.layer, said.skipped) == ("", 0, "no speech")
