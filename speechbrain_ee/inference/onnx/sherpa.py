"""One graph for one exit, in the form that sherpa-onnx loads.

The model is cut at an exit, and all of it becomes a single graph: waveform in,
log-probabilities out. Of sherpa-onnx's CTC loaders that of the omnilingual
models fits (``OfflineRecognizer.from_omnilingual_asr_ctc``): it feeds samples.
The others (zipformer, NeMo, WeNet) feed filterbanks of their own, with
pre-emphasis, other windows, other mel bands and natural logarithms, that a
model trained on SpeechBrain's has never heard.

That loader scales every utterance to zero mean and unit variance. Features
that are normalised by utterance are the same for it, up to an offset of the
samples; the graph has no length, and utterances go through it one by one.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from speechbrain_ee import __version__
from speechbrain_ee.errors import InputError
from speechbrain_ee.files import (
    check_ours,
    open_plain,
    whole_file,
    whole_folder,
)
from speechbrain_ee.inference.onnx.graphs import (
    WholeGraph,
    exportable,
    subsampling,
)
from speechbrain_ee.inference.onnx.int8 import quantise
from speechbrain_ee.inference.onnx.trace import PRODUCER, save, trace

if TYPE_CHECKING:
    from speechbrain_ee.inference.folder.model_folder import ModelFolder

_SAMPLES = 11_213
_BLANK = "<blk>"
_HEAD = 64  # bytes of a graph, in which its producer stands


def export_static(
    folder: "ModelFolder",
    target: str | Path,
    exit: int | None = None,
    int8: bool = True,
) -> Path:
    """Write ``model.onnx``, ``model.int8.onnx`` and ``tokens.txt``.

    Arguments
    ---------
    folder : ModelFolder
        The model and its tokenizer.
    target : str or Path
        Folder to write; an earlier export there is replaced as a whole.
    exit : int, optional
        Where the model ends, from 1; by default at its last exit.
    int8 : bool
        Write the graph with weights of 8 bits as well.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        If there is no such exit, the model cannot be written this way, or
        something else is at the place.
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
    generator = torch.Generator().manual_seed(0)
    graph = trace(
        WholeGraph(model),
        (0.1 * torch.randn((1, _SAMPLES), generator=generator),),
        {"x": {0: "N", 1: "num_samples"}},
        {"logits": {0: "N", 1: "num_frames"}},
    )
    with whole_folder(target, _check_replaced) as new:
        metadata = _metadata(folder, model.exit_layers[-1])
        save(graph, new / "model.onnx", metadata)
        if int8:
            quantise(new / "model.onnx", new / "model.int8.onnx")
        with whole_file(new / "tokens.txt") as stream:
            stream.write(tokens(folder).encode())
    return target


def _check_replaced(path: Path) -> None:
    """Only a graph of this project is deleted, and nothing else with it."""
    graph = path / "model.onnx"
    head = b""
    if graph.is_file():
        with open_plain(graph) as stream:
            head = stream.read(_HEAD)
    ours = PRODUCER.encode() in head
    check_ours(path, ours, r"model(\.int8)?\.onnx", r"tokens\.txt")


def tokens(folder: "ModelFolder") -> str:
    """The tokens of a model, one in a line with its index.

    Arguments
    ---------
    folder : ModelFolder
        The model and its tokenizer.

    Returns
    -------
    str
        The content of ``tokens.txt``; CTC's blank is ``<blk>``.
    """
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


def _metadata(folder: "ModelFolder", layers: int) -> dict[str, str | int]:
    return {
        "model_type": "omnilingual-asr",
        "version": 1,
        "vocab_size": folder.model.heads.vocab_size,
        "subsampling_factor": subsampling(folder.model.encoder),
        "normalize_type": "",
        "sample_rate": folder.sample_rate,
        "model_author": f"speechbrain-ee {__version__}",
        "comment": f"{folder.name}, encoder cut after layer {layers}",
    }
