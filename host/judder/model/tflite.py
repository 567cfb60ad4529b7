"""Reads a dense net from a .tflite file: FULLY_CONNECTED layers with RELU, and the SOFTMAX that the board ends with.

Layout: tensorflow/tensorflow:tensorflow/compiler/mlir/lite/schema/schema.fbs, version 3. Quantisation of int8 nets:
TensorFlow Lite's 8-bit quantisation specification; real = scale * (stored - zero point), weights per tensor or per
row. The board computes in floats: layers come dequantised. `Net.quantised` scores as the int8 net itself would, to
say how far the two are apart.

The reader of flatbuffers checks nothing. So counts and sizes are bounded here before anything loops over them, and
whatever a damaged file makes it raise becomes a ModelError.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tflite

from judder.model.file import Floats, Layer, ModelError

IDENTIFIER = b"TFL3"
MOST_BYTES = 4 * 1024 * 1024
MOST_OPERATORS = 64
MOST_TENSORS = 256
OPERATORS = ("FULLY_CONNECTED", "RELU", "SOFTMAX", "RESHAPE", "QUANTIZE", "DEQUANTIZE")
_AT_THE_EDGES = ("QUANTIZE", "DEQUANTIZE")
_ROWS = 0  # the dimension that weights may be quantised along
_LOWEST, _HIGHEST = -128, 127
_DAMAGED = (struct.error, ArithmeticError, AttributeError, IndexError, KeyError, MemoryError, TypeError, ValueError)

Values = npt.NDArray[np.float64]


class Steps(NamedTuple):
    """How a tensor is stored in 8 bits: `scale` is one step."""

    scale: float
    zero: int

    def rounded(self, values: Values) -> Values:
        """To what 8 bits can say."""
        stored = np.clip(np.rint(values / self.scale) + self.zero, _LOWEST, _HIGHEST)
        return np.asarray((stored - self.zero) * self.scale)


@dataclass(frozen=True)
class Net:
    """`layers` as a model file has them. Of an int8 net `steps` are those of its input and behind each layer."""

    layers: tuple[Layer, ...]
    steps: tuple[Steps, ...] = ()

    @property
    def inputs(self) -> int:
        return int(self.layers[0].weights.shape[1])

    @property
    def outputs(self) -> int:
        return len(self.layers[-1].bias)

    def probabilities(self, values: Values) -> Values:
        """Of features, (inputs,), as the board computes them."""
        return self._run(values, ())

    def quantised(self, values: Values) -> Values:
        """As the int8 net gives them, but for the steps of 1/256 that it says them in."""
        return self._run(values, self.steps)

    def _run(self, values: Values, steps: Sequence[Steps]) -> Values:
        if steps:
            values = steps[0].rounded(values)
        for number, (weights, bias, activation) in enumerate(self.layers):
            values = weights.astype(np.float64) @ values + bias
            if activation == "relu":
                values = np.maximum(values, 0)
            if steps:
                values = steps[number + 1].rounded(values)
        raised = np.exp(values - values.max())
        return np.asarray(raised / raised.sum())


def read(data: bytes) -> Net:
    """The net of a .tflite file. Raises ModelError for one that is damaged, or holds what is not implemented."""
    if len(data) < 8 or data[4:8] != IDENTIFIER:
        raise ModelError("it is no .tflite file")
    if len(data) > MOST_BYTES:
        raise ModelError(f"it is a .tflite file of {len(data)} bytes; up to {MOST_BYTES} are read")
    try:
        with np.errstate(all="ignore"):  # what overflows is no finite number, which is asked for
            return _net(data)
    except ModelError:
        raise
    except _DAMAGED as error:
        raise ModelError(f"the .tflite file is damaged ({type(error).__name__}): get it again") from None


@dataclass(frozen=True)
class _Tensor:
    kind: str
    shape: tuple[int, ...]
    scale: npt.NDArray[np.float64]
    zero: npt.NDArray[np.int64]
    dimension: int
    data: bytes

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def steps(self) -> Steps | None:
        if self.kind != "INT8":
            return None
        if len(self.scale) != 1 or len(self.zero) != 1:
            raise ModelError("the .tflite file has an int8 tensor without one scale and zero point")
        return Steps(float(self.scale[0]), int(self.zero[0]))

    def real(self) -> Values:
        """Its content, dequantised."""
        types = {"FLOAT32": "<f4", "INT8": "<i1", "INT32": "<i4"}
        stored = np.frombuffer(self.data, types[self.kind]).reshape(self.shape).astype(np.float64)
        if self.kind == "FLOAT32":
            return stored
        if len(self.scale) == 1:
            return np.asarray((stored - self.zero[0]) * self.scale[0])
        if self.dimension != _ROWS or len(self.scale) != self.shape[0] or self.zero.any():
            raise ModelError(
                "the .tflite file has weights quantised in a way that is not implemented: per tensor or row"
            )
        return np.asarray(stored * self.scale.reshape(-1, *[1] * (len(self.shape) - 1)))


def _net(data: bytes) -> Net:
    model = tflite.Model.GetRootAs(data, 0)
    if model.Version() != 3 or model.SubgraphsLength() != 1:
        raise ModelError("the .tflite file is not one graph of version 3: nets with several graphs are not implemented")
    graph = model.Subgraphs(0)
    tensors = _tensors(model, graph)
    if graph.InputsLength() != 1 or graph.OutputsLength() != 1:
        raise ModelError(
            f"the net has {graph.InputsLength()} inputs and {graph.OutputsLength()} outputs; one each is implemented"
        )
    walk = _Walk(tensors, graph.Inputs(0))
    for name, operator in _operators(model, graph):
        walk.take(name, operator)
    if walk.at != graph.Outputs(0):
        raise ModelError("the net's output is not that of its last operator: nets with branches are not implemented")
    return walk.net()


def _tensors(model: Any, graph: Any) -> list[_Tensor]:
    if not 0 < graph.TensorsLength() <= MOST_TENSORS:
        raise ModelError(f"the net has {graph.TensorsLength()} tensors; up to {MOST_TENSORS} are read")
    return [_tensor(model, graph.Tensors(number)) for number in range(graph.TensorsLength())]


def _tensor(model: Any, tensor: Any) -> _Tensor:
    if tensor.ShapeLength() > 8:
        raise ModelError(f"the net has a tensor of {tensor.ShapeLength()} dimensions")
    if tensor.Sparsity() is not None:
        raise ModelError("the net has sparse weights, which are not implemented: train it without pruning")
    shape = tuple(int(tensor.Shape(number)) for number in range(tensor.ShapeLength()))
    steps = tensor.Quantization()
    scale = np.asarray(steps.ScaleAsNumpy() if steps and steps.ScaleLength() else (), np.float64)
    zero = np.asarray(steps.ZeroPointAsNumpy() if steps and steps.ZeroPointLength() else (), np.int64)
    if not (np.isfinite(scale).all() and (scale > 0).all()) or len(zero) not in (0, len(scale)):
        raise ValueError("quantisation")
    zero = zero if len(zero) else np.zeros(len(scale), np.int64)
    if not 0 <= tensor.Buffer() < model.BuffersLength():
        raise IndexError("buffer")
    buffer = model.Buffers(tensor.Buffer())
    content = buffer.DataAsNumpy().tobytes() if buffer.DataLength() else b""
    kind = _name(tflite.TensorType, tensor.Type())
    return _Tensor(kind, shape, scale, zero, steps.QuantizedDimension() if steps else 0, content)


def _operators(model: Any, graph: Any) -> Iterator[tuple[str, Any]]:
    if not 0 < graph.OperatorsLength() <= MOST_OPERATORS:
        raise ModelError(f"the net has {graph.OperatorsLength()} operators; up to {MOST_OPERATORS} are read")
    for number in range(graph.OperatorsLength()):
        operator = graph.Operators(number)
        if not 0 <= operator.OpcodeIndex() < model.OperatorCodesLength():
            raise IndexError("operator")
        code = model.OperatorCodes(operator.OpcodeIndex())
        code = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())  # the second is older and holds no more than 127
        yield _name(tflite.BuiltinOperator, code), operator


class _Walk:
    """From the net's input along its operators, each of which takes what the one before it gave."""

    def __init__(self, tensors: Sequence[_Tensor], start: int) -> None:
        self.at = start
        self._tensors = tensors
        self._inputs = self._tensor(start).size
        self._layers: list[Layer] = []
        self._steps: list[Steps | None] = [self._tensor(start).steps]
        self._ended = False

    def take(self, name: str, operator: Any) -> None:
        if name not in OPERATORS:
            raise ModelError(f"the net has the operator {name}, which is not implemented ({', '.join(OPERATORS)} are)")
        inputs = [int(operator.Inputs(number)) for number in range(min(operator.InputsLength(), 4))]
        if not inputs or inputs[0] != self.at or operator.OutputsLength() != 1:
            raise ModelError(f"the net's operator {name} does not follow the one before: branches are not implemented")
        if self._ended and name in ("FULLY_CONNECTED", "RELU", "SOFTMAX"):
            raise ModelError(f"the net has {name} behind its SOFTMAX, which is not implemented: end it with SOFTMAX")
        if name in _AT_THE_EDGES and self._layers and not self._ended:
            raise ModelError(f"the net has {name} between its layers, which is implemented before and behind them only")
        self.at = int(operator.Outputs(0))
        if name == "FULLY_CONNECTED":
            self._dense(inputs, operator)
        elif name == "RELU":
            self._relu()
        elif name == "SOFTMAX":
            self._softmax(operator)
        elif not self._layers:
            self._steps = [self._tensor(self.at).steps or self._steps[0]]

    def _dense(self, inputs: Sequence[int], operator: Any) -> None:
        options = _options(operator, tflite.FullyConnectedOptions())
        fused = options.FusedActivationFunction()
        if options.WeightsFormat():
            raise ModelError(
                "the net has FULLY_CONNECTED with a weights format that is not implemented: the plain one is"
            )
        if fused not in (0, 1):
            name = _name(tflite.ActivationFunctionType, fused)
            raise ModelError(f"the net has FULLY_CONNECTED with fused activation {name}; NONE and RELU are implemented")
        before, weights = self._tensor(inputs[0]), self._tensor(inputs[1])
        if before.kind != weights.kind or weights.kind not in ("FLOAT32", "INT8"):
            raise ModelError(
                f"the net has {weights.kind} weights and {before.kind} inputs; all FLOAT32 or all INT8 is implemented: "
                "download the float32 one"
            )
        if len(weights.shape) != 2 or not weights.data:
            raise ModelError("the net has FULLY_CONNECTED without constant weights, which is not implemented")
        bias = np.zeros(weights.shape[0])
        if len(inputs) > 2 and inputs[2] >= 0:
            bias = self._bias(self._tensor(inputs[2]), before, weights)
        if bias.shape != weights.shape[:1]:
            raise ValueError("bias")
        self._width(weights.shape[1])
        self._layers.append(Layer(_finite(weights.real()), _finite(bias), "relu" if fused else ""))
        self._steps.append(self._tensor(self.at).steps)

    def _bias(self, bias: _Tensor, before: _Tensor, weights: _Tensor) -> Values:
        if before.steps and bias.kind == "INT32" and not len(bias.scale):  # the specification leaves no other
            stored = np.frombuffer(bias.data, "<i4").astype(np.float64)
            return np.asarray(stored * before.steps.scale * weights.scale)
        return bias.real()

    def _width(self, inputs: int) -> None:
        given = len(self._layers[-1].bias) if self._layers else self._inputs
        if inputs != given:
            raise ModelError(f"the net has a layer of {inputs} inputs behind {given} values")

    def _relu(self) -> None:
        if not self._layers:
            raise ModelError("the net has RELU before its first FULLY_CONNECTED, which is not implemented")
        self._layers[-1] = self._layers[-1]._replace(activation="relu")
        self._steps[-1] = self._tensor(self.at).steps

    def _softmax(self, operator: Any) -> None:
        if not self._layers:
            raise ModelError("the net has SOFTMAX before any FULLY_CONNECTED, which is not implemented")
        beta = _options(operator, tflite.SoftmaxOptions()).Beta()
        if beta != 1:
            raise ModelError(f"the net has SOFTMAX with beta {beta:g}; 1 is implemented")
        self._ended = True

    def _tensor(self, number: int) -> _Tensor:
        if not 0 <= number < len(self._tensors):
            raise IndexError("tensor")
        return self._tensors[number]

    def net(self) -> Net:
        if not self._ended:
            raise ModelError("the net does not end with SOFTMAX, as a classifier does: regression is not implemented")
        last = self._layers[-1]
        if not last.activation:
            self._layers[-1] = last._replace(activation="softmax")
        steps = [one for one in self._steps if one]
        return Net(tuple(self._layers), tuple(steps) if len(steps) == len(self._layers) + 1 else ())


def _options(operator: Any, options: Any) -> Any:
    table = operator.BuiltinOptions()
    if table is None:
        raise ValueError("options")
    options.Init(table.Bytes, table.Pos)
    return options


def _name(names: type, number: int) -> str:
    """Of a number in one of the schema's enumerations."""
    found = {value: name for name, value in vars(names).items() if not name.startswith("_")}
    return found.get(number, f"number {number}")


def _finite(values: Values) -> Floats:
    single = values.astype(np.float32)
    if not np.isfinite(single).all():
        raise ModelError("the net has weights that are no finite numbers: train it again")
    return single
