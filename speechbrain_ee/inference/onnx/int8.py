"""Weights of 8 bits: onnxruntime's dynamic quantisation of segments.

The weights of matrix products become integers of 8 bits, one scale for each
column; activations are quantised while they are computed, one scale for each
tensor. Convolutions, norms and softmax stay in fp32, and so does the graph
below the first layer: features span eight decades.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
import tempfile
from pathlib import Path

from speechbrain_ee.files import whole_file
from speechbrain_ee.inference.onnx.extra import load
from speechbrain_ee.inference.onnx.trace import PURPOSE

# Where the modules of a graph keep what lies below the first layer.
START = "/start/"


def quantise(path: str | Path, target: str | Path) -> None:
    """Quantise a graph.

    Arguments
    ---------
    path : str or Path
        A graph in fp32; its nodes below the first layer stay so.
    target : str or Path
        Where the quantised one is written.
    """
    # Seconds to import, and only wanted here.
    onnx = load("onnx", PURPOSE)
    tools = load("onnxruntime.quantization", PURPOSE)
    shapes = load("onnxruntime.quantization.shape_inference", PURPOSE)
    root = logging.getLogger()
    level = root.level
    with tempfile.TemporaryDirectory() as folder:
        prepared, made = (Path(folder) / name for name in ("a.onnx", "b.onnx"))
        try:
            # It advises on the root logger to do what is done here.
            root.setLevel(logging.ERROR)
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
        finally:
            root.setLevel(level)
        model = onnx.load(made)
    with whole_file(Path(target)) as file:
        file.write(model.SerializeToString())
