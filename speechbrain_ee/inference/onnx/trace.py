"""From a module to a graph file.

PyTorch's exporter through TorchScript (``dynamo=False``) is used: all encoders
here pass it with dynamic batch and time, in a second per graph. The newer one
gives graphs that agree with PyTorch as well, takes ten times as long, and
needs onnxscript.

Authors
 * The speechbrain-ee contributors 2026
"""

import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from speechbrain_ee.files import whole_file
from speechbrain_ee.inference.onnx.extra import load

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

PURPOSE = "export --format onnx"
OPSET = 17
PRODUCER = "speechbrain-ee"


def trace(
    module: nn.Module,
    arguments: Sequence[Tensor],
    inputs: Mapping[str, Mapping[int, str]],
    outputs: Mapping[str, Mapping[int, str]],
) -> "ModelProto":
    """Trace a module.

    Arguments
    ---------
    module : torch.nn.Module
        In evaluation mode.
    arguments : sequence of torch.Tensor
        What it is called with once.
    inputs, outputs : mapping of str to mapping of int to str
        Names, and of each the axes whose length may differ.

    Returns
    -------
    onnx.ModelProto
    """
    library = load("onnx", PURPOSE)
    stream = io.BytesIO()
    with torch.no_grad(), _quietly():
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
    """Check a graph and write it: all of it or nothing.

    Arguments
    ---------
    model : onnx.ModelProto
        The graph.
    path : str or Path
        The file.
    metadata : mapping, optional
        Names and values for whoever loads it.
    """
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
def _quietly() -> Any:
    """Without the exporter's remarks: parity is tested, not assumed."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(level)
