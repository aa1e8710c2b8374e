"""The recogniser in a user's own program.

It could not be pickled, decoded an hour as one utterance, read a whole list
before the first word, took misspelt options, NaN and lengths of 2.0 in silence,
and lacked what SpeechBrain's ``EncoderASR`` has.

Authors
 * The speechbrain-ee contributors 2026
"""

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from speechbrain_ee.errors import InputError
from speechbrain_ee.inference.asr import EarlyExitASR
from speechbrain_ee.inference.live import LivePolicy
from speechbrain_ee.inference.transcriber import Failure, Transcript
from tests.helpers import padded
from tests.inference.heard import RATE, record, speech
from tests.inference.live_runs import folder_of, live_model, waves


@pytest.fixture(scope="module")
def asr() -> EarlyExitASR:
    """A tiny one whose default leaves at once."""
    return EarlyExitASR(folder_of(live_model()), vad="energy")


def test_it_travels_between_processes(asr) -> None:
    """Pickled, copied, compiled; after use, with its policies and budgets."""
    asr.transcribe(waves()[0])
    asr.policy = "entropy:0.5"
    compiled = EarlyExitASR(
        folder_of(live_model()), "entropy:0.5", vad="energy"
    )
    compiled.compile("eager").transcribe(waves()[0])
    try:
        for other in (
            pickle.loads(pickle.dumps(asr)),
            copy.deepcopy(asr),
            pickle.loads(pickle.dumps(compiled)),
        ):
            assert other.policy.name == "entropy:0.5"
            for policy in (None, "slow", 2):
                found = other.transcribe(waves()[1], policy)
                wanted = asr.transcribe(waves()[1], policy)
                assert found.tokens == wanted.tokens
                assert found.exit == wanted.exit
    finally:
        asr.policy = None
        torch.compiler.reset()


def test_long_audio_is_cut(
    asr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No batch holds a piece of more than 20 s, and no word is lost."""
    path = record(tmp_path / "talk.wav", speech(70), subtype="FLOAT")
    longest = []
    run = asr.runner.run

    def seen(wavs: Tensor, lens: Tensor, policy: LivePolicy) -> list:
        longest.append(wavs.shape[1])
        return run(wavs, lens, policy)

    monkeypatch.setattr(asr.runner, "run", seen)
    for audio in (path, speech(70)):
        said = asr.transcribe(audio, 2)
        assert said.duration_s == 70.0
        assert (said.exit, said.layer) == (2, 2)
        assert " ".join(word.text for word in said.words) == said.text
        starts = [word.start_s for word in said.words]
        assert starts == sorted(starts) and starts[-1] > 50
        assert 0 < said.confidence < 1 and said.macs > 0
    assert max(longest) <= 20 * RATE and len(longest) > 2


def test_a_list_is_read_while_it_is_transcribed(asr) -> None:
    """Results come before the last is read, each in its order."""
    read = []

    def many() -> Iterator[Tensor]:
        for number in range(60):
            read.append(number)
            yield waves([3000 + number])[0]

    results = asr.stream(many(), batch_s=1.0)
    first = next(results)
    assert isinstance(first, Transcript) and first.id == "0"
    assert len(read) < 30
    rest = [each.duration_s for each in results]
    assert rest == [(3000 + number) / RATE for number in range(1, 60)]


def test_a_bad_one_does_not_end_the_stream(asr, tmp_path: Path) -> None:
    """It is a failure with its reason; the others go on."""
    paths = [record(tmp_path / f"{n}.wav", 5000) for n in range(3)]
    bad = [paths[0], "gone.wav", torch.zeros(2, 99), paths[2]]
    kinds = [type(each) for each in asr.stream(bad)]
    assert kinds == [Transcript, Failure, Failure, Transcript]


def test_what_encoder_asr_has(asr, tmp_path: Path) -> None:
    """load_audio, encode_batch, a call, to()."""
    path = record(tmp_path / "a.wav", speech(1, 8000), 8000)
    wave = asr.load_audio(path)
    assert wave.shape == (RATE,) and wave.dtype == torch.float32
    batch = padded(waves())
    assert asr(*batch) == asr.transcribe_batch(*batch)
    assert asr.to("cpu") is asr
    for exit, layer in ((1, 1), (None, 4)):
        hidden = asr.encode_batch(*batch, exit=exit)
        outputs = asr.model(*batch)
        heads = [each for each in outputs if each.layer == layer]
        assert hidden.shape[:2] == heads[0].log_probs_BTV.shape[:2]
    with pytest.raises(InputError, match="exit 9"):
        asr.encode_batch(*batch, exit=9)


def test_samples_as_libraries_give_them(asr) -> None:
    """torchaudio's (1, T), and the integers of sound files."""
    pcm = (waves()[0] * 32767).round().to(torch.int16)
    wanted = asr.transcribe(pcm.float() / 32768)
    for same in (
        pcm,
        pcm.numpy(),
        pcm[None],
        pcm.numpy()[:, None],
        pcm.float()[None] / 32768,
        pcm.to(torch.int32) * 65536,
    ):
        assert asr.transcribe(same).tokens == wanted.tokens
        assert asr.transcribe([same])[0].score == wanted.score


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        ({"a.wav": 1}, "a dict; give a file"),
        (None, "a NoneType; give a file"),
        (b"a.wav", "a bytes; give a file"),
        ([None], r"audio\[0\]: a NoneType"),
        (torch.zeros(9, dtype=torch.int64), "torch.int64"),
        ("{folder}", "is a folder"),
        ("gone.wav", "No such file"),
    ],
)
def test_what_is_no_audio(asr, tmp_path: Path, audio, message) -> None:
    """Said as what it is; no advice about the data preparation."""
    if audio == "{folder}":
        audio = str(tmp_path)
    with pytest.raises(InputError, match=message) as told:
        asr.transcribe(audio)
    assert "data preparation" not in str(told.value)


