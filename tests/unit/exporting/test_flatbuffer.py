"""Reading TFLite files that others wrote."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgekd.runtimes.tflite import flatbuffer


def test_constants_behind_the_tables_come_along() -> None:
    """ai-edge-quantizer puts the weights of larger networks there."""
    weights = np.arange(64, dtype=np.uint8)
    model = schema.ModelT()
    model.subgraphs = []
    model.buffers = [schema.BufferT(), schema.BufferT()]
    model.buffers[1].offset, model.buffers[1].size = 4096, weights.size
    content = flatbuffer.write(model).ljust(4096, b"\0") + weights.tobytes()
    again = flatbuffer.read(flatbuffer.write(flatbuffer.read(content)))
    assert again.buffers[0].data is None
    assert bytes(again.buffers[1].data) == weights.tobytes()


def products(*factors: tuple[float, int], outputs: tuple[int, ...], fused: int = 0) -> schema.ModelT:
    """Products of float32, each of a constant and the result with that number; tensor 0 is the input."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.subgraphs, model.buffers, graph.tensors, graph.operators = [graph], [schema.BufferT()], [], []
    code = schema.OperatorCodeT()
    code.builtinCode = schema.BuiltinOperator.MUL
    model.operatorCodes = [code]

    def tensor(value: float | None = None) -> int:
        made = schema.TensorT()
        made.type, made.shape, made.buffer = schema.TensorType.FLOAT32, [] if value is not None else [1, 4], 0
        if value is not None:
            made.buffer = len(model.buffers)
            model.buffers.append(schema.BufferT())
            model.buffers[-1].data = np.array([value], np.float32).view(np.uint8)
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    results = [tensor()]
    for number, (factor, of) in enumerate(factors):
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.builtinOptions = 0, schema.MulOptionsT()
        operator.builtinOptions.fusedActivationFunction = fused
        operands = [results[of], tensor(factor)]
        operator.inputs = np.array(operands[:: 1 if number % 2 else -1], np.int32)
        results.append(tensor())
        operator.outputs = np.array([results[-1]], np.int32)
        graph.operators.append(operator)
    graph.inputs, graph.outputs = [0], np.array([results[of] for of in outputs], np.int32)
    return model


@pytest.mark.parametrize(
    ("factors", "outputs", "fused", "left"),
    [
        ([(-1, 0), (-1, 1), (3, 2)], (3,), 0, [3]),
        ([(-1, 0), (-1, 1), (-1, 2), (3, 3)], (4,), 0, [-1, 3]),
        ([(-1, 0), (-1, 1), (3, 2), (5, 2)], (3, 4), 0, [3, 5]),
        ([(-1, 0), (-1, 1), (3, 2)], (3, 1), 0, [-1, -1, 3]),  # what is in between is given, too
        ([(-1, 0), (-1, 1), (3, 2), (5, 1)], (3, 4), 0, [-1, -1, 3, 5]),
        ([(-1, 0), (-1, 1)], (2,), 0, [-1, -1]),  # an output has its own name
        ([(-1, 0), (-2, 1), (3, 2)], (3,), 0, [-1, -2, 3]),
        ([(-1, 0), (-1, 1), (3, 2)], (3,), 1, [-1, -1, 3]),  # a ReLU in each
    ],
)
def test_a_negation_of_a_negation_goes(
    factors: list[tuple[float, int]], outputs: tuple[int, ...], fused: int, left: list[float]
) -> None:
    model = products(*factors, outputs=outputs, fused=fused)
    flatbuffer.drop_double_negations(model)
    graph, found = model.subgraphs[0], []
    given = {int(graph.inputs[0])}
    for operator in graph.operators:
        (factor,) = (index for index in operator.inputs if model.buffers[graph.tensors[index].buffer].data is not None)
        found.append(float(model.buffers[graph.tensors[factor].buffer].data.view(np.float32)[0]))
        assert {*map(int, operator.inputs)} - {int(factor)} <= given
        given.add(int(operator.outputs[0]))
    assert found == left
    assert {*map(int, graph.outputs)} <= given
