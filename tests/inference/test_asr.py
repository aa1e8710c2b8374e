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


def test_the_policy_can_be_changed_while_running(asr):
    """For a call or from now on; a wrong one changes nothing."""
    wave = waves()[0]
    weights = [id(parameter) for parameter in asr.model.parameters()]
    assert asr.transcribe(wave).exit == 1
    for policy, exit in (
        ("slow", 4),
        (3, 3),
        (ThresholdPolicy("max_prob", 2.0), 4),
    ):
        assert asr.transcribe(wave, policy=policy).exit == exit
        assert asr.transcribe(wave).exit == 1
    with pytest.raises(InputError):
        asr.policy = "unheard-of"
    assert asr.policy.name == "fast"
    for policy, exit in (("slow", 4), (2, 2), ("last", 4), (None, 1)):
        asr.policy = policy
        assert asr.transcribe(wave).exit == exit
    assert weights == [id(parameter) for parameter in asr.model.parameters()]


def test_many_at_once_in_their_order(asr):
    together = asr.transcribe(waves(), policy=3)
    alone = [asr.transcribe(wave, policy=3) for wave in waves()]
    assert [one.tokens for one in together] == [one.tokens for one in alone]
    lengths = [len(wave) / SAMPLE_RATE for wave in waves()]
    assert [one.duration_s for one in together] == lengths
    assert asr.transcribe([]) == []


def test_batches_are_bounded_and_of_like_length(asr, monkeypatch):
    seen, run = [], asr.runner.run

    def noted(wavs, lens, policy):
        seen.append(tuple(wavs.shape))
        return run(wavs, lens, policy)

    monkeypatch.setattr(asr.runner, "run", noted)
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


@pytest.mark.parametrize("samples", [1, 100, 399, 400, 401, 8000])
def test_short_silent_and_clipped_audio(asr, samples):
    for value in (0.0, 0.1, 1.0):
        heard = asr.transcribe(torch.full((samples,), value), policy="slow")
        assert heard.duration_s == samples / SAMPLE_RATE
        assert 0 <= heard.confidence <= 1


def test_another_decoding():
    model = live_model(attention="shared")
    asr = EarlyExitASR(folder_of(model), policy="slow", decoding="joint")
    heard = asr.transcribe(waves()[1])
    assert heard.nbest[0] == heard.text and len(heard.nbest) == 2
    with pytest.raises(InputError, match="attention heads"):
        EarlyExitASR(folder_of(live_model()), decoding="joint")


def test_words_have_times_inside_the_audio(asr):
    for heard in asr.transcribe(waves(), policy="last"):
        assert " ".join(word.text for word in heard.words) == heard.text
        starts = [word.start_s for word in heard.words]
        assert starts == sorted(starts)
        for word in heard.words:
            assert 0 <= word.start_s < word.end_s <= heard.duration_s + 1e-3


def test_a_run_says_what_its_export_says(run_of, exported, caplog):
    """Both can be opened; trust, which matters to runs, is said aloud."""
    run, folder = run_of("digits").folder, exported("digits")
    caplog.clear()  # the export itself may warn
    with caplog.at_level(logging.WARNING, logger="speechbrain_ee"):
        read = open_source(folder, trust=True)
        assert not caplog.records
        opened = open_source(run, trust=True)
    assert "may be executed" in caplog.text
    assert opened.exit_layers == read.exit_layers
    with torch.no_grad():
        said = log_probs(opened.model.eval())
        expected = log_probs(read_model_folder(folder).model)
    for ours, theirs in zip(said, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_neither_folder_nor_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no/such/folder"):
        EarlyExitASR.from_hparams("no/such/folder")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty"):
        open_source(tmp_path / "empty")
