"""CircuitPython's supervisor: the millisecond counter."""

import _bench


def ticks_ms():
    """Wraps at 2**29 and starts 65 s before that (circuitpython:shared-bindings/supervisor)."""
    return (_bench.now_ns() // 1000000 + 0x1FFF0000) & 0x1FFFFFFF
