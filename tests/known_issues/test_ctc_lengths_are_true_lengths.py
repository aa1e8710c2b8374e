"""CTC must see every utterance's own number of frames.

Trap avoided: input lengths set to the padded length, or targets that hold the
padding or sentence marks. The loss of an utterance then depends on the batch
it happens to be in, and padded frames are trained to be blanks. Here the
whole way is followed, from the waveform to the loss of the Brain.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path

import pytest
import torch
from speechbrain import Stage
from speechbrain.dataio.batch import PaddedBatch
from torch.nn import functional as F

from tests.helpers import tiny_brain, tone_dataset


@torch.no_grad()
def test_loss_of_a_batch_is_the_mean_of_its_utterances(tmp_path: Path) -> None:
    """Utterances of 4, 5 and 6 tones: padding adds nothing to any loss."""
    brain = tiny_brain(tmp_path)
    brain.modules.eval()
    rows = list(tone_dataset(3))
    assert len({len(row["sig"]) for row in rows}) == 3

    def losses(chosen: list[dict]) -> torch.Tensor:
        batch = PaddedBatch(chosen)
        outputs = brain.compute_forward(batch, Stage.VALID)
        return brain.exit_losses(outputs, batch)["CTC"]

    alone = torch.stack([losses([row]) for row in rows]).mean(dim=0)
    torch.testing.assert_close(losses(rows), alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_targets_are_the_transcript_alone(tmp_path: Path) -> None:
    """No start or end mark: four tones are four targets."""
    brain = tiny_brain(tmp_path)
    brain.modules.eval()
    row = next(iter(tone_dataset(1)))
    batch = PaddedBatch([row])
    output = brain.compute_forward(batch, Stage.VALID)[0]
    expected = F.ctc_loss(
        output.log_probs_BTV[0, : output.lengths_B[0]],
        row["tokens"],
        output.lengths_B[0],
        torch.tensor(len(row["wrd"].split())),
    )
    assert float(brain.exit_losses([output], batch)["CTC"][0]) == pytest.approx(
        float(expected), rel=1e-5
    )
