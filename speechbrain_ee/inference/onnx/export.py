"""A model folder as ONNX graphs, one per segment, for hosts without torch.

A device runs ``start.onnx`` once, then ``exit_01.onnx``, ``exit_02.onnx``, …
until its policy is content; see :mod:`speechbrain_ee.inference.onnx.host`.
Batch and time are dynamic in all of them. The measures that policies ask for
are part of the graphs, traced from the functions that criteria are made of.

Axes: B utterances, T frames, D width.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from speechbrain_ee.evaluation.calibrate import default_of
from speechbrain_ee.evaluation.cost import CostModel
from speechbrain_ee.exits.calibration.exit_policy import ExitPolicy
from speechbrain_ee.exits.calibration.policy_file import write_policy
from speechbrain_ee.exits.calibration.risk import METHODS
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.criteria.ngram import write_ngram
from speechbrain_ee.exits.criteria.text import OF_TEXT
from speechbrain_ee.exits.decoding.methods import GREEDY
from speechbrain_ee.files import (
    check_ours,
    has_schema,
    whole_file,
    whole_folder,
)
from speechbrain_ee.inference.onnx.extra import load
from speechbrain_ee.inference.onnx.graphs import (
    POSITIONS,
    SegmentGraph,
    StartGraph,
    exportable,
    subsampling,
)
from speechbrain_ee.inference.onnx.int8 import quantise
from speechbrain_ee.inference.onnx.manifest import (
    LANGUAGE_MODEL_FILE,
    MANIFEST_FILE,
    SCHEMA,
    Manifest,
    segment_file,
    start_file,
    write_manifest,
)
from speechbrain_ee.inference.onnx.trace import PURPOSE, save, trace
from speechbrain_ee.models.model import EarlyExitModel

if TYPE_CHECKING:
    from onnx import ModelProto

    from speechbrain_ee.inference.folder.model_folder import ModelFolder

logger = logging.getLogger(__name__)

# Evidence that comes with one look at the probabilities.
MEASURES = (
    "entropy",
    "entropy_nonblank",
    "max_prob",
    "max_prob_nonblank",
    "margin",
    "margin_nonblank",
)
# What an export may delete: the files of an earlier one, as regular
# expressions. A policy of another name was put there by somebody.
FILES = (
    *map(re.escape, (MANIFEST_FILE, LANGUAGE_MODEL_FILE, "tokenizer.model")),
    r"(start|exit_\d+)(\.int8)?\.onnx",
    rf"policies/[^/]+\.({'|'.join(METHODS)})\.yaml",
)
_TRANSCRIPTS = "transcripts"
_BATCH, _FRAMES = {0: "batch"}, {0: "batch", 1: "frames"}
# Two lengths, so that nothing that depends on padding is missed.
_TRACED_SAMPLES = (11_213, 6_077)
_COST_FRAMES = (100, 200, 300)


def export_onnx(
    folder: "ModelFolder", target: str | Path, int8: bool = True
) -> Path:
    """Write a model folder as graphs.

    Arguments
    ---------
    folder : ModelFolder
        The model, its tokenizer and its policies.
    target : str or Path
        Folder to write; an earlier export there is replaced as a whole.
    int8 : bool
        Write the graphs with weights of 8 bits as well.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        If the model cannot be exported, a package is missing, or something
        else is at the place.
    """
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
        export_graphs(model, new, MEASURES, int8)
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
    model: EarlyExitModel,
    target: str | Path,
    measures: Iterable[str] = MEASURES,
    int8: bool = False,
) -> None:
    """Write the graphs alone.

    Arguments
    ---------
    model : EarlyExitModel
        In evaluation mode, on the CPU, in fp32.
    target : str or Path
        An existing folder.
    measures : iterable of str
        Evidence that every segment puts out.
    int8 : bool
        Write the graphs with weights of 8 bits as well.
    """
    encoder = exportable(model)
    kind = POSITIONS[encoder.attention_type]
    target, measures = Path(target), tuple(measures)
    wavs_BS, samples_B = _example()
    start = StartGraph(model)
    with torch.no_grad():
        state = start(wavs_BS, samples_B)
    outputs = {"hidden": _FRAMES, "lengths": _BATCH, **_positions(kind)}
    inputs = {"wavs": {0: "batch", 1: "samples"}, "samples": _BATCH}
    path = target / start_file("fp32")
    save(trace(start, (wavs_BS, samples_B), inputs, outputs), path)
    for exit, _ in enumerate(model.exit_layers, start=1):
        graph = _segment(model, exit, measures, kind, state)
        path = target / segment_file(exit, "fp32")
        save(graph, path)
        if int8:
            quantise(path, target / segment_file(exit, "int8"))


def manifest(
    model: EarlyExitModel,
    name: str,
    sample_rate: int,
    default_policy: str | None = None,
    precisions: tuple[str, ...] = ("fp32",),
    measures: Iterable[str] = MEASURES,
) -> Manifest:
    """What a host has to know about the graphs of a model.

    Arguments
    ---------
    model : EarlyExitModel
        The model.
    name : str
        The system.
    sample_rate : int
        Samples per second.
    default_policy : str, optional
        Name of the policy that is followed if nothing is said.
    precisions : tuple of str
        Sets of graphs that there are.
    measures : iterable of str
        Evidence that every segment puts out.

    Returns
    -------
    Manifest
    """
    cost = CostModel(model)
    layers = (0, *model.exit_layers)
    segments, heads = [], []
    for exit, (below, top) in enumerate(zip(layers, layers[1:]), start=1):
        segments.append(
            _quadratic(
                lambda frames, below=below, top=top: sum(
                    cost.layer(at, frames) for at in range(below, top)
                )
            )
        )
        heads.append(_quadratic(lambda frames, k=exit: cost.head(k, frames)))
    encoder = exportable(model)
    hop = encoder.features.hop_samples
    hops = range(subsampling(encoder) + 1)
    return Manifest(
        name=name,
        sample_rate=sample_rate,
        exit_layers=tuple(model.exit_layers),
        vocab_size=model.heads.vocab_size,
        blank_index=model.heads.blank_index,
        positions=POSITIONS[encoder.attention_type],
        measures=tuple(measures),
        # Exact, where the frame at the start is not counted.
        frame_s=hop * subsampling(encoder) / sample_rate,
        precisions=precisions,
        default_policy=default_policy,
        hop=hop,
        start_macs=tuple(cost.start.macs(n * hop) for n in hops),
        segment_macs=tuple(segments),
        head_macs=tuple(heads),
    )


def _segment(
    model: EarlyExitModel,
    exit: int,
    measures: tuple[str, ...],
    kind: str,
    state: tuple[torch.Tensor, ...],
) -> "ModelProto":
    inputs = {"hidden": _FRAMES, "lengths": _BATCH, **_positions(kind)}
    outputs = {"out": _FRAMES, "log_probs": _FRAMES}
    outputs |= dict.fromkeys(measures, _BATCH)
    return trace(SegmentGraph(model, exit, measures), state, inputs, outputs)


def _followed(
    policies: Mapping[str, ExitPolicy], evidence: Sequence[str]
) -> dict[str, ExitPolicy]:
    """Those that there is evidence for."""
    given = {*evidence, _TRANSCRIPTS}
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


def _example() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    samples_B = torch.tensor(_TRACED_SAMPLES)
    shape = (len(_TRACED_SAMPLES), max(_TRACED_SAMPLES))
    return 0.1 * torch.randn(shape, generator=generator), samples_B


def _quadratic(macs: Callable[[int], int]) -> tuple[float, float, float]:
    """Coefficients of 1, T and T squared, through three lengths."""
    one, two, three = map(macs, _COST_FRAMES)
    step = _COST_FRAMES[0]
    square = (one - 2 * two + three) / (2 * step**2)
    linear = (two - one) / step - 3 * step * square
    return one - linear * step - square * step**2, linear, square
