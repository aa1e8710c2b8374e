"""Layer-drop of a pre-trained model's file does not shift its exits.

Trap avoided: in training mode transformers drops layers by the setting in the
model's own file, which is above zero in most published ones, so that a loss at
layer k trains a depth that changes from batch to batch.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path

import torch
from torch import nn

from speechbrain_ee.models.ssl import SSLEncoder
from tests.helpers import noise, padded
from tests.models.ssl_models import LAYERS, original, write_ssl_model


def counted(layers: nn.ModuleList) -> list[int]:
    """A list that grows by a layer's number whenever that layer runs."""
    calls: list[int] = []
    for number, layer in enumerate(layers, start=1):
        layer.register_forward_hook(
            lambda *_, number=number: calls.append(number)
        )
    return calls


@torch.no_grad()
def test_transformers_drops_layers_by_default(tmp_path: Path) -> None:
    """The trap itself, then every layer once per batch, in order."""
    folder = write_ssl_model(tmp_path, layerdrop=0.9, mask_time_prob=0.0)
    model = original(folder).train()
    calls = counted(model.encoder.layers)
    torch.manual_seed(0)
    for _ in range(5):
        model(noise(3000, 1)[None])
    assert len(calls) < 5 * LAYERS
    encoder = SSLEncoder(str(folder), [1, LAYERS]).train()
    calls = counted(encoder.layers)
    for _ in range(5):
        encoder(*padded([noise(3000, 1)]))
    assert calls == 5 * list(range(1, LAYERS + 1))
