"""Transcribing must leave nothing behind that training cannot use.

SpeechBrain keeps tables of sines for rotary attention, one for all modules of a
process. Under ``torch.inference_mode`` they become tensors that no gradient can
pass; a training that followed failed.

Authors
 * The speechbrain-ee contributors 2026
"""

import torch

from speechbrain_ee.inference.live.policy import LivePolicy
from tests.helpers import noise, padded
from tests.inference.live_runs import EXITS, live_model, runner_of


def test_gradients_after_transcribing() -> None:
    """Of a width that no other test has, so that no table is there yet."""
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
