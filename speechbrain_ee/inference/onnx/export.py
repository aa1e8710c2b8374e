"""A model folder as ONNX graphs, for hosts without torch and sherpa-onnx.

One graph per segment (:func:`export_onnx`): a device runs ``start.onnx`` once,
then ``exit_01.onnx``, ``exit_02.onnx`` and so on until its policy is met; see
:mod:`speechbrain_ee.inference.onnx.host`. Batch and time are dynamic in all of
them. The measures that policies need are part of the graphs, traced from the
functions that criteria use.

Or one graph that ends at one exit (:func:`export_static`), waveform in,
log-probabilities out, in the form that sherpa-onnx loads. Of its CTC loaders
that of the omnilingual models fits
(``OfflineRecognizer.from_omnilingual_asr_ctc``): it feeds samples. The others
(zipformer, NeMo, WeNet) feed filterbanks of their own, with pre-emphasis,
other windows, other mel bands and natural logarithms, which a model trained
on SpeechBrain's features does not know. That loader scales every utterance to zero mean
and unit variance: features that are normalised by utterance are the same for
it, up to an offset of the samples. The graph has no length, and utterances go
through it one by one.

PyTorch's exporter through TorchScript (``dynamo=False``) is used: all encoders
here pass it with dynamic batch and time, in a second per graph. The newer one
gives graphs that agree with PyTorch as well, takes ten times as long, and
needs onnxscript.

In int8 the weights of matrix products become integers of 8 bits, one scale for
each column; activations are quantised while they are computed, one scale for
each tensor. Convolutions, norms and softmax stay in fp32, and so does all
below the first layer: features span eight decades.

The modules that are traced call the model's own parts. Only two things are
computed in another way, because they do not survive tracing: the Fourier
transform becomes a matrix product; and rotary attention, whose cosines and
sines SpeechBrain remembers by length, gets tables that are made once, below
the first layer, like the positions of relative attention.

Axes: B utterances, S samples, T encoder frames, D width, V vocabulary
entries, W width of an attention head.

Authors
 * The speechbrain-ee contributors 2026
"""

import copy
import io
import logging
import math
import re
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from speechbrain.nnet.attention import RoPEMHA
from torch import Tensor, nn

from speechbrain_ee import __version__
from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.calibrate import default_of
from speechbrain_ee.evaluation.cost import CostModel
from speechbrain_ee.exits.calibration.policy_file import (
    ExitPolicy,
    write_policy,
)
from speechbrain_ee.exits.calibration.risk import METHODS
from speechbrain_ee.exits.criteria import get_criterion, measure_all
from speechbrain_ee.exits.criteria.text import OF_TEXT, write_ngram
from speechbrain_ee.exits.criteria.view import ExitView
from speechbrain_ee.exits.decoding import GREEDY
from speechbrain_ee.files import (
    check_ours,
    has_schema,
    open_plain,
    whole_file,
    whole_folder,
)
from speechbrain_ee.inference.folder.model_folder import ModelFolder
from speechbrain_ee.inference.live import TRANSCRIPTS
from speechbrain_ee.inference.onnx.host import (
    LANGUAGE_MODEL_FILE,
    MANIFEST_FILE,
    SCHEMA,
    START_FILE,
    Manifest,
    load,
    segment_file,
    write_manifest,
)
from speechbrain_ee.models.encoder import MultiExitEncoder
from speechbrain_ee.models.layerwise import shared_copy
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.models.state import EncoderState

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

logger = logging.getLogger(__name__)

PURPOSE = "export --format onnx"
OPSET = 17
PRODUCER = "speechbrain-ee"
# Where the modules of a graph keep what lies below the first layer.
START = "/start/"
# Evidence that one pass over the probabilities gives.
MEASURES = (
    "entropy",
    "entropy_nonblank",
    "max_prob",
    "max_prob_nonblank",
    "margin",
    "margin_nonblank",
)
# What an export may delete: the files of an earlier one, as regular
# expressions. A policy of another name was put there by the user.
FILES = (
    *map(re.escape, (MANIFEST_FILE, LANGUAGE_MODEL_FILE, "tokenizer.model")),
    r"(start|exit_\d+)(\.int8)?\.onnx",
    rf"policies/[^/]+\.({'|'.join(METHODS)})\.yaml",
)
_BATCH, _FRAMES = {0: "batch"}, {0: "batch", 1: "frames"}
# Two lengths, so that nothing that depends on padding is missed.
_TRACED_SAMPLES = (11_213, 6_077)
_BLANK = "<blk>"
_HEAD = 64  # bytes of a graph, in which its producer stands


