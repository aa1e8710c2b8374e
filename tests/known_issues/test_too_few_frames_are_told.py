"""An utterance with fewer frames than CTC needs does not count in silence.

Trap avoided: CTC gives such an utterance no alignment and an infinite loss,
which counts as zero. Training then reports a loss of 0.00 and learns nothing.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch.nn import functional as F

from speechbrain_ee.data.batches import frames_needed, make_datasets
from speechbrain_ee.data.tokens import make_tokenizer
from speechbrain_ee.errors import InputError
from speechbrain_ee.training.losses import with_too_few_frames
from tests.data.corpora import rows_of
from tests.helpers import SAMPLE_RATE, tiny_brain, tiny_model, tone_dataset

# 25 frames a second: one second has 26
FAST = {"slow": "AB AB", "fits": "AB" * 12, "doubled": "A" * 24}


def hparams(folder: Path, texts: dict[str, str]) -> dict:
    wav = folder / "noise.wav"
    noise = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE)
    soundfile.write(wav, noise, SAMPLE_RATE)
    rows = [[name, 1.0, wav, "s", text] for name, text in texts.items()]
    with (folder / "train.csv").open("w", newline="") as stream:
        header = ["ID", "duration", "wav", "spk_id", "wrd"]
        csv.writer(stream).writerows([header, *rows])
    path = str(folder / "train.csv")
    return {
        "save_folder": str(folder / "save"),
        "data_folder": str(folder),
        "train_csv": path,
        "valid_csv": path,
        "test_csv": [path],
        "output_neurons": 5,
        "token_type": "char",
        "sample_rate": SAMPLE_RATE,
        "cache_audio": False,
    }


def test_what_has_too_few_is_left_out_and_listed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By the model's own frames; of other sets it is counted."""
    own = hparams(tmp_path, FAST)
    frames = tiny_model().encoder.frames
    tokenizer = make_tokenizer(own)
    with caplog.at_level(logging.WARNING):
        sets = make_datasets(own, tokenizer, frames)
    assert list(sets.train.data) == ["slow", "fits"]
    assert set(sets.valid.data) == set(sets.tests["train"].data) == set(FAST)
    (row,) = rows_of(tmp_path / "save/train.skipped.csv")
    assert row["ID"] == "doubled" and "too few frames" in row["reason"]
    assert "1 utterances have too few frames" in caplog.text
    assert caplog.text.count("cannot be recognised in full by CTC") == 2
    assert set(make_datasets(own, tokenizer).train.data) == set(FAST)

    mended = hparams(tmp_path, {"slow": "AB AB", "fits": "AB" * 12})
    make_datasets(mended, tokenizer, frames)
    assert not (tmp_path / "save/train.skipped.csv").exists()


def test_a_set_without_a_usable_utterance_is_refused(tmp_path: Path) -> None:
    """As with 29 characters a second."""
    own = hparams(tmp_path, {"u1": "AB" * 15, "u2": "BA" * 15})
    frames = tiny_model().encoder.frames
    with pytest.raises(InputError, match="no utterance has a frame for each"):
        make_datasets(own, make_tokenizer(own), frames)


def test_the_rule_is_that_of_the_loss() -> None:
    """Infinite exactly where frames are too few."""
    generator = torch.Generator().manual_seed(3)
    tokens_BS = torch.randint(1, 3, (200, 6), generator=generator)
    counts_B = torch.randint(0, 7, (200,), generator=generator)
    lengths_B = torch.randint(1, 13, (200,), generator=generator)
    log_probs = torch.randn(12, 200, 3, generator=generator).log_softmax(-1)
    losses_B = F.ctc_loss(
        log_probs, tokens_BS, lengths_B, counts_B, reduction="none"
    )
    short_B = with_too_few_frames(lengths_B, tokens_BS, counts_B)
    assert torch.equal(short_B, losses_B.isinf())
    assert 20 < int(short_B.sum()) < 180
    for tokens, count, frames, short in zip(
        tokens_BS.tolist(), counts_B, lengths_B, short_B
    ):
        assert (frames < frames_needed(tokens[:count])) == short


def test_what_counts_as_zero_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In training, as after speed perturbation, and in validation."""
    data = tone_dataset(4)
    tokens = data.data["utt1"]["tokens"]
    data.data["utt1"]["tokens"] = tokens[:1].repeat(60)
    brain = tiny_brain(tmp_path)
    with caplog.at_level(logging.WARNING):
        brain.fit(
            brain.hparams.epoch_counter,
            data,
            tone_dataset(4),
            train_loader_kwargs={"batch_size": 2},
            valid_loader_kwargs={"batch_size": 4},
        )
    told = [r.getMessage() for r in caplog.records if "as zero" in r.msg]
    assert len(told) == 1
    assert told[0].startswith("TRAIN, epoch 1: of 1 utterances the CTC loss")
