"""The recogniser that users see.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.policy import ThresholdPolicy
from speechbrain_ee.inference.asr import EarlyExitASR, open_source
from speechbrain_ee.inference.folder.model_folder import read_model_folder
from tests.helpers import SAMPLE_RATE, padded
from tests.inference.live_runs import folder_of, live_model, waves
from tests.inference.runs import log_probs


@pytest.fixture(scope="module")
def asr():
    return EarlyExitASR(folder_of(live_model()))


def test_the_default_policy_is_the_folders(asr):
    assert asr.transcribe(waves()[0]).exit == 1
    assert asr.transcribe(waves()[0], policy="slow").exit == 4
    assert asr.transcribe(waves()[0], policy=3).exit == 3
    assert asr.transcribe(waves()[0]).exit == 1


def test_the_policy_can_be_changed_while_running(asr):
    weights = [id(parameter) for parameter in asr.model.parameters()]
    try:
        for policy, exit in (("slow", 4), (2, 2), ("last", 4), (None, 1)):
            asr.policy = policy
            assert asr.transcribe(waves()[0]).exit == exit
    finally:
        asr.policy = None
    assert weights == [id(parameter) for parameter in asr.model.parameters()]


def test_a_refused_policy_changes_nothing(asr):
    with pytest.raises(InputError):
        asr.policy = "unheard-of"
    assert asr.policy.name == "fast"


def test_many_at_once_in_their_order(asr):
    together = asr.transcribe(waves(), policy=3)
    alone = [asr.transcribe(wave, policy=3) for wave in waves()]
    assert [one.tokens for one in together] == [one.tokens for one in alone]
    assert [one.duration_s for one in together] == [
        len(wave) / SAMPLE_RATE for wave in waves()
    ]
    assert asr.transcribe([]) == []


def test_batches_are_bounded_and_of_like_length(asr, monkeypatch):
    seen = []
    run = asr.runner.run
    monkeypatch.setattr(
        asr.runner,
        "run",
        lambda wavs, lens, policy: (
            seen.append(tuple(wavs.shape)) or run(wavs, lens, policy)
        ),
    )
    asr.transcribe(waves(), batch_s=2.0)
    assert len(seen) > 1
    for rows, samples in seen:
        assert rows == 1 or rows * samples <= 2 * SAMPLE_RATE
    longest = [samples for _, samples in seen]
    assert longest == sorted(longest, reverse=True)


def test_as_speechbrains_encoder_asr(asr):
    words, tokens = asr.transcribe_batch(*padded(waves()))
    heard = asr.transcribe(waves())
    assert words == [one.text for one in heard]
    assert tokens == [list(one.tokens) for one in heard]


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_files(asr, tmp_path, rate):
    path = tmp_path / "wave.wav"
    tone = 0.2 * np.sin(np.arange(rate) * 2 * np.pi * 440 / rate)
    soundfile.write(path, np.stack([tone, tone], 1), rate, subtype="PCM_24")
    assert asr.transcribe_file(path) == asr.transcribe(str(path)).text
    assert asr.transcribe(path).duration_s == pytest.approx(1.0, abs=1e-3)


def test_arrays_and_other_types(asr):
    wave = waves()[0]
    expected = asr.transcribe(wave)
    for same in (wave.numpy(), wave.double(), wave.numpy().astype(np.float64)):
        assert asr.transcribe(same).tokens == expected.tokens


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (torch.zeros(2, 800), r"shape \(2, 800\)"),
        (torch.zeros(0), "at least one sample"),
        (torch.tensor([0.1, float("nan")]), "not finite"),
        ("missing.wav", "missing.wav"),
    ],
)
def test_bad_audio(asr, audio, message):
    with pytest.raises(InputError, match=message):
        asr.transcribe(audio)


@pytest.mark.parametrize("samples", [1, 100, 399, 400, 401])
def test_very_short_audio(asr, samples):
    heard = asr.transcribe(torch.full((samples,), 0.1))
    assert heard.duration_s == samples / SAMPLE_RATE


def test_silence_and_clipping(asr):
    for audio in (torch.zeros(8000), torch.ones(8000)):
        heard = asr.transcribe(audio, policy="slow")
        assert 0 <= heard.confidence <= 1


def test_another_decoding():
    model = live_model(attention="shared")
    asr = EarlyExitASR(folder_of(model), policy="slow", decoding="joint")
    heard = asr.transcribe(waves()[1])
    assert heard.nbest[0] == heard.text
    assert len(heard.nbest) == 2
    with pytest.raises(InputError, match="attention heads"):
        EarlyExitASR(folder_of(live_model()), decoding="joint")


def test_words_have_times_inside_the_audio(asr):
    for heard in asr.transcribe(waves(), policy="last"):
        assert " ".join(word.text for word in heard.words) == heard.text
        starts = [word.start_s for word in heard.words]
        assert starts == sorted(starts)
        for word in heard.words:
            assert 0 <= word.start_s < word.end_s <= heard.duration_s + 1e-3


def test_thresholds_as_objects(asr):
    rule = ThresholdPolicy("max_prob", 2.0)
    assert asr.transcribe(waves()[0], policy=rule).exit == 4


def test_a_run_says_what_its_export_says(run_of, exported):
    """Both can be opened, without an export in between."""
    run, folder = open_source(run_of("digits").folder), exported("digits")
    assert run.exit_layers == open_source(folder).exit_layers
    with torch.no_grad():
        said, expected = (
            log_probs(each.model.eval())
            for each in (run, read_model_folder(folder))
        )
    for ours, theirs in zip(said, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_trust_is_said_aloud(run_of, exported, caplog):
    """Of runs alone: nothing in an inference folder is executed."""
    with caplog.at_level(logging.WARNING, logger="speechbrain_ee"):
        open_source(exported("digits"), trust=True)
        assert not caplog.records
        open_source(run_of("digits").folder, trust=True)
    assert "may be executed" in caplog.text


def test_neither_folder_nor_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no/such/folder"):
        EarlyExitASR.from_hparams("no/such/folder")
    with pytest.raises(InputError, match="empty"):
        (tmp_path / "empty").mkdir()
        open_source(tmp_path / "empty")
