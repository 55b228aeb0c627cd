"""A model made slow, and nothing else: what a guard for latency has to find, and what costs a caller no answer."""

from __future__ import annotations

from pathlib import Path

import onnx


def slow_down(file: Path) -> None:
    """Each answer waits for a product of two large matrices, and is the same as before."""
    model = onnx.load(file)
    graph, [given] = model.graph, model.graph.input
    for node in graph.node:
        node.input[:] = ["slowly" if name == given.name else name for name in node.input]
    graph.initializer.append(onnx.helper.make_tensor("size", onnx.TensorProto.INT64, [2], [1600, 1600]))
    first = [
        onnx.helper.make_node("ReduceMax", [given.name], ["most"], keepdims=0),
        onnx.helper.make_node("Expand", ["most", "size"], ["matrix"]),
        onnx.helper.make_node("MatMul", ["matrix", "matrix"], ["product"]),
        onnx.helper.make_node("ReduceMax", ["product"], ["large"], keepdims=0),
        onnx.helper.make_node("Sub", ["large", "large"], ["zero"]),
        onnx.helper.make_node("Add", [given.name, "zero"], ["slowly"]),
    ]
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*first, *rest])
    onnx.save(model, file)
