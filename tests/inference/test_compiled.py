"""Compiled segments say what the model says.

Authors
 * The speechbrain-ee contributors 2026
"""

import pytest
import torch

from speechbrain_ee.inference.runner import compile_segments
from tests.helpers import noise, padded, shaken, tiny_model


@pytest.mark.parametrize("attention_type", ("RoPEMHA", "RelPosMHAXL"))
def test_outputs_are_equal_at_any_length_and_batch(attention_type):
    model = shaken(tiny_model(attention_type=attention_type), by=0.1)
    names = list(model.state_dict())
    batches = [
        padded([noise(n, seed=n) for n in lengths])
        for lengths in ((8000, 5000), (12000,), (9000, 4000, 16000))
    ]
    with torch.no_grad():
        wanted = [model(*batch) for batch in batches]
        # Tracing and guards, without the minutes that a C++ compiler takes.
        assert compile_segments(model, backend="aot_eager") is model
        found = [model(*batch) for batch in batches]
    assert list(model.state_dict()) == names
    for outputs, same in zip(wanted, found):
        for one, other in zip(outputs, same):
            torch.testing.assert_close(
                other.log_probs_BTV, one.log_probs_BTV, atol=1e-4, rtol=0
            )
    torch.compiler.reset()
