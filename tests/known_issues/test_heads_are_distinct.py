"""Every exit has a head of its own, and a checkpoint holds all of them.

Trap avoided: "separate" heads that are one module listed six times, and heads
kept in a Python list, which neither the optimiser nor ``state_dict`` sees.

Authors
 * The speechbrain-ee contributors 2026
"""

import torch

from tests.helpers import noise, padded, tiny_model

EXITS = (1, 2, 3, 4)


def test_all_heads_are_in_the_state_dict() -> None:
    """By name, and loaded back: another model gives the same outputs."""
    model = tiny_model(exit_layers=EXITS)
    names = {
        f"heads.{part}.{k}.{tensor}"
        for part in ("norms", "projections")
        for k in range(4)
        for tensor in ("weight", "bias")
    }
    state = model.state_dict()
    assert {name for name in state if name.startswith("heads.")} == names
    other = tiny_model(exit_layers=EXITS, seed=1)
    other.load_state_dict(state, strict=True)
    batch = padded([noise(5000)])
    with torch.no_grad():
        for expected, output in zip(model(*batch), other(*batch)):
            assert torch.equal(output.log_probs_BTV, expected.log_probs_BTV)


def test_each_exit_reads_its_own_head() -> None:
    """Zeroing head k changes exit k alone."""
    batch = padded([noise(5000)])
    for k in range(1, 5):
        model = tiny_model(exit_layers=EXITS)
        with torch.no_grad():
            before = model(*batch)
            model.heads.projection(k).weight.zero_()
            after = model(*batch)
        changed = [
            not torch.equal(a.log_probs_BTV, b.log_probs_BTV)
            for a, b in zip(before, after)
        ]
        assert changed == [n == k for n in range(1, 5)]
