"""Audio without transcripts, in batches without padding.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechbrain_ee.data.cropped import CroppedBatches, list_audio
from speechbrain_ee.errors import InputError

RATE = 16000
BATCH_S, CROP_S, SHORTEST_S = 8.0, 2.0, 0.9


def batches(folder: Path, seed: int = 1986) -> CroppedBatches:
    """The audio of a folder."""
    files = list_audio(folder.parent, [folder.name])
    return CroppedBatches(files, BATCH_S, CROP_S, SHORTEST_S, seed)


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve ramps of 0.8 to 2.45 s, each rising over a range of its own."""
    folder = tmp_path_factory.mktemp("audio") / "train" / "1"
    folder.mkdir(parents=True)
    for index in range(12):
        samples = round((0.8 + 0.15 * index) * RATE)
        ramp = index / 16 + np.linspace(0.01, 0.06, samples)
        soundfile.write(folder / f"{index:02d}.wav", ramp, RATE, "PCM_16")
    return folder.parent


def test_batches_cover_every_utterance_without_padding(train: Path) -> None:
    """All that are long enough, once an epoch, at a place of their own."""
    audio = batches(train)
    for first in (1, 1 + audio.per_epoch):
        steps = range(first, first + audio.per_epoch)
        found = [audio.batch(step).numpy() for step in steps]
        rows = np.concatenate([wavs[:, 0] * 16 for wavs in found])
        assert sorted(rows.astype(int).tolist()) == list(range(1, 12))
        for wavs in found:
            assert wavs.size <= BATCH_S * RATE
            assert wavs.shape[1] <= CROP_S * RATE
            assert (np.diff(wavs) > -1e-4).all(), "padded or wrapped around"


def test_batch_of_a_step_follows_from_the_seed(train: Path) -> None:
    """Asked in any order; another seed or epoch gives another one."""
    audio, again = batches(train), batches(train)
    steps = list(range(1, 1 + 2 * audio.per_epoch))
    forward = {step: audio.batch(step) for step in steps}
    for step in reversed(steps):
        assert forward[step].equal(again.batch(step))
    epochs = steps[: audio.per_epoch], steps[audio.per_epoch :]
    assert any(not forward[a].equal(forward[b]) for a, b in zip(*epochs))
    other = batches(train, seed=1)
    assert any(not forward[step].equal(other.batch(step)) for step in steps)
    assert audio.place(audio.per_epoch) == (1, audio.per_epoch)
    assert audio.place(audio.per_epoch + 1) == (2, 1)


def test_audio_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """Missing, empty, broken, too short."""
    folder = tmp_path / "train"
    with pytest.raises(InputError, match="train is no folder"):
        batches(folder)
    folder.mkdir()
    with pytest.raises(InputError, match="holds no audio"):
        batches(folder)
    (folder / "a.flac").write_bytes(b"none")
    with pytest.raises(InputError, match=r"a\.flac: cannot be read"):
        batches(folder)
    soundfile.write(folder / "a.flac", np.zeros(1000), RATE)
    with pytest.raises(InputError, match="none of 1 audio files lasts"):
        batches(folder)