def export_onnx(
    folder: ModelFolder, target: str | Path, int8: bool = True
) -> Path:
    """Write a model folder as graphs; an earlier export is replaced whole."""
    for package in ("onnx", "onnxruntime"):  # before anything is written
        load(package, PURPOSE)
    target = Path(target)
    model = folder.model
    selector = folder.selector
    spelling = None if selector is None else selector.language_model
    given = MEASURES if spelling is None else (*MEASURES, *OF_TEXT)
    policies = _followed(folder.policies, given)
    if folder.decoding != GREEDY and policies:
        logger.warning(
            "%s is decoded by %s, graphs by %s: its policies, which were "
            "calibrated for the former, are left out.",
            folder.name,
            folder.decoding,
            GREEDY,
        )
        policies = {}
    default = folder.default_policy
    if default is not None and default not in policies:
        default, _ = default_of(policies, folder.calibration)
    told = manifest(
        model,
        folder.name,
        folder.sample_rate,
        default,
        ("fp32", "int8") if int8 else ("fp32",),
    )
    written = [f"policies/{name}.yaml" for name in policies]
    with whole_folder(target, partial(_check_replaced, written)) as new:
        export_graphs(model, new, int8)
        write_manifest(new, told)
        with whole_file(new / "tokenizer.model") as stream:
            stream.write(folder.tokenizer.serialized_model_proto())
        if spelling is not None:
            write_ngram(new / LANGUAGE_MODEL_FILE, spelling)
        for name, policy in policies.items():
            write_policy(new / "policies" / f"{name}.yaml", policy)
    return target


def _check_replaced(written: Sequence[str], path: Path) -> None:
    """Only a folder of this schema is deleted, and nothing else with it."""
    ours = has_schema(path / MANIFEST_FILE, SCHEMA)
    check_ours(path, ours, *FILES, *map(re.escape, written))


def export_graphs(
    model: EarlyExitModel, target: str | Path, int8: bool = False
) -> None:
    """Write the graphs of a model alone, into a folder that is there."""
    encoder = exportable(model)
    kind = POSITIONS[encoder.attention_type]
    wavs_BS, samples_B = _example(_TRACED_SAMPLES)
    start = StartGraph(model)
    with torch.no_grad():
        state = start(wavs_BS, samples_B)
    outputs = {"hidden": _FRAMES, "lengths": _BATCH, **_positions(kind)}
    inputs = {"wavs": {0: "batch", 1: "samples"}, "samples": _BATCH}
    graph = trace(start, (wavs_BS, samples_B), inputs, outputs)
    save(graph, Path(target) / START_FILE)
    inputs = {"hidden": _FRAMES, "lengths": _BATCH, **_positions(kind)}
    outputs = {"out": _FRAMES, "log_probs": _FRAMES}
    outputs |= dict.fromkeys(MEASURES, _BATCH)
    for exit, _ in enumerate(model.exit_layers, start=1):
        segment = SegmentGraph(model, exit)
        path = Path(target) / segment_file(exit, "fp32")
        save(trace(segment, state, inputs, outputs), path)
        if int8:
            quantise(path, Path(target) / segment_file(exit, "int8"))


def manifest(
    model: EarlyExitModel,
    name: str,
    sample_rate: int,
    default_policy: str | None = None,
    precisions: tuple[str, ...] = ("fp32",),
) -> Manifest:
    """What a host has to know about the graphs of a model."""
    cost = CostModel(model)
    layers = (0, *model.exit_layers)
    segments, heads = [], []
    for exit, ends in enumerate(zip(layers, layers[1:]), start=1):
        segments.append(
            _quadratic(
                sum(cost.layer(at, t) for at in range(*ends)) for t in range(3)
            )
        )
        heads.append(_quadratic(cost.head(exit, t) for t in range(3)))
    encoder = exportable(model)
    hop = encoder.features.hop_samples
    hops = range(subsampling(encoder) + 1)
    return Manifest(
        schema=SCHEMA,
        name=name,
        sample_rate=sample_rate,
        exit_layers=tuple(model.exit_layers),
        vocab_size=model.heads.vocab_size,
        blank_index=model.heads.blank_index,
        positions=POSITIONS[encoder.attention_type],
        measures=MEASURES,
        # Exact, where the frame at the start is not counted.
        frame_s=hop * subsampling(encoder) / sample_rate,
        precisions=precisions,
        default_policy=default_policy,
        hop=hop,
        start_macs=tuple(cost.start.macs(n * hop) for n in hops),
        segment_macs=tuple(segments),
        head_macs=tuple(heads),
    )


