"""Every exit has a head of its own, and a checkpoint holds all of them.

Trap avoided: "separate" heads that are one module listed six times, and heads
kept in a Python list, which neither the optimiser nor ``state_dict`` sees.

Authors
 * The speechbrain-ee contributors 2026
"""

import torch

from tests.helpers import VOCAB, noise, padded, tiny_model

EXITS = (1, 2, 3, 4)


def test_no_tensor_is_shared() -> None:
    """Four norms and four projections, sixteen tensors."""
    heads = tiny_model(exit_layers=EXITS).heads
    parameters = list(heads.parameters())
    assert len({p.data_ptr() for p in parameters}) == len(parameters) == 16
    weights = [heads.projection(k).weight for k in (1, 2, 3, 4)]
    for k, weight in enumerate(weights):
        assert not any(torch.equal(weight, w) for w in weights[k + 1 :])


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


def test_tied_on_purpose_is_saved_once() -> None:
    """One projection in the checkpoint, read by every exit."""
    model = tiny_model(exit_layers=EXITS, tied=True)
    state = model.state_dict()
    assert sum("projections" in name for name in state) == 2
    assert state["heads.projections.0.weight"].shape == (VOCAB, 16)
    assert sum("norms" in name for name in state) == 8
