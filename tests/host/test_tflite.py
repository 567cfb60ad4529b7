"""Nets of .tflite files, held against TensorFlow Lite's own interpreter."""

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import nets
from tests.nets import FLOAT, INT8, OPERATOR, Tensor

from judder.model import tflite
from judder.model.file import ModelError

FLOAT_TOLERANCE = 1e-5
STEP = 1 / 256
SHAPES = st.tuples(st.integers(1, 60), st.lists(st.integers(1, 24), max_size=3), st.integers(2, 5))
NETS = settings(max_examples=60, deadline=None, derandomize=True)  # the same: who is right in a tie is not asked


def widths(shape):
    inputs, hidden, classes = shape
    return [inputs, *hidden, classes]


def interpreted(data, rows):
    """Probabilities of each row, as the interpreter gives them."""
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    into, out = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    found = []
    for row in rows:
        if into["dtype"] is np.int8:
            scale, zero = into["quantization"]
            row = np.clip(np.rint(row / scale) + zero, -128, 127)
        interpreter.set_tensor(into["index"], row.reshape(into["shape"]).astype(into["dtype"]))
        interpreter.invoke()
        values = interpreter.get_tensor(out["index"])[0].astype(np.float64)
        if out["dtype"] is np.int8:
            values = (values - out["quantization"][1]) * out["quantization"][0]
        found.append(values)
    return np.array(found)


@NETS
@given(shape=SHAPES, seed=st.integers(0, 2**32 - 1), separate_relu=st.booleans(), reshape=st.booleans())
def test_float32_is_what_the_interpreter_gives(shape, seed, separate_relu, reshape):
    rng = np.random.default_rng(seed)
    layers = nets.random_layers(rng, widths(shape))
    data = nets.float_graph(layers, separate_relu=separate_relu, reshape=reshape).to_bytes()
    net = tflite.read(data)
    rows = rng.normal(0, 3, (10, shape[0])).astype(np.float32).astype(np.float64)
    found = np.array([net.probabilities(row) for row in rows])
    assert np.abs(found - interpreted(data, rows)).max() <= FLOAT_TOLERANCE
    assert net.steps == ()
    assert (net.inputs, net.outputs) == (shape[0], shape[2])


@NETS
@given(
    shape=SHAPES,
    seed=st.integers(0, 2**32 - 1),
    per_row=st.booleans(),
    float_edges=st.booleans(),
    separate_relu=st.booleans(),
)
def test_int8_is_what_the_interpreter_gives_to_a_step(shape, seed, per_row, float_edges, separate_relu):
    """With activations rounded as the interpreter rounds them: so weights and biases are read to the last bit."""
    rng = np.random.default_rng(seed)
    layers = nets.random_layers(rng, widths(shape))
    graph = nets.int8_graph(
        layers, rng.normal(0, 1, (200, shape[0])), per_row=per_row, float_edges=float_edges, separate_relu=separate_relu
    )
    data = graph.to_bytes()
    net = tflite.read(data)
    assert len(net.steps) == len(net.layers) + 1
    rows = rng.normal(0, 1, (10, shape[0])).astype(np.float32).astype(np.float64)
    found = np.array([net.quantised(row) for row in rows])
    assert np.abs(found - interpreted(data, rows)).max() <= STEP


def test_the_floats_that_the_board_computes_are_near_the_int8_net():
    """As near as the net is that int8 was made of; the rest is what int8 rounds (docs/models.md says how much)."""
    rng = np.random.default_rng(1)
    apart, made_of = [], []
    for _ in range(20):
        layers = nets.random_layers(rng, [33, 20, 10, 3])
        calibration = rng.normal(0, 1, (300, 33))
        data = nets.int8_graph(layers, calibration).to_bytes()
        net, rows = tflite.read(data), calibration[:50]
        given_int8 = interpreted(data, rows)
        apart += list(np.abs([net.probabilities(row) for row in rows] - given_int8).max(axis=1) / STEP)
        made_of += list(np.abs(nets.forward(layers, rows)[1] - given_int8).max(axis=1) / STEP)
    assert np.median(apart) < 1.5
    assert np.percentile(apart, 99) < 10
    assert np.median(apart) < 1.2 * np.median(made_of)


