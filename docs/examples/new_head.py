"""Exit heads of one's own: neighbouring frames, and a temperature.

Axes: B utterances, T frames, D width, V tokens.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from speechbrain_ee.models.heads import CTCHeads, ExitOutput
from speechbrain_ee.models.state import EncoderState


class ConvolutionBody(nn.Module):
    """What stands between an exit's norm and its projection."""

    def __init__(self, d_model: int, kernel_size: int):
        super().__init__()
        self.convolution = nn.Conv1d(
            d_model, d_model, kernel_size, padding="same", groups=d_model
        )
        self.mix = nn.Linear(d_model, d_model)

    def forward(self, hidden_BTD: Tensor, padding_BT: Tensor | None) -> Tensor:
        """Run the body; ``padding_BT`` is true where a frame is padding."""
        # Padded frames hold anything: a convolution must not see them.
        if padding_BT is not None:
            hidden_BTD = hidden_BTD.masked_fill(padding_BT.unsqueeze(-1), 0.0)
        near_BTD = self.convolution(hidden_BTD.transpose(1, 2)).transpose(1, 2)
        return hidden_BTD + self.mix(near_BTD.relu())


class ConvolutionHeads(CTCHeads):
    """CTC heads with such a body and a learned temperature at every exit."""

    def __init__(
        self,
        exit_layers: list[int],
        d_model: int,
        vocab_size: int,
        kernel_size: int = 5,
        **options: object,
    ):
        super().__init__(exit_layers, d_model, vocab_size, **options)
        bodies = [ConvolutionBody(d_model, kernel_size) for _ in exit_layers]
        self.bodies = nn.ModuleList(bodies)
        self.warmth = nn.Parameter(torch.zeros(len(exit_layers)))

    def forward(self, exit: int, state: EncoderState) -> ExitOutput:
        """Read an exit, counted from 1."""
        output = super().forward(exit, state)
        scores_BTV = output.log_probs_BTV / self.warmth[exit - 1].exp()
        return replace(output, log_probs_BTV=scores_BTV.log_softmax(-1))