def _followed(
    policies: Mapping[str, ExitPolicy], evidence: Sequence[str]
) -> dict[str, ExitPolicy]:
    """Those that there is evidence for."""
    given = {*evidence, TRANSCRIPTS}
    kept = {
        name: policy
        for name, policy in policies.items()
        if {*get_criterion(policy.criterion).needs} <= given
        and policy.selector is None
    }
    left_out = [name for name in policies if name not in kept]
    if left_out:
        logger.warning(
            "export: the policies %s need more than the graphs give and are "
            "left out; thresholds on %s and on transcripts stay.",
            ", ".join(left_out),
            ", ".join(evidence),
        )
    return kept


def _positions(kind: str) -> dict[str, dict[int, str]]:
    return {} if kind == "none" else {"positions": {1: "positions"}}


def _example(samples: Sequence[int]) -> tuple[Tensor, Tensor]:
    """A batch of noise and its lengths."""
    generator = torch.Generator().manual_seed(0)
    shape = (len(samples), max(samples))
    wavs_BS = 0.1 * torch.randn(shape, generator=generator)
    return wavs_BS, torch.tensor(samples)


def _quadratic(macs: Iterable[int]) -> tuple[float, float, float]:
    """Coefficients of 1, T and T squared, from MACs of 0, 1 and 2 frames."""
    none, one, two = macs
    square = (none - 2 * one + two) / 2
    return float(none), one - none - square, square


def export_static(
    folder: ModelFolder,
    target: str | Path,
    exit: int | None = None,
    int8: bool = True,
) -> Path:
    """Write ``model.onnx``, ``model.int8.onnx`` and ``tokens.txt`` of the
    model up to an exit, by default its last.
    """
    target = Path(target)
    last = len(folder.model.exit_layers)
    model = folder.model.truncated(last if exit is None else exit)
    normalize = exportable(model).features.normalize
    if getattr(normalize, "norm_type", None) != "sentence":
        raise InputError(
            "export: sherpa-onnx scales the samples, which only features that "
            "are normalised by utterance (norm_type: sentence) do not mind; "
            "export segments instead."
        )
    graph = trace(
        WholeGraph(model),
        _example(_TRACED_SAMPLES[:1])[:1],
        {"x": {0: "N", 1: "num_samples"}},
        {"logits": {0: "N", 1: "num_frames"}},
    )
    layers = model.exit_layers[-1]
    metadata = {
        "model_type": "omnilingual-asr",
        "version": 1,
        "vocab_size": model.heads.vocab_size,
        "subsampling_factor": subsampling(model.encoder),
        "normalize_type": "",
        "sample_rate": folder.sample_rate,
        "model_author": f"speechbrain-ee {__version__}",
        "comment": f"{folder.name}, encoder cut after layer {layers}",
    }
    with whole_folder(target, _check_static) as new:
        save(graph, new / "model.onnx", metadata)
        if int8:
            quantise(new / "model.onnx", new / "model.int8.onnx")
        with whole_file(new / "tokens.txt") as stream:
            stream.write(tokens(folder).encode())
    return target


def _check_static(path: Path) -> None:
    """Only a graph of this project is deleted, and nothing else with it."""
    graph = path / "model.onnx"
    head = b""
    if graph.is_file():
        with open_plain(graph) as stream:
            head = stream.read(_HEAD)
    ours = PRODUCER.encode() in head
    check_ours(path, ours, r"model(\.int8)?\.onnx", r"tokens\.txt")


def tokens(folder: ModelFolder) -> str:
    """The tokens of a model, one in a line with its index."""
    blank, known = folder.model.heads.blank_index, folder.tokenizer
    lines = []
    for index in range(folder.model.heads.vocab_size):
        piece = f"<unused{index}>"
        if index == blank:
            piece = _BLANK
        elif index < known.get_piece_size():
            piece = known.id_to_piece(index)
        lines.append(f"{piece} {index}\n")
    return "".join(lines)