def test_layers_come_as_a_model_file_has_them():
    layers = nets.random_layers(np.random.default_rng(2), [5, 4, 3])
    net = tflite.read(nets.float_graph(layers, separate_relu=True).to_bytes())
    assert [layer.activation for layer in net.layers] == ["relu", "softmax"]
    for (weights, bias, _), layer in zip(layers, net.layers, strict=True):
        np.testing.assert_array_equal(layer.weights, weights)
        np.testing.assert_array_equal(layer.bias, bias)
        assert layer.weights.dtype == np.float32


# --- what is refused --------------------------------------------------------------------------------------------------


def small(int8=False):
    rng = np.random.default_rng(3)
    layers = nets.random_layers(rng, [4, 3, 2])
    return nets.int8_graph(layers, rng.normal(0, 1, (20, 4))) if int8 else nets.float_graph(layers)


def without_softmax(graph):
    graph.operators.pop()


def with_beta(graph):
    graph.operators[-1].beta = 0.5


def with_tanh(graph):
    graph.operators[0].activation = 4


def with_relu6(graph):
    graph.operators[0].activation = 3


def with_convolution(graph):
    graph.operators[0].code = OPERATOR.CONV_2D


def with_new_operator(graph):
    graph.operators[0].code = OPERATOR.STABLEHLO_ADD


def with_unknown_operator(graph):
    graph.operators[0].code = 4000


def with_sigmoid(graph):
    graph.operators[-1].code = OPERATOR.LOGISTIC


def with_quantize_inside(graph):
    middle = graph.add(Tensor(FLOAT, (1, 3)))
    graph.operators[1].inputs = (middle, *graph.operators[1].inputs[1:])
    graph.operators.insert(1, nets.Operator(OPERATOR.DEQUANTIZE, graph.operators[0].outputs, (middle,)))


def with_layer_behind_softmax(graph):
    graph.operators[1:] = [graph.operators[2], graph.operators[1]]
    graph.operators[1].inputs = graph.operators[0].outputs
    graph.operators[2].inputs = (graph.operators[1].outputs[0], *graph.operators[2].inputs[1:])


def with_first_relu(graph):
    out = graph.add(Tensor(FLOAT, (1, 4)))
    graph.operators.insert(0, nets.Operator(OPERATOR.RELU, (0,), (out,)))
    graph.operators[1].inputs = (out, *graph.operators[1].inputs[1:])


def with_softmax_only(graph):
    del graph.operators[:-1]
    graph.operators[0].inputs = (0,)


def with_branch(graph):
    graph.operators[1].inputs = (0, *graph.operators[1].inputs[1:])


def with_two_inputs(graph):
    graph.inputs = (0, 1)


def with_two_graphs(graph):
    graph.graphs = 2


def with_inner_output(graph):
    graph.outputs = graph.operators[0].outputs


def with_computed_weights(graph):
    graph.tensors[graph.operators[0].inputs[1]].content = None


def with_hybrid_weights(graph):
    tensor = graph.tensors[graph.operators[0].inputs[1]]
    tensor.kind, tensor.scale, tensor.zero = INT8, (0.1,), (0,)


def with_uint8(graph):
    for tensor in graph.tensors:
        tensor.kind = tflite.tflite.TensorType.UINT8 if tensor.content is None else tensor.kind


def with_shuffled_weights(graph):
    graph.operators[0].weights_format = 1


def with_infinite_weights(graph):
    graph.tensors[graph.operators[0].inputs[1]].content[0, 0] = np.inf


