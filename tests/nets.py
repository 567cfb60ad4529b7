"""Writes .tflite files as a converter would: dense nets in float32, and in int8 with calibrated activations.

Quantisation: TensorFlow Lite's 8-bit quantisation specification. Weights are symmetric, per tensor or per row, with
steps of their largest over 127; biases are 32 bit in steps of input times weight; activations have 256 steps over the
range seen in calibration, with 0 among them; softmax has steps of 1/256 from 0.
"""

from dataclasses import dataclass
from itertools import pairwise

import flatbuffers
import numpy as np
import tflite

FLOAT, INT32, INT8 = tflite.TensorType.FLOAT32, tflite.TensorType.INT32, tflite.TensorType.INT8
_TYPES = {FLOAT: "<f4", INT32: "<i4", INT8: "<i1"}
OPERATOR = tflite.BuiltinOperator
_VERSIONS = {OPERATOR.FULLY_CONNECTED: 4, OPERATOR.SOFTMAX: 2, OPERATOR.RELU: 2, OPERATOR.DEQUANTIZE: 2}  # with int8
SOFTMAX_STEP = (1 / 256, -128)


@dataclass
class Tensor:
    kind: int
    shape: tuple
    scale: tuple = ()
    zero: tuple = ()
    content: np.ndarray | None = None
    dimension: int = 0


@dataclass
class Operator:
    code: int
    inputs: tuple
    outputs: tuple
    activation: int = 0
    beta: float = 1.0
    weights_format: int = 0


@dataclass
class Graph:
    tensors: list
    operators: list
    inputs: tuple = (0,)
    outputs: tuple | None = None
    version: int = 3
    graphs: int = 1

    def add(self, tensor):
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def then(self, code, tensor, **options):
        """An operator behind the last one; gives the number of its output."""
        before = self.operators[-1].outputs[0] if self.operators else 0
        constants = options.pop("constants", ())
        self.operators.append(Operator(code, (before, *constants), (self.add(tensor),), **options))
        return self.operators[-1].outputs[0]

    def to_bytes(self):
        return _Writer(self).finish()


def random_layers(rng, widths, activation="relu"):
    """(weights, bias, activation) for each, as training starts them, the last without activation."""
    found = []
    for number, (inputs, outputs) in enumerate(pairwise(widths)):
        weights = rng.normal(0, np.sqrt(2 / inputs), (outputs, inputs)).astype(np.float32)
        bias = rng.normal(0, 0.1, outputs).astype(np.float32)
        found.append((weights, bias, activation if number < len(widths) - 2 else ""))
    return found


def forward(layers, values):
    """What is behind each layer, and the probabilities, for rows of features."""
    behind = []
    for weights, bias, activation in layers:
        values = values @ weights.astype(np.float64).T + bias
        values = np.maximum(values, 0) if activation == "relu" else values
        behind.append(values)
    raised = np.exp(values - values.max(axis=1, keepdims=True))
    return behind, raised / raised.sum(axis=1, keepdims=True)


def float_graph(layers, *, separate_relu=False, reshape=False):
    inputs = layers[0][0].shape[1]
    graph = Graph([Tensor(FLOAT, (1, inputs))], [])
    if reshape:
        shape = graph.add(Tensor(INT32, (2,), content=np.array([1, inputs])))
        graph.then(OPERATOR.RESHAPE, Tensor(FLOAT, (1, inputs)), constants=(shape,))
    for weights, bias, activation in layers:
        constants = [graph.add(Tensor(FLOAT, np.shape(one), content=one)) for one in (weights, bias)]
        fused = 1 if activation == "relu" and not separate_relu else 0
        out = Tensor(FLOAT, (1, len(bias)))
        graph.then(OPERATOR.FULLY_CONNECTED, out, constants=constants, activation=fused)
        if activation == "relu" and separate_relu:
            graph.then(OPERATOR.RELU, Tensor(FLOAT, (1, len(bias))))
    graph.then(OPERATOR.SOFTMAX, Tensor(FLOAT, (1, len(layers[-1][1]))))
    return graph