def trace(
    module: nn.Module,
    arguments: Sequence[Tensor],
    inputs: Mapping[str, Mapping[int, str]],
    outputs: Mapping[str, Mapping[int, str]],
) -> "ModelProto":
    """Trace a module in evaluation mode with arguments of one call.

    Inputs and outputs are names, and of each the axes whose length may
    differ.
    """
    library = load("onnx", PURPOSE)
    stream = io.BytesIO()
    # Parity is tested, so the exporter's remarks are not shown.
    with torch.no_grad(), _silent("torch.onnx"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Tables that SpeechBrain remembers have to be there before tracing.
        module(*arguments)
        torch.onnx.export(
            module,
            tuple(arguments),
            stream,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={**inputs, **outputs},
            opset_version=OPSET,
            dynamo=False,
        )
    model = library.load_model_from_string(stream.getvalue())
    _square_by_multiplying(model.graph)
    return model


def save(
    model: "ModelProto",
    path: str | Path,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Check a graph and write it, with metadata for whoever loads it."""
    for key, value in (metadata or {}).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, str(value)
    model.producer_name = PRODUCER
    model.doc_string = ""
    load("onnx", PURPOSE).checker.check_model(model)
    with whole_file(Path(path)) as file:
        file.write(model.SerializeToString())


def _square_by_multiplying(graph: "GraphProto") -> None:
    """``Pow`` is slow, and used for squares and for powers of one."""
    to_array = load("onnx.numpy_helper", PURPOSE).to_array
    constants = {
        node.output[0]: to_array(node.attribute[0].t)
        for node in graph.node
        if node.op_type == "Constant" and node.attribute[0].name == "value"
    }
    for node in graph.node:
        exponent = constants.get(node.input[-1]) if node.input else None
        if node.op_type != "Pow" or exponent is None or exponent.size != 1:
            continue
        base, power = node.input[0], float(exponent.item())
        if power in (1.0, 2.0):
            node.op_type = "Mul" if power == 2.0 else "Identity"
            del node.input[:]
            node.input.extend([base] * int(power))
    read = {name for node in graph.node for name in node.input}
    read |= {each.name for each in graph.output}
    for name in constants.keys() - read:
        graph.node.remove(next(n for n in graph.node if name in n.output))


@contextmanager
def _silent(name: str | None) -> Iterator[None]:
    """Without what a library logs about its own work."""
    log = logging.getLogger(name)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def quantise(path: str | Path, target: str | Path) -> None:
    """Write a graph in fp32 with weights of 8 bits."""
    # Seconds to import, and only wanted here.
    onnx = load("onnx", PURPOSE)
    tools = load("onnxruntime.quantization", PURPOSE)
    shapes = load("onnxruntime.quantization.shape_inference", PURPOSE)
    # It advises on the root logger to do what is done here.
    with tempfile.TemporaryDirectory() as folder, _silent(None):
        prepared, made = (Path(folder) / name for name in ("a.onnx", "b.onnx"))
        shapes.quant_pre_process(
            str(path), str(prepared), skip_symbolic_shape=True
        )
        nodes = onnx.load(prepared).graph.node
        tools.quantize_dynamic(
            str(prepared),
            str(made),
            op_types_to_quantize=["MatMul"],
            weight_type=tools.QuantType.QInt8,
            per_channel=True,
            nodes_to_exclude=[n.name for n in nodes if START in n.name],
        )
        model = onnx.load(made)
    with whole_file(Path(target)) as file:
        file.write(model.SerializeToString())


# ---- The modules that are traced ------------------------------------------

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
    changed.encoder.layers = nn.ModuleList()
    for layer in map(shared_copy, model.encoder.layers):
        for name, part in list(layer.named_children()):
            if isinstance(part, RoPEMHA):
                setattr(layer, name, TabledRoPE(part))
        changed.encoder.layers.append(layer)
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
        self.rotary = None
        if encoder.attention_type == "RoPEMHA":
            self.rotary = RotaryTables(encoder.layers[0].mha_layer.head_dim)
        self.eval()

    def forward(self, wavs_BS: Tensor, samples_B: Tensor) -> tuple[Tensor, ...]:
        """Hidden states, valid frames, and positions where there are any."""
        wav_lens_B = samples_B.to(wavs_BS.dtype) / wavs_BS.shape[1]
        state = self.model.start(wavs_BS, wav_lens_B)
        positions = state.positions
        if self.rotary is not None:
            positions = self.rotary(state.hidden_BTD.shape[1])
        outputs = (state.hidden_BTD, state.lengths_B)
        return outputs if positions is None else (*outputs, positions)


class SegmentGraph(nn.Module):
    """The layers up to an exit, its head, and the measures of criteria."""

    def __init__(self, model: EarlyExitModel, exit: int):
        super().__init__()
        self.model = with_tables(model)
        self.depth = (0, *model.exit_layers)[exit - 1]
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
        measured = measure_all(ExitView(output), MEASURES)
        values = [measured[name] for name in MEASURES]
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
