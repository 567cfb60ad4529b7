"""The twin in machine code does what the plain loops do: here as CPython reads it, on the VMs by test_runtimes."""

import inspect
from array import array
from pathlib import Path
from types import ModuleType, SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from node import cobs, loops, loops_plain

NAMES = [name for name, _ in inspect.getmembers(loops_plain, inspect.isfunction)]

int16 = st.integers(-32768, 32767)
windows = st.lists(st.tuples(int16, int16, int16), min_size=4, max_size=60).map(
    lambda rows: [v for r in rows for v in r]
)


def load_twin():
    """loops_viper with decorators and pointer types that do nothing."""
    path = Path(loops_plain.__file__).with_name("loops_viper.py")
    twin = ModuleType("twin")
    twin.micropython = SimpleNamespace(viper=lambda function: function)
    twin.ptr8 = twin.ptr16 = twin.ptr32 = None
    exec(compile(path.read_text(), str(path), "exec"), vars(twin))
    return twin


TWIN = load_twin()


def test_each_loop_has_a_twin_with_the_same_parameters():
    for name in NAMES:
        plain, twin = getattr(loops_plain, name), getattr(TWIN, name)
        assert list(inspect.signature(plain).parameters) == list(inspect.signature(twin).parameters)
    assert [name for name, _ in inspect.getmembers(TWIN, inspect.isfunction)] == NAMES


def test_cpython_takes_the_plain_ones():
    assert all(getattr(loops, name) is getattr(loops_plain, name) for name in NAMES)


@given(windows, st.integers(0, 2))
def test_sums(counts, axis):
    number = len(counts) // 3
    held = array("h", counts)
    total = loops_plain.axis_sum(held, axis, number)
    assert TWIN.axis_sum(held, axis, number) == total == sum(counts[axis::3])
    sums = [array("i", bytes(16)), array("i", bytes(16))]
    for module, out in zip((loops_plain, TWIN), sums, strict=True):
        module.difference_sums(held, axis, number, total // number, out)
    assert sums[0] == sums[1]
    assert max(sums[0]) * 4096 // number < 2**31  # what a 32-bit word holds, for the longest window


@given(windows, st.integers(0, 2), st.integers(0, 3), int16)
def test_differences(counts, axis, order, seed):
    number = len(counts) // 3
    values = [array("i", bytes(4 * number)), array("i", bytes(4 * number))]
    for module, out in zip((loops_plain, TWIN), values, strict=True):
        module.zigzag(array("h", counts), axis, number, order, seed, out)
    assert values[0] == values[1]


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=80), st.integers(0, 15), st.integers(0, 5))
def test_planes(values, k, at):
    held, number = array("i", values), len(values)
    bits = number + loops_plain.shifted_sum(held, number, k)
    assert TWIN.shifted_sum(held, number, k) == bits - number
    length = (bits + 7) // 8
    outs = [bytearray(b"\xaa" * (at + length + 2 * number + 9)) for _ in range(4)]
    for module, unary, remainders in zip((loops_plain, TWIN), outs[:2], outs[2:], strict=True):
        module.pack_unary(held, number, k, unary, at, length)
        module.pack_remainders(held, number, k, remainders, at)
    assert outs[0] == outs[1]
    assert outs[2] == outs[3]


@given(windows, st.sampled_from([4, 6, 8]))
def test_right_justification(counts, shift):
    held = [array("h", counts), array("h", counts)]
    saturated = [
        module.right_justify(one, len(one), shift) for module, one in zip((loops_plain, TWIN), held, strict=True)
    ]
    assert held[0] == held[1] == array("h", [count >> shift for count in counts])
    assert saturated[0] == saturated[1]


@given(st.binary(max_size=700) | st.integers(250, 520).map(lambda n: b"\x01" * n))
def test_cobs(data):
    outs = [bytearray(cobs.max_length(len(data))) for _ in range(2)]
    lengths = [module.cobs(data, len(data), out) for module, out in zip((loops_plain, TWIN), outs, strict=True)]
    assert lengths[0] == lengths[1]
    assert outs[0] == outs[1]