def with_wrong_width(graph):
    graph.tensors[0].shape = (1, 7)


def with_columns(graph):
    tensor = graph.tensors[graph.operators[0].inputs[1]]
    tensor.scale, tensor.zero, tensor.dimension = (0.1,) * 4, (0,) * 4, 1


@pytest.mark.parametrize(
    ("change", "int8", "words"),
    [
        (without_softmax, False, r"does not end with SOFTMAX.*regression"),
        (with_beta, False, r"beta 0.5; 1 is implemented"),
        (with_tanh, False, r"fused activation TANH"),
        (with_relu6, False, r"fused activation RELU6"),
        (with_convolution, False, r"operator CONV_2D, which is not implemented \(FULLY_CONNECTED, RELU"),
        (with_new_operator, False, r"operator STABLEHLO_ADD"),
        (with_unknown_operator, False, r"operator number 4000"),
        (with_sigmoid, False, r"operator LOGISTIC"),
        (with_quantize_inside, False, r"DEQUANTIZE between its layers"),
        (with_layer_behind_softmax, False, r"FULLY_CONNECTED behind its SOFTMAX"),
        (with_first_relu, False, r"RELU before its first"),
        (with_softmax_only, False, r"SOFTMAX before any"),
        (with_branch, False, r"branches"),
        (with_two_inputs, False, r"2 inputs and 1 outputs"),
        (with_two_graphs, False, r"several graphs"),
        (with_inner_output, False, r"output is not that of its last operator"),
        (with_computed_weights, False, r"without constant weights"),
        (with_hybrid_weights, False, r"INT8 weights and FLOAT32 inputs.*float32"),
        (with_uint8, True, r"INT8 weights and UINT8 inputs"),
        (with_shuffled_weights, False, r"weights format"),
        (with_infinite_weights, False, r"no finite numbers"),
        (with_wrong_width, False, r"4 inputs behind 7 values"),
        (with_columns, True, r"per tensor or row"),
    ],
)
def test_refusals(change, int8, words):
    graph = small(int8)
    change(graph)
    with pytest.raises(ModelError, match=words) as raised:
        tflite.read(graph.to_bytes())
    assert "\n" not in str(raised.value)


def test_no_tflite_file():
    for data in (b"", b"PK\x03\x04" * 10, bytes(100)):
        with pytest.raises(ModelError, match=r"no \.tflite file"):
            tflite.read(data)
    with pytest.raises(ModelError, match="bytes; up to"):
        tflite.read(small().to_bytes() + bytes(tflite.MOST_BYTES))


def test_truncated_files_are_refused_or_the_same():
    """What is cut off may be padding at the end, no more."""
    for int8 in (False, True):
        data = small(int8).to_bytes()
        whole = tflite.read(data)
        for length in range(len(data)):
            try:
                net = tflite.read(data[:length])
            except ModelError:
                continue
            assert len(data) - length <= 8
            assert same(net, whole)


def same(net, other):
    pairs = zip(net.layers, other.layers, strict=True)
    return all((one.weights == two.weights).all() and (one.bias == two.bias).all() for one, two in pairs)


@settings(max_examples=400, deadline=2000)
@given(flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 7)), min_size=1, max_size=4), int8=st.booleans())
def test_damaged_files_raise_nothing_but_model_errors(flips, int8):
    data = bytearray(small(int8).to_bytes())
    for place, bit in flips:
        data[place % len(data)] ^= 1 << bit
    try:
        net = tflite.read(bytes(data))
    except ModelError:
        return
    assert net.outputs == len(net.layers[-1].weights)
    assert all(np.isfinite(layer.weights).all() and np.isfinite(layer.bias).all() for layer in net.layers)


def test_each_single_bit_flip_is_survived():
    data = small(int8=True).to_bytes()
    for place in range(len(data)):
        for bit in (0, 7):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            try:
                tflite.read(bytes(changed))
            except ModelError:
                continue
