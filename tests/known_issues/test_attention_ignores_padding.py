"""The attention decoder learns the transcript, not the padding behind it.

Trap avoided: cross-entropy over every place of the padded targets. The
decoder then learns to predict padding behind the end, the loss of an
utterance depends on the batch that it happens to be in, and short utterances
count mostly by what they do not say. Here the whole way is followed, from the
waveform to the loss of the Brain.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path

import pytest
import torch
from speechbrain import Stage
from speechbrain.dataio.batch import PaddedBatch
from torch import Tensor
from torch.nn import functional as F

from speechbrain_ee.training.systems import CTCAttentionEarlyExitBrain
from tests.helpers import shaken, tiny_brain, tiny_model, tone_dataset


@pytest.fixture(params=["shared", "separate"])
def brain(
    request: pytest.FixtureRequest, tmp_path: Path
) -> CTCAttentionEarlyExitBrain:
    model = tiny_model(attention=request.param)
    shaken(model.attention)
    for decoder in model.attention.decoders:
        decoder.output.bias.data[0] = -5.0
    brain = tiny_brain(tmp_path, model, label_smoothing=0.1)
    brain.modules.eval()
    return brain


def losses(brain: CTCAttentionEarlyExitBrain, rows: list[dict]) -> Tensor:
    batch = PaddedBatch(rows)
    outputs = brain.compute_forward(batch, Stage.VALID)
    return brain.exit_losses(outputs, batch)["attention"]


@torch.no_grad()
def test_loss_of_a_batch_is_the_mean_of_its_utterances(
    brain: CTCAttentionEarlyExitBrain,
) -> None:
    """Transcripts of 4, 5 and 6 tokens: padding adds nothing to any loss."""
    rows = list(tone_dataset(3, first=3))
    assert sorted(len(row["tokens"]) for row in rows) == [4, 5, 6]
    alone = torch.stack([losses(brain, [row]) for row in rows]).mean(0)
    torch.testing.assert_close(losses(brain, rows), alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_padding_would_be_noticed(brain: CTCAttentionEarlyExitBrain) -> None:
    """Cross-entropy over all places differs: the test above has teeth."""
    rows = list(tone_dataset(3, first=3))
    batch = PaddedBatch(rows)
    outputs = brain.compute_forward(batch, Stage.VALID)
    targets = F.pad(batch.tokens.data, (0, 1), value=0)
    counts = torch.tensor([len(row["tokens"]) for row in rows])
    targets[torch.arange(3), counts] = brain.eos_index
    right = losses(brain, rows)
    for output, loss in zip(outputs, right):
        wrong = F.cross_entropy(
            output.attention_BSV.flatten(0, 1),
            targets.flatten(),
            label_smoothing=0.1,
        )
        assert abs(float(wrong - loss)) > 0.05 * float(loss)
