"""The modules that are traced to ONNX graphs: start, segments, and a whole.

They call the model's own parts. Only two things are computed in another way,
because they do not survive tracing: the Fourier transform becomes a matrix
product; and rotary attention, whose cosines and sines SpeechBrain remembers
by length, gets tables that are made once, below the first layer, like the
positions of relative attention.

Axes: B utterances, S samples, T encoder frames, D width, V vocabulary
entries, W width of an attention head.

Authors
 * The speechbrain-ee contributors 2026
"""

import copy
import math
from collections.abc import Sequence

import torch
from speechbrain.nnet.attention import RoPEMHA
from torch import Tensor, nn

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.criteria import measure_all
from speechbrain_ee.exits.criteria.view import ExitView
from speechbrain_ee.models.encoder import MultiExitEncoder
from speechbrain_ee.models.layerwise import shared_copy
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.models.state import EncoderState

# By attention type, how positions reach the layers.
POSITIONS = {
    "RelPosMHAXL": "relative",
    "RoPEMHA": "rotary",
    "regularMHA": "none",
}


class MatrixSTFT(nn.Module):
    """SpeechBrain's short-time Fourier transform as a matrix product.

    Example
    -------
    >>> from speechbrain.processing.features import STFT
    >>> stft = STFT(sample_rate=16000)
    >>> wavs = torch.rand(2, 1600)
    >>> torch.allclose(MatrixSTFT(stft)(wavs), stft(wavs), atol=1e-3)
    True
    """

    def __init__(self, stft: nn.Module):
        super().__init__()
        usual = (stft.center, stft.onesided, stft.normalized_stft)
        if usual != (True, True, False) or stft.pad_mode != "constant":
            raise InputError(
                "compute_features: only SpeechBrain's default STFT (centred, "
                "one-sided, not normalised, padded with zeros) is exported."
            )
        self.hop_length, self.size = stft.hop_length, stft.n_fft
        # torch.stft centres a window that is shorter than the transform.
        missing = stft.n_fft - stft.win_length
        ends = (missing // 2, missing - missing // 2)
        window = nn.functional.pad(stft.window.double(), ends)
        bins = torch.arange(stft.n_fft // 2 + 1, dtype=torch.float64)
        time = torch.arange(stft.n_fft, dtype=torch.float64)
        angle = 2 * math.pi * torch.outer(time, bins) / stft.n_fft
        # Real and imaginary part of a bin side by side.
        parts = torch.stack([angle.cos(), -angle.sin()], dim=-1)
        kernel = window.unsqueeze(1) * parts.flatten(1)
        self.register_buffer("kernel", kernel.float())

    def forward(self, wavs_BS: Tensor) -> Tensor:
        """Real and imaginary parts, shape (B, frames, bins, 2)."""
        hop, size = self.hop_length, self.size
        # A frame is some whole hops and a rest: rows of a matrix, no copies
        # sample by sample.
        whole, rest = divmod(size, hop)
        frames = wavs_BS.shape[1] // hop + 1
        padded = nn.functional.pad(wavs_BS, (size // 2, size // 2 + hop))
        hops = padded[:, : (frames + whole) * hop]
        hops = hops.reshape(wavs_BS.shape[0], -1, hop)
        columns = [hops[:, k : k + frames] for k in range(whole)]
        if rest:
            columns.append(hops[:, whole : whole + frames, :rest])
        spectrum = torch.cat(columns, dim=-1) @ self.kernel
        return spectrum.reshape(*spectrum.shape[:2], -1, 2)


class RotaryTables(nn.Module):
    """Cosines and sines that rotate queries and keys, for any length.

    The values of SpeechBrain's ``PrecomputedRoPESinusoids``: equation 34 of
    Su et al. (arXiv 2104.09864), the sign of the sines included.

    Example
    -------
    >>> RotaryTables(4)(3).shape
    torch.Size([2, 3, 4])
    """

    def __init__(self, width: int):
        super().__init__()
        even = torch.arange(0, width, 2, dtype=torch.float32)
        angles = torch.exp(even * -(math.log(10000.0) / width))
        signs = torch.tensor([-1.0, 1.0]).repeat(width // 2)
        self.register_buffer("angles", angles.repeat_interleave(2))
        self.register_buffer("signs", signs)

    def forward(self, frames: int | Tensor) -> Tensor:
        """Both tables, shape (2, T, W)."""
        angles = self.angles
        time_T = torch.arange(frames, dtype=angles.dtype, device=angles.device)
        turned_TW = time_T.unsqueeze(1) * angles
        return torch.stack([turned_TW.cos(), turned_TW.sin() * self.signs])


class TabledRoPE(nn.Module):
    """SpeechBrain's ``RoPEMHA`` with its parameters, tables from outside.

    Example
    -------
    >>> attention = RoPEMHA(embed_dim=8, num_heads=2)
    >>> x, tables = torch.rand(1, 5, 8), RotaryTables(4)(5)
    >>> same, _ = TabledRoPE(attention)(x, x, x, pos_embs=tables)
    >>> torch.allclose(same, attention(x, x, x)[0], atol=1e-6)
    True
    """

    def __init__(self, attention: RoPEMHA):
        super().__init__()
        self.attention = attention
        pairs = torch.arange(attention.head_dim).view(-1, 2)
        self.register_buffer("swapped", pairs.flip(1).flatten())

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        attn_mask: Tensor | None = None,
        pos_embs: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """Attend within ``query``, shape (B, T, D); tables (2, T, W)."""
        one = self.attention
        heads, width = one.num_heads, one.head_dim
        packed = nn.functional.linear(query, one.in_proj_weight)
        packed = packed.unflatten(-1, (heads, 3 * width)).transpose(1, 2)
        q, k, v = packed.split(width, dim=-1)
        if one.vbias is not None:
            v = v + one.value_bias_weight.view(heads, 1, width)
        out = nn.functional.scaled_dot_product_attention(
            self._turned(q, pos_embs),
            self._turned(k, pos_embs),
            v,
            attn_mask=_seen(key_padding_mask, attn_mask),
            scale=one.scale,
        )
        return one.out_proj(out.transpose(1, 2).flatten(2)), None

    def _turned(self, x: Tensor, tables: Tensor) -> Tensor:
        return x * tables[0] + x.index_select(-1, self.swapped) * tables[1]


def with_tables(model: EarlyExitModel) -> EarlyExitModel:
    """A model whose rotary attention reads tables; parameters are shared."""
    changed = shared_copy(model)
    changed.encoder = shared_copy(model.encoder)
    changed.encoder.layers = nn.ModuleList(
        map(_with_tables, model.encoder.layers)
    )
    return changed


def _with_tables(layer: nn.Module) -> nn.Module:
    changed = shared_copy(layer)
    for name, part in layer.named_children():
        if isinstance(part, RoPEMHA):
            setattr(changed, name, TabledRoPE(part))
    return changed


def _seen(padding_BT: Tensor | None, unseen_TT: Tensor | None) -> Tensor | None:
    """Where attention may look, as a mask that broadcasts to (B, H, T, T)."""
    hidden = None
    if padding_BT is not None:
        hidden = padding_BT[:, None, None, :]
    if unseen_TT is not None:
        hidden = unseen_TT if hidden is None else hidden | unseen_TT
    return None if hidden is None else ~hidden


class StartGraph(nn.Module):
    """Waveforms to the state below the first layer."""

    def __init__(self, model: EarlyExitModel):
        super().__init__()
        encoder = exportable(model)
        features = copy.deepcopy(encoder.features)
        fbank = features.compute_features
        fbank.compute_STFT = MatrixSTFT(fbank.compute_STFT)
        # A shallow copy: the parameters of the rest stay shared.
        self.model = model.truncated(1)
        self.model.encoder.features = features
        self.kind = POSITIONS[encoder.attention_type]
        self.rotary = None
        if self.kind == "rotary":
            width = encoder.layers[0].mha_layer.head_dim
            self.rotary = RotaryTables(width)
        self.eval()

    def forward(self, wavs_BS: Tensor, samples_B: Tensor) -> tuple[Tensor, ...]:
        """Hidden states, valid frames, and positions where there are any."""
        wav_lens_B = samples_B.to(wavs_BS.dtype) / wavs_BS.shape[1]
        state = self.model.start(wavs_BS, wav_lens_B)
        outputs = (state.hidden_BTD, state.lengths_B)
        if self.rotary is not None:
            return (*outputs, self.rotary(state.hidden_BTD.shape[1]))
        if state.positions is not None:
            return (*outputs, state.positions)
        return outputs


class SegmentGraph(nn.Module):
    """The layers up to an exit, its head, and the measures of criteria."""

    def __init__(
        self, model: EarlyExitModel, exit: int, measures: Sequence[str]
    ):
        super().__init__()
        self.model = with_tables(model)
        self.exit = exit
        self.measures = tuple(measures)
        self.depth = 0 if exit == 1 else model.exit_layers[exit - 2]
        self.eval()

    def forward(
        self,
        hidden_BTD: Tensor,
        lengths_B: Tensor,
        positions: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Hidden states, log-probabilities, and the measures in order."""
        state = EncoderState(
            hidden_BTD, lengths_B, lengths_B, self.depth, positions
        )
        state, output = self.model.step(state)
        measured = measure_all(ExitView(output), self.measures)
        values = [measured[name] for name in self.measures]
        return (state.hidden_BTD, output.log_probs_BTV, *values)


class WholeGraph(nn.Module):
    """One utterance's waveform to the log-probabilities of the last exit."""

    def __init__(self, model: EarlyExitModel):
        super().__init__()
        self.start = StartGraph(model)
        self.model = with_tables(model)
        self.eval()

    def forward(self, wavs_BS: Tensor) -> Tensor:
        """Log-probabilities, shape (B, T, V); every sample counts."""
        samples_B = torch.ones_like(wavs_BS[:, 0]) * wavs_BS.shape[1]
        hidden_BTD, lengths_B, *positions = self.start(wavs_BS, samples_B)
        state = EncoderState(hidden_BTD, lengths_B, lengths_B, 0, *positions)
        _, output = self.model.walk(state, len(self.model.exit_layers))
        return output.log_probs_BTV


def exportable(model: EarlyExitModel) -> MultiExitEncoder:
    """The encoder of a model, if it can be exported."""
    encoder = model.encoder
    if not isinstance(encoder, MultiExitEncoder):
        raise InputError(
            f"export: the encoder {type(encoder).__name__} cannot be written "
            "as ONNX graphs; SpeechBrain's Conformer, Branchformer and "
            "Transformer can."
        )
    if encoder.attention_type not in POSITIONS:
        raise InputError(
            f"export: attention_type {encoder.attention_type!r} cannot be "
            f"written as ONNX; these can: {', '.join(POSITIONS)}."
        )
    return encoder


def subsampling(encoder: MultiExitEncoder) -> int:
    """Frames of features that become one encoder frame."""
    factor = 1
    for block in encoder.front_end.blocks.children():
        for part in block.convs.children():
            factor *= getattr(part, "stride", (1,))[0]
    return factor