@pytest.mark.parametrize("method", ["transcribe_batch", "encode_batch"])
@pytest.mark.parametrize(
    ("row", "lengths", "message"),
    [
        (0.1, [1.0, 2.0], "2.0 for utterance 1"),
        (0.1, [1.0, float("nan")], "nan for utterance 1"),
        (0.1, [0.0, 1.0], "0.0 for utterance 0"),
        (0.1, [-0.5, 1.0], "-0.5 for utterance 0"),
        (0.1, [1.0], r"\(2, 800\) and \(1,\)"),
        (float("nan"), [1.0, 1.0], r"wavs\[1\]: some samples are not finite"),
        (float("inf"), [1.0, 1.0], "not finite"),
    ],
)
def test_batches_are_checked(asr, method, row, lengths, message) -> None:
    """Relative lengths above 0 and at most 1, samples that are numbers."""
    wavs = torch.full((2, 800), 0.1)
    wavs[1] = row
    with pytest.raises(InputError, match=message):
        getattr(asr, method)(wavs, torch.tensor(lengths))


def test_options_that_mean_nothing_are_refused(asr) -> None:
    """Misspelt ones, devices that are not there; True is not exit 1."""
    for options in ({"devise": "cpu"}, {"device": "cpu", "compile": True}):
        with pytest.raises(InputError, match="valid: device"):
            EarlyExitASR.from_hparams("no/such/folder", run_opts=options)
    for device in ("cdua", "cuda:99", 1.5):
        with pytest.raises(InputError, match="device: .* cannot be used here"):
            asr.to(device)
        with pytest.raises(InputError, match="device"):
            EarlyExitASR.from_hparams("no/such", run_opts={"device": device})
    for policy in (True, False):
        with pytest.raises(InputError, match="says nothing"):
            asr.transcribe(waves()[0], policy)
