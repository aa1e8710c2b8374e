"""An encoder of one's own: convolutions instead of attention.

Axes: B utterances, T frames, D width.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Callable
from types import SimpleNamespace

from torch import Tensor, nn

from speechbrain_ee.models.encoder import MultiExitEncoder
from speechbrain_ee.models.state import EncoderState


class ConvolutionLayer(nn.Module):
    """One layer: every frame reads its neighbours, and no padding."""

    def __init__(self, d_model: int, kernel_size: int):
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.near = nn.Conv1d(d_model, d_model, kernel_size, padding="same")
        self.mix = nn.Linear(d_model, d_model)

    def forward(self, hidden_BTD: Tensor, padding_BT: Tensor | None) -> Tensor:
        """Run the layer; ``padding_BT`` is true where a frame is padding."""
        read_BTD = self.norm(hidden_BTD)
        if padding_BT is not None:  # None: no frame is padding
            read_BTD = read_BTD.masked_fill(padding_BT.unsqueeze(-1), 0.0)
        near_BTD = self.near(read_BTD.transpose(1, 2)).transpose(1, 2)
        return hidden_BTD + self.mix(near_BTD.relu())


class ConvolutionEncoder(MultiExitEncoder):
    """The usual features and front-end, with such layers above them."""

    def __init__(
        self,
        features: nn.Module,
        front_end: nn.Module,
        stack: dict[str, int],
        **options: object,
    ):
        width, kernel_size = stack["d_model"], stack["kernel_size"]
        depth = range(stack["num_layers"])
        layers = [ConvolutionLayer(width, kernel_size) for _ in depth]
        stack = SimpleNamespace(
            encoder=SimpleNamespace(layers=layers),
            custom_src_module=nn.Linear(stack["input_size"], width),
            attention_type="none",
            causal=False,
        )
        super().__init__(features, front_end, stack, **options)

    def layer_runner(self, state: EncoderState) -> Callable[..., Tensor]:
        """From a layer and hidden states to hidden states."""
        return lambda layer, x_BTD: layer(x_BTD, state.padding_mask_BT)
