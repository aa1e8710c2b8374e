"""A layer that is dropped in training keeps its place.

Traps avoided: with ``layerdrop_prob`` SpeechBrain leaves dropped layers out of
its list of hidden states, so that entry k is no longer layer k; transformers
drops layers by the setting in the model's own file, which is above zero in
most published ones. An exit head then reads a depth that changes from batch
to batch.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path

import torch

from speechbrain_ee.models.pretrained import SSLEncoder
from tests.helpers import EXITS, noise, padded, tiny_model, tiny_stack
from tests.models.ssl_models import LAYERS, original, write_ssl_model


@torch.no_grad()
def test_speechbrain_loses_entries() -> None:
    """The trap itself: when this fails, SpeechBrain has closed it."""
    stack = tiny_stack(output_hidden_states=True, layerdrop_prob=1.0).train()
    _, hidden = stack.encode(torch.randn(1, 9, 16))
    assert len(hidden) == 1


@torch.no_grad()
def test_every_exit_stays_at_its_layer() -> None:
    """Whatever is dropped, the exits are those of the YAML."""
    model = tiny_model(layerdrop_prob=0.5).train()
    batch = padded([noise(3000)])
    for _ in range(20):
        assert [output.layer for output in model(*batch)] == list(EXITS)


def counted(layers: torch.nn.ModuleList) -> list[int]:
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
