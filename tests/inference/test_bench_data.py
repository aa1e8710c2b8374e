"""What ``bench`` transcribes: manifests, folders, batches.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from speechbrain_ee.errors import InputError
from speechbrain_ee.inference.bench import word_error_rate
from speechbrain_ee.inference.spoken import Spoken, batches_of, read_spoken
from tests.helpers import SAMPLE_RATE
from tests.inference.bench_corpus import LENGTHS, write_corpus
from tests.inference.live_runs import waves


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Recordings below audio/, a manifest test.csv."""
    return write_corpus(tmp_path)


def test_batches_hold_every_utterance_once() -> None:
    spoken = [Spoken(str(n), w) for n, w in enumerate(waves(LENGTHS))]
    for size in (1, 3, 9):
        batches = batches_of(spoken, size)
        rows = [row for batch in batches for row in batch.rows]
        assert sorted(rows) == [0, 1, 2, 3]
        for batch in batches:
            for row, wav, share in zip(
                batch.rows, batch.wavs_BS, batch.wav_lens_B
            ):
                length = len(spoken[row].wav_S)
                assert round(float(share) * len(wav)) == length
                assert torch.equal(wav[:length], spoken[row].wav_S)
                assert not wav[length:].any()


def test_limit_spreads_over_the_data(corpus) -> None:
    found = read_spoken(corpus / "test.csv", SAMPLE_RATE, limit=2)
    assert [one.id for one in found] == ["u0", "u2"]
    assert found[1].ref == "t3 t2"


@pytest.mark.parametrize("kind", ["missing", "empty", "columns", "folder"])
def test_wrong_data_is_refused(tmp_path, kind) -> None:
    path = tmp_path / "test.csv"
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_text("ID,wav\n" if kind == "empty" else "a,b\n1,2\n")
    with pytest.raises(InputError, match=r"--data .*test\.csv"):
        read_spoken(path, SAMPLE_RATE)


def test_word_error_rate_counts_what_has_a_reference() -> None:
    silence = torch.zeros(1)
    spoken = [
        Spoken("a", silence, "one two three"),
        Spoken("b", silence),
        Spoken("c", silence, "four"),
    ]
    heard = [SimpleNamespace(text=one) for one in ("one too", "what", "four")]
    assert word_error_rate(heard, spoken) == 50.0
    assert word_error_rate(heard[1:2], spoken[1:2]) is None
