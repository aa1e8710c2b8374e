"""The word error rate in a checkpoint's meta must be a plain float.

Trap avoided: SpeechBrain writes the meta with any loader's types and reads it
with the safe one, so a numpy number is saved without complaint, and the
checkpoint is lost when training is resumed.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_ee.training.monitor import CHECKPOINT_RULES
from tests.helpers import tiny_brain, tone_dataset


def test_speechbrain_cannot_read_a_numpy_number_back(tmp_path: Path) -> None:
    """The trap itself: when this fails, SpeechBrain has closed it."""
    saver = Checkpointer(str(tmp_path), {"net": torch.nn.Linear(1, 1)})
    saver.save_checkpoint(meta={"WER": np.float64(12.5)})
    with pytest.raises(yaml.YAMLError):
        saver.find_checkpoint(min_key="WER")


@pytest.mark.parametrize("rule", CHECKPOINT_RULES)
def test_ours_are_plain_and_found_again(tmp_path: Path, rule: str) -> None:
    """Whatever the rule: read by the safe loader, floats and integers."""
    brain = tiny_brain(tmp_path, checkpoint_rule=rule)
    data = tone_dataset(2)
    brain.fit(
        brain.hparams.epoch_counter,
        data,
        data,
        train_loader_kwargs={"batch_size": 2},
        valid_loader_kwargs={"batch_size": 2},
    )
    (path,) = (tmp_path / "save").glob("CKPT*/CKPT.yaml")
    meta = yaml.safe_load(path.read_text())
    assert type(meta["WER"]) is float and type(meta["epoch"]) is int
    found = brain.checkpointer.find_checkpoint(min_key="WER")
    assert found.meta["WER"] == meta["WER"]
