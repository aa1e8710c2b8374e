"""Weights of half a checkpoint, or of none, are not passed off as trained.

The export and a teacher took a checkpoint whose files were cut; evaluation
tested untrained weights with a warning among hundreds of lines.

Authors
 * The speechbrain-ee contributors 2026
"""

import pytest
import torch

from speechbrain_ee.errors import InputError
from speechbrain_ee.training.checkpoints import (
    AtomicCheckpointer,
    best_checkpoints,
)
from tests.helpers import tiny_brain, tone_dataset


def test_half_a_checkpoint_is_not_the_best(tmp_path, caplog):
    """Of a finished run, as in training: the next best one is taken."""
    saver = AtomicCheckpointer(tmp_path, {"model": torch.nn.Linear(9, 9)})
    good = saver.save_checkpoint(meta={"WER": 2.0}).path
    bad = saver.save_checkpoint(meta={"WER": 1.0}).path
    assert [c.path for c in best_checkpoints(tmp_path, 2)] == [bad, good]
    with open(bad / "model.ckpt", "ab") as file:
        file.truncate(100)
    assert [c.path for c in best_checkpoints(tmp_path, 2)] == [good]
    assert f"{bad} is no complete checkpoint" in caplog.text
    (good / "model.ckpt").unlink()
    assert best_checkpoints(tmp_path, 2) == []


def test_untrained_weights_are_tested_only_when_asked_for(tmp_path):
    """The folder and the ways out are named."""
    data, loader = tone_dataset(2), {"batch_size": 2}
    brain = tiny_brain(tmp_path)
    match = "save: .*number_of_epochs.*output_folder.*--average_checkpoints=0"
    with pytest.raises(InputError, match=match):
        brain.evaluate_exits("tones", data, loader)
    assert not (tmp_path / "traces").exists()
    brain.hparams.average_checkpoints = 0
    assert len(brain.evaluate_exits("tones", data, loader)) == 2
