"""A model of one's own: each segment is told what the exit before it says.

Self-conditioned CTC (Nozaki and Komatsu 2021, arXiv 2104.02724).
Axes: B utterances, T frames, D width, V tokens.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import replace

from torch import Tensor, nn

from speechbrain_ee.models.heads import CTCHeads, ExitOutput
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.models.state import EncoderState


class ConditioningHeads(CTCHeads):
    """CTC heads, and a layer that takes what they say back to the encoder."""

    def __init__(
        self,
        exit_layers: list[int],
        d_model: int,
        vocab_size: int,
        **options: object,
    ):
        super().__init__(exit_layers, d_model, vocab_size, **options)
        self.back = nn.Linear(vocab_size, d_model)

    def parts(self, exit: int) -> tuple[nn.Module, ...]:
        """What an exit costs."""
        return (*super().parts(exit), self.back)


class ConditionedModel(EarlyExitModel):
    """All exits say something on the way up, and the layers above hear it."""

    def step(self, state: EncoderState) -> tuple[EncoderState, ExitOutput]:
        """Run to the next exit, read it, and add what it says."""
        state, output = super().step(state)
        said_BTD: Tensor = self.heads.back(output.log_probs_BTV.exp())
        heard_BTD = state.hidden_BTD + said_BTD
        return replace(state, hidden_BTD=heard_BTD), output
