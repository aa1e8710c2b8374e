"""A layer that is dropped in training keeps its place.

Trap avoided: with ``layerdrop_prob`` SpeechBrain leaves dropped layers out of
its list of hidden states, so that entry k is no longer layer k, and an exit
head reads a depth that changes from batch to batch.

Authors
 * The speechbrain-ee contributors 2026
"""

import torch

from tests.helpers import EXITS, noise, padded, tiny_model, tiny_stack


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
