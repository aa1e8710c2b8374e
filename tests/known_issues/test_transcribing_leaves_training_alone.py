"""Transcribing must leave nothing behind that training cannot use.

SpeechBrain keeps tables of sines for rotary attention, one for all modules of a
process. Made under ``torch.inference_mode`` they are tensors that no gradient can
pass, and a training that follows fails.

Authors
 * The speechbrain-ee contributors 2026
"""

import tarfile
from pathlib import Path

import torch
from speechbrain.nnet import attention

from speechbrain_ee.inference.folder.model_folder import read_model_folder
from speechbrain_ee.inference.live import LivePolicy
from tests.helpers import noise, padded
from tests.inference.live_runs import EXITS, live_model, runner_of
from tests.test_earlier_files import ARCHIVE


def test_gradients_after_transcribing() -> None:
    model = live_model(attention_type="RoPEMHA", d_model=20)
    batch = padded([noise(20_000)])
    runner_of(model).run(*batch, LivePolicy.fixed(4, EXITS))
    model.train()
    loss = model(*batch)[-1].log_probs_BTV.square().mean()
    loss.backward()
    assert all(
        parameter.grad is None or torch.isfinite(parameter.grad).all()
        for parameter in model.parameters()
    )


def test_gradients_after_opening_a_folder(tmp_path: Path) -> None:
    attention._get_precomputed_values.memo.clear()
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    model = read_model_folder(tmp_path / "landed/model").model.train()
    model(*padded([noise(4_000)]))[-1].log_probs_BTV.mean().backward()
