"""CircuitPython's microcontroller: the reset."""

import _bench


def reset():
    _bench.call(ord("Q"))
