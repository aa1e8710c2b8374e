"""Exit k is the model truncated at k, and nothing above k is computed.

Protects: the promise of early exit itself (bit for bit, counted by hooks),
truncation that shares parameters, and gradients that stay below their exit.

Authors
 * The speechbrain-ee contributors 2026
"""

import pytest
import torch

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.heads import CTCHeads
from speechbrain_ee.models.model import EarlyExitModel
from tests.helpers import STACKS, VOCAB, noise, padded, tiny_model

EXITS = (1, 2, 4)


def counted(model: EarlyExitModel) -> list[int]:
    calls = []
    for number, layer in enumerate(model.encoder.layers, start=1):
        layer.register_forward_hook(
            lambda *_, number=number: calls.append(number)
        )
    return calls


@pytest.mark.parametrize("mask_padding", [True, False])
@pytest.mark.parametrize("stack_name", STACKS, ids="-".join)
@torch.no_grad()
def test_exit_equals_truncated_bit_for_bit(
    stack_name: tuple[str, str], mask_padding: bool
) -> None:
    """The joint model left at k and the truncated model: the same bits."""
    model = tiny_model(
        encoder_module=stack_name[0],
        attention_type=stack_name[1],
        exit_layers=EXITS,
        mask_padding=mask_padding,
    )
    batch = padded([noise(7000, 1), noise(4100, 2)], extra=300)
    joint = model(*batch)
    for k in range(1, len(EXITS) + 1):
        small = model.truncated(k)(*batch)
        assert [output.layer for output in small] == list(EXITS[:k])
        for expected, output in zip(joint, small):
            assert torch.equal(output.log_probs_BTV, expected.log_probs_BTV)
            assert torch.equal(output.lengths_B, expected.lengths_B)


@pytest.mark.parametrize("exit", [1, 2, 3])
@torch.no_grad()
def test_no_layer_above_the_exit_runs(exit: int) -> None:
    """Walking to exit k calls the layers 1 to its layer, once, in order."""
    model = tiny_model(exit_layers=EXITS)
    calls = counted(model)
    batch = padded([noise(7000)])
    state = model.start(*batch)
    for _ in range(exit):
        state, output = model.step(state)
    assert calls == list(range(1, EXITS[exit - 1] + 1))
    assert output.layer == EXITS[exit - 1]
    assert torch.equal(
        output.log_probs_BTV, model(*batch)[exit - 1].log_probs_BTV
    )


@pytest.mark.parametrize("kind", ["shared", "separate"])
@torch.no_grad()
def test_decoders_run_only_where_asked(kind: str) -> None:
    """Never on the way to an exit; with transcripts once at every exit."""
    model = tiny_model(exit_layers=EXITS, attention=kind)
    calls = []
    for decoder in model.attention.decoders:
        for layer in decoder.layers:
            layer.register_forward_hook(lambda *_: calls.append(1))
    batch = padded([noise(7000)])
    state = model.start(*batch)
    while state.depth < EXITS[-1]:
        state, _ = model.step(state)
    model(*batch)
    assert not calls
    model(*batch, torch.tensor([[1, 4, 3]]))
    assert len(calls) == len(EXITS) * len(model.attention.decoders[0].layers)


@pytest.mark.parametrize("tied", [False, True])
def test_truncated_shares_parameters_and_has_none_above(tied: bool) -> None:
    """The smaller model holds the same tensors, none beyond its exit."""
    model = tiny_model(exit_layers=EXITS, tied=tied)
    whole = dict(model.named_parameters())
    for k in range(1, len(EXITS) + 1):
        small = model.truncated(k)
        assert len(small.encoder.layers) == EXITS[k - 1]
        assert small.heads.num_exits == small.encoder.num_exits == k
        expected = {
            name
            for name in whole
            if not (
                name.startswith("encoder.layers.")
                and int(name.split(".")[2]) >= EXITS[k - 1]
            )
            and not (
                name.startswith(("heads.norms.", "heads.projections."))
                and int(name.split(".")[2]) >= k
            )
        }
        assert dict(small.named_parameters()).keys() == expected
        for name, parameter in small.named_parameters():
            assert parameter is whole[name]
        small.load_state_dict(
            {name: model.state_dict()[name] for name in small.state_dict()}
        )


@pytest.mark.parametrize("training", [True, False])
def test_truncated_keeps_the_mode(training: bool) -> None:
    """A model for evaluation does not come back in training mode."""
    small = tiny_model().train(training).truncated(1)
    assert {module.training for module in small.modules()} == {training}


@pytest.mark.parametrize("exits", [0, -1, 4])
def test_truncated_out_of_range(exits: int) -> None:
    """The error names the exits that there are."""
    with pytest.raises(InputError, match=rf"exit: {exits} .* exits 1 to 3"):
        tiny_model(exit_layers=EXITS).truncated(exits)


def test_encoder_and_heads_must_fit() -> None:
    """A head too many is an error, not a head that is never trained."""
    encoder = tiny_model(exit_layers=EXITS).encoder
    heads = CTCHeads(exit_layers=[2, 4], d_model=16, vocab_size=VOCAB)
    with pytest.raises(InputError, match="3 exits and there are 2 heads"):
        EarlyExitModel(encoder, heads)


@pytest.mark.parametrize("exit", [1, 2, 3])
def test_gradient_stays_below_its_exit(exit: int) -> None:
    """Exit k's loss reaches the layers up to k and head k, nothing else."""
    model = tiny_model(exit_layers=EXITS).train()
    outputs = model(*padded([noise(7000)]))
    outputs[exit - 1].log_probs_BTV[..., 1].sum().backward()
    reached = [
        any(parameter.grad is not None for parameter in layer.parameters())
        for layer in model.encoder.layers
    ]
    assert reached == [n <= EXITS[exit - 1] for n in range(1, 5)]
    for k in (1, 2, 3):
        weight = model.heads.projection(k).weight
        assert (weight.grad is not None) == (k == exit)
    front_end = next(model.encoder.front_end.parameters())
    assert front_end.grad is not None and front_end.grad.abs().sum() > 0