def calibrated(values):
    """Scale and zero point of an activation that took these values; one that is always 0 has steps of 1."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    scale = np.float32((high - low) / 255 or 1)
    return float(scale), int(np.clip(np.rint(-128 - low / scale), -128, 127))


def int8_graph(layers, calibration, *, per_row=False, float_edges=False, separate_relu=False):
    behind, _ = forward(layers, calibration)
    inputs, step = layers[0][0].shape[1], calibrated(calibration)
    graph = Graph([_activation(inputs, step)], [])
    if float_edges:
        graph.tensors[0] = Tensor(FLOAT, (1, inputs))
        graph.then(OPERATOR.QUANTIZE, _activation(inputs, step))
    for (weights, bias, activation), values in zip(layers, behind, strict=True):
        constants, step = _stored(graph, weights, bias, step[0], per_row), calibrated(values)
        fused = 1 if activation == "relu" and not separate_relu else 0
        out = _activation(len(bias), step)
        graph.then(OPERATOR.FULLY_CONNECTED, out, constants=constants, activation=fused)
        if activation == "relu" and separate_relu:
            graph.then(OPERATOR.RELU, _activation(len(bias), step))
    classes = len(layers[-1][1])
    graph.then(OPERATOR.SOFTMAX, _activation(classes, SOFTMAX_STEP))
    if float_edges:
        graph.then(OPERATOR.DEQUANTIZE, Tensor(FLOAT, (1, classes)))
    return graph


def _activation(width, step):
    return Tensor(INT8, (1, width), (step[0],), (step[1],))


def _stored(graph, weights, bias, input_scale, per_row):
    """Numbers of the tensors that hold weights and bias."""
    largest = np.abs(weights).max(axis=1) if per_row else np.abs(weights).max(keepdims=True).ravel()
    scale = np.maximum(largest, 1e-6).astype(np.float32) / np.float32(127)
    stored = np.clip(np.rint(weights / scale[:, np.newaxis]), -127, 127)
    of_bias = np.float32(input_scale) * scale
    whole = np.clip(np.rint(bias / of_bias.astype(np.float64)), -(2**31), 2**31 - 1)
    zeros = (0,) * len(scale)
    return (
        graph.add(Tensor(INT8, weights.shape, tuple(scale), zeros, stored)),
        graph.add(Tensor(INT32, bias.shape, tuple(of_bias), zeros, whole)),
    )


class _Writer:
    """A graph as a flatbuffer (tensorflow/tensorflow:tensorflow/compiler/mlir/lite/schema/schema.fbs)."""

    def __init__(self, graph):
        self.graph = graph
        self.out = flatbuffers.Builder(4096)
        self.codes = sorted({operator.code for operator in graph.operators})

    def finish(self):
        tensors = [self.tensor(number + 1, tensor) for number, tensor in enumerate(self.graph.tensors)]
        operators = [self.operator(one) for one in self.graph.operators]
        subgraphs = [self.subgraph(tensors, operators) for _ in range(self.graph.graphs)]
        codes = [self.code(code) for code in self.codes]
        buffers = [self.buffer(None), *(self.buffer(tensor) for tensor in self.graph.tensors)]
        starts = (
            tflite.ModelStartOperatorCodesVector,
            tflite.ModelStartSubgraphsVector,
            tflite.ModelStartBuffersVector,
        )
        vectors = [self.vector(start, of) for start, of in zip(starts, (codes, subgraphs, buffers), strict=True)]
        tflite.ModelStart(self.out)
        tflite.ModelAddVersion(self.out, self.graph.version)
        tflite.ModelAddOperatorCodes(self.out, vectors[0])
        tflite.ModelAddSubgraphs(self.out, vectors[1])
        tflite.ModelAddBuffers(self.out, vectors[2])
        self.out.Finish(tflite.ModelEnd(self.out), b"TFL3")
        return bytes(self.out.Output())

    def vector(self, start, offsets):
        start(self.out, len(offsets))
        for offset in reversed(offsets):
            self.out.PrependUOffsetTRelative(offset)
        return self.out.EndVector()

    def numbers(self, values, kind):
        return self.out.CreateNumpyVector(np.asarray(values, kind))

    def tensor(self, buffer, tensor):
        shape, name = self.numbers(tensor.shape, "<i4"), self.out.CreateString(f"tensor {buffer}")
        steps = self.steps(tensor) if len(tensor.scale) else None
        tflite.TensorStart(self.out)
        tflite.TensorAddShape(self.out, shape)
        tflite.TensorAddType(self.out, tensor.kind)
        tflite.TensorAddBuffer(self.out, buffer if tensor.content is not None else 0)
        tflite.TensorAddName(self.out, name)
        if steps is not None:
            tflite.TensorAddQuantization(self.out, steps)
        return tflite.TensorEnd(self.out)

    def steps(self, tensor):
        scale, zero = self.numbers(tensor.scale, "<f4"), self.numbers(tensor.zero, "<i8")
        tflite.QuantizationParametersStart(self.out)
        tflite.QuantizationParametersAddScale(self.out, scale)
        tflite.QuantizationParametersAddZeroPoint(self.out, zero)
        tflite.QuantizationParametersAddQuantizedDimension(self.out, tensor.dimension)
        return tflite.QuantizationParametersEnd(self.out)

    def operator(self, operator):
        kind, options = self.options(operator)
        inputs, outputs = self.numbers(operator.inputs, "<i4"), self.numbers(operator.outputs, "<i4")
        tflite.OperatorStart(self.out)
        tflite.OperatorAddOpcodeIndex(self.out, self.codes.index(operator.code))
        tflite.OperatorAddInputs(self.out, inputs)
        tflite.OperatorAddOutputs(self.out, outputs)
        if options is not None:
            tflite.OperatorAddBuiltinOptionsType(self.out, kind)
            tflite.OperatorAddBuiltinOptions(self.out, options)
        return tflite.OperatorEnd(self.out)

    def options(self, operator):
        if operator.code == OPERATOR.FULLY_CONNECTED:
            tflite.FullyConnectedOptionsStart(self.out)
            tflite.FullyConnectedOptionsAddFusedActivationFunction(self.out, operator.activation)
            tflite.FullyConnectedOptionsAddWeightsFormat(self.out, operator.weights_format)
            return tflite.BuiltinOptions.FullyConnectedOptions, tflite.FullyConnectedOptionsEnd(self.out)
        if operator.code == OPERATOR.SOFTMAX:
            tflite.SoftmaxOptionsStart(self.out)
            tflite.SoftmaxOptionsAddBeta(self.out, operator.beta)
            return tflite.BuiltinOptions.SoftmaxOptions, tflite.SoftmaxOptionsEnd(self.out)
        return 0, None

    def subgraph(self, tensors, operators):
        last = self.graph.operators[-1].outputs if self.graph.operators else self.graph.inputs
        inputs, outputs = self.numbers(self.graph.inputs, "<i4"), self.numbers(self.graph.outputs or last, "<i4")
        vectors = (
            self.vector(tflite.SubGraphStartTensorsVector, tensors),
            self.vector(tflite.SubGraphStartOperatorsVector, operators),
        )
        tflite.SubGraphStart(self.out)
        tflite.SubGraphAddTensors(self.out, vectors[0])
        tflite.SubGraphAddInputs(self.out, inputs)
        tflite.SubGraphAddOutputs(self.out, outputs)
        tflite.SubGraphAddOperators(self.out, vectors[1])
        return tflite.SubGraphEnd(self.out)

    def code(self, code):
        tflite.OperatorCodeStart(self.out)
        tflite.OperatorCodeAddDeprecatedBuiltinCode(self.out, min(code, 127))
        tflite.OperatorCodeAddBuiltinCode(self.out, code)
        tflite.OperatorCodeAddVersion(self.out, _VERSIONS.get(code, 1))
        return tflite.OperatorCodeEnd(self.out)

    def buffer(self, tensor):
        content = None
        if tensor is not None and tensor.content is not None:
            content = np.ascontiguousarray(np.asarray(tensor.content), _TYPES[tensor.kind]).tobytes()
            content = self.out.CreateByteVector(content)
        tflite.BufferStart(self.out)
        if content is not None:
            tflite.BufferAddData(self.out, content)
        return tflite.BufferEnd(self.out)
