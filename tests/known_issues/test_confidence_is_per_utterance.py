"""Evidence is of one utterance: no neighbour and no padding enters it.

Trap avoided: confidence averaged over the whole batch and over padded
frames, so that an utterance stops earlier beside an easy or a short one.

Authors
 * The speechbrain-ee contributors 2026
"""

from types import SimpleNamespace

import pytest
import torch

from speechbrain_ee.exits.criteria import measure_all
from speechbrain_ee.exits.criteria.view import ExitView

LENGTHS = (9, 4, 6)
EXITS = 3
VOCAB = 5


def outputs(*rows: int, padding: float) -> list[SimpleNamespace]:
    """What every exit puts out for these utterances, padded to 12 frames."""
    found = []
    for exit_ in range(EXITS):
        log_probs_BTV = torch.full((len(rows), 12, VOCAB), padding)
        for place, row in enumerate(rows):
            generator = torch.Generator().manual_seed(10 * exit_ + row)
            logits = torch.randn(LENGTHS[row], VOCAB, generator=generator)
            # one utterance is far surer of itself than the others
            log_probs_BTV[place, : LENGTHS[row]] = torch.log_softmax(
                logits * (8.0 if row == 1 else 1.0), dim=-1
            )
        found.append(
            SimpleNamespace(
                log_probs_BTV=log_probs_BTV,
                lengths_B=torch.tensor([LENGTHS[row] for row in rows]),
                blank_index=0,
            )
        )
    return found


def evidence(*rows: int, padding: float = 0.0) -> list[dict[str, torch.Tensor]]:
    """All cheap measures at every exit."""
    views: list[ExitView] = []
    found = []
    for output in outputs(*rows, padding=padding):
        views.append(ExitView(output, tuple(views)))
        found.append(measure_all(views[-1]))
    return found


@pytest.mark.parametrize("padding", [0.0, -50.0])
def test_alone_and_in_company(padding: float) -> None:
    """Every measure, at every exit, whatever the padding holds."""
    together = evidence(0, 1, 2, padding=padding)
    assert len(together[-1]) >= 8
    for row in range(len(LENGTHS)):
        for k, measured in enumerate(evidence(row)):
            for name, value_B in measured.items():
                assert together[k][name][row].item() == pytest.approx(
                    value_B.item(), rel=1e-5, abs=1e-7
                ), (name, k + 1)


def test_the_sure_one_is_told_apart() -> None:
    """An average over the batch would give all the same value."""
    for measured in evidence(0, 1, 2):
        entropy_B = measured["entropy"]
        assert entropy_B[1] < 0.6 * min(entropy_B[0], entropy_B[2])
