"""Exit heads read the right norm and projection, in fp32, at their layer.

Protects: which parameters an exit uses (own, or tied on purpose), and the
type and sum of the log-probabilities that CTC and the criteria rely on.

Authors
 * The speechbrain-ee contributors 2026
"""

import pytest
import torch

from speechbrain_ee.models.heads import CTCHeads
from speechbrain_ee.models.state import EncoderState


def a_state(depth: int = 4) -> EncoderState:
    """Two utterances of 6 and 3 frames."""
    return EncoderState(
        torch.randn(2, 6, 8), torch.tensor([6, 3]), torch.arange(2), depth
    )


@pytest.mark.parametrize("tied", [False, True])
def test_formula(tied: bool) -> None:
    """log_softmax(W_k norm_k(h) + b_k), written out."""
    heads = CTCHeads([2, 4], 8, 5, tied=tied)
    torch.nn.init.normal_(heads.norms[1].weight)
    state = a_state()
    hidden = heads.norms[1](state.hidden_BTD)
    linear = heads.projections[0 if tied else 1]
    scores = hidden @ linear.weight.T + linear.bias
    expected = scores - scores.logsumexp(dim=-1, keepdim=True)
    output = heads(2, state)
    torch.testing.assert_close(output.log_probs_BTV, expected)
    assert output.layer == 4
    assert torch.equal(output.lengths_B, state.lengths_B)


def test_fp32_under_autocast() -> None:
    """Half precision above, single precision in the sums of CTC."""
    heads = CTCHeads([2, 4], 8, 5, blank_index=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = heads(1, a_state(2))
    assert output.log_probs_BTV.dtype == torch.float32
    sums = output.log_probs_BTV.exp().sum(dim=-1)
    torch.testing.assert_close(sums, torch.ones(2, 6))
    assert output.blank_index == 3


def test_tied_shares_the_projection_but_not_the_norm() -> None:
    """Tied on purpose: one projection, one norm per exit."""
    heads = CTCHeads([2, 4, 6], 8, 5, tied=True)
    assert heads.projection(1) is heads.projection(3)
    assert len(heads.projections) == 1
    assert len({id(norm.weight) for norm in heads.norms}) == 3
    state = a_state()
    before = [heads(k, state).log_probs_BTV for k in (1, 3)]
    torch.nn.init.normal_(heads.norms[2].weight)
    assert torch.equal(heads(1, state).log_probs_BTV, before[0])
    assert not torch.equal(heads(3, state).log_probs_BTV, before[1])
    assert heads.num_exits == 3 and heads.vocab_size == 5
